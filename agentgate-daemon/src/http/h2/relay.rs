//! One exchange between an agent's stream and an origin's: heads, informational answers, bodies,
//! trailers and resets go on as they come, each way by itself.
//!
//! One future holds all four halves, so whatever happens on one of them is seen by the others at once.
//! What `h2` refuses by itself (connection fields, lengths that do not match) never gets here; it ends
//! the stream on the side where it happened and reaches the other as a reset.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::{Request, Response, StatusCode, response};
use tokio::{
    task::coop::has_budget_remaining,
    time::{Instant, Sleep, sleep_until},
};

use super::pipe::{Broken, Incoming, Pipe, See, Waits};

/// Most informational answers to one request: they pass no flow control.
const INFORMATIONAL: u32 = 64;
/// In how many steps silence is counted: it is noticed at most this part of it late.
const STEPS: u32 = 4;

/// Why an exchange ended before its end.
#[derive(Debug)]
pub enum Broke {
    /// The agent reset the stream, or its connection is gone. The origin has been told.
    Agent(Reason),
    /// The agent sent nothing of its body for so long.
    AgentSilent(Duration),
    /// Who sees the request lets no more of it go. The origin has been told.
    Stopped,
    /// The origin reset the stream, left it unprocessed, or its connection is gone.
    Origin(h2::Error),
    /// The origin sent nothing for so long.
    OriginSilent(Duration),
    /// The origin sent what HTTP/2 has no place for.
    Unfit(&'static str),
}

impl Broke {
    /// The code for the agent's stream: the origin's own, where it said one.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Agent(reason) => *reason,
            Self::AgentSilent(_) | Self::Stopped => Reason::CANCEL,
            // A GOAWAY on a stream says that it was not processed.
            Self::Origin(error) if error.is_go_away() && error.is_remote() => Reason::REFUSED_STREAM,
            Self::Origin(error) if error.is_reset() && error.is_remote() => {
                error.reason().unwrap_or(Reason::INTERNAL_ERROR)
            }
            Self::Origin(_) | Self::OriginSilent(_) | Self::Unfit(_) => Reason::INTERNAL_ERROR,
        }
    }

    /// True where the origin spoke of this stream, so its words are passed on in place of ours.
    #[must_use]
    pub fn is_said_by_the_origin(&self) -> bool {
        matches!(self, Self::Origin(error) if error.is_remote())
    }
}

impl std::fmt::Display for Broke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(reason) => write!(f, "the agent reset the stream: {reason}"),
            Self::AgentSilent(idle) | Self::OriginSilent(idle) => write!(f, "nothing came for {idle:?}"),
            Self::Stopped => f.write_str("the request was stopped"),
            Self::Origin(error) => error.fmt(f),
            Self::Unfit(what) => f.write_str(what),
        }
    }
}

/// The agent's side of a stream, to reset it with once what was sent before has left.
#[derive(Debug)]
pub enum ToAgent {
    Unanswered(SendResponse<Bytes>),
    Answered(SendStream<Bytes>),
}

impl ToAgent {
    /// Resets the stream. What has not left by then never will.
    pub fn reset(mut self, reason: Reason) {
        match &mut self {
            Self::Unanswered(respond) => respond.send_reset(reason),
            Self::Answered(stream) => stream.send_reset(reason),
        }
    }
}

/// Counts silence of those who could send.
#[derive(Debug)]
struct Silence {
    idle: Duration,
    steps: u32,
    timer: Pin<Box<Sleep>>,
    /// The timer knows whom to wake: the one task that polls this for its life.
    armed: bool,
}

impl Silence {
    fn new(idle: Duration) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + idle / STEPS));
        Self { idle, steps: 0, timer, armed: false }
    }

    /// Ready once nothing moved for the time, though `waits` says that somebody could have sent.
    fn poll(&mut self, moved: bool, waits: bool, cx: &mut Context<'_>) -> Poll<()> {
        if moved || !waits {
            self.steps = 0;
        }
        while !self.armed || self.timer.is_elapsed() {
            let polled = self.timer.as_mut().poll(cx);
            // A task that has used up its budget did not reach the timer, and is polled again soon.
            self.armed = polled.is_pending() && has_budget_remaining();
            ready!(polled);
            self.timer.as_mut().reset(Instant::now() + self.idle / STEPS);
            self.armed = false;
            if waits {
                self.steps += 1;
                // The first step began before the silence did.
                if self.steps > STEPS {
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}

/// A request on its way to the origin.
#[derive(Debug)]
pub struct Asking<U> {
    up: Pipe<U>,
    answer: ResponseFuture,
    respond: SendResponse<Bytes>,
    silence: Silence,
    informational: u32,
}

/// Both bodies under way.
#[derive(Debug)]
pub struct Answering<U, D> {
    up: Pipe<U>,
    down: Pipe<D>,
    silence: Silence,
}

/// Sends `request` to the origin and `body` after it. `see` is told what passes of the body; silence of
/// `idle` ends the exchange.
///
/// # Errors
/// The origin's connection takes no requests: nothing of this one has left, and `respond` is given back.
pub fn ask<U: See>(
    mut origin: SendRequest<Bytes>,
    request: Request<()>,
    body: Incoming,
    respond: SendResponse<Bytes>,
    idle: Duration,
    see: U,
) -> Result<Asking<U>, (h2::Error, SendResponse<Bytes>)> {
    let ended = body.is_end_stream();
    let (answer, to) = match origin.send_request(request, ended) {
        Ok(sent) => sent,
        Err(error) => return Err((error, respond)),
    };
    let up = Pipe::new(body, to, ended, see);
    Ok(Asking { up, answer, respond, silence: Silence::new(idle), informational: 0 })
}

impl<U: See> Asking<U> {
    /// The head of the origin's answer. Until it is there the body goes up and informational answers down.
    ///
    /// # Errors
    /// [`Broke`]; the origin's stream is reset where it was not the origin that ended it.
    pub async fn answer(&mut self) -> Result<Response<RecvStream>, Broke> {
        let answer = poll_fn(|cx| self.poll(cx)).await;
        if let Err(broke) = &answer {
            give_up(&mut self.up, broke);
        }
        answer
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Broke>> {
        // First, because it tells a code that came from one that `h2` set for an error of the agent's.
        poll_up(&mut self.up, cx)?;
        if let Poll::Ready(reset) = self.respond.poll_reset(cx) {
            return Poll::Ready(Err(Broke::Agent(reset.unwrap_or(Reason::CANCEL))));
        }
        while let Poll::Ready(Some(head)) = self.answer.poll_informational(cx) {
            let head = head.map_err(Broke::Origin)?;
            self.up.moved = true;
            self.informational += 1;
            if head.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(Broke::Unfit("the origin switched protocols within HTTP/2")));
            }
            if self.informational > INFORMATIONAL {
                return Poll::Ready(Err(Broke::Unfit("the origin sent no end of informational answers")));
            }
            // The agent may have gone: `poll_reset` says so next time.
            let _gone = self.respond.send_informational(head);
        }
        match Pin::new(&mut self.answer).poll(cx) {
            Poll::Ready(answer) => return Poll::Ready(answer.map_err(Broke::Origin)),
            Poll::Pending => {}
        }
        let moved = std::mem::take(&mut self.up.moved);
        // The origin's answer may come at any time, unless the agent's body is held up by the origin
        // itself, which is no less its silence.
        ready!(self.silence.poll(moved, true, cx));
        let idle = self.silence.idle;
        Poll::Ready(Err(match self.up.waits {
            Waits::Sender => Broke::AgentSilent(idle),
            Waits::Receiver | Waits::Nobody => Broke::OriginSilent(idle),
        }))
    }

    /// Passes the answer's head on; both bodies are under way from here on.
    ///
    /// # Errors
    /// The agent's stream is gone; the origin has been told.
    pub fn pass<D: See>(
        mut self,
        head: response::Parts,
        body: RecvStream,
        see: D,
    ) -> Result<Answering<U, D>, Broke> {
        let ended = body.is_end_stream();
        match self.respond.send_response(Response::from_parts(head, ()), ended) {
            Ok(to) => {
                let down = Pipe::new(body.into(), to, ended, see);
                Ok(Answering { up: self.up, down, silence: self.silence })
            }
            Err(error) => {
                let broke = Broke::Agent(error.reason().unwrap_or(Reason::CANCEL));
                give_up(&mut self.up, &broke);
                Err(broke)
            }
        }
    }

    /// What is left of it after an end without an answer.
    pub fn into_agent(self) -> SendResponse<Bytes> {
        self.respond
    }
}

impl<U: See, D: See> Answering<U, D> {
    /// Moves both bodies to their ends. `Some` where the origin wants no more of the request though all
    /// of its answer is there, and says so with this code.
    ///
    /// # Errors
    /// [`Broke`]; the origin's stream is reset where it was not the origin that ended it.
    pub async fn finish(&mut self) -> Result<Option<Reason>, Broke> {
        let done = poll_fn(|cx| self.poll(cx)).await;
        if let Err(broke) = &done {
            give_up(&mut self.up, broke);
            match broke {
                Broke::Agent(_) => {}
                Broke::Origin(_)
                | Broke::OriginSilent(_)
                | Broke::AgentSilent(_)
                | Broke::Stopped
                | Broke::Unfit(_) => {
                    if !self.down.is_over() {
                        self.down.failed(broke.to_string());
                    }
                }
            }
        }
        done
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reason>, Broke>> {
        match self.down.poll(cx) {
            Poll::Ready(Err(Broken::Sender(error))) => return Poll::Ready(Err(Broke::Origin(error))),
            Poll::Ready(Err(Broken::Receiver)) => return Poll::Ready(Err(self.agent_left(cx))),
            Poll::Ready(Err(Broken::Seer)) => return Poll::Ready(Err(Broke::Stopped)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        poll_up(&mut self.up, cx)?;
        if self.down.is_over() && self.up.is_over() {
            let unwanted = self.up.stopped.then(|| self.unwanted(cx));
            return Poll::Ready(Ok(unwanted));
        }
        if let Poll::Ready(reset) = self.down.to.poll_reset(cx) {
            return Poll::Ready(Err(Broke::Agent(reset.unwrap_or(Reason::CANCEL))));
        }
        if self.down.is_over() && self.up.to.poll_reset(cx).is_ready() {
            self.up.stop();
            return Poll::Ready(Ok(Some(self.unwanted(cx))));
        }
        let moved = std::mem::take(&mut self.up.moved) | std::mem::take(&mut self.down.moved);
        let waits = self.down.waits == Waits::Sender || self.up.waits == Waits::Sender;
        ready!(self.silence.poll(moved, waits, cx));
        let idle = self.silence.idle;
        Poll::Ready(Err(match self.down.waits {
            Waits::Sender => Broke::OriginSilent(idle),
            Waits::Receiver | Waits::Nobody => Broke::AgentSilent(idle),
        }))
    }

    /// With which code the origin said that it wants no more of the request.
    fn unwanted(&mut self, cx: &mut Context<'_>) -> Reason {
        match self.up.to.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => reason,
            Poll::Ready(Err(_)) | Poll::Pending => Reason::NO_ERROR,
        }
    }

    fn agent_left(&mut self, cx: &mut Context<'_>) -> Broke {
        match self.down.to.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Broke::Agent(reason),
            Poll::Ready(Err(_)) | Poll::Pending => Broke::Agent(Reason::CANCEL),
        }
    }

    /// The agent's side, to reset it.
    pub fn into_agent(self) -> SendStream<Bytes> {
        self.down.to
    }
}

/// Moves the request's body. An origin that takes no more of it is no error here: its answer, or its
/// reset, says what it means by that.
fn poll_up<U: See>(up: &mut Pipe<U>, cx: &mut Context<'_>) -> Result<(), Broke> {
    if up.is_over() {
        return Ok(());
    }
    match up.poll(cx) {
        Poll::Ready(Err(Broken::Sender(error))) => {
            let reason = error.reason().filter(|_| error.is_reset() && error.is_remote());
            up.failed(error.to_string());
            Err(Broke::Agent(reason.unwrap_or(Reason::CANCEL)))
        }
        Poll::Ready(Err(Broken::Receiver)) => {
            up.stop();
            Ok(())
        }
        Poll::Ready(Err(Broken::Seer)) => Err(Broke::Stopped),
        Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
    }
}

/// Tells the origin that nobody waits for it any more, unless it knows.
fn give_up<U: See>(up: &mut Pipe<U>, broke: &Broke) {
    match broke {
        Broke::Agent(reason) => up.to.send_reset(*reason),
        Broke::AgentSilent(_) | Broke::Stopped => {
            if !up.is_over() {
                up.failed(broke.to_string());
            }
            up.to.send_reset(Reason::CANCEL);
        }
        Broke::OriginSilent(_) | Broke::Unfit(_) => up.to.send_reset(Reason::CANCEL),
        Broke::Origin(_) => {}
    }
}
