//! agentgate: the gate on everything an AI agent sends.
//!
//! Modules stand in the order in which a connection meets them; `conn` and `exchange` are the two
//! spines that call the rest.

pub mod audit;
pub mod config;
pub mod forward;
pub mod http;
pub mod kernel;
pub mod model;
pub mod policy;
pub mod reload;
pub mod sniff;
pub mod store;
pub mod tls;
