//! agentgate: the gate on everything an AI agent sends.
//!
//! Modules stand in the order in which a connection meets them; `conn` and `exchange` are the two
//! spines that call the rest.

pub mod kernel;
pub mod sniff;
pub mod policy;
pub mod tls;
pub mod http;
pub mod forward;
pub mod audit;
pub mod store;
pub mod model;
