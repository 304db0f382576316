//! HTTP towards the agent and towards the origin: HTTP/1.1 as it is on the wire, how bodies end, and
//! refusals in the agent's language.

pub mod body;
pub mod gauge;
pub mod h1;
pub mod head;
pub mod refusal;
pub mod serve;
