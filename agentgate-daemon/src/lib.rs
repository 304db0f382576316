//! agentgate: the gate on everything an AI agent sends.
//!
//! A connection meets, in this order: `kernel`, `listen`, `session`, `sniff`, `policy`, `tls`,
//! `http`, `forward`, `audit`, `store`. Two spines call them: `conn` (one connection) and `exchange`
//! (one request). `control`, `dashboard`, `launch` and `cli` are what people meet; `app` owns every
//! task.

pub mod anchors;
pub mod app;
pub mod audit;
pub mod chain;
pub mod cli;
pub mod config;
pub mod conn;
pub mod control;
pub mod dashboard;
pub mod denials;
pub mod detach;
pub mod dns;
pub mod doctor;
pub mod drain;
pub mod exchange;
pub mod export;
pub mod filter;
pub mod forward;
pub mod handover;
pub mod host;
pub mod http;
pub mod inspect;
pub mod kernel;
pub mod launch;
pub mod listen;
pub mod model;
pub mod namespaces;
pub mod parse;
pub mod policy;
pub mod privileges;
pub mod reconcile;
pub mod reload;
pub mod selftest;
pub mod sentry;
pub mod session;
pub mod share;
pub mod sniff;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod words;
