//! Raw tunnels: bytes both ways, unread but for the first of each direction, until both sides are done
//! or nothing moves any more.
//!
//! Each direction begins by copying, which is the cheaper way for the few bytes at a time of an
//! interactive protocol. Once much has passed without a pause it is moved by the kernel, through a pipe,
//! and never comes to user space. When it falls silent the pipe is
//! closed and it copies again. An idle direction holds no buffer and no pipe.

mod pipe;

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::{coop::consume_budget, unconstrained},
    time::timeout,
};

use self::pipe::Pipe;
use super::ForwardError;
use crate::http::gauge::Activity;

/// Bytes of the first read, and of those after a pause where no more came before it: most messages fit.
const FIRST: usize = 8 * 1024;
/// Bytes per read once the first was full.
const CHUNK: usize = 64 * 1024;
/// A good [`Terms::copied`]. Measured on loopback with the CPUs contended: splicing takes a fifth to a third
/// of the gate's CPU time off a bulk transfer and makes it slower, copying by 64 KiB is as fast as a plain
/// relay. So only what is very long is spliced, where the gate's share of the CPU outweighs.
pub const COPIED: u64 = 1 << 30;
/// How long a direction keeps its pipe while nothing comes.
const PIPE_KEPT: Duration = Duration::from_secs(1);
/// Bytes of each direction that are shown to who names the protocol.
const SHOWN: usize = 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the agent to the origin.
    Up,
    /// From the origin to the agent.
    Down,
}

/// Bytes of a tunnel, counted as they are taken from one side and given to the other.
#[derive(Debug, Default)]
pub struct Moved {
    /// Taken from the agent, without [`Terms::first`].
    pub up: Arc<AtomicU64>,
    /// Given to the agent.
    pub down: Arc<AtomicU64>,
    /// How many of both the kernel moved by itself.
    pub by_kernel: AtomicU64,
}

/// Shown the first bytes of each direction, at most [`SHOWN`], in the pieces they come in.
pub type Look<'a> = dyn FnMut(Way, &[u8]) + Send + 'a;

/// What a tunnel is carried with.
pub struct Terms<'a> {
    /// What was read from the agent already: the origin gets it first.
    pub first: Bytes,
    /// Bytes that one direction copies without a pause before the kernel moves them.
    pub copied: u64,
    /// With nothing moved either way for this long it is over.
    pub idle: Duration,
    /// How long the agent may take nothing of what it is sent.
    pub patience: Duration,
    pub moved: &'a Moved,
    pub look: &'a mut Look<'a>,
}

impl std::fmt::Debug for Terms<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("idle", &self.idle).field("moved", &self.moved).finish_non_exhaustive()
    }
}

/// Moves bytes until both directions have ended. The end of one is passed on as the end of that one.
///
/// # Errors
/// [`ForwardError::Tunnel`]: a side broke, nothing moved for [`Terms::idle`], or the agent took nothing
/// for [`Terms::patience`].
pub async fn relay(
    mut agent: TcpStream,
    mut origin: TcpStream,
    terms: Terms<'_>,
) -> Result<(), ForwardError> {
    let Terms { first, copied, idle, patience, moved, look } = terms;
    let look = Mutex::new(look);
    let activity = Activity::default();
    let (from_agent, to_agent) = agent.split();
    let (from_origin, to_origin) = origin.split();
    let up = OneWay {
        way: Way::Up,
        from: from_agent,
        to: to_origin,
        count: &moved.up,
        by_kernel: &moved.by_kernel,
        copied,
        patience: None,
        activity: &activity,
        look: &look,
        shown: 0,
    };
    let down = OneWay {
        way: Way::Down,
        from: from_origin,
        to: to_agent,
        count: &moved.down,
        by_kernel: &moved.by_kernel,
        copied,
        patience: Some(patience),
        activity: &activity,
        look: &look,
        shown: 0,
    };
    let both = async { tokio::try_join!(up.run(first), down.run(Bytes::new())) };
    tokio::select! {
        done = both => { done?; }
        () = activity.silent_for(idle) => return Err(late(format!("nothing moved for {idle:?}")).into()),
    }
    Ok(())
}

fn late(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// One direction.
struct OneWay<'a, 'l> {
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    count: &'a AtomicU64,
    by_kernel: &'a AtomicU64,
    copied: u64,
    /// How long the receiver may take nothing, where it has to answer for that.
    patience: Option<Duration>,
    activity: &'a Activity,
    look: &'a Mutex<&'l mut Look<'l>>,
    /// Bytes shown.
    shown: usize,
}

/// Why a way of moving bytes was left.
enum Left {
    /// The sender has ended.
    End,
    /// Enough has passed for the kernel to take over.
    Much,
    /// Nothing comes at present.
    Silent,
    /// The kernel does not splice these sockets.
    Unsupported,
}

impl OneWay<'_, '_> {
    async fn run(mut self, first: Bytes) -> io::Result<()> {
        self.show(&first);
        self.write(&first).await?;
        drop(first);
        let mut spliced = true;
        loop {
            let left = self.copy(if spliced { self.copied } else { u64::MAX }).await?;
            let left = match left {
                Left::Much => self.splice().await?,
                Left::End | Left::Silent | Left::Unsupported => left,
            };
            match left {
                Left::End => return self.to.shutdown().await,
                Left::Unsupported => spliced = false,
                Left::Much | Left::Silent => {}
            }
        }
    }

    /// Copies until `most` bytes have passed without a pause.
    async fn copy(&mut self, most: u64) -> io::Result<Left> {
        let mut passed = 0_u64;
        let mut buffer = Vec::new();
        // Where much came before a pause, much comes after it.
        let mut size = FIRST;
        loop {
            // What is asked once below must not be told to yield: it would be taken for silence.
            consume_budget().await;
            if buffer.capacity() == 0 {
                self.from.readable().await?;
                buffer.reserve_exact(size);
            }
            let length = match once(unconstrained(self.from.read_buf(&mut buffer))).await {
                Poll::Ready(Ok(0)) => return Ok(Left::End),
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    // Waits without a buffer: a thousand idle tunnels hold none.
                    buffer = Vec::new();
                    passed = 0;
                    continue;
                }
            };
            self.activity.touch();
            self.show(buffer.get(..length).unwrap_or_default());
            self.write(buffer.get(..length).unwrap_or_default()).await?;
            self.count.fetch_add(length as u64, Ordering::Relaxed);
            buffer.clear();
            if length <= FIRST {
                size = FIRST;
            }
            if length == buffer.capacity() && length < CHUNK {
                size = CHUNK;
                buffer = Vec::with_capacity(CHUNK);
            }
            passed += length as u64;
            if passed >= most {
                return Ok(Left::Much);
            }
        }
    }

    /// Lets the kernel move bytes until nothing has come for [`PIPE_KEPT`].
    async fn splice(&mut self) -> io::Result<Left> {
        // Without descriptors or memory for a pipe the tunnel still has to work.
        let Ok(pipe) = Pipe::new() else { return Ok(Left::Unsupported) };
        loop {
            let length = match timeout(PIPE_KEPT, pipe.fill(self.from.as_ref())).await {
                Err(_elapsed) => return Ok(Left::Silent),
                Ok(Ok(0)) => return Ok(Left::End),
                Ok(Ok(length)) => length,
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Ok(Left::Unsupported);
                }
                Ok(Err(error)) => return Err(error),
            };
            self.activity.touch();
            let mut left = length;
            while left > 0 {
                let gone = patient(self.patience, pipe.drain(self.to.as_ref(), left)).await?;
                self.activity.touch();
                self.count.fetch_add(gone as u64, Ordering::Relaxed);
                self.by_kernel.fetch_add(gone as u64, Ordering::Relaxed);
                left = left.saturating_sub(gone);
            }
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let length = patient(self.patience, self.to.write(bytes)).await?;
            if length == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.activity.touch();
            bytes = bytes.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8]) {
        let Some(part) = bytes.get(..bytes.len().min(SHOWN - self.shown)).filter(|part| !part.is_empty())
        else {
            return;
        };
        self.shown += part.len();
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        look(self.way, part);
    }
}

/// What `future` says when it is asked once.
async fn once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// `write`, failed where nothing is taken within `patience`.
async fn patient<T>(patience: Option<Duration>, write: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let Some(patience) = patience else { return write.await };
    match timeout(patience, write).await {
        Ok(done) => done,
        Err(_elapsed) => Err(late(format!("the agent took nothing for {patience:?}"))),
    }
}

#[cfg(test)]
mod tests;
