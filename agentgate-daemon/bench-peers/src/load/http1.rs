//! A client's side of HTTP/1.1, as little of it as the measurements need, and none of it unchecked.

use std::io::ErrorKind;

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::Client;

/// Most of a head, and what one read may bring.
const BUFFER: usize = 64 * 1024;

/// What is told of an answer that is no 200.
const EXCERPT: usize = 400;

/// A connection, and what was read beyond the last answer.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    filled: usize,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    status: u16,
    framing: Framing,
}

/// A GET as an ordinary client words it.
pub(super) fn get(host: &str, path: &str, close: bool) -> Vec<u8> {
    let ending = if close { "Connection: close\r\n" } else { "" };
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{ending}\r\n")
        .into_bytes()
}

impl Connection {
    pub(super) async fn open(client: &Client) -> anyhow::Result<Self> {
        Ok(Self { stream: client.open().await?, buffer: vec![0; BUFFER], filled: 0 })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await.context("write")?;
        self.stream.flush().await.context("write")
    }

    /// Asks, and gives the length of the body of an answer that must be a 200.
    pub(super) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<u64> {
        self.send(request).await?;
        self.answer(|_| Ok(())).await
    }

    /// Reads one answer, which must be a 200; `see` gets its body as it comes.
    pub(super) async fn answer(
        &mut self,
        mut see: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut beginning = Vec::new();
        let seen = self.any_answer(|data| {
            beginning
                .extend_from_slice(data.get(..data.len().min(EXCERPT - beginning.len())).unwrap_or_default());
            see(data)
        });
        let (status, length) = seen.await?;
        anyhow::ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(&beginning));
        Ok(length)
    }

    /// Reads one answer: its status and the length of its body.
    pub(super) async fn any_answer(
        &mut self,
        mut see: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<(u16, u64)> {
        let head = loop {
            if let Some(head) = parse(self.buffer.get(..self.filled).unwrap_or_default())? {
                break head;
            }
            anyhow::ensure!(self.fill().await? > 0, "closed before the answer");
        };
        self.consume(head.length);
        let length = match head.framing {
            Framing::Length(length) => self.counted(length, &mut see).await?,
            Framing::Chunked => self.chunked(&mut see).await?,
            Framing::UntilClose => {
                let mut length = 0;
                while self.filled > 0 || self.fill().await? > 0 {
                    length += self.filled as u64;
                    see(self.buffer.get(..self.filled).unwrap_or_default())?;
                    self.filled = 0;
                }
                length
            }
        };
        Ok((head.status, length))
    }

    /// Waits until the peer closes; it has nothing to say any more. Not everybody says goodbye in TLS, and
    /// after an answer that was complete nobody needs to.
    pub(super) async fn closed(mut self) -> anyhow::Result<()> {
        let read = match self.stream.read(&mut self.buffer).await {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            read => read.context("read")?,
        };
        anyhow::ensure!(self.filled + read == 0, "more than the answer");
        Ok(())
    }

    async fn fill(&mut self) -> anyhow::Result<usize> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        anyhow::ensure!(!room.is_empty(), "a head or chunk line without an end");
        let read = self.stream.read(room).await.context("read")?;
        self.filled += read;
        Ok(read)
    }

    fn consume(&mut self, length: usize) {
        self.buffer.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    async fn counted(
        &mut self,
        length: u64,
        see: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut left = length;
        while left > 0 {
            if self.filled == 0 {
                anyhow::ensure!(self.fill().await? > 0, "closed within a body, {left} bytes early");
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(self.filled);
            see(self.buffer.get(..now).unwrap_or_default())?;
            self.consume(now);
            left -= now as u64;
        }
        Ok(length)
    }

    async fn chunked(&mut self, see: &mut impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let mut length = 0;
        loop {
            let parsed = httparse::parse_chunk_size(self.buffer.get(..self.filled).unwrap_or_default());
            match parsed.map_err(|_| anyhow::anyhow!("no chunk size"))? {
                httparse::Status::Partial => {
                    anyhow::ensure!(self.fill().await? > 0, "closed between chunks");
                }
                httparse::Status::Complete((line, size)) => {
                    self.consume(line);
                    length += self.counted(size, see).await?;
                    while self.filled < 2 {
                        anyhow::ensure!(self.fill().await? > 0, "closed after a chunk");
                    }
                    anyhow::ensure!(
                        self.buffer.starts_with(b"\r\n"),
                        "a chunk without its end, or a trailer"
                    );
                    self.consume(2);
                    if size == 0 {
                        return Ok(length);
                    }
                }
            }
        }
    }
}

/// The head of an answer, `None` where it is not all there.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes).context("the head")? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let mut framing = Framing::UntilClose;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            anyhow::ensure!(field.value.eq_ignore_ascii_case(b"chunked"), "an odd Transfer-Encoding");
            framing = Framing::Chunked;
        } else if field.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            framing = Framing::Length(std::str::from_utf8(field.value)?.trim().parse()?);
        }
    }
    let status = response.code.context("no status")?;
    Ok(Some(Head { length, status, framing }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n").unwrap().is_none());
        let head = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").unwrap().unwrap();
        assert_eq!((head.length, head.status, head.framing), (38, 200, Framing::Length(3)));
        let both = b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(parse(both).unwrap().unwrap().framing, Framing::Chunked);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().framing, Framing::UntilClose);
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
