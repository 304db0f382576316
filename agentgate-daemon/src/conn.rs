//! One connection: known, sniffed, judged, and then intercepted, tunnelled or refused. The spine;
//! every stage is called from here, and every way out leaves one record.

mod counted;
mod facts;
mod tunnelled;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use self::counted::{Counted, Counts};
use crate::{
    audit::{AuditError, Entry, fit},
    dns::Answers,
    exchange::{Exchanger, OnConnection, http1::Http1Error, http2::Http2Error},
    forward::First,
    http::{body::describe, serve},
    kernel::Kernel,
    listen::{Accepted, Place},
    model::{
        Action, Authority, Failure, Flag, Flow, Host, Kind, Record, SessionId, Severity, State, Subject,
        Timestamp, Verdict,
    },
    policy::{Admission, Connection, Given, ReachPermit, Scheme, Sniffed as Judged},
    session::{self, Sessions},
    share::{Few, Share, Shares},
    sniff::{self, Deadlines, Replayed, SniffError, Sniffed},
    socket::{Ahead, OverTcp, reset},
    tls::{AgentAlpn, AgentTls, AgentTlsError, Alpn, Heard, Listened, Offer, Watch, agent::alert, pinned},
};

/// The stages that a connection runs through.
pub struct Stages {
    pub kernel: Arc<dyn Kernel>,
    pub sessions: Arc<Sessions>,
    /// What the DNS server told each session.
    pub answers: Arc<Answers>,
    pub agent_tls: AgentTls,
    pub exchanger: Arc<Exchanger>,
    pub sniff: Deadlines,
    pub serve: serve::Limits,
    pub drain: watch::Receiver<bool>,
    /// How long a tunnel may go on once the gate is told to stop: less than what ends every task,
    /// so that its record says how much passed.
    pub grace: Duration,
    /// How long an agent may take nothing of what it is sent.
    pub patience: Duration,
    /// Connections that one session may have.
    pub shares: Shares,
    /// When the listener was bound, in nanoseconds since boot.
    pub since_ns: u64,
    /// Who does not accept the gate's certificate.
    pub pinned: Arc<Watch>,
    /// Keeps connections that nobody redirected from filling the log.
    pub strangers: Few,
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

/// `access_denied` (RFC 8446 6.2): the agent's client says so in its error.
const ACCESS_DENIED: u8 = 49;
/// `unrecognized_name` (RFC 6066 3): no name, or not a valid one.
const UNRECOGNIZED_NAME: u8 = 112;

/// How a connection ended, for its record.
struct Ended {
    state: State,
    failure: Option<Failure>,
}

impl Ended {
    fn into_record(self, record: &mut Record, counts: &Counts) {
        record.state = self.state;
        record.bytes_up = counts.up.load(Ordering::Relaxed);
        record.bytes_down = counts.down.load(Ordering::Relaxed);
        record.failure = self.failure;
    }

    fn done() -> Self {
        Self { state: State::Done, failure: None }
    }

    fn failed(state: State, blame: &str, code: &str, detail: String) -> Self {
        Self { state, failure: Some(Failure { blame: blame.into(), code: code.into(), detail }) }
    }
}

/// A connection as it is carried through the stages.
struct Carried {
    flow: Arc<Flow>,
    subject: Arc<Subject>,
    /// Filled in on the way; written when the judgement is known, before anything leaves.
    record: Record,
}

/// A connection whose requests can be read.
struct Prepared {
    entry: Entry,
    tls: Result<Box<TlsStream<Ahead<Replayed<Counted>>>>, AgentTlsError>,
    first: First,
}

/// Whose requests are read.
struct Whose {
    flow: Arc<Flow>,
    subject: Arc<Subject>,
    /// The names that the flow's address was given for.
    given: Option<Arc<[Host]>>,
}

impl Stages {
    /// Carries one accepted connection to its end.
    pub async fn run(self: Arc<Self>, accepted: Accepted) {
        let Accepted { stream, end, .. } = &accepted;
        let peer = end.peer;
        // At once: the agent's port may be another connection's as soon as this one is gone.
        let flow = self.kernel.take_flow(*end);
        // Without it small writes wait for an acknowledgement, up to 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY"); // only a connection that is gone already
        }
        let flow = match flow {
            // Left over from when nobody listened: whoever uses that port now is somebody else.
            Ok(Some(flow)) if flow.connected_ns < self.since_ns => {
                let why = format!("{peer} has the port of a connection made before the gate listened");
                return Box::pin(self.unknown(accepted.stream, why)).await;
            }
            Ok(Some(flow)) => flow,
            Ok(None) => {
                let why = format!("{peer} reached the listener without a redirect");
                return Box::pin(self.unknown(accepted.stream, why)).await;
            }
            Err(error) => return Box::pin(self.unknown(accepted.stream, describe(&error))).await,
        };
        // Whatever becomes of it, it ends on record or declared as lost.
        let _taken = self.exchanger.audit.books().take(&flow);
        let started = Timestamp::now();
        let Some(subject) = self.who(&flow).await else { return reset(&accepted.stream) };
        let flow = Arc::new(flow);
        let mut record = Record::new(Kind::Flow, started);
        record.authority =
            Some(Authority { host: Host::from(flow.original.0.ip()), port: flow.original.0.port() });
        record.flow = Some(flow.clone());
        record.flags.extend(session::privileged(&subject));
        record.subject = Some(subject.clone());
        record.protocol = "unknown".to_owned();
        let Some((stream, _place, _share)) = self.place(accepted, &subject).await else {
            return Box::pin(self.crowded(record)).await;
        };

        let counts = Counts::default();
        let stream = Counted::new(stream, counts.clone(), self.patience);
        let port = flow.original.0.port();
        let carried = Carried { flow, subject, record };
        match sniff::sniff(stream, self.sniff.at(port)).await {
            Ok(sniffed) => Box::pin(self.judge(carried, sniffed, &counts)).await,
            Err((error, stream)) => Box::pin(self.unreadable(carried.record, &error, stream, &counts)).await,
        }
    }

    /// Procfs is read off the runtime's threads: an agent can make that slow for itself only.
    async fn who(&self, flow: &Flow) -> Option<Arc<Subject>> {
        if let Some(subject) = self.sessions.recent(flow) {
            return Some(subject);
        }
        let (sessions, flow) = (self.sessions.clone(), flow.clone());
        let found = spawn_blocking(move || sessions.fresh(&flow, fit::subject));
        match found.await {
            Ok(subject) => Some(subject),
            Err(error) => {
                tracing::error!(%error, "reading who acts");
                None
            }
        }
    }

    /// A place among all connections and in the session's share, waited for no longer than a sniff.
    async fn place(&self, accepted: Accepted, subject: &Subject) -> Option<(TcpStream, Place, Share)> {
        let share = self.shares.take(&subject.session)?;
        let place = timeout(self.sniff.total, accepted.places.acquire_owned()).await.ok()?.ok()?;
        Some((accepted.stream, Place { _waiting: accepted.waiting, _place: place }, share))
    }

    async fn judge(&self, carried: Carried, sniffed: Sniffed<Counted>, counts: &Counts) {
        let Carried { flow, subject, mut record } = carried;
        let Sniffed { kind, stream } = sniffed;
        record.protocol = kind.as_str().to_owned();
        let judged = match &kind {
            sniff::Kind::Tls(hello) => Judged::Tls { sni: hello.server_name.as_ref(), ech: hello.ech },
            sniff::Kind::Http1 | sniff::Kind::Http2 => Judged::Http,
            sniff::Kind::Other => Judged::Opaque,
            sniff::Kind::Silent => Judged::Silent,
        };
        if let sniff::Kind::Tls(hello) = &kind {
            record.tls = Some(Box::new(facts::asked(hello)));
            if let Some(name) = &hello.server_name {
                record.authority = Some(Authority { host: name.clone(), port: flow.original.0.port() });
            }
        }
        let given = self.answers.given(&subject.session, flow.original.0.ip());
        let connection = Connection {
            original: flow.original.0,
            sniffed: judged,
            given: Given::of(given.as_deref()),
            subject: &subject,
        };
        match self.exchanger.policy.current().admit(&connection) {
            Admission::Deny(refusal) => {
                record.flags.extend(refusal.flags);
                record.verdict = Some(refusal.verdict);
                self.note(record, Ended { state: State::Refused, failure: None }, counts).await;
                Box::pin(turn_away(&kind, stream)).await;
            }
            Admission::Tunnel(permit) => {
                record.verdict = Some(permit.verdict().clone());
                record.flags.extend_from_slice(permit.flags());
                // On disk before a byte leaves: whom it talks to, and why it may.
                match Box::pin(self.exchanger.audit.open(record)).await {
                    Ok(mut entry) => {
                        let opaque = matches!(kind, sniff::Kind::Other | sniff::Kind::Silent);
                        let ended = Box::pin(self.tunnel(&mut entry, permit, stream, counts, opaque)).await;
                        end(entry, ended, counts);
                    }
                    Err(error) => Box::pin(self.unrecorded(&error, &kind, stream)).await,
                }
            }
            Admission::Intercept(permit) => {
                let whose = Whose { flow, subject, given };
                Box::pin(self.intercept(whose, permit, record, kind, stream, counts)).await;
            }
        }
    }

    async fn intercept(
        &self,
        whose: Whose,
        permit: Option<ReachPermit>,
        record: Record,
        kind: sniff::Kind,
        stream: Replayed<Counted>,
        counts: &Counts,
    ) {
        let audit = &self.exchanger.audit;
        let Whose { flow, subject, given } = whose;
        let on = |flow_id, scheme, sni, offer| {
            Arc::new(OnConnection {
                flow_id,
                flow: flow.clone(),
                subject: subject.clone(),
                scheme,
                sni,
                offer,
                given,
            })
        };
        let (entry, ended) = match kind {
            sniff::Kind::Tls(hello) => {
                // A hello without a name is for the address that it was sent to.
                let host = hello.server_name.clone().unwrap_or_else(|| Host::from(flow.original.0.ip()));
                let offer = Offer::of(&hello.alpn);
                let session = &subject.session;
                let heard = Heard::new(self.pinned.clone(), session.clone(), host.clone());
                let Prepared { entry, tls, first } =
                    match Box::pin(self.prepare(session, &host, permit, offer, record, stream)).await {
                        Ok(prepared) => prepared,
                        Err(error) => {
                            return tracing::error!(%error, "refused: the audit log cannot be written");
                        }
                    };
                let mut entry = entry;
                let ended = match tls {
                    Ok(tls) => {
                        if let Some(facts) = entry.record().tls.as_mut() {
                            facts::settled(facts, tls.get_ref().1);
                            if let First::Dialled(dialled) = &first {
                                facts::dialled(facts, dialled);
                            }
                        }
                        let http2 = tls.get_ref().1.alpn_protocol() == Some(Alpn::Http2.name());
                        let on = on(entry.id(), Scheme::Https, hello.server_name, offer);
                        let ended =
                            Box::pin(self.serve(Listened::new(tls, heard.clone()), http2, on, first)).await;
                        entry.record().flags.extend(heard.ended());
                        ended
                    }
                    Err(error) => no_handshake(&mut entry, &error, &heard),
                };
                (entry, ended)
            }
            sniff::Kind::Http1 | sniff::Kind::Http2 => {
                let http2 = kind == sniff::Kind::Http2;
                let entry = match Box::pin(audit.open(record)).await {
                    Ok(entry) => entry,
                    Err(error) => return Box::pin(self.unrecorded(&error, &kind, stream)).await,
                };
                let on = on(entry.id(), Scheme::Http, None, Offer::None);
                let ended = Box::pin(self.serve(stream, http2, on, First::Nothing)).await;
                (entry, ended)
            }
            sniff::Kind::Other | sniff::Kind::Silent => {
                let ended =
                    Ended::failed(State::Refused, "gate", "not_http", "only HTTP can be intercepted".into());
                Box::pin(self.note(record, ended, counts)).await;
                return Box::pin(turn_away(&kind, stream)).await;
            }
        };
        end(entry, ended, counts);
    }

    /// Records the connection, reaches the origin where it may be reached, and completes the agent's
    /// handshake with what the origin speaks: at the same time where that is known, else in this order.
    /// Nothing leaves before the record is there.
    async fn prepare(
        &self,
        session: &SessionId,
        host: &Host,
        permit: Option<ReachPermit>,
        offer: Offer,
        record: Record,
        stream: Replayed<Counted>,
    ) -> Result<Prepared, AuditError> {
        let Exchanger { audit, forwarder, .. } = self.exchanger.as_ref();
        let Some(permit) = permit else {
            // All of it will be refused; the agent gets to read that in what it likes best.
            let alpn = AgentAlpn::AsAsked(offer);
            let (entry, tls) = tokio::join!(audit.open(record), self.agent_tls.accept(host, alpn, stream));
            return Ok(Prepared { entry: entry?, tls, first: First::Nothing });
        };
        let known = forwarder.known(&permit, offer);
        let reached = async {
            let entry = Box::pin(audit.open(record)).await?;
            let http1 = known.is_some_and(|alpn| alpn != Some(Alpn::Http2));
            Ok((entry, forwarder.reach(session, &permit, offer, http1).await))
        };
        if let Some(alpn) = known {
            let chosen = AgentAlpn::chosen(alpn);
            let (reached, tls) = tokio::join!(reached, self.agent_tls.accept(host, chosen, stream));
            let (entry, first) = reached?;
            return Ok(Prepared { entry, tls, first });
        }
        let (entry, first) = reached.await?;
        let alpn = match &first {
            First::Dialled(dialled) => AgentAlpn::chosen(dialled.alpn),
            First::Nothing | First::Pooled(_) | First::Failed(_) => AgentAlpn::AsAsked(offer),
        };
        let tls = self.agent_tls.accept(host, alpn, stream).await;
        Ok(Prepared { entry, tls, first })
    }

    async fn serve<S>(&self, stream: S, http2: bool, on: Arc<OnConnection>, first: First) -> Ended
    where
        S: AsyncRead + AsyncWrite + OverTcp + Unpin + Send + 'static,
    {
        if http2 {
            return match Box::pin(self.exchanger.http2(stream, on, first, self.serve, self.drain.clone()))
                .await
            {
                Ok(()) => Ended::done(),
                Err(error) => {
                    let (state, code) = match &error {
                        Http2Error::Bad(_) => (State::Refused, "bad_http"),
                        Http2Error::Flood(_) => (State::Refused, "flood"),
                        Http2Error::TooSlow(_) => (State::Failed, "too_slow"),
                        Http2Error::Broke(_) => (State::Failed, "connection_broke"),
                    };
                    Ended::failed(state, "agent", code, error.to_string())
                }
            };
        }
        match Box::pin(self.exchanger.http1(stream, on, first, self.serve, self.drain.clone())).await {
            Ok(()) => Ended::done(),
            Err(error) => {
                let (state, code) = match &error {
                    Http1Error::Bad(_) => (State::Refused, "bad_http"),
                    Http1Error::TooSlow(_) => (State::Failed, "too_slow"),
                    Http1Error::Broke(_) => (State::Failed, "connection_broke"),
                };
                Ended::failed(state, "agent", code, error.to_string())
            }
        }
    }

    /// A connection that no program redirected: nothing is known of it, so it is refused. Anybody on
    /// the host can make such, so only some of a second are recorded one by one.
    async fn unknown(&self, stream: TcpStream, why: String) {
        reset(&stream);
        drop(stream);
        let Some(unseen) = self.strangers.admit() else { return };
        let mut record = Record::new(Kind::Flow, Timestamp::now());
        record.state = State::Refused;
        record.protocol = "unknown".to_owned();
        record.verdict = Some(deny("invariant:unknown_flow", "the original destination is not known"));
        record.note = Some(match unseen {
            0 => why,
            more => format!("{why}; {more} more before it were not recorded one by one"),
        });
        if let Err(error) = Box::pin(self.exchanger.audit.note(record)).await {
            tracing::error!(%error, "an unknown flow was refused and could not be recorded");
        }
    }

    /// The session, or the gate as a whole, has as many connections as it may have.
    async fn crowded(&self, mut record: Record) {
        record.flags.push(Flag::new(
            "too_many_connections",
            Severity::Medium,
            "the share of one session is used up",
        ));
        record.verdict = Some(deny("gate:too_many_connections", "the session has too many connections open"));
        self.note(record, Ended { state: State::Refused, failure: None }, &Counts::default()).await;
    }

    async fn unreadable(&self, mut record: Record, error: &SniffError, stream: Counted, counts: &Counts) {
        stream.reset();
        let (state, code) = match error {
            SniffError::Stalled { .. } => (State::Refused, "stalled"),
            SniffError::Closed { .. } => (State::Cancelled, "closed_early"),
            SniffError::InvalidHello(_) => (State::Refused, "bad_client_hello"),
            SniffError::Io(_) => (State::Failed, "connection_broke"),
        };
        if state == State::Refused {
            record.verdict = Some(deny(&format!("invariant:{code}"), &error.to_string()));
        }
        if matches!(error, SniffError::InvalidHello(_)) {
            record.protocol = "tls".to_owned();
        }
        Box::pin(self.note(record, Ended::failed(state, "agent", code, error.to_string()), counts)).await;
    }

    /// Records a connection that is over before anything left.
    async fn note(&self, mut record: Record, ended: Ended, counts: &Counts) {
        ended.into_record(&mut record, counts);
        if let Err(error) = Box::pin(self.exchanger.audit.note(record)).await {
            tracing::error!(%error, "a refused connection could not be recorded");
        }
    }

    async fn unrecorded(&self, error: &AuditError, kind: &sniff::Kind, stream: Replayed<Counted>) {
        tracing::error!(%error, "refused: the audit log cannot be written");
        Box::pin(turn_away(kind, stream)).await;
    }
}

fn deny(rule: &str, reason: &str) -> Verdict {
    Verdict { action: Action::Deny, rule: rule.to_owned(), reason: reason.to_owned() }
}

fn end(entry: Entry, ended: Ended, counts: &Counts) {
    let state = ended.state;
    entry.finish_with(|record| {
        ended.into_record(record, counts);
        state
    });
}

fn no_handshake(entry: &mut Entry, error: &AgentTlsError, heard: &Heard) -> Ended {
    let refused = pinned::refusal(error).is_some();
    entry.record().flags.extend(heard.failed(error));
    let (code, detail) = if refused {
        ("agent_distrusts", format!("the agent does not accept the gate's certificate: {error}"))
    } else {
        ("agent_tls_failed", error.to_string())
    };
    Ended::failed(State::Failed, "agent", code, detail)
}

/// Refuses before HTTP: a TLS alert to a TLS client, a reset to any other.
async fn turn_away(kind: &sniff::Kind, stream: Replayed<Counted>) {
    let (_unread, mut stream) = stream.into_parts();
    match kind {
        sniff::Kind::Tls(hello) => {
            let description = if hello.server_name.is_none() { UNRECOGNIZED_NAME } else { ACCESS_DENIED };
            // The agent may be gone: there is nobody else to tell.
            let _gone = stream.write_all(&alert(description)).await;
            let _gone = stream.shutdown().await;
        }
        sniff::Kind::Http1 | sniff::Kind::Http2 | sniff::Kind::Other | sniff::Kind::Silent => stream.reset(),
    }
}
