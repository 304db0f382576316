//! The sentry: looks at guarded processes, since not everything that undoes a guard is a call that the
//! kernel lets us judge.
//!
//! Once a second it lists who is in the guarded cgroup. It ends sockets that were made elsewhere, and
//! records them, processes that were moved in, and processes that are alive and no longer inside. It
//! decides nothing: what it finds has happened, between two looks at the earliest.

mod enrolment;
mod inside;
mod look;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

use self::look::{Finding, Look, What};
pub use self::{enrolment::CarefulEnroller, inside::Enrolled};
use crate::{
    audit::{Audit, AuditError, fit},
    drain::told,
    kernel::{GuardedCgroup, Kernel},
    model::{Authority, Flag, Flow, Host, Kind, OriginalDestination, Record, Severity, State, Timestamp},
    session::Sessions,
};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// While the audit log cannot be written, a finding is offered again after this long: nothing tells when
/// there is room.
const RETRY: Duration = Duration::from_millis(500);

/// Looks until it is time to stop.
pub async fn run(
    kernel: Arc<dyn Kernel>,
    guarded: GuardedCgroup,
    enrolled: Enrolled,
    sessions: Arc<Sessions>,
    audit: Audit,
    mut drain: watch::Receiver<bool>,
) {
    let mut look = Look::new(kernel, guarded, enrolled);
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = told(&mut drain) => return,
        }
        let sessions = sessions.clone();
        // Procfs, cgroupfs and other processes' sockets are read off the runtime's threads.
        let looked = spawn_blocking(move || {
            let records: Vec<Record> =
                look.take().iter().map(|finding| record_of(finding, &sessions)).collect();
            (look, records)
        })
        .await;
        let records = match looked {
            Ok((same, records)) => {
                look = same;
                records
            }
            Err(error) => {
                tracing::error!(%error, "guarded processes are no longer looked at");
                return;
            }
        };
        for record in records {
            tracing::warn!(note = record.note, "a process is not guarded as it should be");
            tokio::select! {
                () = note(&audit, record) => {}
                () = told(&mut drain) => return,
            }
        }
    }
}

/// Writes one record, however long the log is out of order; gives up only when it is closed.
async fn note(audit: &Audit, record: Record) {
    loop {
        match audit.note(record.clone()).await {
            Ok(_id) => return,
            Err(AuditError::Unavailable { .. }) => sleep(RETRY).await,
            Err(error @ AuditError::Closed) => {
                tracing::error!(%error, note = record.note, "a finding of the sentry is not recorded");
                return;
            }
        }
    }
}

fn record_of(finding: &Finding, sessions: &Sessions) -> Record {
    let now = Timestamp::now();
    let mut record = Record::new(Kind::Guard, now);
    record.finished = Some(now);
    let process = &finding.process;
    let peer = match &finding.what {
        What::Foreign(socket) => socket.peer,
        What::MovedIn | What::Left { .. } => None,
    };
    let flow = Flow {
        cookie: 0,
        original: OriginalDestination(peer.unwrap_or_else(|| ([0, 0, 0, 0], 0).into())),
        pid: process.pid,
        uid: process.uid,
        gid: process.gid,
        comm: process.comm.clone(),
        cgroup: process.cgroup,
        session: 0,
        netns: 0,
        // The process that is meant is at least as old as this.
        connected_ns: u64::MAX,
    };
    record.subject = Some(fit::subject(sessions.subject(&flow)).into());
    record.authority = peer.map(|peer| Authority { host: Host::from(peer.ip()), port: peer.port() });
    let (state, flag) = match &finding.what {
        What::Foreign(socket) => {
            "socket".clone_into(&mut record.protocol);
            let end = if socket.ended { "ended" } else { "it cannot be ended" };
            let evidence = format!(
                "descriptor {} was made outside the guard: {}; {end}",
                socket.descriptor, socket.what
            );
            let state = if socket.ended { State::Refused } else { State::Failed };
            (state, Flag::new("foreign_socket", Severity::High, evidence))
        }
        What::MovedIn => (
            State::Done,
            Flag::new(
                "moved_in",
                Severity::Medium,
                format!("process {} was started elsewhere and moved under guard", process.pid),
            ),
        ),
        What::Left { to } => (
            State::Done,
            Flag::new(
                "left_cgroup",
                Severity::High,
                format!("process {} was under guard and is in {to}, where nothing guards it", process.pid),
            ),
        ),
    };
    record.state = state;
    record.note = Some(flag.evidence.clone());
    record.flags.push(flag);
    record
}

#[cfg(test)]
mod tests;
