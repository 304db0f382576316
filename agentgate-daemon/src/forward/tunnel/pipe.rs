//! A pipe between two sockets: splice(2) moves pages from one to the other without copying them to
//! user space.

use std::{io, os::fd::OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// Bytes asked for, which is what the kernel counts against the user's pipes; the default is 64 KiB.
const SIZE: usize = 256 * 1024;

/// A pipe, empty between one drain and the next fill.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// pipe(2): no descriptors.
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused where the user's pipes take too much already (pipe(7)): a smaller one works too.
        if let Err(error) = fcntl_setpipe_size(&write, SIZE) {
            tracing::debug!(%error, "F_SETPIPE_SZ");
        }
        Ok(Self { read, write })
    }

    /// Takes what `from` has, and says how much; 0 at its end. The pipe must be empty: then a full one
    /// cannot be taken for a socket that has nothing.
    ///
    /// # Errors
    /// splice(2); `InvalidInput` where the kernel cannot splice `from`, which then has lost nothing.
    pub(super) async fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        from.async_io(Interest::READABLE, || Ok(splice(from, None, &self.write, None, SIZE, FLAGS)?)).await
    }

    /// Gives `to` up to `length` bytes, of which there must be as many, and says how many it took.
    ///
    /// # Errors
    /// splice(2).
    pub(super) async fn drain(&self, to: &TcpStream, length: usize) -> io::Result<usize> {
        to.async_io(Interest::WRITABLE, || Ok(splice(&self.read, None, to, None, length, FLAGS)?)).await
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
