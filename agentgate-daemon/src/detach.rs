//! Taking the programs off the guarded cgroup: the only thing that opens it. On record before it is done.
//!
//! The log is held from the record until the end, so that no daemon starts in between; and the programs
//! are held by a daemon that runs, so that none is detached under it.

use std::{fs, path::Path};

use crate::{
    config::Config,
    kernel::{self, GuardedCgroup, KernelError, Options, Place},
    model::{Failure, Kind, Record, RecordId, SessionId, State, Subject, Timestamp},
    store::{Store, StoreError, Write},
};

/// Why the cgroup stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("detaching needs root")]
    NotRoot,
    /// The caller is one of those who are guarded.
    #[error("this process is under guard itself")]
    Guarded,
    #[error("the gate runs: stop it first (systemctl stop agentgated)")]
    Running,
    #[error("nothing is attached: {0} does not exist")]
    NothingThere(String),
    #[error("not detached, since it cannot be recorded: {0}")]
    Unrecorded(#[source] StoreError),
    #[error("the cgroup may still be guarded: {0}")]
    Kernel(#[from] KernelError),
    /// The programs are off, and the log does not say so.
    #[error("detached, but the end of it is not on record: {0}")]
    HalfRecorded(#[source] StoreError),
}

/// Who wants it, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub pid: u32,
    /// Who became root by sudo(8), as that says.
    pub sudo_uid: Option<u32>,
    /// Who logged in, as the kernel keeps it.
    pub login_uid: Option<u32>,
    /// Its cgroup; empty where there is none to read.
    pub cgroup: String,
}

impl Caller {
    /// This process.
    #[must_use]
    pub fn this_process(sudo_uid: Option<u32>) -> Self {
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        let login = fs::read_to_string("/proc/self/loginuid").ok();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
            sudo_uid,
            // All ones: nobody logged in.
            login_uid: login.and_then(|uid| uid.trim().parse().ok()).filter(|uid| *uid != u32::MAX),
            cgroup: cgroup.to_owned(),
        }
    }

    fn note(&self, what: &str) -> String {
        let became =
            |how: &str, uid: Option<u32>| uid.map(|uid| format!(", {how} uid {uid}")).unwrap_or_default();
        format!(
            "{what}, by uid {} (pid {}{}{})",
            self.uid,
            self.pid,
            became("by sudo from", self.sudo_uid),
            became("logged in as", self.login_uid)
        )
    }
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct Plan {
    options: Options,
    /// Path of the cgroup below its mount.
    pub cgroup: String,
}

/// Looks whether it can be done, without doing anything.
///
/// # Errors
/// What keeps it from being done.
pub fn plan(config: &Config, caller: &Caller) -> Result<Plan, DetachError> {
    if caller.uid != 0 {
        return Err(DetachError::NotRoot);
    }
    let cgroup = GuardedCgroup::find(&config.gate.cgroup)?;
    if cgroup.place(&caller.cgroup) == Place::Inside {
        return Err(DetachError::Guarded);
    }
    let pin_dir = config.gate.pin_dir.clone();
    if !pin_dir.exists() {
        return Err(DetachError::NothingThere(pin_dir.display().to_string()));
    }
    let watch = kernel::watched(&cgroup, &config.gate.watch)?;
    let options = Options { cgroup: cgroup.directory().to_owned(), pin_dir, watch };
    Ok(Plan { options, cgroup: cgroup.path().to_owned() })
}

/// Records who wants it, detaches, and records the end. Gives the record's id.
///
/// # Errors
/// What kept it from being done, or from being recorded to the end.
pub fn run(store: &Path, plan: &Plan, caller: &Caller) -> Result<RecordId, DetachError> {
    recorded(store, plan, caller, kernel::detach)
}

fn recorded(
    path: &Path,
    plan: &Plan,
    caller: &Caller,
    detach: impl FnOnce(&Options) -> Result<(), KernelError>,
) -> Result<RecordId, DetachError> {
    let store = match Store::open(path) {
        Err(StoreError::Busy { .. }) => return Err(DetachError::Running),
        opened => opened.map_err(DetachError::Unrecorded)?,
    };
    let mut record = Record::new(Kind::Control, Timestamp::now());
    record.id = store.next_id().map_err(DetachError::Unrecorded)?;
    record.protocol = "control".to_owned();
    record.note = Some(caller.note(&format!("detach: {} is no longer guarded", plan.cgroup)));
    record.subject = Some(
        Subject {
            comm: "agentctl".to_owned(),
            cgroup: caller.cgroup.clone(),
            ..Subject::unknown(SessionId("-".to_owned()), caller.pid, caller.uid)
        }
        .into(),
    );
    store.apply(&[Write::Open(&record)]).map_err(DetachError::Unrecorded)?;
    let detached = detach(&plan.options);
    record.finished = Some(Timestamp::now());
    record.state = State::Done;
    if let Err(error) = &detached {
        record.state = State::Failed;
        record.note = Some(caller.note(&format!("detach of {}", plan.cgroup)));
        record.failure =
            Some(Failure { blame: "gate".into(), code: "detach_failed".into(), detail: error.to_string() });
    }
    let written = store.apply(&[Write::Final(&record)]);
    match detached {
        Ok(()) => written.map(|()| record.id).map_err(DetachError::HalfRecorded),
        Err(KernelError::AlreadyGuarded { .. }) => Err(DetachError::Running),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn caller() -> Caller {
        Caller { uid: 0, pid: 7, sudo_uid: Some(1000), login_uid: None, cgroup: "/user.slice".into() }
    }

    fn plan() -> Plan {
        let options =
            Options { cgroup: "/sys/fs/cgroup/x".into(), pin_dir: PathBuf::from("/nowhere"), watch: None };
        Plan { options, cgroup: "/x".into() }
    }

    #[test]
    fn it_is_on_record_before_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let id = recorded(&path, &plan(), &caller(), |_| {
            assert!(matches!(Store::open(&path), Err(StoreError::Busy { .. })), "no daemon starts meanwhile");
            Ok(())
        })
        .unwrap();
        let record = Store::open(&path).unwrap().get(id).unwrap().unwrap();
        assert_eq!((record.kind, record.state), (Kind::Control, State::Done));
        let note = record.note.unwrap();
        assert_eq!(note, "detach: /x is no longer guarded, by uid 0 (pid 7, by sudo from uid 1000)");
    }

    #[test]
    fn one_that_dies_in_the_middle_leaves_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let died = std::panic::catch_unwind(|| recorded(&path, &plan(), &caller(), |_| panic!("here")));
        assert!(died.is_err());
        let record = Store::open(&path).unwrap().get(RecordId(1)).unwrap().unwrap();
        assert_eq!(record.failure.unwrap().code, "interrupted");
    }

    #[test]
    fn a_daemon_that_runs_keeps_it_from_being_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let running = Store::open(&path).unwrap();
        let done = recorded(&path, &plan(), &caller(), |_| panic!("the log is in use"));
        assert!(matches!(done, Err(DetachError::Running)));
        drop(running);
        let guarded = |_: &Options| Err(KernelError::AlreadyGuarded { cgroup: "/x".into() });
        assert!(matches!(recorded(&path, &plan(), &caller(), guarded), Err(DetachError::Running)));
        let record = Store::open(&path).unwrap().get(RecordId(1)).unwrap().unwrap();
        assert_eq!(record.state, State::Failed);
    }

    #[test]
    fn who_may_not_is_told_so_before_anything_is_touched() {
        let mut config = Config::default();
        config.gate.pin_dir = "/nowhere/agentgate".into();
        let not_root = Caller { uid: 1000, ..caller() };
        assert!(matches!(super::plan(&config, &not_root), Err(DetachError::NotRoot)));
        let guarded = GuardedCgroup::find(&config.gate.cgroup).unwrap().child("run-1.scope");
        let inside = Caller { cgroup: guarded, ..caller() };
        assert!(matches!(super::plan(&config, &inside), Err(DetachError::Guarded)));
        assert!(matches!(super::plan(&config, &caller()), Err(DetachError::NothingThere(_))));
    }
}
