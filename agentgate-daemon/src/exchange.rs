//! One request: judged, recorded, forwarded, answered. The spine; every stage is called from here.
//!
//! What HTTP/1.1 and HTTP/2 have in common is here: what happens to a request before any of it leaves,
//! and what is said of it. How its bytes are moved differs, and is in [`http1`] and [`http2`].

mod asked;
mod doh;
pub mod http1;
pub mod http2;
mod seen;
mod talk;
mod tap;
mod underway;
mod whole;

use std::sync::Arc;

use bytes::BytesMut;
use http::request::Parts;

pub use asked::Asked;
pub use tap::Tap;
pub use underway::{GONE, Side, Underway};

use self::whole::Wanted;
use crate::{
    audit::{Audit, fit},
    forward::Forwarder,
    http::{
        gauge::Budget,
        h1::RawHead,
        head::version_str,
        refusal::{Answer, Message},
    },
    model::{
        Action, Authority, Captured, Flag, Flow, Host, Kind, Record, RecordId, Refusal, RequestHead,
        ResponseHead, Severity, State, Subject, Timestamp, Verdict,
    },
    policy::{BodyFacts, Given, Judgement, Permit, RequestContext, Scheme},
    reload::PolicyHandle,
    share::Shares,
    tls::Offer,
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
    /// What the ClientHello offered by ALPN.
    pub offer: Offer,
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

/// How much of a refused request's body is kept: refused requests cost an agent nothing, so they must cost
/// the log little.
const REFUSED_BYTES: usize = 16 * 1024;

/// A request after its judgement.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are permitted, and it is moved once")]
pub enum Begun {
    /// It may go on, and that is on record. Nothing of it has left.
    Permitted(Permit, Underway),
    /// It may not, or could not be recorded.
    Refused(Box<Refused>),
}

/// A request that the gate answers itself.
#[derive(Debug)]
pub struct Refused {
    asked: Asked,
    host: Option<Host>,
    why: Why,
    /// The agent waits for leave to send its body.
    expects_continue: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "in a box with all of its refusal")]
enum Why {
    /// Not on record yet.
    Refusal(Record, Refusal),
    /// There is nothing to be recorded.
    Said(Answer),
}

impl Refused {
    /// How much of its body is to be read for the record; 0 where none of it is to be waited for.
    #[must_use]
    pub fn wants_body(&self) -> usize {
        match &self.why {
            Why::Refusal(..) if !self.expects_continue => REFUSED_BYTES,
            Why::Refusal(..) | Why::Said(_) => 0,
        }
    }

    /// Records the refusal, with what was read of the body, and words it.
    pub async fn answer(self, exchanger: &Exchanger, body: Captured) -> Answer {
        let Self { asked, host, why, .. } = self;
        let (mut record, refusal) = match why {
            Why::Refusal(record, refusal) => (record, refusal),
            Why::Said(answer) => return answer,
        };
        if let Some(request) = record.request.as_mut() {
            request.body = body;
        }
        record.response = Some(ResponseHead {
            status: refusal.status,
            version: version_str(asked.version).to_owned(),
            first_byte_us: asked.elapsed_us(),
            ..ResponseHead::default()
        });
        let id = match exchanger.audit.note(record).await {
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
}

impl Exchanger {
    /// Judges a request by its head, and where it may go on puts it on record, with its body if all of that
    /// is `there` to be shown already: where what is recorded has to be durable before the last of a request
    /// leaves, it need not be waited for again. Dropping what comes back (the agent went away) records a
    /// cancellation.
    pub async fn begin(
        &self,
        on: &Arc<OnConnection>,
        head: Parts,
        there: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool,
    ) -> Begun {
        let asked = Asked::of(&head);
        let mut record = opened(on, &head);
        let expects_continue = head.headers.contains_key(http::header::EXPECT);
        let refused = |mut record: Record, refusal: Refusal, authority: Option<Authority>| {
            let host = authority.as_ref().map(|a| a.host.clone());
            record.authority = authority;
            record.flags.extend(refusal.flags.iter().cloned());
            record.state = State::Refused;
            record.verdict = Some(refusal.verdict.clone());
            Begun::Refused(Box::new(Refused {
                asked,
                host,
                why: Why::Refusal(record, refusal),
                expects_continue,
            }))
        };
        if let Some((refusal, authority)) = unsupported(&head, on.flow.original.0.port()) {
            return refused(record, refusal, authority);
        }
        let codings = whole::codings(&head.headers);
        let undecodable = codings.as_ref().err().map(ToString::to_string);
        let context = RequestContext {
            original: on.flow.original.0,
            scheme: on.scheme,
            sni: on.sni.as_ref(),
            given: Given::of(on.given.as_deref()),
            subject: &on.subject,
            body: BodyFacts { most: self.limits.request_bytes as u64, undecodable: undecodable.as_deref() },
        };
        let permit = match self.policy.current().judge(context, head) {
            Judgement::Deny { refusal, authority, .. } => return refused(record, refusal, authority),
            Judgement::Allow(permit) => permit,
        };
        let authority = permit.destination().authority.clone();
        let Some(share) = self.shares.take(&on.subject.session) else {
            return refused(record, crowded(), Some(authority));
        };
        let host = authority.host.clone();
        let wanted = Wanted::new(permit.inspection(), codings.unwrap_or_default());
        record.authority = Some(authority);
        record.verdict = Some(permit.verdict().clone());
        record.flags.extend_from_slice(permit.flags());
        if let (true, Some(request)) = (self.audit.is_awaited(), record.request.as_mut()) {
            request.body = self.captured(there).unwrap_or_default();
        }
        // Before anything of the request leaves: what cannot be recorded is not sent.
        match self.audit.open(record).await {
            Ok(entry) => {
                let budget = self.budget.clone();
                Begun::Permitted(
                    permit,
                    Underway::new(entry, share, on.clone(), asked, host, wanted, (self.limits, budget)),
                )
            }
            Err(error) => {
                let why = Why::Said(asked.unrecorded(Some(&host), &error.to_string()));
                Begun::Refused(Box::new(Refused { asked, host: Some(host), why, expects_continue }))
            }
        }
    }
}

impl Exchanger {
    /// A request's body, if all of it is `there`.
    fn captured(&self, there: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool) -> Option<Captured> {
        let (mut bytes, mut total) = (BytesMut::new(), 0);
        let whole = there(&mut |data| {
            total += data.len() as u64;
            let room = self.limits.request_bytes.saturating_sub(bytes.len());
            bytes.extend_from_slice(data.get(..room).unwrap_or(data));
        });
        whole.then(|| Captured { total, truncated: total > bytes.len() as u64, bytes: bytes.freeze() })
    }
}

/// The record of a request as it came.
fn opened(on: &OnConnection, head: &Parts) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp::now());
    record.parent = Some(on.flow_id);
    record.subject = Some(on.subject.clone());
    record.flow = Some(on.flow.clone());
    record.protocol = if head.version == http::Version::HTTP_2 { "http/2" } else { "http/1" }.to_owned();
    let raw = head.extensions.get::<RawHead>();
    let target = match raw {
        Some(raw) => raw.target(),
        None => head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
    };
    record.request = Some(RequestHead {
        method: head.method.to_string(),
        scheme: on.scheme.as_str().to_owned(),
        target: fit::target(target),
        version: version_str(head.version).to_owned(),
        headers: match raw {
            Some(raw) => fit::fields(raw.fields()),
            None => fit::headers(&head.headers),
        },
        body: Captured::default(),
    });
    record.flags.extend(doh::flag(head));
    record
}

/// What the gate does not carry: tunnels inside the tunnel, and switches to protocols of which it could
/// record nothing. WebSocket it knows, and an offer of HTTP/2 is left out on the way.
fn unsupported(head: &Parts, port: u16) -> Option<(Refusal, Option<Authority>)> {
    let refusal = if head.method == http::Method::CONNECT && head.uri.path_and_query().is_none() {
        Refusal { status: 405, ..gate_refusal("connect_inside", "CONNECT is not carried through the gate") }
    } else if !switches_to_known(head) || connects_to_unknown(head) {
        let reason = "a switch to another protocol than WebSocket is not carried through the gate";
        Refusal { status: 426, ..gate_refusal("upgrade", reason) }
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

/// True for an Extended CONNECT (RFC 8441) to anything but a WebSocket: MASQUE (RFC 9298, RFC 9484) leads
/// anywhere.
fn connects_to_unknown(head: &Parts) -> bool {
    head.extensions.get::<h2::ext::Protocol>().is_some_and(|protocol| protocol.as_str() != "websocket")
}

/// True where no switch is asked for but to WebSocket (RFC 6455), or to HTTP/2 (RFC 7540 3.2, which curl
/// asks for on plain HTTP, and any server may ignore).
fn switches_to_known(head: &Parts) -> bool {
    head.headers.get_all(http::header::UPGRADE).iter().all(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.all(|name| name.eq_ignore_ascii_case(b"websocket") || name.eq_ignore_ascii_case(b"h2c"))
    })
}
