//! What a body says, read beside its way: content codings undone, and how much of it was seen.
//!
//! Pure functions of bytes that have passed. Nothing here touches what is in flight.

pub mod decode;
mod indent;
pub mod seen;

pub use decode::{Codings, Decoded, Decoder, Ended, Fault, Limits, UnsupportedCoding, decode};
pub use indent::indent;
pub use seen::{Opened, glance, open, recorded};
