//! The side towards the agent: our leaf, TLS 1.2 and 1.3, ALPN.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{AgentAlpn, Leaves, MintError};
use crate::{model::Host, socket::Ahead};

/// Why the agent's handshake did not complete.
#[derive(Debug, thiserror::Error)]
pub enum AgentTlsError {
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// Alerts such as `unknown_ca` arrive here: the agent does not trust the gate.
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
}

/// Always the one certificate: the name was settled before the handshake.
#[derive(Debug)]
struct Settled(Arc<CertifiedKey>);

impl ResolvesServerCert for Settled {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Completes agents' handshakes.
pub struct AgentTls {
    leaves: Arc<Leaves>,
    /// Cloned for each connection: shares tickets and session cache, differs in certificate.
    base: ServerConfig,
    deadline: Duration,
}

impl fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentTls").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl AgentTls {
    /// A side over `leaves` whose handshakes must end within `deadline`.
    ///
    /// # Errors
    /// When the crypto provider offers no protocol version or ticket key.
    pub fn new(leaves: Arc<Leaves>, deadline: Duration) -> Result<Self, rustls::Error> {
        let provider = Arc::new(super::provider());
        let key = leaves
            .leaf(&Host::from(std::net::IpAddr::from([127, 0, 0, 1])))
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut base = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Settled(key)));
        // Agents run on this machine: what is fast for the gate is fast for them.
        base.ignore_client_order = true;
        base.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self { leaves, base, deadline })
    }

    /// Completes the handshake as `host`, choosing `alpn` where the agent offered ALPN. An agent that
    /// did not gets HTTP/1.1 by custom.
    ///
    /// # Errors
    /// [`AgentTlsError`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &Host,
        alpn: AgentAlpn,
        stream: S,
    ) -> Result<Box<TlsStream<Ahead<S>>>, AgentTlsError> {
        let mut config = self.base.clone();
        config.cert_resolver = Arc::new(Settled(self.leaves.leaf(host)?));
        config.alpn_protocols = alpn.names();
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(Ahead::new(stream));
        match timeout(self.deadline, handshake).await {
            Err(_elapsed) => Err(AgentTlsError::Timeout(self.deadline)),
            // It goes through many hands, each of which would have room for all of it.
            Ok(done) => Ok(Box::new(done?)),
        }
    }
}

/// A fatal alert in a record, as sent before any handshake (RFC 8446 6): what a refused connection
/// gets. `unrecognized_name` (112) or `access_denied` (49).
#[must_use]
pub fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

#[cfg(test)]
mod tests;
