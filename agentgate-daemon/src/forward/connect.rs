//! TCP to the first address that answers, and TLS to a name that is verified.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ForwardError;
use crate::model::Host;

/// One address may hold up the others no longer than this.
const NEXT_ADDRESS: Duration = Duration::from_secs(3);

/// Connects to the first of `addresses` that answers, all within `deadline`, and says which.
///
/// # Errors
/// [`ForwardError::Connect`] with the last address's error, [`ForwardError::ConnectTimeout`].
pub(super) async fn tcp(
    addresses: &[SocketAddr],
    deadline: Duration,
) -> Result<(TcpStream, SocketAddr), ForwardError> {
    let end = Instant::now() + deadline;
    let mut last = ForwardError::ConnectTimeout(deadline);
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        let until = if is_last { end } else { end.min(Instant::now() + NEXT_ADDRESS) };
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it small writes wait for an acknowledgement, up to 40 ms.
                stream
                    .set_nodelay(true)
                    .map_err(|source| ForwardError::Connect { address: *address, source })?;
                return Ok((stream, *address));
            }
            Ok(Err(source)) => last = ForwardError::Connect { address: *address, source },
            Err(_elapsed) => last = ForwardError::ConnectTimeout(deadline),
        }
        if Instant::now() >= end {
            break;
        }
    }
    Err(last)
}

/// Completes TLS as a client of `host`, verified.
///
/// # Errors
/// [`ForwardError::Certificate`], [`ForwardError::Tls`], [`ForwardError::ConnectTimeout`].
pub(super) async fn tls(
    config: &Arc<ClientConfig>,
    host: &Host,
    stream: TcpStream,
    deadline: Duration,
) -> Result<TlsStream<TcpStream>, ForwardError> {
    let name = match host.as_ip() {
        Some(ip) => ServerName::from(ip),
        None => ServerName::try_from(host.as_str().to_owned())
            .map_err(|error| ForwardError::Tls(error.to_string()))?,
    };
    match timeout(deadline, TlsConnector::from(config.clone()).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ForwardError::tls(&error)),
        Err(_elapsed) => Err(ForwardError::ConnectTimeout(deadline)),
    }
}
