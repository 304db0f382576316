//! One connection: known, sniffed, judged, and then intercepted, tunnelled or refused. The spine;
//! every stage is called from here, and every way out leaves one record.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

use crate::{
    audit::Entry,
    drain::told,
    exchange::{Exchanger, OnConnection},
    forward::ForwardError,
    http::{
        body::describe,
        serve::{self, Speaks},
    },
    kernel::Kernel,
    listen::Accepted,
    model::{
        Action, Authority, Failure, Flag, Flow, Host, Kind, Record, Refusal, Severity, State, Subject,
        Timestamp, Verdict,
    },
    policy::{Admission, Connection, Scheme, Sniffed as Judged},
    session::Sessions,
    sniff::{self, Deadlines, Replayed, SniffError, Sniffed},
    tls::{AgentTls, agent::alert},
};

/// The stages that a connection runs through.
pub struct Stages {
    pub kernel: Arc<dyn Kernel>,
    pub sessions: Arc<Sessions>,
    pub agent_tls: AgentTls,
    pub exchanger: Arc<Exchanger>,
    pub sniff: Deadlines,
    pub serve: serve::Limits,
    pub drain: watch::Receiver<bool>,
    /// How long a tunnel may go on once the gate is told to stop: less than what ends every task,
    /// so that its record says how much passed.
    pub grace: Duration,
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
/// `internal_error`: the gate could not go on.
const INTERNAL_ERROR: u8 = 80;

/// How a connection ended, for its record.
struct Ended {
    state: State,
    failure: Option<Failure>,
}

impl Ended {
    fn done() -> Self {
        Self { state: State::Done, failure: None }
    }

    fn failed(state: State, blame: &str, code: &str, detail: String) -> Self {
        Self { state, failure: Some(Failure { blame: blame.into(), code: code.into(), detail }) }
    }
}

impl Stages {
    /// Carries one accepted connection to its end.
    pub async fn run(self: Arc<Self>, accepted: Accepted) {
        let Accepted { stream, peer, place: _place } = accepted;
        // Without it small writes wait for an acknowledgement, up to 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY"); // only a connection that is gone already
        }
        let flow = match self.kernel.take_flow(peer) {
            Ok(Some(flow)) => flow,
            Ok(None) => {
                return self.unknown(stream, format!("{peer} reached the listener without a redirect")).await;
            }
            Err(error) => return self.unknown(stream, describe(&error)).await,
        };
        let subject = self.sessions.subject(&flow);
        let mut record = Record::new(Kind::Flow, Timestamp::now());
        record.authority =
            Some(Authority { host: Host::from(flow.original.0.ip()), port: flow.original.0.port() });
        record.flow = Some(flow.clone());
        record.subject = Some(subject.clone());

        let counts = Counts::default();
        let stream = Counted { inner: stream, counts: counts.clone() };
        let (entry, sniffed) =
            tokio::join!(self.exchanger.audit.open(record), sniff::sniff(stream, self.sniff));
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(%error, "refused: the audit log cannot be written");
                match sniffed {
                    Ok(Sniffed { kind: sniff::Kind::Tls(_), stream }) => {
                        alert_and_close(stream, INTERNAL_ERROR).await
                    }
                    Ok(Sniffed { stream, .. }) => reset(stream.into_parts().1),
                    Err((_, stream)) => reset(stream),
                }
                return;
            }
        };
        let ended = match sniffed {
            Ok(sniffed) => {
                entry.record().protocol = sniffed.kind.as_str().to_owned();
                self.judge(&mut entry, flow, subject, sniffed).await
            }
            Err((error, stream)) => unreadable(&mut entry, &error, stream).await,
        };
        let record = entry.record();
        record.bytes_up = counts.up.load(Ordering::Relaxed);
        record.bytes_down = counts.down.load(Ordering::Relaxed);
        record.failure = ended.failure;
        entry.finish(ended.state);
    }

    async fn judge(
        &self,
        entry: &mut Entry,
        flow: Flow,
        subject: Subject,
        sniffed: Sniffed<Counted>,
    ) -> Ended {
        let Sniffed { kind, stream } = sniffed;
        let judged = match &kind {
            sniff::Kind::Tls(hello) => Judged::Tls { sni: hello.server_name.as_ref(), ech: hello.ech },
            sniff::Kind::Http1 | sniff::Kind::Http2 => Judged::Http,
            sniff::Kind::Other => Judged::Opaque,
            sniff::Kind::Silent => Judged::Silent,
        };
        let connection = Connection { original: flow.original.0, sniffed: judged, subject: &subject };
        let admission = self.exchanger.policy.current().admit(&connection);
        if let sniff::Kind::Tls(hello) = &kind
            && let Some(name) = &hello.server_name
        {
            entry.record().authority = Some(Authority { host: name.clone(), port: flow.original.0.port() });
        }
        match admission {
            Admission::Deny(refusal) => refuse(entry, refusal, &kind, stream).await,
            Admission::Tunnel(permit) => {
                let record = entry.record();
                record.verdict = Some(permit.verdict().clone());
                record.flags.extend_from_slice(permit.flags());
                let tunnel = async {
                    let mut tunnel = self.exchanger.forwarder.tunnel(permit).await?;
                    record.flags.append(&mut tunnel.flags);
                    tunnel.carry(stream).await
                };
                let mut drain = self.drain.clone();
                let stopped = async {
                    told(&mut drain).await;
                    sleep(self.grace).await;
                };
                let done = tokio::select! {
                    done = tunnel => Some(done),
                    () = stopped => None,
                };
                done.map_or_else(
                    || Ended::failed(State::Failed, "gate", "drained", "the gate was stopped".into()),
                    |done| tunnelled(entry, done),
                )
            }
            Admission::Intercept => self.intercept(entry, flow, subject, kind, stream).await,
        }
    }

    async fn intercept(
        &self,
        entry: &mut Entry,
        flow: Flow,
        subject: Subject,
        kind: sniff::Kind,
        stream: Replayed<Counted>,
    ) -> Ended {
        let flow_id = entry.id();
        let on = |scheme, sni| Arc::new(OnConnection { flow_id, flow: flow.clone(), subject, scheme, sni });
        match kind {
            sniff::Kind::Tls(hello) => {
                // A hello without a name is for the address that it was sent to.
                let host = hello.server_name.clone().unwrap_or_else(|| Host::from(flow.original.0.ip()));
                let tls = match self.agent_tls.accept(&host, stream).await {
                    Ok(tls) => tls,
                    Err(error) => {
                        let (code, detail) = if error.is_distrust() {
                            let detail = format!("the agent does not trust the gate's certificate: {error}");
                            entry.record().flags.push(Flag::new(
                                "gate_not_trusted",
                                Severity::Medium,
                                detail.clone(),
                            ));
                            ("agent_distrusts", detail)
                        } else {
                            ("agent_tls_failed", error.to_string())
                        };
                        return Ended::failed(State::Failed, "agent", code, detail);
                    }
                };
                let speaks = match tls.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Speaks::Http2,
                    Some(_) | None => Speaks::Http1,
                };
                self.serve(tls, speaks, on(Scheme::Https, hello.server_name)).await
            }
            sniff::Kind::Http2 => self.serve(stream, Speaks::Http2, on(Scheme::Http, None)).await,
            sniff::Kind::Http1 => self.serve(stream, Speaks::Http1, on(Scheme::Http, None)).await,
            sniff::Kind::Other | sniff::Kind::Silent => {
                reset(stream.into_parts().1);
                Ended::failed(State::Failed, "gate", "not_http", "only HTTP can be intercepted".into())
            }
        }
    }

    async fn serve<S>(&self, stream: S, speaks: Speaks, on: Arc<OnConnection>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let exchanger = self.exchanger.clone();
        let exchange = move |request| {
            let (exchanger, on) = (exchanger.clone(), on.clone());
            async move { exchanger.run(on, request).await }
        };
        match serve::serve(stream, speaks, self.serve, self.drain.clone(), exchange).await {
            Ok(()) => Ended::done(),
            Err(error) if error.is_parse() || error.is_parse_too_large() => {
                Ended::failed(State::Refused, "agent", "bad_http", describe(&error))
            }
            Err(error) if error.is_timeout() => {
                Ended::failed(State::Failed, "agent", "too_slow", describe(&error))
            }
            Err(error) => Ended::failed(State::Failed, "agent", "connection_broke", describe(&error)),
        }
    }

    /// A connection that no program redirected: nothing is known of it, so it is refused.
    async fn unknown(&self, stream: TcpStream, why: String) {
        reset_tcp(&stream);
        drop(stream);
        let mut record = Record::new(Kind::Flow, Timestamp::now());
        record.state = State::Refused;
        record.protocol = "unknown".to_owned();
        record.verdict = Some(Verdict {
            action: Action::Deny,
            rule: "invariant:unknown_flow".to_owned(),
            reason: "the original destination is not known".to_owned(),
        });
        record.note = Some(why);
        if let Err(error) = self.exchanger.audit.note(record).await {
            tracing::error!(%error, "an unknown flow was refused and could not be recorded");
        }
    }
}

async fn refuse(entry: &mut Entry, refusal: Refusal, kind: &sniff::Kind, stream: Replayed<Counted>) -> Ended {
    let record = entry.record();
    record.flags.extend(refusal.flags);
    record.verdict = Some(refusal.verdict);
    match kind {
        sniff::Kind::Tls(hello) => {
            let description = if hello.server_name.is_none() { UNRECOGNIZED_NAME } else { ACCESS_DENIED };
            alert_and_close(stream, description).await;
        }
        sniff::Kind::Http1 | sniff::Kind::Http2 | sniff::Kind::Other | sniff::Kind::Silent => {
            reset(stream.into_parts().1);
        }
    }
    Ended { state: State::Refused, failure: None }
}

async fn unreadable(entry: &mut Entry, error: &SniffError, stream: Counted) -> Ended {
    let (state, code) = match error {
        SniffError::Stalled { .. } => (State::Refused, "stalled"),
        SniffError::Closed { .. } => (State::Cancelled, "closed_early"),
        SniffError::InvalidHello(_) => (State::Refused, "bad_client_hello"),
        SniffError::Io(_) => (State::Failed, "connection_broke"),
    };
    let record = entry.record();
    if state == State::Refused {
        record.verdict = Some(Verdict {
            action: Action::Deny,
            rule: format!("invariant:{code}"),
            reason: error.to_string(),
        });
    }
    record.protocol = if matches!(error, SniffError::InvalidHello(_)) { "tls" } else { "unknown" }.to_owned();
    reset(stream);
    Ended::failed(state, "agent", code, error.to_string())
}

fn tunnelled(entry: &mut Entry, done: Result<(), ForwardError>) -> Ended {
    match done {
        Ok(()) => Ended::done(),
        Err(ForwardError::Address(refusal)) => {
            let record = entry.record();
            record.flags.extend(refusal.flags.iter().cloned());
            record.verdict = Some(refusal.verdict.clone());
            Ended { state: State::Refused, failure: Some(ForwardError::Address(refusal).failure()) }
        }
        Err(error) => Ended { state: State::Failed, failure: Some(error.failure()) },
    }
}

async fn alert_and_close(stream: Replayed<Counted>, description: u8) {
    let (_unread, mut stream) = stream.into_parts();
    // The agent may be gone: there is nobody else to tell.
    let _gone = stream.write_all(&alert(description)).await;
    let _gone = stream.shutdown().await;
}

fn reset(stream: Counted) {
    reset_tcp(&stream.inner);
}

/// Makes the coming close a reset, so that the agent does not take it for an empty answer.
fn reset_tcp(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "SO_LINGER"); // only a connection that is gone already
    }
}

/// Bytes of a connection, on the wire.
#[derive(Clone, Debug, Default)]
struct Counts {
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

/// A stream that counts.
#[derive(Debug)]
struct Counted {
    inner: TcpStream,
    counts: Counts,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.counts.up.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl Counted {
    fn down(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = polled {
            self.counts.down.fetch_add(length as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.down(polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.down(polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
