//! HTTP/2: the streams of one agent connection, relayed each to a stream of a connection to the origin.
//!
//! One task carries the agent's connection, the connections to its origins and all streams between them, so
//! nothing of it outlives it, and a request read, passed on, answered and written wakes no other task. The
//! connections to origins belong to the agent's connection alone: its streams, windows and resets are not
//! mixed with another's.

mod clock;
mod line;
mod origins;
mod stream;

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream as _, stream::FuturesUnordered};
use h2::{Reason, RecvStream, server, server::SendResponse};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::coop,
    time::{Instant, timeout},
};

use self::{
    clock::Clock,
    line::{Connected, Line, Peer, connect},
    origins::{NoOrigin, Origins, To},
    stream::{Over, Shared},
};
use super::{Exchanger, OnConnection};
use crate::{
    forward::First,
    http::{
        body::describe,
        h2::{Flood, PREFACE, Part, Task, ToAgent, Wire, gathered, to_agent},
        serve::Limits,
    },
};

/// How long connections to origins have to be left in good order.
const FAREWELL: Duration = Duration::from_secs(1);
/// Turns that the task takes before others get theirs.
const TURNS: u32 = 64;

/// Why a connection ended before its agent closed it.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// What it sent is not HTTP/2, or beyond the limits.
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Flood(#[from] Flood),
    #[error("nothing was heard for {0:?}")]
    TooSlow(Duration),
    #[error("{0}")]
    Broke(String),
}

impl From<h2::Error> for Http2Error {
    fn from(error: h2::Error) -> Self {
        if error.is_go_away() && error.is_library() {
            Self::Bad(describe(&error))
        } else {
            Self::Broke(describe(&error))
        }
    }
}

impl Exchanger {
    /// Serves streams until the agent closes, an error, or `drain` turns true (then gracefully). `first` is
    /// what there is of a connection to the origin.
    ///
    /// # Errors
    /// [`Http2Error`], by the agent.
    pub async fn http2<S>(
        &self,
        stream: S,
        on: Arc<OnConnection>,
        first: First,
        limits: Limits,
        drain: watch::Receiver<bool>,
    ) -> Result<(), Http2Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let task = Task::default();
        let dialling = task.part();
        let (first, failed) = match first {
            First::Nothing => (None, None),
            First::Dialled(dialled) => (Some(dialled), None),
            First::Failed(error) => (None, Some(error)),
            First::Pooled(origin) => {
                self.forwarder.give_back(*origin);
                (None, None)
            }
        };
        let origins = Origins::new(dialling.waker().clone(), failed);
        let mut lines = Vec::new();
        if let Some(dialled) = first {
            let (destination, rule) = dialled.to();
            let to = To::new(destination, rule);
            // Where it does not speak HTTP/2, the first request finds that out by itself.
            if let Ok(dialled) = connect(*dialled).await {
                let mut line = Line::new(dialled.connection, dialled.grip, task.part());
                origins.connected(to, dialled.sender, dialled.flags);
                // Our words are on their way before the agent's come, and some of its may be there.
                poll_fn(|cx| {
                    line.begin(cx);
                    Poll::Ready(())
                })
                .await;
                lines.push(line);
            }
        }
        let websockets = origins.take_websockets();
        let (wire, grip) = gathered(stream, PREFACE);
        let mut handshake = to_agent(limits.header_bytes, websockets).handshake::<_, Bytes>(wire);
        let handshake = poll_fn(|cx| {
            let done = Pin::new(&mut handshake).poll(cx);
            match grip.poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(Http2Error::Broke(error.to_string()))),
                Poll::Ready(Ok(())) | Poll::Pending => done.map_err(Http2Error::from),
            }
        });
        let mut agent = timeout(limits.header_time, handshake)
            .await
            .map_err(|_elapsed| Http2Error::TooSlow(limits.header_time))??;
        let shared = Shared { exchanger: self, on, origins, limits, drain: drain.clone() };
        let pings = agent.ping_pong();
        let mut serving = Serving {
            shared: &shared,
            make: |request, respond| AssertUnwindSafe(shared.stream(request, respond)).catch_unwind(),
            agent,
            peer: Peer::new(grip, pings),
            agent_part: task.part(),
            streams: FuturesUnordered::new(),
            streams_part: task.part(),
            dials: FuturesUnordered::new(),
            dialling,
            lines,
            clock: Clock::new(limits, drain),
            clock_part: task.part(),
            resets: Vec::new(),
            websockets,
            asked: false,
            leaving: false,
            task,
        };
        let ended = poll_fn(|cx| serving.poll(cx)).await;
        // What is not answered never will be; its records say so, and its origins are told.
        serving.streams.clear();
        serving.dials.clear();
        serving.resets.clear();
        shared.origins.leave();
        let _late = timeout(FAREWELL, poll_fn(|cx| serving.poll_farewell(cx))).await;
        ended
    }
}

type Dialling<'a> = Pin<Box<dyn Future<Output = (To, Result<Connected, NoOrigin>)> + Send + 'a>>;

/// One agent connection and all that belongs to it.
struct Serving<'a, S, F, M> {
    shared: &'a Shared<'a>,
    /// Makes a stream's future.
    make: M,
    agent: server::Connection<Wire<S>, Bytes>,
    peer: Peer<S>,
    agent_part: Part,
    streams: FuturesUnordered<F>,
    streams_part: Part,
    dials: FuturesUnordered<Dialling<'a>>,
    dialling: Part,
    lines: Vec<Line>,
    clock: Clock,
    clock_part: Part,
    /// Streams to be reset once what was sent before has left.
    resets: Vec<(ToAgent, Reason)>,
    /// The agent knows that it may ask for WebSockets.
    websockets: bool,
    /// A request came.
    asked: bool,
    /// The agent was told to go.
    leaving: bool,
    task: Task,
}

impl<'a, S, F, M> Serving<'a, S, F, M>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = std::thread::Result<Over>>,
    M: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
{
    /// Ready once the agent's connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        self.task.wake_up(cx.waker());
        let mut turns = 0;
        loop {
            while self.is_woken() {
                if self.agent_part.take()
                    && let Poll::Ready(ended) = self.poll_agent()
                {
                    return Poll::Ready(ended);
                }
                if self.clock_part.take() {
                    self.poll_clock()?;
                }
                if self.streams_part.take() {
                    self.poll_streams();
                }
                if self.dialling.take() {
                    self.poll_dials();
                }
                let mut heard = false;
                self.lines.retain_mut(|line| {
                    let woken = line.part.take();
                    heard |= woken;
                    !woken || line.poll()
                });
                if heard {
                    self.tell_of_websockets();
                }
                turns += 1;
                if turns >= TURNS || !coop::has_budget_remaining() {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
            self.flush()?;
            self.task.sleep();
            if !self.is_woken() {
                return Poll::Pending;
            }
            if turns >= TURNS || !coop::has_budget_remaining() {
                // What was woken while this was awake, the flush included, has woken nobody.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.task.wake_up(cx.waker());
        }
    }

    fn is_woken(&self) -> bool {
        self.agent_part.is_woken()
            || self.streams_part.is_woken()
            || self.dialling.is_woken()
            || self.clock_part.is_woken()
            || self.lines.iter().any(|line| line.part.is_woken())
    }

    /// Reads what the agent sends and writes what is for it.
    fn poll_agent(&mut self) -> Poll<Result<(), Http2Error>> {
        let mut cx = Context::from_waker(self.agent_part.waker());
        loop {
            match self.agent.poll_accept(&mut cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.streams.push((self.make)(request, respond));
                    self.streams_part.waker().wake_by_ref();
                    if !self.asked {
                        self.asked = true;
                        self.clock_part.waker().wake_by_ref();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    // The last words, if there are any, leave if they can.
                    let _gone = self.peer.grip.poll_flush(&mut cx);
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        let Some(flood) = self.peer.grip.flood() else { return Poll::Pending };
        self.agent.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        // As far as it takes it; nobody waits for such an agent.
        let _left = self.agent.poll_accept(&mut cx);
        let _gone = self.peer.grip.poll_flush(&mut cx);
        Poll::Ready(Err(flood.into()))
    }

    fn poll_streams(&mut self) {
        let mut cx = Context::from_waker(self.streams_part.waker());
        while let Poll::Ready(Some(over)) = Pin::new(&mut self.streams).poll_next(&mut cx) {
            match over {
                Ok(Over::Answered) => self.peer.grip.answered(),
                Ok(Over::Left) => {}
                Ok(Over::Reset(to, reason)) => {
                    self.peer.grip.answered();
                    self.resets.push((to, reason));
                }
                Err(_panic) => tracing::error!("a stream panicked; it was reset"),
            }
        }
    }

    fn poll_dials(&mut self) {
        let shared = self.shared;
        // An agent that knows of WebSockets may ask for one at once (RFC 8441 3).
        let settle = self.websockets.then_some(self.clock.limits.header_time);
        for permit in shared.origins.wanted() {
            let to = To::new(permit.destination(), permit.addresses());
            self.dials.push(Box::pin(async move {
                let Exchanger { forwarder, .. } = shared.exchanger;
                let (session, offer) = (&shared.on.subject.session, shared.on.offer);
                let connected = match forwarder.reach(session, &permit, offer, false).await {
                    First::Dialled(dialled) => connect(*dialled).await,
                    First::Failed(error) => Err(NoOrigin::Failed(Arc::new(error))),
                    First::Pooled(origin) => {
                        forwarder.give_back(*origin);
                        Err(NoOrigin::NotHttp2)
                    }
                    First::Nothing => Err(NoOrigin::NotHttp2),
                };
                let connected = match (connected, settle) {
                    (Ok(connected), Some(patience)) => Ok(connected.settled(patience).await),
                    (connected, _) => connected,
                };
                (to, connected)
            }));
        }
        let mut cx = Context::from_waker(self.dialling.waker());
        while let Poll::Ready(Some((to, connected))) = Pin::new(&mut self.dials).poll_next(&mut cx) {
            match connected {
                Ok(Connected { sender, connection, grip, flags }) => {
                    self.lines.push(Line::new(connection, grip, self.task.part()));
                    shared.origins.connected(to, sender, flags);
                }
                Err(why) => shared.origins.failed(&to, why),
            }
        }
    }

    fn poll_clock(&mut self) -> Result<(), Http2Error> {
        let mut cx = Context::from_waker(self.clock_part.waker());
        let mut leave = self.clock.poll_stop(self.asked, &mut cx);
        if self.clock.poll_beat(&mut cx) {
            let beat = self.clock.beat;
            let Limits { header_time, idle, .. } = self.clock.limits;
            let busy = !self.streams.is_empty();
            if busy {
                self.clock.resting = Instant::now();
            } else {
                leave |= self.clock.resting.elapsed() >= idle;
                self.peer.rest();
                self.lines.iter().for_each(|line| line.peer.rest());
            }
            if busy || self.leaving {
                if !self.peer.is_there(beat, header_time) {
                    return Err(Http2Error::TooSlow(header_time * 2));
                }
                self.lines.retain_mut(|line| line.peer.is_there(beat, header_time));
            }
        }
        if leave && !self.leaving {
            self.leaving = true;
            self.agent.graceful_shutdown();
            self.agent_part.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Once an origin is known to take WebSockets, the agent may know (RFC 8441 3).
    fn tell_of_websockets(&mut self) {
        if !self.websockets
            && self.shared.origins.take_websockets()
            && self.agent.enable_connect_protocol().is_ok()
        {
            self.websockets = true;
            self.agent_part.waker().wake_by_ref();
        }
    }

    /// Writes what has gathered, and then what has to come after it.
    fn flush(&mut self) -> Result<(), Http2Error> {
        self.lines.iter_mut().for_each(Line::flush);
        let mut cx = Context::from_waker(self.agent_part.waker());
        match self.peer.grip.poll_flush(&mut cx) {
            Poll::Ready(Ok(())) => {
                // `h2` drops what it still holds of a stream that is reset.
                for (to, reason) in self.resets.drain(..) {
                    to.reset(reason);
                }
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(Http2Error::Broke(error.to_string())),
            Poll::Pending => Ok(()),
        }
    }

    /// Leaves the origins. Ready once none is left.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lines.retain_mut(|line| line.poll_farewell(cx));
        if self.lines.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}
