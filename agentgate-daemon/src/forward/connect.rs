//! TCP to the first address that answers, and TLS to a name that is verified.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ForwardError;
use crate::{
    model::Host,
    socket::{Ahead, OverTcp},
};

/// A connection to an origin.
#[derive(Debug)]
pub enum OriginStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<Ahead<TcpStream>>>),
}

impl OriginStream {
    /// What was settled with the origin, where it is spoken to in TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&rustls::CommonState> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(stream) => Some(stream.get_ref().1),
        }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut (dyn Duplex + 'static)> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl OverTcp for OriginStream {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => stream.tcp(),
        }
    }
}

/// Both directions of a stream.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl AsyncRead for OriginStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

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

/// Completes TLS as a client of `host`, verified, by `end`, which is `deadline` after the beginning of it
/// all.
///
/// # Errors
/// [`ForwardError::Certificate`], [`ForwardError::Tls`], [`ForwardError::ConnectTimeout`].
pub(super) async fn tls(
    config: &Arc<ClientConfig>,
    host: &Host,
    stream: TcpStream,
    (end, deadline): (Instant, Duration),
) -> Result<TlsStream<Ahead<TcpStream>>, ForwardError> {
    let name = match host.as_ip() {
        Some(ip) => ServerName::from(ip),
        None => ServerName::try_from(host.as_str().to_owned())
            .map_err(|error| ForwardError::Tls(error.to_string()))?,
    };
    match timeout_at(end, TlsConnector::from(config.clone()).connect(name, Ahead::new(stream))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ForwardError::tls(host, &error)),
        Err(_elapsed) => Err(ForwardError::ConnectTimeout(deadline)),
    }
}
