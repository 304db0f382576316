//! One exchange, moved: the request up, the response down, both at once, in one task and without a
//! copy beside the buffer that it was read into. Each byte goes on as it came, as soon as it came; a side
//! that takes nothing stops the other from being read.

use std::{
    future::Future as _,
    io,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use super::{BadHead, Decoder, Framing, ResponseHead, Wire, head, wire::HeadError};
use crate::{
    http::body::Watch,
    socket::{Cut, OverTcp},
};

/// Largest response head.
const RESPONSE_HEAD: usize = 512 * 1024;
/// Interim responses (RFC 9110 15.2) before the final one.
const INTERIM: u32 = 64;
/// What is read of an agent that sends its next request before it has its answer.
const AHEAD: usize = 16 * 1024;
/// Into how many parts the time of silence is cut: it is noticed that much late.
const STRIKES: u32 = 8;

/// Notices when nothing has moved for a while, without a look at the clock for each movement. One for a
/// connection, for as long as it is there.
#[derive(Debug)]
pub struct Lull {
    sleep: Pin<Box<Sleep>>,
    tick: Duration,
    strikes: u32,
    moved: bool,
}

impl Lull {
    /// Resolves after `idle` without movement, or an eighth of it later.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        let tick = idle / STRIKES;
        Self { sleep: Box::pin(sleep_until(Instant::now() + tick)), tick, strikes: 0, moved: false }
    }

    /// Something moved.
    pub fn touch(&mut self) {
        self.moved = true;
    }

    /// Resolves once nothing has moved for the time.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            self.strikes = if std::mem::take(&mut self.moved) { 0 } else { self.strikes + 1 };
            self.sleep.as_mut().reset(Instant::now() + self.tick);
            if self.strikes > STRIKES {
                self.strikes = 0;
                return Poll::Ready(());
            }
        }
    }
}

/// How an exchange came to its end.
#[derive(Debug)]
pub enum Outcome {
    /// The response is with the agent; the request is with the origin unless it stopped taking it.
    Whole,
    /// The origin agreed to speak something else from here on (101).
    Switched,
    /// The agent went away.
    AgentGone,
    /// The request cannot go on: its framing is bad.
    AgentBody(String),
    /// Who sees the request lets no more of it go.
    Stopped,
    /// The origin broke off, or what it said is not HTTP.
    Origin(String),
    /// Nothing moved for too long: true where the agent was to send.
    Silent { agent: bool },
}

/// What became of both directions.
#[derive(Debug)]
pub struct Done {
    pub outcome: Outcome,
    /// Something of the request went out.
    pub sent: bool,
    /// Something of a response came.
    pub heard: bool,
    /// Something of the final response went to the agent.
    pub answered: bool,
    pub request_whole: bool,
    pub response_whole: bool,
    /// How each side ended its connection, where it did so before the end of the exchange.
    pub agent_end: Option<Cut>,
    pub origin_end: Option<Cut>,
    /// The origin's connection may carry another request.
    pub origin_stays: bool,
    /// The agent's connection may carry another request.
    pub agent_stays: bool,
}

/// What is sent, and how it is framed.
#[derive(Debug)]
pub struct Asking<'a> {
    /// The head, as it goes out.
    pub head: Bytes,
    pub framing: Framing,
    pub method: &'a Method,
    /// The agent means to go on.
    pub keep_alive: bool,
    /// It asks for a switch of protocol (101).
    pub upgrade: bool,
}

#[derive(Debug)]
enum Up {
    Sending(Decoder),
    /// All of it is with the origin; the agent is watched.
    Whole,
    /// The agent has closed its side, after all of the request or within it; the origin is being told.
    Ending {
        how: Cut,
        whole: bool,
    },
    Told {
        whole: bool,
    },
    /// The origin takes no more.
    Refused(io::Error),
}

#[derive(Debug)]
enum Down {
    Head,
    Body(Decoder),
    Flush,
    Whole,
}

struct Relay<'a, A, O, U, D, H> {
    agent: &'a mut Wire<A>,
    origin: &'a mut Wire<O>,
    lull: &'a mut Lull,
    method: &'a Method,
    up: Up,
    /// Head still to go to the origin, then bytes of the agent's buffer that may.
    up_out: Bytes,
    up_ready: usize,
    /// The piece with which the request's body ends may go on.
    up_last: bool,
    down: Down,
    down_out: Bytes,
    down_ready: usize,
    interim: u32,
    upgrade: bool,
    switched: bool,
    sent: bool,
    heard: bool,
    answered: bool,
    agent_stays: bool,
    origin_stays: bool,
    agent_end: Option<Cut>,
    origin_end: Option<Cut>,
    see_up: U,
    see_down: D,
    on_head: H,
}

/// Sends what `asking` is about and passes on what comes back. `see_up` and `see_down` see the contents
/// of the bodies before they go on, and `see_up` may stop them, and hold up the piece with which the
/// request's ends; `on_head` sees the final response's head and says what the agent gets for it.
pub async fn relay<A, O>(
    agent: &mut Wire<A>,
    origin: &mut Wire<O>,
    lull: &mut Lull,
    asking: Asking<'_>,
    see_up: impl Watch,
    see_down: impl FnMut(&[u8]),
    on_head: impl FnMut(&ResponseHead) -> Bytes,
) -> Done
where
    A: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + OverTcp + Unpin,
{
    lull.touch();
    let mut relay = Relay {
        agent,
        origin,
        lull,
        method: asking.method,
        up: Up::Sending(Decoder::new(asking.framing)),
        up_out: asking.head,
        up_ready: 0,
        up_last: false,
        down: Down::Head,
        down_out: Bytes::new(),
        down_ready: 0,
        interim: 0,
        upgrade: asking.upgrade,
        switched: false,
        sent: false,
        heard: false,
        answered: false,
        agent_stays: asking.keep_alive,
        origin_stays: true,
        agent_end: None,
        origin_end: None,
        see_up,
        see_down,
        on_head,
    };
    let outcome = std::future::poll_fn(|cx| relay.poll(cx)).await;
    let request_whole = match relay.up {
        Up::Whole => true,
        Up::Ending { whole, .. } | Up::Told { whole } => whole,
        Up::Sending(_) | Up::Refused(_) => false,
    };
    let response_whole = matches!(relay.down, Down::Whole);
    let clean = matches!(outcome, Outcome::Whole) && request_whole;
    Done {
        sent: relay.sent,
        heard: relay.heard,
        answered: relay.answered,
        request_whole,
        response_whole,
        agent_end: relay.agent_end,
        origin_end: relay.origin_end,
        origin_stays: clean && relay.origin_stays && matches!(relay.up, Up::Whole),
        agent_stays: clean && relay.agent_stays,
        outcome,
    }
}

impl<A, O, U, D, H> Relay<'_, A, O, U, D, H>
where
    A: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + OverTcp + Unpin,
    U: Watch,
    D: FnMut(&[u8]),
    H: FnMut(&ResponseHead) -> Bytes,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Poll::Ready(Err(outcome)) = self.poll_up(cx) {
            // Whoever has all of the answer may leave the rest of the request away: that is what
            // `Expect` is for.
            let left = self.agent.is_ended() || matches!(outcome, Outcome::AgentGone);
            let answered = matches!(self.down, Down::Whole);
            return Poll::Ready(if answered && left { Outcome::Whole } else { outcome });
        }
        if let Poll::Ready(done) = self.poll_down(cx) {
            if let Err(outcome) = done {
                return Poll::Ready(outcome);
            }
            if self.switched {
                return Poll::Ready(Outcome::Switched);
            }
            // A response that is there before the request is: an origin that goes on takes the rest.
            let rest = matches!(self.up, Up::Sending(_)) && self.origin_stays;
            if !rest {
                return Poll::Ready(Outcome::Whole);
            }
        }
        if self.lull.poll(cx).is_ready() {
            let agent = matches!(self.up, Up::Sending(_)) && self.up_out.is_empty() && self.up_ready == 0;
            return Poll::Ready(Outcome::Silent { agent });
        }
        Poll::Pending
    }

    /// Ready once there is nothing more to do for the request.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        loop {
            match &mut self.up {
                Up::Sending(body) => {
                    if self.up_ready == 0 && !self.agent.buffer.is_empty() && !body.is_complete() {
                        let (mut flow, see_up) = (ControlFlow::Continue(()), &mut self.see_up);
                        let mut see = |data: &[u8]| {
                            if flow.is_continue() {
                                flow = see_up.data(data);
                            }
                        };
                        let ready = body
                            .advance(&self.agent.buffer, &mut see)
                            .map_err(|bad| Outcome::AgentBody(bad.to_string()))?;
                        if flow.is_break() {
                            return Poll::Ready(Err(Outcome::Stopped));
                        }
                        self.up_ready = ready;
                    }
                    let mut may = self.up_ready;
                    if may > 0 && body.is_complete() && !self.up_last {
                        match self.see_up.poll_last(cx) {
                            Poll::Ready(ControlFlow::Continue(())) => self.up_last = true,
                            Poll::Ready(ControlFlow::Break(())) => return Poll::Ready(Err(Outcome::Stopped)),
                            Poll::Pending => {
                                may = 0;
                                self.lull.touch(); // neither side is silent
                            }
                        }
                    }
                    if !self.up_out.is_empty() || may > 0 {
                        let ready = self.agent.buffer.get(..may).unwrap_or_default();
                        match ready!(self.origin.poll_write(cx, &self.up_out, ready)) {
                            Ok(written) => {
                                let head = written.min(self.up_out.len());
                                self.up_out.advance(head);
                                self.agent.buffer.advance(written - head);
                                self.up_ready -= written - head;
                                self.sent = true;
                                self.lull.touch();
                            }
                            // It may have answered before it stopped listening.
                            Err(error) => self.up = Up::Refused(error),
                        }
                    } else if self.up_ready > 0 {
                        match ready!(self.origin.poll_flush(cx)) {
                            Ok(()) => return Poll::Pending,
                            Err(error) => self.up = Up::Refused(error),
                        }
                    } else if body.is_complete() {
                        match ready!(self.origin.poll_flush(cx)) {
                            Ok(()) => self.up = Up::Whole,
                            Err(error) => self.up = Up::Refused(error),
                        }
                    } else {
                        match self.agent.poll_fill(cx) {
                            Poll::Ready(Ok(1..)) => self.lull.touch(),
                            Poll::Ready(ended) => self.agent_ended(ended, false)?,
                            Poll::Pending => match self.origin.poll_flush(cx) {
                                Poll::Ready(Err(error)) => self.up = Up::Refused(error),
                                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                            },
                        }
                    }
                }
                Up::Whole => {
                    if matches!(self.down, Down::Whole) || self.agent.buffer.len() >= AHEAD {
                        return Poll::Ready(Ok(()));
                    }
                    match ready!(self.agent.poll_fill(cx)) {
                        Ok(1..) => {}
                        ended => self.agent_ended(ended, true)?,
                    }
                }
                Up::Ending { how, whole } => {
                    // The origin sees what it would see without a gate, and does what it would do.
                    ready!(self.origin.poll_pass(cx, *how));
                    self.up = Up::Told { whole: *whole };
                }
                Up::Told { .. } | Up::Refused(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    /// The agent sends no more, and may still listen, unless it has reset its connection.
    fn agent_ended(&mut self, ended: io::Result<usize>, whole: bool) -> Result<(), Outcome> {
        let how = ended.map_or_else(|error| Cut::of(&error), |_| Cut::Closed);
        self.agent_end = Some(how);
        self.agent_stays = false;
        if how == Cut::Reset {
            return Err(Outcome::AgentGone);
        }
        self.up = Up::Ending { how, whole };
        Ok(())
    }

    /// The agent takes no more.
    fn agent_left(&mut self) -> Poll<Result<(), Outcome>> {
        self.agent_end = Some(Cut::Reset);
        Poll::Ready(Err(Outcome::AgentGone))
    }

    /// The origin's connection ended, which an error of writing may have told already.
    fn origin_ended(&mut self, error: Option<&io::Error>) -> Cut {
        let reset = matches!(&self.up, Up::Refused(error) if error.kind() == io::ErrorKind::ConnectionReset);
        let how = if reset { Cut::Reset } else { error.map_or(Cut::Closed, Cut::of) };
        self.origin_end = Some(how);
        how
    }

    /// Ready once the response is with the agent.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        loop {
            if let Down::Body(body) = &mut self.down
                && self.down_ready == 0
                && !self.origin.buffer.is_empty()
                && !body.is_complete()
            {
                self.down_ready = body
                    .advance(&self.origin.buffer, &mut self.see_down)
                    .map_err(|bad| Outcome::Origin(bad.to_string()))?;
            }
            if !self.down_out.is_empty() || self.down_ready > 0 {
                let ready = self.origin.buffer.get(..self.down_ready).unwrap_or_default();
                let Ok(written) = ready!(self.agent.poll_write(cx, &self.down_out, ready)) else {
                    return self.agent_left();
                };
                let head = written.min(self.down_out.len());
                self.down_out.advance(head);
                self.origin.buffer.advance(written - head);
                self.down_ready -= written - head;
                self.answered |= !matches!(self.down, Down::Head);
                self.lull.touch();
                continue;
            }
            match &mut self.down {
                Down::Head => {
                    let polled = self.origin.poll_head(cx, RESPONSE_HEAD);
                    if polled.is_pending()
                        && let Poll::Ready(Err(_)) = self.agent.poll_flush(cx)
                    {
                        return self.agent_left();
                    }
                    match ready!(polled) {
                        Ok(Some(bytes)) => self.head(bytes)?,
                        Ok(None) => return Poll::Ready(Err(self.broke(None))),
                        Err(error) => return Poll::Ready(Err(self.broke(Some(error)))),
                    }
                }
                Down::Body(body) if body.is_complete() => self.down = Down::Flush,
                Down::Body(body) => match self.origin.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => {
                        let whole = body.close();
                        if self.origin_ended(None) == Cut::Reset || !whole {
                            return Poll::Ready(Err(Outcome::Origin("the body ended early".to_owned())));
                        }
                        self.origin_stays = false;
                    }
                    Poll::Ready(Ok(_)) => self.lull.touch(),
                    Poll::Ready(Err(error)) => {
                        self.origin_ended(Some(&error));
                        return Poll::Ready(Err(Outcome::Origin(error.to_string())));
                    }
                    Poll::Pending => {
                        if let Poll::Ready(Err(_)) = self.agent.poll_flush(cx) {
                            return self.agent_left();
                        }
                        return Poll::Pending;
                    }
                },
                Down::Flush => match ready!(self.agent.poll_flush(cx)) {
                    Ok(()) => self.down = Down::Whole,
                    Err(_) => return self.agent_left(),
                },
                Down::Whole => return Poll::Ready(Ok(())),
            }
        }
    }

    /// A response's head is there.
    fn head(&mut self, bytes: bytes::BytesMut) -> Result<(), Outcome> {
        self.heard = true;
        self.lull.touch();
        let head = head::response(bytes, self.method).map_err(|bad| Outcome::Origin(bad.to_string()))?;
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(Outcome::Origin("too many interim responses".to_owned()));
            }
            self.down_out = head.raw.bytes().clone();
            return Ok(());
        }
        self.switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if self.switched && !self.upgrade {
            return Err(Outcome::Origin("it switched protocols unasked".to_owned()));
        }
        if self.switched && matches!(self.up, Up::Sending(_) | Up::Refused(_)) {
            // What is left of the request would be taken for the other protocol.
            return Err(Outcome::Origin("it switched protocols before it had the request".to_owned()));
        }
        self.origin_stays &= head.keep_alive && !self.switched;
        self.agent_stays &= head.keep_alive;
        self.down_out = (self.on_head)(&head);
        self.down = Down::Body(Decoder::new(head.framing));
        Ok(())
    }

    /// The origin ended without a response.
    fn broke(&mut self, error: Option<HeadError>) -> Outcome {
        self.heard |= !self.origin.is_empty();
        let ended = match &error {
            None => Some(self.origin_ended(None)),
            Some(HeadError::Io(error)) => Some(self.origin_ended(Some(error))),
            Some(HeadError::Bad(_) | HeadError::Cut) => None,
        };
        if self.agent_end.is_some() && ended.is_some() {
            return Outcome::AgentGone; // the agent ended first, and the origin took it for a goodbye
        }
        Outcome::Origin(match (error, &self.up) {
            (Some(HeadError::Bad(bad)), _) => bad.to_string(),
            (Some(HeadError::Cut), _) => BadHead::Syntax("it ended within a head").to_string(),
            (_, Up::Refused(error)) => error.to_string(),
            (Some(HeadError::Io(error)), _) => error.to_string(),
            (None, _) => "it closed without an answer".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
