//! One request: recorded, judged, forwarded, answered. The spine; every stage is called from here.

mod asked;
mod doh;
mod ending;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use tokio::time::timeout;

use self::{asked::Asked, ending::Ending};
use crate::{
    audit::{Audit, fit},
    forward::{Forwarder, Sent},
    http::{
        AgentBody,
        body::{End, Tee},
        gauge::Budget,
        head::{has_other_coding, to_agent, version_str},
        refusal::{self, Message},
    },
    model::{
        Action, Authority, Captured, Flag, Flow, Host, Kind, Record, RecordId, Refusal, RequestHead,
        ResponseHead, Severity, State, Subject, Timestamp, Verdict,
    },
    policy::{Given, Judgement, Permit, RequestContext, Scheme},
    reload::PolicyHandle,
    share::{Share, Shares},
};

/// What every exchange of a connection shares.
#[derive(Debug)]
pub struct OnConnection {
    /// Record of the flow.
    pub flow_id: RecordId,
    pub flow: Arc<Flow>,
    pub subject: Arc<Subject>,
    pub scheme: Scheme,
    /// The name in the ClientHello.
    pub sni: Option<Host>,
    /// The names that the DNS server gave the flow's address for, `None` where it never did.
    pub given: Option<Arc<[Host]>>,
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes kept of a request's body.
    pub request_bytes: usize,
    /// Bytes kept of a response's body.
    pub response_bytes: usize,
    /// Silence after which a body has failed.
    pub idle: Duration,
}

/// The stages that an exchange runs through.
#[derive(Debug)]
pub struct Exchanger {
    pub policy: PolicyHandle,
    pub audit: Audit,
    pub forwarder: Forwarder,
    pub limits: Limits,
    /// Memory for what is captured of all bodies under way.
    pub budget: Budget,
    /// Exchanges that one session may have under way.
    pub shares: Shares,
}

/// How long the body of a refused request is read, so that the agent gets to read the answer.
const REFUSED_BODY: Duration = Duration::from_secs(2);
/// How much of it is kept: refused requests cost an agent nothing, so they must cost the log little.
const REFUSED_BYTES: usize = 16 * 1024;

impl Exchanger {
    /// Answers `request`, one way or another. Dropping the future (the agent went away) records a
    /// cancellation.
    pub async fn run(&self, on: Arc<OnConnection>, request: Request<Incoming>) -> Response<AgentBody> {
        let clock = Instant::now();
        let (head, body) = request.into_parts();
        let asked = Asked { version: head.version, prefer_400: refusal::retries_403(&head.headers), clock };
        let record = opened(&on, &head);
        if let Some((refusal, host)) = unsupported(&head, on.flow.original.0.port()) {
            return self.refuse(&asked, record, refusal, host, head, body).await;
        }
        let context = RequestContext {
            original: on.flow.original.0,
            scheme: on.scheme,
            sni: on.sni.as_ref(),
            given: Given::of(on.given.as_deref()),
            subject: &on.subject,
        };
        match self.policy.current().judge(context, head) {
            Judgement::Deny { refusal, head, authority } => {
                self.refuse(&asked, record, refusal, authority, head, body).await
            }
            Judgement::Allow(permit) => match self.shares.take(&on.subject.session) {
                Some(share) => self.forward(&asked, &on, record, share, permit, body).await,
                None => {
                    let authority = Some(permit.destination().authority.clone());
                    let (head, ..) = permit.into_parts();
                    self.refuse(&asked, record, crowded(), authority, head, body).await
                }
            },
        }
    }

    async fn forward(
        &self,
        asked: &Asked,
        on: &Arc<OnConnection>,
        mut record: Record,
        share: Share,
        permit: Permit,
        body: Incoming,
    ) -> Response<AgentBody> {
        let authority = permit.destination().authority.clone();
        record.authority = Some(authority.clone());
        record.verdict = Some(permit.verdict().clone());
        record.flags.extend_from_slice(permit.flags());
        // Committed before anything of the request leaves: what cannot be recorded is not sent.
        let entry = match self.audit.open(record).await {
            Ok(entry) => entry,
            Err(error) => return asked.unrecorded(Some(&authority.host), &error.to_string()),
        };
        let ending = Ending::new(entry, share, on.clone());
        let sent = {
            let ending = ending.clone();
            let limits = self.limits;
            Tee::new(body, limits.request_bytes, self.budget.open(), limits.idle, move |ended| {
                ending.with(|parts| parts.request = Some(ended));
            })
        };
        match self.forwarder.send(&on.subject.session, on.flow_id, permit, sent).await {
            Ok(sent) => self.answer(asked, ending, sent),
            Err(error) => asked.failed(&authority.host, &ending, &error),
        }
    }

    /// Passes the origin's answer on, frame by frame.
    fn answer(&self, asked: &Asked, ending: Arc<Ending>, sent: Sent) -> Response<AgentBody> {
        let Sent { response, reuse, flags } = sent;
        let (mut head, body) = response.into_parts();
        ending.with(|parts| {
            parts.edit(|record| {
                record.flags.extend(flags);
                record.response = Some(ResponseHead {
                    status: head.status.as_u16(),
                    version: version_str(head.version).to_owned(),
                    headers: fit::headers(&head.headers),
                    body: Captured::default(),
                    first_byte_us: asked.elapsed_us(),
                });
            });
        });
        to_agent(&mut head, asked.version);
        let Limits { response_bytes, idle, .. } = self.limits;
        let body = Tee::new(body, response_bytes, self.budget.open(), idle, move |ended| {
            if ended.end == End::Complete {
                reuse.complete();
            }
            ending.with(|parts| parts.response = Some(ended));
        });
        Response::from_parts(head, Either::Right(body))
    }

    /// Records and words a refusal. The body is read for the record, within the capture's limit.
    async fn refuse(
        &self,
        asked: &Asked,
        mut record: Record,
        refusal: Refusal,
        authority: Option<Authority>,
        head: Parts,
        body: Incoming,
    ) -> Response<AgentBody> {
        let host = authority.as_ref().map(|a| a.host.clone());
        record.authority = authority;
        record.flags.extend(refusal.flags.iter().cloned());
        record.state = State::Refused;
        if let Some(request) = record.request.as_mut()
            && !head.headers.contains_key(http::header::EXPECT)
        {
            request.body = self.refused_body(body).await;
        }
        record.response = Some(ResponseHead {
            status: refusal.status,
            version: version_str(asked.version).to_owned(),
            first_byte_us: asked.elapsed_us(),
            ..ResponseHead::default()
        });
        record.verdict = Some(refusal.verdict.clone());
        let id = match self.audit.note(record).await {
            Ok(id) => id,
            Err(error) => {
                // Refused all the same; only the record is missing, and the log says so.
                tracing::error!(%error, rule = refusal.verdict.rule, "a refusal could not be recorded");
                return asked.unrecorded(host.as_ref(), &error.to_string());
            }
        };
        asked.say(
            host.as_ref(),
            &Message {
                status: refusal.status,
                reason: &refusal.verdict.reason,
                rule: &refusal.verdict.rule,
                remedy: &refusal.remedy,
                retry: false,
                record: Some(id),
            },
        )
    }

    async fn refused_body(&self, mut body: Incoming) -> Captured {
        let mut kept = Captured::default();
        let mut bytes = bytes::BytesMut::new();
        let most = self.limits.request_bytes.min(REFUSED_BYTES);
        let read = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let Some(data) = frame.data_ref() else { continue };
                kept.total += data.len() as u64;
                let room = most.saturating_sub(bytes.len());
                bytes.extend_from_slice(data.get(..room).unwrap_or(data));
                if room <= data.len() {
                    return false;
                }
            }
            true
        };
        let whole = timeout(REFUSED_BODY, read).await.unwrap_or(false);
        kept.truncated = !whole;
        kept.bytes = bytes.freeze();
        kept
    }
}

/// The record of a request as it came.
fn opened(on: &OnConnection, head: &Parts) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp::now());
    record.parent = Some(on.flow_id);
    record.subject = Some(on.subject.clone());
    record.flow = Some(on.flow.clone());
    record.protocol = if head.version == http::Version::HTTP_2 { "http/2" } else { "http/1" }.to_owned();
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    record.request = Some(RequestHead {
        method: head.method.to_string(),
        scheme: on.scheme.as_str().to_owned(),
        target: fit::target(target),
        version: version_str(head.version).to_owned(),
        headers: fit::headers(&head.headers),
        body: Captured::default(),
    });
    record.flags.extend(doh::flag(head));
    record
}

/// What the gate does not carry: tunnels inside the tunnel, and protocol switches, of which it could
/// record nothing. 426 makes clients that can do without a WebSocket fall back to HTTP.
fn unsupported(head: &Parts, port: u16) -> Option<(Refusal, Option<Authority>)> {
    let refusal = if head.method == http::Method::CONNECT {
        Refusal { status: 405, ..gate_refusal("connect_inside", "CONNECT is not carried through the gate") }
    } else if head.headers.contains_key(http::header::UPGRADE) && !is_h2c_offer(head) {
        let reason = "a switch of protocol (WebSocket) is not carried through the gate; use plain HTTP";
        Refusal { status: 426, ..gate_refusal("upgrade", reason) }
    } else if has_other_coding(&head.headers) {
        let reason = "a transfer coding other than chunked is not carried through the gate";
        Refusal { status: 501, ..gate_refusal("transfer_coding", reason) }
    } else {
        return None;
    };
    let host =
        head.uri.host().or_else(|| head.headers.get(http::header::HOST)?.to_str().ok()?.split(':').next());
    let authority = host.and_then(|host| Host::parse(host).ok()).map(|host| Authority { host, port });
    Some((refusal, authority))
}

/// The session has its share of exchanges under way.
fn crowded() -> Refusal {
    let reason = "the session has too many requests under way";
    Refusal { status: 429, ..gate_refusal("too_many_exchanges", reason) }
}

fn gate_refusal(rule: &str, reason: &str) -> Refusal {
    Refusal {
        verdict: Verdict { action: Action::Deny, rule: format!("gate:{rule}"), reason: reason.to_owned() },
        flags: vec![Flag::new(rule, Severity::Medium, reason)],
        status: 403,
        remedy: String::new(),
    }
}

/// An offer of HTTP/2 that a server is free to ignore (RFC 7540 3.2): curl sends it on plain HTTP.
fn is_h2c_offer(head: &Parts) -> bool {
    head.headers
        .get_all(http::header::UPGRADE)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}
