//! HTTP/1.1: the requests of one agent connection, one after the other, each relayed between the agent's
//! connection and one to the origin. Requests that come before their turn wait in the agent's socket.
//!
//! The connection to the origin stays with the agent's connection: it is closed when the other is, so that
//! an agent sees of its origin what it would see without a gate. What an agent leaves behind in good
//! order, the session's next connection may use.

mod head;

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{sleep, timeout},
};

use super::{Begun, Exchanger, GONE, OnConnection, Side, Underway};
use crate::{
    audit::fit,
    drain::told,
    forward::{First, ForwardError, Origin, Ready, is_repeatable},
    http::{
        body::End,
        h1::{
            BadHead, Decoder, Framing, RequestHead, Wire,
            head::request,
            relay::{Asking, Done, Lull, Outcome, relay},
            through::{Through, through},
            wire::HeadError,
        },
        head::version_str,
        refusal::Answer,
        serve::{FIRST_REQUEST, Limits},
    },
    model::{Captured, Failure},
    policy::Permit,
    socket::{Cut, OverTcp},
};

/// How long the body of a refused request is read, so that the agent gets to read the answer.
const REFUSED_BODY: Duration = Duration::from_secs(2);
/// Names the extensions of a WebSocket.
const EXTENSIONS: &str = "sec-websocket-extensions";

/// The agent ended within its request.
const ENDED_EARLY: &str = "it ended early";

/// Why a connection ended before its agent closed it.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    #[error(transparent)]
    Bad(#[from] BadHead),
    #[error("a head took longer than {0:?}")]
    TooSlow(Duration),
    #[error("{0}")]
    Broke(String),
}

/// What comes next on an agent's connection.
enum Next {
    Head(BytesMut),
    /// The agent has ended, or the connection is not needed any more: what it is told.
    Over(Cut),
}

/// One agent connection.
struct Serving<'a, S> {
    exchanger: &'a Exchanger,
    on: Arc<OnConnection>,
    limits: Limits,
    drain: watch::Receiver<bool>,
    agent: Wire<S>,
    lull: Lull,
    kept: First,
    /// `kept` has carried a request of this connection.
    own: bool,
    /// A request came.
    asked: bool,
}

impl Exchanger {
    /// Serves requests until the agent closes, an error, or `drain` turns true (then after the exchange
    /// under way). `first` is what there is of a connection to the origin.
    ///
    /// # Errors
    /// [`Http1Error`], by the agent.
    pub async fn http1<S>(
        &self,
        stream: S,
        on: Arc<OnConnection>,
        first: First,
        limits: Limits,
        drain: watch::Receiver<bool>,
    ) -> Result<(), Http1Error>
    where
        S: AsyncRead + AsyncWrite + OverTcp + Unpin,
    {
        let mut serving = Serving {
            exchanger: self,
            on,
            limits,
            drain,
            agent: Wire::new(stream),
            lull: Lull::new(limits.idle),
            kept: first.for_http1(),
            own: false,
            asked: false,
        };
        let ended = serving.run().await;
        if let First::Pooled(origin) = serving.kept {
            self.forwarder.give_back(*origin);
        }
        ended
    }
}

impl<S: AsyncRead + AsyncWrite + OverTcp + Unpin> Serving<'_, S> {
    async fn run(&mut self) -> Result<(), Http1Error> {
        loop {
            let head = match self.next().await {
                Ok(Next::Head(bytes)) => request(bytes).map_err(Http1Error::from),
                Ok(Next::Over(how)) => {
                    self.agent.pass(how).await;
                    return Ok(());
                }
                Err(error) => Err(error),
            };
            self.asked = true;
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    if let Http1Error::Bad(bad) = &error
                        && self.say(&head::bad(*bad)).await
                    {
                        self.close(false).await;
                    }
                    return Err(error);
                }
            };
            // What an exchange needs is not held by connections on which there is none.
            if !Box::pin(self.exchange(head)).await? {
                return Ok(());
            }
        }
    }

    /// Waits for a request.
    async fn next(&mut self) -> Result<Next, Http1Error> {
        let Self { agent, kept, own, lull, drain, asked, limits, .. } = self;
        lull.touch();
        let mut late = None;
        let asked = *asked;
        let stopped = async {
            told(drain).await;
            if !asked {
                sleep(FIRST_REQUEST).await;
            }
        };
        let mut stopped = std::pin::pin!(stopped);
        poll_fn(|cx| {
            use std::{future::Future as _, task::Poll};
            match agent.poll_head(cx, limits.header_bytes) {
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(Next::Head(head))),
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(Next::Over(Cut::Closed))),
                Poll::Ready(Err(HeadError::Bad(bad))) => return Poll::Ready(Err(bad.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Http1Error::Broke(error.to_string()))),
                Poll::Pending => {}
            }
            if agent.has_more() {
                let late = late.get_or_insert_with(|| Box::pin(sleep(limits.header_time)));
                return late.as_mut().poll(cx).map(|()| Err(Http1Error::TooSlow(limits.header_time)));
            }
            if let First::Pooled(origin) = kept
                && let Poll::Ready(how) = origin.wire.poll_disturbed(cx)
            {
                *kept = First::Nothing;
                if *own {
                    return Poll::Ready(Ok(Next::Over(how)));
                }
            }
            if stopped.as_mut().poll(cx).is_ready() || lull.poll(cx).is_ready() {
                return Poll::Ready(Ok(Next::Over(Cut::Closed)));
            }
            Poll::Pending
        })
        .await
    }

    /// One request; true where another may follow.
    async fn exchange(&mut self, head: RequestHead) -> Result<bool, Http1Error> {
        let RequestHead { parts, framing, keep_alive, expects_continue } = head;
        let method = parts.method.clone();
        let agent = &mut self.agent;
        let begun = self.exchanger.begin(&self.on, parts, |content| agent.show(framing, content)).await;
        match begun {
            Begun::Permitted(permit, underway) => {
                self.forward(permit, underway, framing, keep_alive && !*self.drain.borrow()).await
            }
            Begun::Refused(refused) => {
                let wanted = if expects_continue { 0 } else { refused.wants_body() };
                let (body, whole) = self.refused_body(framing, wanted).await;
                let answer = refused.answer(self.exchanger, body).await;
                Ok(self.answer(&answer, &method, keep_alive && whole).await)
            }
        }
    }

    async fn forward(
        &mut self,
        permit: Permit,
        underway: Underway,
        framing: Framing,
        keep_alive: bool,
    ) -> Result<bool, Http1Error> {
        let on = self.on.clone();
        let session = &on.subject.session;
        let repeatable = framing == Framing::Empty && is_repeatable(permit.head());
        let method = permit.head().method.clone();
        let Some(out) = head::outgoing(permit.head(), permit.destination()) else {
            let error = ForwardError::Target(crate::http::head::BadTarget);
            return Ok(self.answer(&underway.failed(&error), &method, false).await);
        };
        let upgrade = framing == Framing::Empty && head::is_websocket(permit.head());
        let offered = if upgrade { head::extensions(permit.head()) } else { Vec::new() };
        let (mut permit, mut fresh) = (permit, false);
        loop {
            let kept = std::mem::take(&mut self.kept);
            let mine = std::mem::take(&mut self.own);
            let ready = self.exchanger.forwarder.http1(session, permit, self.on.offer, kept, fresh).await;
            let Ready { mut origin, permit: again, kept } = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    let stay = keep_alive && framing == Framing::Empty;
                    return Ok(self.answer(&underway.failed(&error), &method, stay).await);
                }
            };
            underway.flag(origin.take_flags());
            let used = origin.is_used();
            origin.set_used();
            let asking = Asking { head: out.clone(), framing, method: &method, keep_alive, upgrade };
            let done = self.relay(&underway, &mut origin, asking, &offered).await;
            match &done.outcome {
                Outcome::Origin(_) | Outcome::AgentGone
                    if used && !done.heard && !fresh && done.agent_end != Some(Cut::Reset) =>
                {
                    if repeatable {
                        (permit, fresh) = (again, true);
                        continue;
                    }
                    if mine && kept {
                        // The agent's own connection ended between two requests, as any may; who speaks
                        // HTTP/1.1 knows what to do then.
                        let detail = "the origin closed an idle connection".to_owned();
                        underway.fail(failure("origin", "origin_broke_off", detail));
                        self.agent.pass(done.origin_end.unwrap_or(Cut::Closed)).await;
                        return Ok(false);
                    }
                }
                Outcome::Whole
                | Outcome::Switched
                | Outcome::AgentGone
                | Outcome::AgentBody(_)
                | Outcome::Stopped
                | Outcome::Origin(_)
                | Outcome::Silent { .. } => {}
            }
            return self.ended(underway, origin, done, &method).await;
        }
    }

    /// Moves one exchange; what passed is told to its record.
    async fn relay(
        &mut self,
        underway: &Underway,
        origin: &mut Origin,
        asking: Asking<'_>,
        offered: &[HeaderValue],
    ) -> Done {
        let (mut up, mut down) = (underway.tap(Side::Request), underway.tap(Side::Response));
        let keep_alive = asking.keep_alive;
        let done = relay(
            &mut self.agent,
            &mut origin.wire,
            &mut self.lull,
            asking,
            &mut up,
            // Nothing asks for answers to be seen whole.
            |data| _ = down.data(data),
            |response| {
                if response.status == StatusCode::SWITCHING_PROTOCOLS {
                    let chosen =
                        response.raw.fields().filter(|(name, _)| name.eq_ignore_ascii_case(EXTENSIONS));
                    underway
                        .switched(offered.iter().map(HeaderValue::as_bytes), chosen.map(|(_, value)| value));
                }
                let fields = fit::fields(response.raw.fields());
                underway.answered(response.status.as_u16(), version_str(response.version), fields);
                head::incoming(response, keep_alive)
            },
        )
        .await;
        if done.request_whole {
            up.end(End::Complete);
        } else if let Outcome::AgentBody(why) = &done.outcome {
            up.end(End::Failed(why.clone()));
        } else if done.agent_end.is_some() {
            up.end(End::Failed(ENDED_EARLY.to_owned()));
        }
        if done.response_whole {
            down.end(End::Complete);
        } else if let (Outcome::Origin(why), true) = (&done.outcome, done.answered) {
            down.end(End::Failed(why.clone()));
        }
        done
    }

    /// What follows from how an exchange ended; true where another may follow.
    async fn ended(
        &mut self,
        underway: Underway,
        mut origin: Origin,
        done: Done,
        method: &Method,
    ) -> Result<bool, Http1Error> {
        let idle = self.limits.idle;
        let error = match done.outcome {
            Outcome::Whole => {
                if done.agent_end.is_some() && !done.request_whole {
                    underway.fail(ForwardError::AgentBody(ENDED_EARLY.to_owned()).failure());
                }
                drop(underway);
                if done.origin_stays && done.agent_stays {
                    (self.kept, self.own) = (First::Pooled(Box::new(origin)), true);
                    return Ok(true);
                }
                if done.origin_stays {
                    self.exchanger.forwarder.give_back(origin);
                }
                self.close(done.request_whole).await;
                return Ok(false);
            }
            Outcome::Switched => {
                self.switched(&underway, &mut origin).await;
                return Ok(false);
            }
            Outcome::AgentGone => {
                underway.fail(gone());
                if let Some(how) = done.origin_end {
                    self.agent.pass(how).await;
                } else {
                    pass(&mut origin, done.agent_end.unwrap_or(Cut::Reset)).await;
                }
                return Err(Http1Error::Broke("the agent went away within an exchange".to_owned()));
            }
            Outcome::Stopped => {
                let answer = underway.stopped(done.answered);
                return if done.answered { Ok(false) } else { Ok(self.answer(&answer, method, false).await) };
            }
            Outcome::AgentBody(why) => {
                // Nothing may take it for a whole one.
                pass(&mut origin, Cut::Reset).await;
                ForwardError::AgentBody(why)
            }
            Outcome::Silent { agent: true } => ForwardError::AgentBody(format!("nothing came for {idle:?}")),
            Outcome::Silent { agent: false } => ForwardError::ResponseTimeout(idle),
            Outcome::Origin(why) => ForwardError::Http(why),
        };
        if done.answered {
            // The agent has a part of the answer: that it breaks off is what it is told.
            underway.fail(error.failure());
            match done.origin_end {
                Some(Cut::Closed) => self.close(done.request_whole).await,
                Some(how) => self.agent.pass(how).await,
                None => self.agent.pass(Cut::Dropped).await,
            }
            return Ok(false);
        }
        Ok(self.answer(&underway.failed(&error), method, false).await)
    }

    /// A WebSocket, until both sides are done.
    async fn switched(&mut self, underway: &Underway, origin: &mut Origin) {
        let (mut up, mut down) = (underway.tap(Side::Request), underway.tap(Side::Response));
        let moved = through(
            &mut self.agent,
            &mut origin.wire,
            &mut self.lull,
            |data| up.data(data),
            |data| _ = down.data(data),
        );
        let mut drain = self.drain.clone();
        let stopped = async {
            told(&mut drain).await;
            sleep(self.limits.grace).await;
        };
        let moved = tokio::select! {
            moved = moved => Some(moved),
            () = stopped => None,
        };
        match moved {
            Some(Through::Done) => {
                up.end(End::Complete);
                down.end(End::Complete);
            }
            Some(Through::AgentGone(how)) => {
                underway.fail(gone());
                pass(origin, how).await;
            }
            Some(Through::Origin(why, how)) => {
                underway.fail(failure("origin", "origin_broke_off", why));
                self.agent.pass(how).await;
            }
            // Who speaks WebSocket is told by the end of it.
            Some(Through::Stopped) => drop(underway.stopped(true)),
            Some(Through::Silent) => {
                let detail = format!("nothing moved for {:?}", self.limits.idle);
                underway.fail(failure("origin", "response_timeout", detail));
            }
            None => underway.fail(failure("gate", "drained", "the gate was stopped".to_owned())),
        }
    }

    /// Sends an answer of the gate's own; true where another request may follow.
    async fn answer(&mut self, answer: &Answer, method: &Method, stay: bool) -> bool {
        let stay = stay && !*self.drain.borrow();
        self.say(&head::answer(answer, method, stay)).await && {
            if !stay {
                self.close(false).await;
            }
            stay
        }
    }

    /// Sends `bytes`; false where the agent takes them not.
    async fn say(&mut self, bytes: &Bytes) -> bool {
        self.agent.write(bytes).await.is_ok()
    }

    /// Closes the agent's connection; one whose request was not read to its end is read a little longer.
    async fn close(&mut self, read: bool) {
        if read {
            let _gone = poll_fn(|cx| self.agent.poll_shutdown(cx)).await;
        } else {
            // In either case it is over.
            let _late = timeout(REFUSED_BODY, self.agent.finish()).await;
        }
    }

    /// A refused request's body: what is kept of it, and whether that is all of it.
    async fn refused_body(&mut self, framing: Framing, most: usize) -> (Captured, bool) {
        let mut kept = Captured::default();
        let mut bytes = BytesMut::new();
        let mut body = Decoder::new(framing);
        let read = async {
            while !body.is_complete() && most > 0 {
                let seen = self.agent.read_body(&mut body, |data| {
                    kept.total += data.len() as u64;
                    let room = most.saturating_sub(bytes.len());
                    bytes.extend_from_slice(data.get(..room).unwrap_or(data));
                });
                if !matches!(seen.await, Ok(true)) || bytes.len() >= most {
                    return;
                }
            }
        };
        let _late = timeout(REFUSED_BODY, read).await;
        let whole = body.is_complete();
        kept.truncated = !whole || kept.total > bytes.len() as u64;
        kept.bytes = bytes.freeze();
        (kept, whole)
    }
}

/// Ends the origin's connection as the agent ended its own. One that takes nothing is not waited for.
async fn pass(origin: &mut Origin, how: Cut) {
    let _late = timeout(REFUSED_BODY, origin.wire.pass(how)).await;
}

fn gone() -> Failure {
    failure("agent", GONE, "the agent closed before the end".to_owned())
}

fn failure(blame: &str, code: &str, detail: String) -> Failure {
    Failure { blame: blame.to_owned(), code: code.to_owned(), detail }
}
