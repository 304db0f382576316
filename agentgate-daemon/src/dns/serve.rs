//! The sockets of the server: who asks is looked up as a question comes in, and what cannot be told
//! apart gets nothing.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

use super::{Server, ask::Asker, message};
use crate::{
    audit::Entry,
    drain::told,
    kernel::{AgentEnd, since_boot_ns},
    listen::not_accepted,
    model::{Action, Failure, Flag, Flow, Kind, Record, SessionId, Severity, State, Timestamp, Verdict},
};

/// How long a connection may wait between questions (RFC 7766 6.2.3 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long a connection may last.
const TOTAL: Duration = Duration::from_secs(120);
/// How long an agent may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting pauses when the process has no more room for sockets.
const NO_ROOM: Duration = Duration::from_millis(100);
/// Bytes of datagrams that wait in a socket, as the kernel counts them: some five thousand questions.
const BUFFER: usize = 4 << 20;
/// How old the kernel's word of who asks from a port may be, in nanoseconds: it is renewed with each
/// question, and one that waited while the daemon was restarted is younger. After that the port may be
/// somebody else's.
const FRESH_NS: u64 = 60_000_000_000;
/// How long questions under way may take once the gate stops: less than what ends every task.
const GRACE: Duration = Duration::from_millis(1500);

impl Server {
    /// Answers datagrams until the drain. `netns` is the namespace of the socket where it is not the
    /// daemon's own.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket, netns: Option<u64>) {
        let door = match socket.local_addr() {
            Ok(at) => at.port(),
            Err(error) => return tracing::error!(%error, "a socket of the DNS server has no address"),
        };
        make_room(&socket);
        let socket = Arc::new(socket);
        let mut drain = self.drain.clone();
        let mut tasks = JoinSet::new();
        // One byte more than any question, so that a longer one is seen to be.
        let mut buffer = vec![0; message::LARGEST + 1];
        loop {
            let got = tokio::select! {
                got = socket.recv_from(&mut buffer) => got,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    report(ended);
                    continue;
                }
                () = told(&mut drain) => break,
            };
            let (length, peer) = match got {
                Ok(got) => got,
                Err(error) => {
                    // An ICMP error of an answer before, or no memory.
                    tracing::debug!(%error, "receiving a question");
                    continue;
                }
            };
            // At once: the agent's port may be another socket's as soon as this one is gone.
            let flow = match self.asker(AgentEnd { netns, peer, door }) {
                Ok(flow) => flow,
                Err(why) => {
                    self.keep(self.stranger("udp", why), &mut tasks).await;
                    continue;
                }
            };
            let session = SessionId(flow.session.to_string());
            let place = self.questions.clone().try_acquire_owned().ok().zip(self.shares.take(&session));
            let Some(place) = place else {
                self.keep(self.crowded(&flow, "udp"), &mut tasks).await;
                continue;
            };
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            let (server, socket) = (self.clone(), socket.clone());
            tasks.spawn(async move {
                let _place = place;
                server.datagram(&socket, peer, flow, &bytes).await;
            });
        }
        let rest = async { while tasks.join_next().await.is_some() {} };
        // What is cut off here asks again.
        let _cut_off = timeout(GRACE, rest).await;
    }

    async fn datagram(&self, socket: &UdpSocket, peer: SocketAddr, flow: Flow, bytes: &[u8]) {
        let Some(subject) = self.askers.subject(&flow).await else { return };
        let asker = Asker { flow, subject, transport: "udp", parent: None };
        match self.ask(bytes, &asker).await {
            Ok(Some(answer)) => {
                if let Err(error) = socket.send_to(&answer, peer).await {
                    tracing::debug!(%error, "sending an answer"); // the agent may be gone
                }
            }
            Ok(None) => {}
            Err(error) => {
                if let Some(more) = self.troubles.admit() {
                    tracing::error!(%error, more, "a question is not answered: it cannot be recorded");
                }
            }
        }
    }

    /// Who sent the last datagram from there; else why nobody knows.
    fn asker(&self, end: AgentEnd) -> Result<Flow, String> {
        match self.kernel.asker(end) {
            Ok(Some(flow)) if since_boot_ns().saturating_sub(flow.connected_ns) <= FRESH_NS => Ok(flow),
            Ok(Some(_)) => Err(format!("{} is a port from which an agent asked long ago", end.peer)),
            Ok(None) => Err(format!("{} asked without a redirect", end.peer)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Records what is refused beside the loop that receives: a slow disk is not to hold up everybody's
    /// questions. Only so many at once, then the loop waits all the same.
    async fn keep(self: &Arc<Self>, record: Option<Record>, tasks: &mut JoinSet<()>) {
        let Some(record) = record else { return };
        match self.notes.clone().try_acquire_owned() {
            Ok(place) => {
                let server = self.clone();
                tasks.spawn(async move {
                    let _place = place;
                    server.refused(record).await;
                });
            }
            Err(_) => self.refused(record).await,
        }
    }

    async fn refused(&self, record: Record) {
        if let Err(error) = self.audit.note(record).await {
            tracing::error!(%error, "a question was refused and could not be recorded");
        }
    }

    /// Serves connections until the drain. `netns` is the namespace of the listener where it is not the
    /// daemon's own.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, netns: Option<u64>) {
        let door = match listener.local_addr() {
            Ok(at) => at.port(),
            Err(error) => return tracing::error!(%error, "a socket of the DNS server has no address"),
        };
        let mut drain = self.drain.clone();
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    report(ended);
                    continue;
                }
                () = told(&mut drain) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // At once: the agent's port may be another connection's as soon as this one is gone.
                    let flow = self.kernel.take_flow(AgentEnd { netns, peer, door });
                    let why = match flow {
                        Ok(Some(flow)) if flow.connected_ns >= self.since_ns => {
                            tasks.spawn(self.clone().connection(stream, flow));
                            continue;
                        }
                        Ok(Some(_)) => {
                            format!("{peer} has the port of a connection made before the gate listened")
                        }
                        Ok(None) => format!("{peer} came to the DNS server without a redirect"),
                        Err(error) => error.to_string(),
                    };
                    reset(&stream);
                    drop(stream);
                    self.keep(self.stranger("tcp", why), &mut tasks).await;
                }
                Err(error) => not_accepted(&error, NO_ROOM).await,
            }
        }
        let rest = async { while tasks.join_next().await.is_some() {} };
        // What is cut off here connects again; its record says so.
        let _cut_off = timeout(GRACE, rest).await;
    }

    /// One connection: a record of its own, to which its questions belong.
    async fn connection(self: Arc<Self>, stream: TcpStream, flow: Flow) {
        let session = SessionId(flow.session.to_string());
        let place =
            self.connections.clone().try_acquire_owned().ok().zip(self.connection_shares.take(&session));
        let Some(_place) = place else {
            reset(&stream);
            if let Some(record) = self.crowded(&flow, "tcp") {
                self.refused(record).await;
            }
            return;
        };
        let Some(subject) = self.askers.subject(&flow).await else { return reset(&stream) };
        let mut record = Record::new(Kind::Flow, Timestamp::now());
        record.flow = Some(Arc::new(flow.clone()));
        record.subject = Some(subject.clone());
        record.protocol = "dns".to_owned();
        record.verdict = Some(Verdict {
            action: Action::Allow,
            rule: "gate:dns".to_owned(),
            reason: "the gate answers itself; each question is judged".to_owned(),
        });
        let mut entry = match self.audit.open(record).await {
            Ok(entry) => entry,
            Err(error) => {
                reset(&stream);
                return tracing::error!(%error, "refused: the audit log cannot be written");
            }
        };
        let asker = Asker { flow, subject, transport: "tcp", parent: Some(entry.id()) };
        let ended = match timeout(TOTAL, self.converse(stream, &asker, &mut entry)).await {
            Ok(ended) => ended,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        };
        match ended {
            Ok(()) => entry.finish(State::Done),
            Err(error) => {
                entry.record().failure = Some(Failure {
                    blame: "agent".to_owned(),
                    code: "connection_broke".to_owned(),
                    detail: error.to_string(),
                });
                entry.finish(State::Failed);
            }
        }
    }

    /// Questions, one after the other, until the agent stops or breaks the protocol.
    async fn converse(&self, mut stream: TcpStream, asker: &Asker, entry: &mut Entry) -> io::Result<()> {
        let mut drain = self.drain.clone();
        loop {
            let mut length = [0; 2];
            let first = tokio::select! {
                read = timeout(IDLE, stream.read(&mut length)) => read,
                () = told(&mut drain) => return Ok(()),
            };
            let read = match first {
                Ok(Ok(0)) | Err(_) => return Ok(()),
                Ok(read) => read?,
            };
            let rest = length.get_mut(read..).unwrap_or_default();
            timeout(IDLE, stream.read_exact(rest)).await??;
            let size = usize::from(u16::from_be_bytes(length));
            if size > message::LARGEST {
                return Err(io::Error::other(format!("a question of {size} bytes")));
            }
            let mut bytes = vec![0; size];
            timeout(IDLE, stream.read_exact(&mut bytes)).await??;
            entry.record().bytes_up += 2 + size as u64;
            let session = SessionId(asker.flow.session.to_string());
            let place = self.questions.clone().try_acquire_owned().ok().zip(self.shares.take(&session));
            let Some(_place) = place else {
                if let Some(record) = self.crowded(&asker.flow, "tcp") {
                    self.refused(record).await;
                }
                return Err(io::Error::other("too many questions at once"));
            };
            let answer = self.ask(&bytes, asker).await.map_err(io::Error::other)?;
            let Some((answer, size)) =
                answer.and_then(|answer| u16::try_from(answer.len()).ok().map(|size| (answer, size)))
            else {
                return Err(io::Error::other("not a question"));
            };
            let framed = [&size.to_be_bytes()[..], &answer].concat();
            timeout(PATIENCE, stream.write_all(&framed)).await??;
            entry.record().bytes_down += framed.len() as u64;
        }
    }

    /// A question or connection that nobody redirected. Anybody on the host can make such, so only some
    /// of a second are recorded one by one.
    fn stranger(&self, transport: &str, why: String) -> Option<Record> {
        let unseen = self.strangers.admit()?;
        let mut record = Record::new(Kind::Dns, Timestamp::now());
        record.state = State::Refused;
        record.protocol = "dns".to_owned();
        record.question =
            Some(crate::model::Question { transport: transport.to_owned(), ..Default::default() });
        record.verdict = Some(deny("invariant:unknown_flow", "who asks is not known"));
        record.times = unseen + 1;
        record.note = Some(why);
        Some(record)
    }

    /// A question or connection beyond what its session, or the gate as a whole, may have under way.
    fn crowded(&self, flow: &Flow, transport: &str) -> Option<Record> {
        let unseen = self.crowds.admit()?;
        let mut record = Record::new(Kind::Dns, Timestamp::now());
        record.state = State::Refused;
        record.protocol = "dns".to_owned();
        record.flow = Some(Arc::new(flow.clone()));
        record.question =
            Some(crate::model::Question { transport: transport.to_owned(), ..Default::default() });
        record.verdict = Some(deny("gate:too_many_questions", "too many questions are under way"));
        record.flags.push(Flag::new(
            "too_many_questions",
            Severity::Medium,
            "the share of one session is used up, or all places are taken",
        ));
        record.times = unseen + 1;
        Some(record)
    }
}

fn deny(rule: &str, reason: &str) -> Verdict {
    Verdict { action: Action::Deny, rule: rule.to_owned(), reason: reason.to_owned() }
}

/// A panic in a task ends that task only; it must not pass unseen.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a question panicked");
    }
}

/// What comes in while a question is looked up waits in the socket's buffer, and what does not fit is
/// lost without a trace but for the client's asking again.
fn make_room(socket: &UdpSocket) {
    // Beyond what the host allows everybody; without the capability as much as that.
    let made = set_socket_recv_buffer_size_force(socket, BUFFER)
        .or_else(|_| set_socket_recv_buffer_size(socket, BUFFER));
    if let Err(error) = made {
        tracing::debug!(%error, "the buffer of a socket of the DNS server stays small");
    }
}

/// Ends a connection with a reset, so that the agent learns of it at once.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "SO_LINGER");
    }
}
