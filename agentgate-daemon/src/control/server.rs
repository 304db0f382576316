//! The daemon's end of the sockets: one request per connection, and which request at which socket.
//!
//! Every connection is looked at before a byte of it is read: a peer in the guarded cgroup is refused
//! and recorded. Others are bounded in number, in bytes and in time. What a request means is `answer`'s.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    answer::{self, Asker, ControlContext},
    peer::Peer,
    places::{Full, Places},
    wire::{self, Envelope, ErrorCode, ErrorReply, LINE_CAP, Reply, Request},
};
use crate::kernel::Place;

/// How long a peer may take to accept one line. A pager that is not read on is cut off after this.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Time between attempts while accept(2) fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What peers may take up.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// How long a peer may take over its one line. agentctl needs a millisecond; a stopped one must not
    /// hold a place.
    read: Duration,
    /// Connections at a time, followers of the log among them.
    connections: usize,
    /// Of these, how many one user may have.
    of_one_user: usize,
    /// Refusals of guarded peers that are being recorded at a time. Beyond it the connection is dropped
    /// and counted, so that an agent that hammers the socket can neither fill the log's queue nor keep
    /// people out.
    refusals: usize,
}

const READ: Duration = Duration::from_secs(5);

/// The group is trusted to steer, and so not to take each other's places.
const STEERING: Bounds = Bounds { read: READ, connections: 64, of_one_user: 64, refusals: 4 };
/// Anybody may come here, and enrolment through systemd takes up to 5 s.
const ENROLMENT: Bounds = Bounds { read: READ, connections: 64, of_one_user: 16, refusals: 4 };

/// What a socket is for. Each has places of its own, so that whoever fills one keeps nobody from the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Every request.
    Steering,
    /// What anybody may ask: to be put under guard, and for the certificate to trust then.
    Enrolment,
}

impl Door {
    fn bounds(self) -> Bounds {
        match self {
            Self::Steering => STEERING,
            Self::Enrolment => ENROLMENT,
        }
    }

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steering => "control socket",
            Self::Enrolment => "enrolment socket",
        }
    }

    fn answers(self, request: &Request) -> bool {
        match request {
            Request::Enrol | Request::CaExport => true,
            Request::Status
            | Request::Logs { .. }
            | Request::Show { .. }
            | Request::Body { .. }
            | Request::PolicyReload
            | Request::ModeGet
            | Request::ModeSet { .. }
            | Request::ListEdit { .. }
            | Request::Dashboard
            | Request::AuditExport { .. }
            | Request::Reconcile { .. }
            | Request::Upkeep { .. }
            | Request::AuditVerify { .. }
            | Request::AuditProve { .. }
            | Request::AuditRotateKey
            | Request::Count { .. } => self == Self::Steering,
        }
    }
}

/// Serves until `drain` says true and the connections that are open then have had their answer.
/// Followers of the log are told the end. Needs no cancellation, but may be dropped at any time.
pub async fn serve(
    door: Door,
    listener: UnixListener,
    context: Arc<ControlContext>,
    drain: watch::Receiver<bool>,
) {
    serve_within(door, door.bounds(), listener, context, drain).await;
}

/// Returns when the drain says true, or when nobody is left who could.
pub(super) async fn draining(drain: &mut watch::Receiver<bool>) {
    // The guard that comes back must not be held across an await.
    let _guard_or_gone = drain.wait_for(|draining| *draining).await.is_ok();
}

async fn serve_within(
    door: Door,
    bounds: Bounds,
    listener: UnixListener,
    context: Arc<ControlContext>,
    mut drain: watch::Receiver<bool>,
) {
    let places = Places::new(bounds.connections, bounds.of_one_user);
    let refusals = Arc::new(Semaphore::new(bounds.refusals));
    let mut unrecorded: u64 = 0;
    let mut tasks = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = draining(&mut drain) => break,
            Some(ended) = tasks.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control: accept");
                    // Out of descriptors: nothing tells when there are some again, and accept(2) would
                    // fail at once until then.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let peer = Peer::of(&stream).and_then(|peer| Ok((peer.process.cgroup()?, peer)));
        let context = Arc::clone(&context);
        let (cgroup, peer) = match peer {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "control: unknown peer refused");
                refuse(stream, ErrorReply::new(ErrorCode::UnknownPeer, error.to_string()));
                continue;
            }
        };
        match context.guarded.place(&cgroup) {
            Place::Unknown => {
                tracing::warn!(
                    cgroup,
                    pid = peer.process.pid(),
                    "control: a peer that cannot be placed refused"
                );
                let message = format!("refused: whether cgroup {cgroup} is under guard cannot be told");
                refuse(stream, ErrorReply::new(ErrorCode::UnknownPeer, message));
            }
            Place::Inside => {
                let Ok(place) = Arc::clone(&refusals).try_acquire_owned() else {
                    unrecorded += 1;
                    continue;
                };
                let before = std::mem::take(&mut unrecorded);
                tasks.spawn(async move {
                    answer::note_guarded(&context, door, &Asker { peer, cgroup }, before).await;
                    refuse(stream, guarded());
                    drop(place);
                });
            }
            Place::Outside => {
                let place = match places.take(peer.uid) {
                    Ok(place) => place,
                    Err(full) => {
                        refuse(stream, busy(full, peer.uid));
                        continue;
                    }
                };
                let drain = drain.clone();
                tasks.spawn(async move {
                    connection(stream, &context, door, Asker { peer, cgroup }, bounds, drain).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "control: a connection's task failed");
    }
}

fn guarded() -> ErrorReply {
    ErrorReply::new(ErrorCode::Guarded, "refused: this process is under guard and may not steer the gate")
        .hint("ask from outside the agent's session")
}

fn busy(full: Full, uid: u32) -> ErrorReply {
    let message = match full {
        Full::All(places) => format!("more than {places} connections"),
        Full::Each(places) => format!("more than {places} connections of uid {uid}"),
    };
    ErrorReply::new(ErrorCode::Busy, message).hint("try again, or end some `agentctl logs -f`")
}

fn elsewhere(door: Door) -> ErrorReply {
    ErrorReply::new(ErrorCode::Unavailable, format!("the {} does not answer this", door.name()))
        .hint("ask at control.sock")
}

/// Says no. A peer that does not take one line at once goes without it: nothing waits for it here.
fn refuse(stream: UnixStream, error: ErrorReply) {
    if let (Ok(line), Ok(stream)) = (wire::encode(&Reply::Error(error)), stream.into_std()) {
        // Non-blocking still; an empty send buffer takes one short line whole.
        let _unread = io::Write::write(&mut &stream, &line);
    }
}

async fn connection(
    stream: UnixStream,
    context: &ControlContext,
    door: Door,
    asker: Asker,
    bounds: Bounds,
    drain: watch::Receiver<bool>,
) {
    let (read, write) = stream.into_split();
    let mut line = Line { read: BufReader::new(read), write };
    let request = match timeout(bounds.read, line.request()).await {
        Ok(Ok(Some(envelope))) if envelope.version == wire::VERSION => envelope.request,
        Ok(Ok(Some(envelope))) => {
            let message =
                format!("control protocol {}, the daemon speaks {}", envelope.version, wire::VERSION);
            let error =
                ErrorReply::new(ErrorCode::Version, message).hint("restart agentgated after an update");
            return line.last(Reply::Error(error)).await;
        }
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return line.last(Reply::Error(error)).await,
        Err(_) => {
            let error = ErrorReply::new(ErrorCode::Deadline, format!("no request within {:?}", bounds.read));
            return line.last(Reply::Error(error)).await;
        }
    };
    tracing::debug!(?door, ?request, peer = ?asker.peer, "control");
    if !door.answers(&request) {
        return line.last(Reply::Error(elsewhere(door))).await;
    }
    if let Err(error) = answer::answer(context, &Arc::new(asker), request, &mut line, drain).await {
        tracing::debug!(%error, "control: the peer went away");
    }
}

/// The line to one peer: its request, and the way back.
#[derive(Debug)]
pub(super) struct Line {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Line {
    /// One request; `None` where the peer ended without a byte, as the probe of a starting daemon does.
    async fn request(&mut self) -> Result<Option<Envelope>, ErrorReply> {
        let bad = |message: String| ErrorReply::new(ErrorCode::BadRequest, message);
        let mut line = Vec::new();
        let capped = (&mut self.read).take(LINE_CAP as u64 + 1).read_until(b'\n', &mut line).await;
        capped.map_err(|e| bad(e.to_string()))?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => wire::decode(&line).map(Some).map_err(|e| bad(e.to_string())),
            Some(_) if line.len() > LINE_CAP => Err(bad(format!("a line of more than {LINE_CAP} bytes"))),
            Some(_) => Err(bad("the request has no end".to_owned())),
        }
    }

    /// Sends one reply.
    ///
    /// # Errors
    /// When the peer is gone or does not take it within 10 s, and when the reply does not fit a line,
    /// which the peer is told.
    pub(super) async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let (line, fits) = match wire::encode(reply) {
            Ok(line) => (line, Ok(())),
            Err(error) => {
                let told = Reply::Error(ErrorReply::new(ErrorCode::Internal, error.to_string()));
                (wire::encode(&told).map_err(io::Error::other)?, Err(io::Error::other(error)))
            }
        };
        timeout(WRITE_DEADLINE, self.write.write_all(&line)).await??;
        fits
    }

    async fn last(&mut self, reply: Reply) {
        if let Err(error) = self.send(&reply).await {
            tracing::debug!(%error, "control: an answer was not taken");
        }
    }

    /// Returns when the peer has closed its end, or sent more than its one request, which counts as
    /// leaving. Cancel safe.
    pub(super) async fn closed(&mut self) {
        // Whatever it says, the wait is over.
        let _end = self.read.fill_buf().await;
    }
}

#[cfg(test)]
mod tests;
