//! TLS on both sides: the local authority and its leaves towards the agent, verified certificates
//! towards the origin.

pub mod agent;
pub mod ca;
mod heard;
pub mod leaf;
pub mod offer;
pub mod origin;
pub mod pinned;

pub use agent::{AgentTls, AgentTlsError};
pub use ca::{Ca, CaError};
pub use heard::{Heard, Listened};
pub use leaf::{Leaves, MintError};
pub use offer::{AgentAlpn, Alpn, Offer};
pub use origin::{OriginTls, OriginTlsError};
pub use pinned::Watch;
