//! agentgate: the gate on everything an AI agent sends.
//!
//! Modules stand in the order in which a connection meets them.

pub mod audit;
pub mod config;
pub mod dashboard;
pub mod kernel;
pub mod model;
pub mod policy;
pub mod reload;
pub mod store;
