//! Raw tunnels: bytes both ways, unread, until both sides are done or nothing moves any more.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::ForwardError;

/// Bytes per read: two of these per direction fit into an L2 cache with room to spare.
const CHUNK: usize = 32 * 1024;

/// Copies until both directions have ended; fails when neither has moved for `idle`.
///
/// # Errors
/// [`ForwardError::Tunnel`].
pub(super) async fn copy<A, O>(agent: A, origin: O, idle: Duration) -> Result<(), ForwardError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + Unpin,
{
    let (agent_read, agent_write) = tokio::io::split(agent);
    let (origin_read, origin_write) = tokio::io::split(origin);
    tokio::try_join!(one_way(agent_read, origin_write, idle), one_way(origin_read, agent_write, idle))?;
    Ok(())
}

async fn one_way<R, W>(mut from: R, mut to: W, idle: Duration) -> Result<(), ForwardError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let silent = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("nothing moved for {idle:?}"));
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        let length = timeout(idle, from.read(&mut buffer)).await.map_err(|_| silent())??;
        if length == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        let chunk = buffer.get(..length).unwrap_or_default();
        timeout(idle, to.write_all(chunk)).await.map_err(|_| silent())??;
        timeout(idle, to.flush()).await.map_err(|_| silent())??;
    }
}
