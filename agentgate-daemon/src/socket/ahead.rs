//! Reading ahead of a TLS session, which asks its socket for 4 KiB at a time: a record of 16 KiB would take
//! five calls of the system. A buffer is held only while there is something in it, so that connections at
//! rest have none.

use std::{
    cell::RefCell,
    io, mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::OverTcp;

/// Bytes read at once: two records of TLS.
const AHEAD: usize = 32 * 1024;
/// Buffers that a thread keeps for whoever reads next.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take() -> Box<[u8]> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; AHEAD].into())
}

fn give(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}

/// `S`, read in large pieces and given out in small ones.
#[derive(Debug)]
pub struct Ahead<S> {
    io: S,
    /// Empty where nothing was read ahead.
    buffer: Box<[u8]>,
    /// What of it has not been given out yet.
    at: usize,
    end: usize,
}

impl<S> Ahead<S> {
    /// Nothing is read yet.
    pub fn new(io: S) -> Self {
        Self { io, buffer: Box::default(), at: 0, end: 0 }
    }
}

impl<S: OverTcp> OverTcp for Ahead<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.io.tcp()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at == this.end {
            if buf.remaining() >= AHEAD {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            let mut buffer = take();
            let mut into = ReadBuf::new(&mut buffer);
            let polled = Pin::new(&mut this.io).poll_read(cx, &mut into);
            let length = into.filled().len();
            if length == 0 {
                give(buffer);
                return polled;
            }
            (this.buffer, this.at, this.end) = (buffer, 0, length);
        }
        let end = this.end.min(this.at + buf.remaining());
        buf.put_slice(this.buffer.get(this.at..end).unwrap_or_default());
        this.at = end;
        if this.at == this.end {
            give(mem::take(&mut this.buffer));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Says what it is made of, so much at a time, and counts how often it was asked.
    struct Source {
        left: Vec<u8>,
        most: usize,
        asked: usize,
        broken: bool,
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.asked += 1;
            let length = self.left.len().min(self.most).min(buf.remaining());
            if length == 0 {
                return match self.broken {
                    true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    false => Poll::Pending,
                };
            }
            buf.put_slice(&self.left[..length]);
            self.left.drain(..length);
            Poll::Ready(Ok(()))
        }
    }

    fn read(ahead: &mut Ahead<Source>, most: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut bytes = vec![0; most];
        let mut buf = ReadBuf::new(&mut bytes);
        let polled = Pin::new(ahead).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
        let length = buf.filled().len();
        polled.map_ok(|()| bytes[..length].to_vec())
    }

    #[test]
    fn small_reads_ask_once_and_leave_no_buffer_behind() {
        let all: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        let source = Source { left: all.clone(), most: usize::MAX, asked: 0, broken: false };
        let mut ahead = Ahead::new(source);
        let mut got = Vec::new();
        while got.len() < all.len() {
            let Poll::Ready(Ok(part)) = read(&mut ahead, 4096) else { panic!("{} of all", got.len()) };
            got.extend(part);
        }
        assert_eq!(got, all);
        assert_eq!(ahead.io.asked, 1);
        assert!(ahead.buffer.is_empty());
        assert!(read(&mut ahead, 4096).is_pending());
        assert!(ahead.buffer.is_empty(), "who waits holds none");
    }

    #[test]
    fn what_came_before_an_error_comes_before_it() {
        let mut ahead = Ahead::new(Source { left: vec![7; 10], most: 6, asked: 0, broken: true });
        for expect in [4, 2, 4] {
            assert!(matches!(read(&mut ahead, 4), Poll::Ready(Ok(part)) if part.len() == expect));
        }
        let Poll::Ready(Err(error)) = read(&mut ahead, 4) else { panic!("no error") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
