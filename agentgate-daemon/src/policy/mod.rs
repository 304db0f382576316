//! The judgement: an immutable `Policy`, pure functions, and the permits that only this module makes.
//!
//! No tokio, no files, no clock: `reload` reads the files and swaps the result in.

pub mod permit;

pub use permit::{Destination, Permit, Scheme, TunnelPermit, TunnelTo};
