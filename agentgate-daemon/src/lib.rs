//! agentgate: the gate on everything an AI agent sends.
//!
//! Modules stand in the order in which a connection meets them.

pub mod forward;
pub mod http;
pub mod kernel;
pub mod model;
pub mod policy;
pub mod sniff;
pub mod tls;
