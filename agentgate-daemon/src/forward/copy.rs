//! Raw tunnels: bytes both ways, unread, until both sides are done or nothing moves any more.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::ForwardError;
use crate::http::gauge::Activity;

/// Bytes per read: two of these per direction fit into an L2 cache with room to spare.
const CHUNK: usize = 32 * 1024;

/// Copies until both directions have ended; fails when nothing has moved in either for `idle`.
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
    let activity = Activity::default();
    let both = async {
        tokio::try_join!(
            one_way(agent_read, origin_write, &activity),
            one_way(origin_read, agent_write, &activity)
        )
    };
    tokio::select! {
        done = both => { done?; }
        () = activity.silent_for(idle) => {
            let silent = format!("nothing moved for {idle:?}");
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, silent).into());
        }
    }
    Ok(())
}

async fn one_way<R, W>(mut from: R, mut to: W, activity: &Activity) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        activity.touch();
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        to.flush().await?;
        activity.touch();
    }
}
