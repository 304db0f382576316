//! One request: recorded, judged, forwarded, answered. The spine; every stage is called from here.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    audit::{Audit, Entry, redact},
    forward::{ForwardError, Forwarder, Sent},
    http::{
        AgentBody,
        body::{End, Tee},
        head::{to_agent, version_str},
        refusal::{self, Message},
    },
    model::{
        Action, Authority, Captured, Failure, Flag, Flow, Host, Kind, Record, RecordId, Refusal, RequestHead,
        ResponseHead, Severity, State, Subject, Timestamp, Verdict,
    },
    policy::{Judgement, Permit, RequestContext, Scheme},
    reload::PolicyHandle,
};

/// What every exchange of a connection shares.
#[derive(Debug)]
pub struct OnConnection {
    /// Record of the flow.
    pub flow_id: RecordId,
    pub flow: Flow,
    pub subject: Subject,
    pub scheme: Scheme,
    /// The name in the ClientHello.
    pub sni: Option<Host>,
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
}

/// How long the body of a refused request is read, so that the agent gets to read the answer.
const REFUSED_BODY: Duration = Duration::from_secs(2);

impl Exchanger {
    /// Answers `request`, one way or another. Dropping the future (the agent went away) records a
    /// cancellation.
    pub async fn run(&self, on: Arc<OnConnection>, request: Request<Incoming>) -> Response<AgentBody> {
        let clock = Instant::now();
        let (head, body) = request.into_parts();
        let asked = Asked { version: head.version, prefer_400: refusal::retries_403(&head.headers), clock };
        let record = opened(&on, &head);
        if let Some((refusal, host)) = unsupported(&head) {
            return self.refuse(&asked, record, refusal, host, head, body).await;
        }
        let context = RequestContext {
            original: on.flow.original.0,
            scheme: on.scheme,
            sni: on.sni.as_ref(),
            subject: &on.subject,
        };
        match self.policy.current().judge(context, head) {
            Judgement::Deny { refusal, head, authority } => {
                self.refuse(&asked, record, refusal, authority, head, body).await
            }
            Judgement::Allow(permit) => self.forward(&asked, &on, record, permit, body).await,
        }
    }

    async fn forward(
        &self,
        asked: &Asked,
        on: &OnConnection,
        mut record: Record,
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
        let ending = Arc::new(Ending(Mutex::new(Moving { entry: Some(entry), ..Moving::default() })));
        let sent = {
            let ending = ending.clone();
            Tee::new(body, self.limits.request_bytes, self.limits.idle, move |end, captured| {
                ending.with(|parts| parts.request = Some((end, captured)));
            })
        };
        match self.forwarder.send(&on.subject.session, permit, sent).await {
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
                    headers: redact::mask_headers(&head.headers),
                    body: Captured::default(),
                    first_byte_us: asked.elapsed_us(),
                });
            });
        });
        to_agent(&mut head, asked.version);
        let body = Tee::new(body, self.limits.response_bytes, self.limits.idle, move |end, captured| {
            if end == End::Complete {
                reuse.complete();
            }
            ending.with(|parts| parts.response = Some((end, captured)));
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
        let read = async {
            while let Some(Ok(frame)) = body.frame().await {
                let Some(data) = frame.data_ref() else { continue };
                kept.total += data.len() as u64;
                let room = self.limits.request_bytes.saturating_sub(bytes.len());
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
        target: redact::mask_target(target),
        version: version_str(head.version).to_owned(),
        headers: redact::mask_headers(&head.headers),
        body: Captured::default(),
    });
    record
}

/// What the gate does not carry: tunnels inside the tunnel, and protocol switches, of which it could
/// record nothing. 426 makes clients that can do without a WebSocket fall back to HTTP.
fn unsupported(head: &Parts) -> Option<(Refusal, Option<Authority>)> {
    let refuse = |rule: &str, status, reason: &str| Refusal {
        verdict: Verdict { action: Action::Deny, rule: format!("gate:{rule}"), reason: reason.to_owned() },
        flags: vec![Flag::new(rule, Severity::Medium, reason)],
        status,
        remedy: String::new(),
    };
    let refusal = if head.method == http::Method::CONNECT {
        refuse("connect_inside", 405, "CONNECT is not carried through the gate")
    } else if head.headers.contains_key(http::header::UPGRADE) && !is_h2c_offer(head) {
        refuse(
            "upgrade",
            426,
            "a switch of protocol (WebSocket) is not carried through the gate; use plain HTTP",
        )
    } else {
        return None;
    };
    let host =
        head.uri.host().or_else(|| head.headers.get(http::header::HOST)?.to_str().ok()?.split(':').next());
    let authority = host.and_then(|host| Host::parse(host).ok()).map(|host| Authority { host, port: 0 });
    Some((refusal, authority))
}

/// An offer of HTTP/2 that a server is free to ignore (RFC 7540 3.2): curl sends it on plain HTTP.
fn is_h2c_offer(head: &Parts) -> bool {
    head.headers
        .get_all(http::header::UPGRADE)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// What is needed of a request to answer it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    version: http::Version,
    prefer_400: bool,
    clock: Instant,
}

impl Asked {
    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn say(&self, host: Option<&Host>, message: &Message<'_>) -> Response<AgentBody> {
        refusal::response(host, self.prefer_400, message).map(Either::Left)
    }

    /// The store does not take records: nothing may leave.
    fn unrecorded(&self, host: Option<&Host>, error: &str) -> Response<AgentBody> {
        tracing::error!(error, "refused: the audit log cannot be written");
        self.say(
            host,
            &Message {
                status: 503,
                reason: "the audit log cannot be written, so nothing may leave",
                rule: "gate:audit_unavailable",
                remedy: "ask the host's administrator to look at `agentctl status`",
                retry: true,
                record: None,
            },
        )
    }

    /// The origin could not be reached or refused to be understood.
    fn failed(&self, host: &Host, ending: &Ending, error: &ForwardError) -> Response<AgentBody> {
        let (rule, remedy) = if let ForwardError::Address(refusal) = error {
            (refusal.verdict.rule.clone(), refusal.remedy.clone())
        } else {
            (format!("gate:{}", error.code()), String::new())
        };
        let reason = error.to_string();
        let record = ending.with(|parts| {
            parts.failure = Some(error.failure());
            parts.edit(|record| {
                if let ForwardError::Address(refusal) = error {
                    record.verdict = Some(refusal.verdict.clone());
                    record.flags.extend(refusal.flags.iter().cloned());
                }
                if let ForwardError::Certificate(_) = error {
                    record.flags.push(Flag::new(error.code(), Severity::High, reason.clone()));
                }
                record.response = Some(ResponseHead {
                    status: error.status(),
                    version: version_str(self.version).to_owned(),
                    first_byte_us: self.elapsed_us(),
                    ..ResponseHead::default()
                });
            });
            parts.entry.as_ref().map(Entry::id)
        });
        self.say(
            Some(host),
            &Message {
                status: error.status(),
                reason: &reason,
                rule: &rule,
                remedy: &remedy,
                retry: error.is_passing(),
                record,
            },
        )
    }
}

/// An exchange under way. Both bodies and the spine hold it; whoever lets go last writes the end of
/// the record, so an exchange ends once, and only when nothing of it is still moving.
#[derive(Debug)]
struct Ending(Mutex<Moving>);

#[derive(Debug, Default)]
struct Moving {
    entry: Option<Entry>,
    request: Option<(End, Captured)>,
    response: Option<(End, Captured)>,
    failure: Option<Failure>,
}

impl Moving {
    fn edit(&mut self, edit: impl FnOnce(&mut Record)) {
        if let Some(entry) = self.entry.as_mut() {
            edit(entry.record());
        }
    }
}

impl Ending {
    fn with<T>(&self, act: impl FnOnce(&mut Moving) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let parts = mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Moving { entry: Some(mut entry), request, response, failure } = parts else {
            return;
        };
        let record = entry.record();
        let broke = |blame: &str, code: &str, detail: String| {
            Some(Failure { blame: blame.to_owned(), code: code.to_owned(), detail })
        };
        let denied = record.verdict.as_ref().is_some_and(|verdict| verdict.action == Action::Deny);
        let (state, failure) = match (failure, &response) {
            (Some(failure), _) if denied => (State::Refused, Some(failure)),
            (Some(failure), _) => (State::Failed, Some(failure)),
            (None, Some((End::Complete, _))) => (State::Done, None),
            (None, Some((End::Failed(why), _))) => {
                (State::Failed, broke("origin", "origin_broke_off", why.clone()))
            }
            (None, Some((End::Dropped, _)) | None) => (
                State::Cancelled,
                broke("agent", "agent_went_away", "the agent closed before the end".to_owned()),
            ),
        };
        record.failure = failure;
        if let (Some(head), Some((_, captured))) = (record.request.as_mut(), request) {
            head.body = captured;
        }
        if let (Some(head), Some((_, captured))) = (record.response.as_mut(), response) {
            head.body = captured;
        }
        entry.finish(state);
    }
}
