//! What the kernel refused, on its way from the ring buffer into the audit log.

use std::{sync::Arc, time::Duration};

use agentgate_common::{
    event::{Hook, KernelEvent},
    verdict::Denial,
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    audit::{Audit, AuditError, fit},
    model::{
        Action, Authority, Flow, Host, Kind, OriginalDestination, Record, State, Timestamp, Verdict,
        flow::{comm, socket_addr},
    },
    session::Sessions,
};

/// Events recorded in one group.
const GROUP: usize = 256;
/// While the audit log cannot be written, the group is offered again after this long: nothing tells
/// when there is room.
const RETRY: Duration = Duration::from_millis(500);

/// Records events until the channel ends. Where the log is slower than the kernel, or cannot be
/// written, the channel fills, then the ring buffer, whose losses the kernel counts.
pub async fn record(mut events: mpsc::Receiver<KernelEvent>, sessions: Arc<Sessions>, audit: Audit) {
    let mut group = Vec::with_capacity(GROUP);
    while events.recv_many(&mut group, GROUP).await > 0 {
        let mut waiting = JoinSet::new();
        for event in group.drain(..) {
            waiting.spawn(note(audit.clone(), record_of(&event, &sessions)));
        }
        waiting.join_all().await;
    }
}

/// Writes one record, however long the log is out of order; gives up only when it is closed.
async fn note(audit: Audit, record: Record) {
    loop {
        match audit.note(record.clone()).await {
            Ok(_id) => return,
            Err(AuditError::Unavailable { .. }) => sleep(RETRY).await,
            Err(error @ AuditError::Closed) => {
                tracing::error!(%error, rule = rule_of(&record), "a refusal by the kernel is not recorded");
                return;
            }
        }
    }
}

fn rule_of(record: &Record) -> &str {
    record.verdict.as_ref().map_or("", |verdict| &verdict.rule)
}

fn record_of(event: &KernelEvent, sessions: &Sessions) -> Record {
    let destination = socket_addr(&event.destination);
    let flow = Flow {
        cookie: event.cookie,
        original: OriginalDestination(destination),
        pid: event.task.pid,
        uid: event.task.uid,
        gid: event.task.gid,
        comm: comm(&event.task.comm),
        cgroup: event.task.cgroup,
        connected_ns: event.at_ns,
    };
    let now = Timestamp::now();
    let mut record = Record::new(Kind::Kernel, now);
    record.finished = Some(now);
    record.state = State::Refused;
    record.subject = Some(fit::subject(sessions.subject(&flow)));
    let hook = Hook::from_u8(event.hook).map_or("unknown", Hook::code);
    let denial = Denial::from_u8(event.denial);
    let code = denial.map_or("unknown", Denial::code);
    record.protocol = protocol(event).to_owned();
    if destination.port() != 0 {
        record.authority = Some(Authority { host: Host::from(destination.ip()), port: destination.port() });
    }
    record.verdict = Some(Verdict {
        action: Action::Deny,
        rule: format!("kernel:{code}"),
        reason: denial.map_or("refused by the kernel", reason).to_owned(),
    });
    record.note =
        Some(format!("{hook}: family {} type {} protocol {}", event.family, event.kind, event.protocol));
    record.flow = Some(flow);
    record
}

fn protocol(event: &KernelEvent) -> &'static str {
    match (event.kind, event.protocol) {
        (1, _) => "tcp",
        (2, 0 | 17) => "udp",
        (2, 1 | 58) => "ping",
        (2, 136) => "udp-lite",
        (3, _) => "raw",
        _ => "socket",
    }
}

fn reason(denial: Denial) -> &'static str {
    match denial {
        Denial::GatePort => "the gate's own ports are out of the agent's reach",
        Denial::Loopback => "loopback is closed but for the ports in network.loopback.ports",
        Denial::Udp => "UDP other than DNS is refused; QUIC clients fall back to TCP",
        Denial::NoResolver => "no resolver of this address family is configured",
        Denial::SocketType => "only TCP and UDP sockets may be made",
        Denial::NoListener => "the daemon has not told the kernel where it listens",
        Denial::NoFlow => "the connection could not be noted, so it could not have been judged",
        Denial::Namespace => "the call came from a network namespace that is not the gate's",
        Denial::Device => "a socket bound to an interface would miss the gate",
        Denial::Egress => "a packet that no hook judged was about to leave",
    }
}
