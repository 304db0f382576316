//! HTTP towards the agent and towards the origin: serving, bodies that are captured as they pass,
//! heads carried from one version to the other, and refusals in the agent's language.

pub mod body;
pub mod gauge;
pub mod h2;
pub mod head;
pub mod refusal;
pub mod serve;

use http_body_util::{Either, Full};
use hyper::body::Incoming;

/// What the agent is answered with: our own words, or the origin's as they come.
pub type AgentBody = Either<Full<bytes::Bytes>, body::Tee<Incoming>>;
