//! TLS on both sides: the local authority and its leaves towards the agent, verified certificates
//! towards the origin.

pub mod agent;
pub mod ca;
mod heard;
pub mod leaf;
pub mod offer;
pub mod origin;
pub mod pinned;

use rustls::{CipherSuite, crypto::CryptoProvider};

pub use agent::{AgentTls, AgentTlsError};
pub use ca::{Ca, CaError};
pub use heard::{Heard, Listened};
pub use leaf::{Leaves, MintError};
pub use offer::{AgentAlpn, Alpn, Offer};
pub use origin::{OriginTls, OriginTlsError};
pub use pinned::Watch;

/// What both sides prefer: AES-128 before AES-256, as browsers do. Its key schedule is by SHA-256, for which
/// processors have instructions, and a handshake is a tenth cheaper.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let preferred = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    // Stable: the others keep their order.
    provider.cipher_suites.sort_by_key(|suite| !preferred.contains(&suite.suite()));
    provider
}
