//! A connection that has switched to another protocol: bytes both ways as they come, until both sides have
//! ended.

use std::{
    io,
    ops::ControlFlow,
    task::{Context, Poll, ready},
};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Wire, relay::Lull};
use crate::socket::Cut;

/// How a switched connection ended.
#[derive(Debug)]
pub enum Through {
    /// Both sides said that they were done.
    Done,
    /// One side's connection broke, and how.
    AgentGone(Cut),
    Origin(String, Cut),
    /// Who sees what the agent sends lets no more of it go.
    Stopped,
    /// Nothing moved for too long.
    Silent,
}

/// One direction of a switched connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// The sender has ended; the receiver is being told.
    Ending,
    Ended,
}

/// Moves bytes both ways as they come, after a switch of protocol, until both sides have ended.
pub async fn through<A, O>(
    agent: &mut Wire<A>,
    origin: &mut Wire<O>,
    lull: &mut Lull,
    mut see_up: impl FnMut(&[u8]) -> ControlFlow<()>,
    mut see_down: impl FnMut(&[u8]),
) -> Through
where
    A: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + Unpin,
{
    lull.touch();
    let broke = |error: &io::Error| Through::Origin(error.to_string(), Cut::of(error));
    let (mut up, mut down) = (Way::Open, Way::Open);
    let (mut up_seen, mut down_seen) = (0, 0);
    std::future::poll_fn(|cx| {
        match poll_way(cx, agent, origin, &mut up, &mut up_seen, lull, &mut see_up) {
            Poll::Ready(Err(Broken::Stopped)) => return Poll::Ready(Through::Stopped),
            Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Through::AgentGone(Cut::of(&error))),
            Poll::Ready(Err(Broken::To(error))) => return Poll::Ready(broke(&error)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let mut see = |data: &[u8]| {
            see_down(data);
            ControlFlow::Continue(())
        };
        match poll_way(cx, origin, agent, &mut down, &mut down_seen, lull, &mut see) {
            Poll::Ready(Err(Broken::Stopped)) => return Poll::Ready(Through::Stopped),
            Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(broke(&error)),
            Poll::Ready(Err(Broken::To(error))) => return Poll::Ready(Through::AgentGone(Cut::of(&error))),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if (up, down) == (Way::Ended, Way::Ended) {
            return Poll::Ready(Through::Done);
        }
        lull.poll(cx).map(|()| Through::Silent)
    })
    .await
}

/// Which side of a direction broke.
enum Broken {
    From(io::Error),
    To(io::Error),
    /// Neither: it was stopped.
    Stopped,
}

fn poll_way<F, T>(
    cx: &mut Context<'_>,
    from: &mut Wire<F>,
    to: &mut Wire<T>,
    way: &mut Way,
    seen: &mut usize,
    lull: &mut Lull,
    see: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Poll<Result<(), Broken>>
where
    F: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match way {
            Way::Open => {
                if !from.buffer.is_empty() {
                    if *seen < from.buffer.len() {
                        if see(from.buffer.get(*seen..).unwrap_or_default()).is_break() {
                            return Poll::Ready(Err(Broken::Stopped));
                        }
                        *seen = from.buffer.len();
                    }
                    let written = ready!(to.poll_write(cx, &from.buffer, &[])).map_err(Broken::To)?;
                    from.buffer.advance(written);
                    *seen -= written;
                    lull.touch();
                    continue;
                }
                match from.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => *way = Way::Ending,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::From(error))),
                    Poll::Pending => {
                        if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
                            return Poll::Ready(Err(Broken::To(error)));
                        }
                        return Poll::Pending;
                    }
                }
            }
            Way::Ending => {
                ready!(to.poll_shutdown(cx)).map_err(Broken::To)?;
                *way = Way::Ended;
            }
            Way::Ended => return Poll::Ready(Ok(())),
        }
    }
}
