//! The heads of HTTP/1.1 requests as they came: names' case, order, duplicates, line ends.
//!
//! hyper keeps none of that, so the bytes are looked at on their way to it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most that is kept of one head; what hyper reads is capped elsewhere.
const MOST: usize = 1 << 20;

/// What was read since the last answer began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Unanswered>>);

#[derive(Debug, Default)]
struct Unanswered {
    bytes: Vec<u8>,
    answered: bool,
}

impl Heard {
    /// The oldest head that nobody has asked for yet; empty on HTTP/2.
    pub(crate) fn head(&self) -> String {
        let mut heard = self.locked();
        let end = heard.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let head: Vec<u8> = end.map(|end| heard.bytes.drain(..end + 4).collect()).unwrap_or_default();
        String::from_utf8_lossy(&head).into_owned()
    }

    fn locked(&self) -> MutexGuard<'_, Unanswered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        let mut heard = self.locked();
        // The first bytes after an answer are the next head's: this crate reads bodies to their end.
        if std::mem::take(&mut heard.answered) {
            heard.bytes.clear();
        }
        let room = MOST.saturating_sub(heard.bytes.len()).min(bytes.len());
        heard.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

/// A stream whose readings are kept.
#[derive(Debug)]
pub(crate) struct Listening<S> {
    stream: S,
    heard: Heard,
}

impl<S> Listening<S> {
    pub(crate) fn new(stream: S, heard: Heard) -> Self {
        Self { stream, heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.heard.read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.heard.locked().answered = true;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn each_head_is_heard_as_it_came_and_once() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let heard = Heard::default();
        let mut server = Listening::new(server, heard.clone());
        let first = "POST /a HTTP/1.1\r\nX-MiXed:1\r\nx-mixed: 2\r\nContent-Length: 9\r\n\r\n";
        let second = "GET /b HTTP/1.1\r\n\r\n";
        client.write_all(format!("{first}a\r\n\r\nbody").as_bytes()).await.unwrap();
        let mut buffer = vec![0; first.len() + 9];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(heard.head(), first);
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        client.write_all(second.as_bytes()).await.unwrap();
        server.read_exact(&mut buffer[..second.len()]).await.unwrap();
        assert_eq!(heard.head(), second);
        assert_eq!(heard.head(), "");
    }
}
