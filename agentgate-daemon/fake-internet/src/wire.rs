//! A TCP stream that can be broken off with a reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Asks a [`Wire`] to end with a reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker(Arc<AtomicBool>);

impl Breaker {
    pub(crate) fn pull(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn pulled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The stream under TLS and HTTP.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TcpStream,
    breaker: Breaker,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> (Self, Breaker) {
        let breaker = Breaker::default();
        (Self { tcp, breaker: breaker.clone() }, breaker)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.breaker.pulled() {
            // Zero linger makes close(2) send a reset. If it cannot be set the test that wanted one fails.
            let _unset = self.tcp.set_zero_linger();
        }
    }
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.breaker.pulled() {
            return Poll::Ready(Err(broken()));
        }
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.breaker.pulled() {
            return Poll::Ready(Err(broken()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
