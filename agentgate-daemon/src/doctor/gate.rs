//! The gate: whether it runs, is healthy, and judges.

use std::path::Path;

use serde_json::Value;

use super::{Check, State};
use crate::{
    config::Paths,
    control::{
        client::{Client, ClientError},
        wire::{ErrorCode, Item, LogFilter, Payload, Request, StatusReport},
    },
    model::{Kind, Mode, State as Ending, Timestamp},
    reload::{PolicyHandle, PolicyPaths},
};

/// How far back questions to the name server say something about it, in microseconds.
const RECENT: i64 = 3_600_000_000;
/// How many of them are looked at.
const QUESTIONS: usize = 50;

/// `bound`: what the log may have in use, 0 for no bound.
pub(super) fn checks(paths: &Paths, socket: &Path, bound: u64) -> Vec<Check> {
    let mut checks = Vec::new();
    match ask(socket, Request::Status) {
        Ok(Payload::Status(status)) => {
            checks.extend(daemon(&status));
            let room = rustix::fs::statvfs(&paths.var).ok();
            let room = room.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            checks.extend(status.audit.pace.iter().flat_map(|pace| super::store::pace(pace, room, bound)));
            checks.push(mode(status.policy.summary.mode));
            checks.push(layers(&serde_json::to_value(&status.gate).unwrap_or_default()));
            checks.push(names(questions(socket)));
        }
        Ok(other) => checks.push(Check::fail("daemon", format!("answered {other:?}")).advise(RESTART)),
        Err(error) => checks.push(no_status(error, || ask(&paths.enrol_socket, Request::CaExport).map(drop))),
    }
    checks.push(policy(paths));
    checks
}

const RESTART: &str = "restart it: systemctl restart agentgated; `journalctl -u agentgated` says more";

fn ask(socket: &Path, request: Request) -> Result<Payload, ClientError> {
    Client::connect(socket)?.ask(request)
}

/// Without a status there is still the socket for every user, which `knock` knocks at.
fn no_status(error: ClientError, knock: impl Fn() -> Result<(), ClientError>) -> Check {
    let name = "daemon";
    match error {
        ClientError::Permission { .. } => match knock() {
            Ok(()) => Check::unseen(name, "runs; how it is, this user may not ask")
                .advise("ask with sudo, or as a member of the group agentgate"),
            Err(error) => Check::fail(name, error.to_string()).advise(RESTART),
        },
        ClientError::NotRunning { path, source } => {
            Check::fail(name, format!("does not run: {}: {source}", path.display()))
                .advise("systemctl start agentgated")
        }
        ClientError::Refused(reply) if reply.code == ErrorCode::Guarded => {
            Check::unseen(name, "runs, and does not answer to guarded processes").advise("ask from outside")
        }
        ClientError::Refused(_)
        | ClientError::Timeout { .. }
        | ClientError::Protocol(_)
        | ClientError::Io(_) => Check::fail(name, error.to_string()).advise(RESTART),
    }
}

fn daemon(status: &StatusReport) -> Vec<Check> {
    let (gate, audit) = (&status.gate, &status.audit);
    let up = format!("{}, pid {}, guards {}", gate.version, gate.pid, gate.guarded);
    let daemon = if gate.draining {
        Check::warn("daemon", format!("{up}; stopping")).advise("start it again when it has stopped")
    } else if gate.programs.is_empty() {
        Check::fail("daemon", format!("{up}; no program is attached")).advise(RESTART)
    } else {
        Check::ok("daemon", up)
    };
    let log = match &audit.error {
        None if audit.healthy => Check::ok("audit log", format!("{} written", audit.written)),
        error => {
            Check::fail("audit log", format!("cannot be written: {}", error.as_deref().unwrap_or("unknown")))
                .advise("nothing is let through until it can: look at the disk of /var/lib/agentgate")
        }
    };
    let events = match gate.lost_events {
        0 => Check::ok("kernel events", "none lost"),
        u64::MAX => Check::warn("kernel events", "their counter cannot be read").advise(RESTART),
        lost => Check::warn("kernel events", format!("{lost} refusals were not recorded singly"))
            .advise("they were refused all the same; `agentctl audit reconcile` counts them"),
    };
    let errors = &status.policy.errors;
    let in_force = if errors.is_empty() {
        Check::ok("policy in force", "the one on disk")
    } else {
        let kept = if status.policy.loaded_at.is_some() { "the one before stays" } else { "nothing passes" };
        Check::fail("policy in force", format!("{kept}: {}", errors.join("; ")))
            .advise("mend it, then agentctl policy reload")
    };
    vec![daemon, log, events, in_force]
}

fn mode(mode: Mode) -> Check {
    let check = match mode {
        Mode::Enforce => return Check::ok("mode", "enforce: what no rule allows is refused"),
        Mode::Blocklist => Check::warn("mode", "blocklist: what no rule denies passes, flagged"),
        Mode::Audit => Check::warn("mode", "audit: everything passes, flagged"),
    };
    check.advise("agentctl mode enforce, when the lists hold what agents need")
}

/// The layers that not every kernel has, as the daemon reports them: `"on"`, or why not.
fn layers(gate: &Value) -> Check {
    let name = "layers";
    let Some(layers) = gate.get("layers").and_then(Value::as_object) else {
        return Check::unseen(name, "the daemon does not tell");
    };
    let absent: Vec<String> = layers
        .iter()
        .filter(|(_, state)| state.as_str() != Some("on"))
        .map(|(layer, state)| {
            let why =
                state.get("absent").and_then(Value::as_str).map_or_else(|| state.to_string(), str::to_owned);
            format!("{layer} is absent: {why}")
        })
        .collect();
    if absent.is_empty() {
        let all: Vec<&str> = layers.keys().map(String::as_str).collect();
        return Check::ok(name, format!("in force: {}", all.join(", ")));
    }
    Check::warn(name, absent.join("; ")).advise(
        "README.md, \"What stops what\", says what is left without; agent@.service and agentctl run stand in",
    )
}

/// How the newest questions of agents ended: all of them, and those that the resolvers did not answer.
fn questions(socket: &Path) -> Result<(usize, usize), ClientError> {
    let since = Timestamp(Timestamp::now().0.saturating_sub(RECENT));
    let filter =
        LogFilter { kind: Some(Kind::Dns), since: Some(since), limit: QUESTIONS, ..LogFilter::default() };
    let (mut all, mut failed) = (0, 0);
    Client::connect(socket)?.stream(Request::Logs { filter, follow: false }, false, |item| {
        // What policy refused, the resolvers were not asked.
        if let Item::Record(record) = item
            && matches!(record.state, Ending::Done | Ending::Failed)
        {
            all += 1;
            failed += usize::from(record.state == Ending::Failed);
        }
        Ok::<(), ClientError>(())
    })?;
    Ok((all, failed))
}

/// Whether the resolvers answer, by what became of agents' own questions: nothing is asked for this.
fn names(questions: Result<(usize, usize), ClientError>) -> Check {
    let name = "resolvers";
    match questions {
        Err(error) => Check::unseen(name, error.to_string()),
        Ok((0, _)) => Check::unseen(name, "no name that an agent asked for went to them within the hour"),
        Ok((all, 0)) => {
            Check::ok(name, format!("the last {all} questions to them within the hour were answered"))
        }
        Ok((all, failed)) => {
            let state = if failed * 2 > all { State::Fail } else { State::Warn };
            Check::new(name, state, format!("of the last {all} questions within the hour {failed} failed"))
                .advise(
                    "`agentctl logs --kind dns` shows them; see `resolvers` under [dns] in agentgate.toml",
                )
        }
    }
}

fn policy(paths: &Paths) -> Check {
    let name = "policy";
    let (policy, lists, mode) = (paths.policy.clone(), paths.lists.clone(), paths.mode.clone());
    if let Err(error) = std::fs::File::open(&policy)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return Check::unseen(name, format!("{}: {error}", policy.display())).advise("ask as root");
    }
    // The mode file is the daemon's own and not for everybody.
    let mode = if std::fs::metadata(&paths.var).is_ok_and(|_| std::fs::read_dir(&paths.var).is_err()) {
        paths.etc.join("mode")
    } else {
        mode
    };
    let status = PolicyHandle::load(PolicyPaths { policy, lists, mode }).status();
    if status.errors.is_empty() {
        let summary = status.summary;
        return Check::ok(
            name,
            format!(
                "compiles; allow {}, deny {}, passthrough {}",
                summary.allow, summary.deny, summary.passthrough
            ),
        );
    }
    Check::fail(name, status.errors.join("; ")).advise("mend it; `agentctl policy check` checks")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::wire::ErrorReply;

    #[test]
    fn layers_are_read_as_the_daemon_writes_them() {
        let all = layers(&json!({ "layers": { "lsm": "on", "watch": "on" } }));
        assert_eq!((all.state, all.found.as_str()), (State::Ok, "in force: lsm, watch"));
        let some = layers(&json!({ "layers": { "lsm": { "absent": "no BPF LSM" }, "watch": "on" } }));
        assert_eq!((some.state, some.found.as_str()), (State::Warn, "lsm is absent: no BPF LSM"));
        assert_eq!(layers(&json!({})).state, State::Unseen);
    }

    #[test]
    fn what_cannot_be_asked_is_told_from_what_is_down() {
        let permission = || ClientError::Permission { path: "/x".into() };
        assert_eq!(no_status(permission(), || Ok(())).state, State::Unseen);
        assert_eq!(no_status(permission(), || Err(permission())).state, State::Fail);
        let guarded = ClientError::Refused(ErrorReply::new(ErrorCode::Guarded, "under guard"));
        assert_eq!(no_status(guarded, || Ok(())).state, State::Unseen);
        let busy = ClientError::Refused(ErrorReply::new(ErrorCode::Busy, "busy"));
        assert_eq!(no_status(busy, || Ok(())).state, State::Fail);
    }

    #[test]
    fn resolvers_are_judged_by_what_agents_asked() {
        for (questions, expect) in
            [((0, 0), State::Unseen), ((9, 0), State::Ok), ((9, 2), State::Warn), ((9, 8), State::Fail)]
        {
            assert_eq!(names(Ok(questions)).state, expect, "{questions:?}");
        }
    }

    #[test]
    fn modes_that_let_pass_are_said() {
        assert_eq!(mode(Mode::Enforce).state, State::Ok);
        assert!([Mode::Audit, Mode::Blocklist].into_iter().all(|m| mode(m).state == State::Warn));
    }
}
