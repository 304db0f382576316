//! How a connection ends, beneath whatever is spoken on it: what one side's end was, the other side's is
//! made to be.

mod ahead;

use std::io;

use rustix::net::{Shutdown, shutdown};
use tokio::{io::DuplexStream, net::TcpStream};
use tokio_rustls::{client, server};

pub use ahead::Ahead;

/// How a peer ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In good order: FIN, after TLS's `close_notify` where TLS is spoken.
    Closed,
    /// FIN without the `close_notify` that TLS asks for (RFC 8446 6.1).
    Dropped,
    /// RST, or what nothing can follow.
    Reset,
}

impl Cut {
    /// What an error of a stream says about its peer's end.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Dropped } else { Self::Reset }
    }
}

/// A stream over a TCP connection.
pub trait OverTcp {
    /// The connection; `None` for what only stands for one, in memory.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl OverTcp for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl OverTcp for DuplexStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl<S: OverTcp> OverTcp for server::TlsStream<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl<S: OverTcp> OverTcp for client::TlsStream<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl<S: OverTcp + ?Sized> OverTcp for Box<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        (**self).tcp()
    }
}

/// Makes the coming close of `stream` a reset. What has not left by then never will.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "SO_LINGER"); // only a connection that is gone already
    }
}

/// Sends FIN, and nothing of what is spoken above.
pub fn fin(stream: &TcpStream) {
    if let Err(error) = shutdown(stream, Shutdown::Write) {
        tracing::debug!(%error, "shutdown"); // only a connection that is gone already
    }
}
