//! One stream of an agent's connection: judged, recorded, relayed, or answered by the gate.

use std::{
    future::poll_fn,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, client::SendRequest, ext::Protocol, server::SendResponse};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{HOST, SEC_WEBSOCKET_EXTENSIONS},
    request, uri,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    super::{Begun, Exchanger, GONE, OnConnection, Side, Tap, Underway},
    origins::{NoOrigin, Origins},
};
use crate::{
    audit::fit,
    drain::told,
    forward::ForwardError,
    http::{
        body::{End, describe},
        h2::{Broke, Incoming, See, Seen, ToAgent, ask},
        head::{BadTarget, version_str},
        refusal::Answer,
        serve::Limits,
    },
    model::{Captured, Failure},
    policy::{Permit, Scheme},
};

/// How long the body of a refused request is read, so that the agent gets to read the answer.
const REFUSED_BODY: Duration = Duration::from_secs(2);

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Over {
    /// The agent has its answer.
    Answered,
    /// The agent did not wait for it.
    Left,
    /// To be reset, once what was sent before has left.
    Reset(ToAgent, Reason),
}

/// What the streams of one connection share.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) exchanger: &'a Exchanger,
    pub(super) on: Arc<OnConnection>,
    pub(super) origins: Origins,
    pub(super) limits: Limits,
    pub(super) drain: watch::Receiver<bool>,
}

impl Shared<'_> {
    /// One request, from its head to the end of its answer.
    pub(super) async fn stream(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Over {
        let (head, body) = request.into_parts();
        let mut body = Incoming::from(body);
        let method = head.method.clone();
        match self.exchanger.begin(&self.on, head, |content| body.show(content)).await {
            Begun::Permitted(permit, underway) => {
                self.forward(permit, underway, body, respond, &method).await
            }
            Begun::Refused(refused) => {
                let body = refused_body(body, refused.wants_body()).await;
                say(respond, refused.answer(self.exchanger, body).await, &method)
            }
        }
    }

    async fn forward(
        &self,
        permit: Permit,
        underway: Underway,
        body: Incoming,
        mut respond: SendResponse<Bytes>,
        method: &Method,
    ) -> Over {
        let found = tokio::select! {
            biased;
            found = self.origins.get(&permit) => found,
            // The connection being made is not for this stream alone, and goes on.
            _reset = poll_fn(|cx| respond.poll_reset(cx)) => return Over::Left,
        };
        let (origin, flags) = match found {
            Ok(found) => found,
            Err(NoOrigin::Failed(error)) => return say(respond, underway.failed(&error), method),
            Err(NoOrigin::NotHttp2) => {
                // An agent that knows the code comes again in HTTP/1.1, and is offered that then.
                self.exchanger.forwarder.forget(permit.destination());
                let detail = "the origin does not speak HTTP/2 any more".to_owned();
                underway.fail(failure("origin", "http_1_1_required", detail));
                return Over::Reset(ToAgent::Unanswered(respond), Reason::HTTP_1_1_REQUIRED);
            }
        };
        underway.flag(flags);
        let (head, destination, _) = permit.into_parts();
        let websocket = head.extensions.get::<Protocol>().is_some();
        if websocket && !origin.is_extended_connect_protocol_enabled() {
            let error = ForwardError::Http("it takes no Extended CONNECT".to_owned());
            return say(respond, underway.failed(&error), method);
        }
        let offered = websocket.then(|| extensions(&head.headers).cloned().collect());
        let request = match outgoing(head, destination.scheme) {
            Ok(request) => request,
            Err(error) => return say(respond, underway.failed(&error.into()), method),
        };
        let relayed = self.relay(&underway, origin, request, body, respond, (method, offered));
        if !websocket {
            return relayed.await;
        }
        let mut drain = self.drain.clone();
        let stopped = async {
            told(&mut drain).await;
            sleep(self.limits.grace).await;
        };
        tokio::select! {
            over = relayed => over,
            () = stopped => {
                underway.fail(failure("gate", "drained", "the gate was stopped".to_owned()));
                Over::Left
            }
        }
    }

    async fn relay(
        &self,
        underway: &Underway,
        origin: SendRequest<Bytes>,
        request: Request<()>,
        body: Incoming,
        respond: SendResponse<Bytes>,
        (method, offered): (&Method, Option<Vec<HeaderValue>>),
    ) -> Over {
        let up = tell(underway.tap(Side::Request));
        let mut asking = match ask(origin, request, body, respond, self.limits.idle, up) {
            Ok(asking) => asking,
            Err((error, respond)) => {
                let error = ForwardError::Http(describe(&error));
                return say(respond, underway.failed(&error), method);
            }
        };
        let (head, body) = match asking.answer().await {
            Ok(answer) => answer.into_parts(),
            Err(broke) => return unanswered(underway, &broke, asking.into_agent(), method),
        };
        if let (Some(offered), true) = (offered, head.status.is_success()) {
            let chosen = extensions(&head.headers).map(HeaderValue::as_bytes);
            underway.switched(offered.iter().map(HeaderValue::as_bytes), chosen);
        }
        let fields = fit::headers(&head.headers);
        underway.answered(head.status.as_u16(), version_str(Version::HTTP_2), fields);
        let mut answering = match asking.pass(head, body, tell(underway.tap(Side::Response))) {
            Ok(answering) => answering,
            Err(_left) => return Over::Left,
        };
        match answering.finish().await {
            // Dropped with all of its answer sent, a stream is reset with NO_ERROR if its request is not over.
            Ok(None | Some(Reason::NO_ERROR)) => Over::Answered,
            Ok(Some(reason)) => Over::Reset(ToAgent::Answered(answering.into_agent()), reason),
            Err(Broke::Agent(_)) => Over::Left,
            Err(broke) => {
                if let Broke::AgentSilent(_) = &broke {
                    underway.fail(ForwardError::AgentBody(broke.to_string()).failure());
                } else if let Broke::Stopped = &broke {
                    // The reset is what the agent is told by.
                    drop(underway.stopped(true));
                }
                Over::Reset(ToAgent::Answered(answering.into_agent()), broke.reason())
            }
        }
    }
}

/// What follows from an end before the answer's head: the origin's own words, or ours.
fn unanswered(underway: &Underway, broke: &Broke, respond: SendResponse<Bytes>, method: &Method) -> Over {
    let error = match broke {
        Broke::Agent(reason) => {
            let detail = format!("the agent reset the stream: {reason}");
            underway.fail(failure("agent", GONE, detail));
            return Over::Left;
        }
        Broke::Stopped => return say(respond, underway.stopped(false), method),
        Broke::AgentSilent(_) => ForwardError::AgentBody(broke.to_string()),
        Broke::OriginSilent(idle) => ForwardError::ResponseTimeout(*idle),
        Broke::Origin(_) | Broke::Unfit(_) => ForwardError::Http(broke.to_string()),
    };
    if broke.is_said_by_the_origin() {
        underway.fail(error.failure());
        return Over::Reset(ToAgent::Unanswered(respond), broke.reason());
    }
    say(respond, underway.failed(&error), method)
}

/// The extensions of a WebSocket.
fn extensions(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter()
}

/// Tells a tap of what passes.
fn tell(tap: Tap) -> Told {
    Told(Some(tap))
}

/// A tap until its body is over.
struct Told(Option<Tap>);

impl See for Told {
    fn see(&mut self, seen: Seen<'_>) -> ControlFlow<()> {
        match seen {
            Seen::Data(data) => {
                return self.0.as_mut().map_or(ControlFlow::Continue(()), |tap| tap.data(data));
            }
            Seen::End => drop(self.0.take().map(|tap| tap.end(End::Complete))),
            Seen::Failed(why) => drop(self.0.take().map(|tap| tap.end(End::Failed(why)))),
        }
        ControlFlow::Continue(())
    }

    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        self.0.as_mut().map_or(Poll::Ready(ControlFlow::Continue(())), |tap| tap.poll_last(cx))
    }
}

/// The judged head as it goes to the origin: as it came. Only where the agent named the host in `Host`
/// alone it is named in `:authority` too, as RFC 9113 8.3.1 asks of who passes a request on.
fn outgoing(head: request::Parts, scheme: Scheme) -> Result<Request<()>, BadTarget> {
    let mut request = Request::from_parts(head, ());
    *request.version_mut() = Version::HTTP_2;
    if request.uri().authority().is_none() {
        let host = request.headers().get(HOST).ok_or(BadTarget)?;
        let mut parts = uri::Parts::default();
        parts.scheme = Some(match scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
        parts.authority = Some(uri::Authority::try_from(host.as_bytes()).map_err(|_| BadTarget)?);
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BadTarget)?;
    }
    Ok(request)
}

/// Answers in the gate's words; who asked for the head alone gets no more (a body would be an error).
fn say(mut respond: SendResponse<Bytes>, answer: Answer, method: &Method) -> Over {
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(http::header::CONTENT_LENGTH, answer.body.len().into());
    let bodiless = answer.body.is_empty() || *method == Method::HEAD;
    let sent = respond
        .send_response(response, bodiless)
        .and_then(|mut stream| if bodiless { Ok(()) } else { stream.send_data(answer.body, true) });
    match sent {
        Ok(()) => Over::Answered,
        Err(_gone) => Over::Left,
    }
}

/// A refused request's body: what is kept of it for the record.
async fn refused_body(mut body: Incoming, most: usize) -> Captured {
    let mut kept = Captured::default();
    let mut bytes = BytesMut::new();
    let read = async {
        while bytes.len() < most {
            match body.data().await {
                Some(Ok(data)) => {
                    kept.total += data.len() as u64;
                    let room = most - bytes.len();
                    bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
                }
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        body.is_end_stream()
    };
    let whole = timeout(REFUSED_BODY, read).await.unwrap_or(false);
    kept.truncated = !whole || kept.total > bytes.len() as u64;
    kept.bytes = bytes.freeze();
    kept
}

fn failure(blame: &str, code: &str, detail: String) -> Failure {
    Failure { blame: blame.to_owned(), code: code.to_owned(), detail }
}
