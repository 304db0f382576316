//! What each request means, and the record of it.
//!
//! Whatever changes something, or shows what is masked elsewhere, is recorded first: where the audit log
//! cannot take the record, the request is refused.

use std::{
    fmt, fs,
    future::Future,
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::watch, task::spawn_blocking};

use super::{
    cut,
    enrol::{EnrolError, Enroller},
    export, follow,
    peer::Peer,
    proof,
    server::{Door, Line},
    steer, upkeep,
    wire::{
        AuditReport, BODY_CHUNK, Enrolled, ErrorCode, ErrorReply, GateReport, Hidden, Item, Payload, Reply,
        Request, StatusReport, to_hex,
    },
};
use crate::{
    audit::{Audit, redact},
    chain::Trust,
    export::mirror::Mirror,
    kernel::GuardedCgroup,
    model::{Failure, Flag, Kind, Record, RecordId, SessionId, Severity, State, Subject, Timestamp},
    reconcile::Reconciler,
    reload::PolicyHandle,
    store::{Side, Store},
};

/// What the control socket steers and shows.
#[derive(Clone)]
pub struct ControlContext {
    pub policy: PolicyHandle,
    pub audit: Audit,
    pub store: Arc<Store>,
    pub enroller: Arc<dyn Enroller>,
    /// The part of the status that is not policy's or the audit log's. Must not block.
    pub gate: Arc<dyn Fn() -> GateReport + Send + Sync>,
    /// `None` where nothing is mirrored.
    pub mirror: Option<Mirror>,
    /// The balance of the log with the kernel's counters; `None` where nobody keeps it.
    pub books: Option<Arc<Reconciler>>,
    /// Certificate of the gate's authority, PEM.
    pub ca_pem: Arc<str>,
    /// The trust bundle that an enrolled agent is pointed at.
    pub bundle: PathBuf,
    /// What an enrolled command is not to see.
    pub hidden: Hidden,
    /// `system_bundle` of `[run]`.
    pub system_bundle: bool,
    /// The guarded cgroup.
    pub guarded: GuardedCgroup,
    /// `None` where the dashboard is off.
    pub dashboard: Option<DashboardAccess>,
}

impl fmt::Debug for ControlContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlContext")
            .field("enroller", &self.enroller)
            .field("guarded", &self.guarded)
            .field("dashboard", &self.dashboard)
            .finish_non_exhaustive()
    }
}

/// How to reach the dashboard.
#[derive(Clone)]
pub struct DashboardAccess {
    pub listen: SocketAddr,
    /// Makes an address that logs in once.
    pub url: Arc<dyn Fn() -> io::Result<String> + Send + Sync>,
}

impl fmt::Debug for DashboardAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashboardAccess").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Who asks, from where.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) peer: Peer,
    /// Its cgroup when it connected.
    pub(super) cgroup: String,
}

/// Carries out `request` and sends what there is to say.
///
/// # Errors
/// When the peer cannot be told.
pub(super) async fn answer(
    context: &ControlContext,
    asker: &Arc<Asker>,
    request: Request,
    line: &mut Line,
    drain: watch::Receiver<bool>,
) -> io::Result<()> {
    let whole = match request {
        Request::Logs { filter, follow } => return follow::logs(context, filter, follow, line, drain).await,
        Request::Upkeep { ask } => return upkeep::upkeep(context, asker, ask, line).await,
        Request::Count { filter } => return follow::count(context, filter, line, drain).await,
        Request::AuditExport { ask } => return export::export(context, asker, ask, line, drain).await,
        Request::Body { id, side } => return body(context, asker, id, side, line).await,
        Request::AuditVerify { keys, checkpoints, words } => {
            return proof::verify(context, Trust { keys, checkpoints, words }, line).await;
        }
        Request::AuditProve { id } => return proof::prove(context, asker, id, line).await,
        Request::AuditRotateKey => {
            recorded(context, asker, "key of the audit log changed".to_owned(), proof::rotate(context)).await
        }
        Request::Status => status(context).await,
        Request::Show { id } => show(context, id).await,
        Request::Reconcile { recount } => reconcile(context, recount).await,
        Request::CaExport => Ok(Payload::Ca { pem: context.ca_pem.to_string() }),
        Request::ModeGet => Ok(Payload::Mode { mode: context.policy.current().mode() }),
        Request::Enrol => recorded(context, asker, "enrol".to_owned(), enrol(context, asker)).await,
        Request::Dashboard => {
            let access = context.dashboard.clone().ok_or_else(|| {
                ErrorReply::new(ErrorCode::Unavailable, "the dashboard is switched off")
                    .hint("set `enabled = true` under [dashboard] in agentgate.toml")
            });
            let give = async move {
                let access = access?;
                let url = (access.url)().map_err(internal)?;
                Ok(Payload::Dashboard { listen: access.listen, url })
            };
            recorded(context, asker, "dashboard login code made".to_owned(), give).await
        }
        Request::PolicyReload => {
            recorded(context, asker, "policy reload".to_owned(), steer::reload(&context.policy)).await
        }
        Request::ModeSet { mode } => {
            let what = match mode {
                Some(mode) => format!("mode {mode}"),
                None => "mode as in policy.toml".to_owned(),
            };
            recorded(context, asker, what, steer::set_mode(&context.policy, mode)).await
        }
        Request::ListEdit { list, edit, host } => {
            let what = steer::describe(list, edit, &host);
            recorded(context, asker, what, steer::edit(&context.policy, list, edit, host)).await
        }
    };
    line.send(&whole.map_or_else(Reply::Error, Reply::ok)).await
}

/// Records that a guarded process was refused; `before` attempts were refused without a record of their
/// own since the last one.
pub(super) async fn note_guarded(context: &ControlContext, door: Door, asker: &Asker, before: u64) {
    let mut what = format!("refused: a guarded process connected to the {}", door.name());
    if before > 0 {
        what.push_str(&format!(" (and {before} attempts before it)"));
    }
    let mut record = control_record(context, asker, &what);
    record.state = State::Refused;
    if let Err(error) = context.audit.note(record).await {
        tracing::error!(%error, pid = asker.peer.process.pid(), "control: a refusal could not be recorded");
    }
}

/// Carries out `act` under a record that is durable before it begins.
async fn recorded(
    context: &ControlContext,
    asker: &Asker,
    what: String,
    act: impl Future<Output = Result<Payload, ErrorReply>>,
) -> Result<Payload, ErrorReply> {
    let record = control_record(context, asker, &what);
    let mut entry = context.audit.open(record).await.map_err(|error| {
        ErrorReply::new(
            ErrorCode::AuditUnavailable,
            format!("not done, since it cannot be recorded: {error}"),
        )
    })?;
    match act.await {
        Ok(payload) => {
            if let (Payload::Enrolled(enrolled), Some(note)) = (&payload, &mut entry.record().note) {
                note.push_str(&format!(", into {}", enrolled.cgroup));
            }
            entry.finish(State::Done);
            Ok(payload)
        }
        Err(error) => {
            let theirs = matches!(error.code, ErrorCode::PolicyInvalid | ErrorCode::Invalid);
            let blame = if theirs { "policy" } else { "gate" };
            entry.record().failure = Some(Failure {
                blame: blame.to_owned(),
                code: format!("control_{}", error.code.as_str()),
                detail: error.message.clone(),
            });
            if error.code == ErrorCode::StrangerEnrolled {
                let flag = Flag::new(error.code.as_str(), Severity::High, error.message.clone());
                entry.record().flags.push(flag);
            }
            entry.finish(State::Failed);
            Err(error)
        }
    }
}

pub(super) fn control_record(context: &ControlContext, asker: &Asker, what: &str) -> Record {
    let Asker { peer, cgroup } = asker;
    let exe = peer.process.exe();
    let mut record = Record::new(Kind::Control, Timestamp::now());
    record.protocol = "control".to_owned();
    record.note = Some(format!(
        "{what}, by uid {} (pid {}, {})",
        peer.uid,
        peer.process.pid(),
        exe.as_deref().unwrap_or("executable unknown")
    ));
    record.subject = Some(
        Subject {
            comm: peer.process.comm(),
            exe,
            cgroup: cgroup.clone(),
            ..Subject::unknown(session(cgroup, &context.guarded), peer.process.pid(), peer.uid)
        }
        .into(),
    );
    record
}

/// The session as the records of flows name it: the first cgroup below the guarded one, with its id.
/// `-` for whoever is not under guard.
fn session(cgroup: &str, guarded: &GuardedCgroup) -> SessionId {
    let Ok(below) = Path::new(cgroup).strip_prefix(guarded.path()) else {
        return SessionId("-".to_owned());
    };
    let Some(name) = below.components().next() else {
        return SessionId("/".to_owned());
    };
    let name = Path::new(&name).display();
    let id = fs::metadata(guarded.directory().join(name.to_string()))
        .map_or_else(|_| "?".to_owned(), |directory| directory.ino().to_string());
    SessionId(format!("{name}@{id}"))
}

/// A record as people may see it: command lines are kept for judging and masked for showing, and what
/// does not fit a line is cut.
pub(super) fn shown(mut record: Record) -> Box<Record> {
    if let Some(subject) = &mut record.subject {
        let subject = Arc::make_mut(subject);
        subject.cmdline = redact::mask_cmdline(&subject.cmdline);
    }
    Box::new(cut::to_fit(record))
}

async fn status(context: &ControlContext) -> Result<Payload, ErrorReply> {
    let store = Arc::clone(&context.store);
    let pace = blocking(move || store.pace()).await?.ok();
    let health = context.audit.health();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Ok(Payload::Status(Box::new(StatusReport {
        gate: (context.gate)(),
        policy: context.policy.status(),
        audit: AuditReport {
            healthy: health.ok,
            error: health.error,
            queued: count(health.queued),
            written: health.written,
            mirror: context.mirror.as_ref().map(Mirror::report),
            pace,
        },
    })))
}

async fn reconcile(context: &ControlContext, recount: bool) -> Result<Payload, ErrorReply> {
    let books = context.books.as_ref().ok_or_else(|| {
        ErrorReply::new(ErrorCode::Unavailable, "this daemon keeps no balance of its audit log")
    })?;
    Ok(Payload::Balance(Box::new(books.balance(recount).await.map_err(internal)?)))
}

async fn enrol(context: &ControlContext, asker: &Arc<Asker>) -> Result<Payload, ErrorReply> {
    let (enroller, asker) = (Arc::clone(&context.enroller), Arc::clone(asker));
    let cgroup = blocking(move || enroller.enrol(&asker.peer.process)).await?.map_err(not_enrolled)?;
    Ok(Payload::Enrolled(Enrolled {
        cgroup,
        guarded: context.guarded.path().to_owned(),
        bundle: context.bundle.clone(),
        hidden: context.hidden.clone(),
        system_bundle: context.system_bundle,
    }))
}

fn not_enrolled(error: EnrolError) -> ErrorReply {
    let code = match &error {
        EnrolError::Stranger { .. } => {
            tracing::error!(%error, "control: the wrong process is under guard");
            ErrorCode::StrangerEnrolled
        }
        EnrolError::ProcessGone { .. }
        | EnrolError::ForeignSockets { .. }
        | EnrolError::Step { .. }
        | EnrolError::Systemd { .. }
        | EnrolError::NotInside { .. } => ErrorCode::EnrolFailed,
    };
    ErrorReply::new(code, format!("not put under guard: {error}"))
}

async fn show(context: &ControlContext, id: RecordId) -> Result<Payload, ErrorReply> {
    let store = Arc::clone(&context.store);
    let found = blocking(move || store.get(id)).await?.map_err(internal)?;
    found
        .map(|record| Payload::Record(shown(record)))
        .ok_or_else(|| ErrorReply::new(ErrorCode::NotFound, format!("no record {id}")))
}

async fn body(
    context: &ControlContext,
    asker: &Asker,
    id: RecordId,
    side: Side,
    line: &mut Line,
) -> io::Result<()> {
    let name = match side {
        Side::Request => "request",
        Side::Response => "response",
    };
    let record = control_record(context, asker, &format!("{name} body of record {id} shown"));
    let noted = context.audit.note(record).await.map_err(|error| {
        ErrorReply::new(
            ErrorCode::AuditUnavailable,
            format!("not shown, since it cannot be recorded: {error}"),
        )
    });
    let store = Arc::clone(&context.store);
    let found = match noted {
        Ok(_) => blocking(move || store.body(id, side)).await.and_then(|found| found.map_err(internal)),
        Err(error) => Err(error),
    };
    let found = found.and_then(|bytes| {
        bytes.ok_or_else(|| {
            ErrorReply::new(ErrorCode::NotFound, format!("no {name} body captured for record {id}"))
        })
    });
    match found {
        Ok(bytes) => {
            for chunk in bytes.chunks(BODY_CHUNK) {
                line.send(&Reply::item(Item::Body { hex: to_hex(chunk) })).await?;
            }
            line.send(&Reply::End).await
        }
        Err(error) => line.send(&Reply::Error(error)).await,
    }
}

/// Runs file work off the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorReply> {
    spawn_blocking(work).await.map_err(internal)
}

/// The gate's own fault, in its own words.
pub(super) fn internal(error: impl fmt::Display) -> ErrorReply {
    ErrorReply::new(ErrorCode::Internal, error.to_string())
}
