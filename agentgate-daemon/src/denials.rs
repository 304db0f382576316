//! What the kernel refused, on its way from the ring buffer into the audit log.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use agentgate_common::{
    event::{Hook, KernelEvent},
    tally::window,
    verdict::Denial,
};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    audit::{Audit, AuditError, fit},
    kernel::Kernel,
    model::{
        Action, Authority, Flow, Host, Kind, OriginalDestination, Record, State, Timestamp, Verdict,
        flow::{comm, socket_addr},
    },
    session::{self, Sessions},
};

/// Events recorded in one group.
const GROUP: usize = 256;
/// While the audit log cannot be written, the group is offered again after this long: nothing tells
/// when there is room.
const RETRY: Duration = Duration::from_millis(500);

/// Refusals of one kind in one cgroup that are recorded one by one, a second. A process can cause any
/// number of them, and each costs the log more than it costs the process.
const ONE_BY_ONE: u32 = 20;
/// Kinds that are counted apart; beyond them everything is recorded one by one.
const KINDS: usize = 4096;
/// When what was only counted is recorded.
const SETTLE: Duration = Duration::from_secs(1);

/// Records events until the channel ends. Where the log is slower than the kernel, or cannot be
/// written, the channel fills, then the ring buffer, whose losses the kernel counts. Keeps the books told
/// until when every refusal is on record.
pub async fn record(
    kernel: Arc<dyn Kernel>,
    mut events: mpsc::Receiver<KernelEvent>,
    sessions: Arc<Sessions>,
    audit: Audit,
) {
    let mut group = Vec::with_capacity(GROUP);
    let mut counted = Counted::default();
    let mut heard = Heard::default();
    loop {
        heard.look(kernel.heard_until(), events.len());
        // A time-out is the moment to record what was only counted.
        let got = timeout(SETTLE, events.recv_many(&mut group, GROUP)).await;
        let ended = matches!(got, Ok(0));
        heard.received(group.len());
        let mut told: Vec<(KernelEvent, u64)> =
            group.drain(..).filter_map(|event| counted.admit(event)).collect();
        told.extend(counted.settle(ended));
        let mut waiting = JoinSet::new();
        for (event, unseen) in told {
            let (sessions, audit) = (sessions.clone(), audit.clone());
            waiting.spawn(async move {
                // Procfs and cgroupfs are read off the runtime's threads.
                match spawn_blocking(move || record_of(&event, unseen, &sessions)).await {
                    Ok(record) => note(audit, record).await,
                    Err(error) => tracing::error!(%error, "a refusal by the kernel is not recorded"),
                }
            });
        }
        waiting.join_all().await;
        audit.books().tell_until(heard.until.min(counted.untold().unwrap_or(u64::MAX)));
        if ended {
            return;
        }
    }
}

/// Until when everything that the kernel reported has been received here.
#[derive(Default)]
struct Heard {
    until: u64,
    /// A moment until which everything is in the channel, and how many are to be received for that.
    next: Option<(u64, usize)>,
}

impl Heard {
    fn look(&mut self, in_channel_until: u64, waiting: usize) {
        self.next.get_or_insert((in_channel_until, waiting));
        self.received(0);
    }

    fn received(&mut self, events: usize) {
        if let Some((until, left)) = &mut self.next {
            *left = left.saturating_sub(events);
            if *left == 0 {
                self.until = *until;
                self.next = None;
            }
        }
    }
}

/// What makes two refusals the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Sort {
    session: u64,
    cgroup: u64,
    /// A record's number is that of one window, as the kernel's counts are.
    window: u32,
    hook: u8,
    denial: u8,
}

/// Refusals that are told by their number.
#[derive(Default)]
struct Counted(HashMap<Sort, Tally>);

struct Tally {
    since: Instant,
    told: u32,
    unseen: Option<Unseen>,
}

/// Those that were only counted.
#[derive(Clone, Copy)]
struct Unseen {
    last: KernelEvent,
    count: u64,
    first_ns: u64,
}

impl Counted {
    /// The event where it is to be recorded by itself, with the number of those before it that were not.
    fn admit(&mut self, event: KernelEvent) -> Option<(KernelEvent, u64)> {
        let sort = Sort {
            session: event.task.session,
            cgroup: event.task.cgroup,
            window: window(event.at_ns),
            hook: event.hook,
            denial: event.denial,
        };
        if self.0.len() >= KINDS && !self.0.contains_key(&sort) {
            return Some((event, 0));
        }
        let now = Instant::now();
        let tally = self.0.entry(sort).or_insert(Tally { since: now, told: 0, unseen: None });
        if now.duration_since(tally.since) >= SETTLE {
            tally.since = now;
            tally.told = 0;
        }
        if tally.told < ONE_BY_ONE {
            tally.told += 1;
            return Some((event, tally.unseen.take().map_or(0, |unseen| unseen.count)));
        }
        let before = tally.unseen.unwrap_or(Unseen { last: event, count: 0, first_ns: event.at_ns });
        tally.unseen =
            Some(Unseen { last: event, count: before.count + 1, first_ns: before.first_ns.min(event.at_ns) });
        None
    }

    /// What was counted and has rested for a second, or `all` of it; forgets what has been told.
    fn settle(&mut self, all: bool) -> Vec<(KernelEvent, u64)> {
        let mut told = Vec::new();
        self.0.retain(|_, tally| {
            let rested = all || tally.since.elapsed() >= SETTLE;
            if rested && let Some(Unseen { last, count, .. }) = tally.unseen.take() {
                told.push((last, count - 1));
            }
            !rested
        });
        told
    }

    /// When the oldest of those that were only counted happened.
    fn untold(&self) -> Option<u64> {
        self.0.values().filter_map(|tally| tally.unseen).map(|unseen| unseen.first_ns).min()
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

fn record_of(event: &KernelEvent, unseen: u64, sessions: &Sessions) -> Record {
    let destination = socket_addr(&event.destination);
    let flow = Flow {
        cookie: event.cookie,
        original: OriginalDestination(destination),
        pid: event.task.pid,
        uid: event.task.uid,
        gid: event.task.gid,
        comm: comm(&event.task.comm),
        cgroup: event.task.cgroup,
        session: event.task.session,
        netns: 0,
        connected_ns: event.at_ns,
    };
    let now = Timestamp::now();
    let mut record = Record::new(Kind::Kernel, now);
    record.finished = Some(now);
    record.state = State::Refused;
    let subject = fit::subject(sessions.subject(&flow));
    record.flags.extend(session::privileged(&subject));
    record.subject = Some(subject.into());
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
    let port = match destination.port() {
        0 => String::new(),
        port => format!(" port {port}"),
    };
    let more = match unseen {
        0 => String::new(),
        more => format!("; {more} more like it were counted, not recorded one by one"),
    };
    record.note = Some(format!(
        "{hook}: family {} type {} protocol {}{port}{more}",
        event.family, event.kind, event.protocol
    ));
    record.flow = Some(flow.into());
    record.times = unseen + 1;
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
        Denial::Loopback => {
            "loopback is closed but for the session's own ports and those in network.loopback.ports"
        }
        Denial::Udp => {
            "UDP other than DNS is refused but for what network.udp names; QUIC clients fall back to TCP"
        }
        Denial::NoResolver => "no resolver of this address family is configured",
        Denial::SocketType => "only TCP and UDP sockets may be made",
        Denial::NoListener => "the daemon has not told the kernel where it listens",
        Denial::NoFlow => "the connection could not be noted, so it could not have been judged",
        Denial::Namespace => "the call came from a network namespace that is not the gate's",
        Denial::Device => "a socket bound to an interface would miss the gate",
        Denial::Egress => "a packet that no hook judged was about to leave",
        Denial::DnsOverTls => "DNS over TLS would hide which names are asked for",
        Denial::Foreign => "the socket was made outside the guard",
        Denial::Family => "only IPv4, IPv6, UNIX and netlink sockets may be made",
        Denial::Source => "the source address is not this host's, so that answers would go elsewhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_by_its_number_and_hides_nothing_else() {
        let mut counted = Counted::default();
        let udp =
            KernelEvent { hook: Hook::SendMsg4 as u8, denial: Denial::Udp as u8, ..KernelEvent::default() };
        let raw = KernelEvent { hook: Hook::SockCreate as u8, denial: Denial::SocketType as u8, ..udp };
        let told = (0..1000).filter_map(|_| counted.admit(udp)).count();
        assert_eq!(told, ONE_BY_ONE as usize);
        assert!(counted.admit(raw).is_some());
        assert_eq!(counted.untold(), Some(0));
        assert!(counted.settle(false).is_empty());
        let rest = counted.settle(true);
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].1 + 1 + u64::from(ONE_BY_ONE), 1000);
        assert!(counted.0.is_empty() && counted.untold().is_none());
    }

    #[test]
    fn a_number_is_that_of_one_session_and_one_window() {
        let mut counted = Counted::default();
        let first = KernelEvent { at_ns: 1, ..KernelEvent::default() };
        let later = KernelEvent { at_ns: 5_000_000_000, ..first };
        let mut other = first;
        other.task.session = 7;
        for event in [first, later, other].repeat(ONE_BY_ONE as usize + 3) {
            let _told = counted.admit(event);
        }
        let mut rest: Vec<_> = counted.settle(true);
        rest.sort_by_key(|(event, _)| (event.at_ns, event.task.session));
        let numbers: Vec<_> =
            rest.iter().map(|(event, more)| (event.at_ns, event.task.session, more + 1)).collect();
        assert_eq!(numbers, [(1, 0, 3), (1, 7, 3), (5_000_000_000, 0, 3)]);
    }

    #[test]
    fn heard_is_what_was_received_and_not_what_is_in_the_channel() {
        let mut heard = Heard::default();
        heard.look(10, 3);
        heard.received(2);
        assert_eq!(heard.until, 0);
        heard.look(20, 50);
        heard.received(1);
        assert_eq!(heard.until, 10);
        heard.look(20, 0);
        assert_eq!(heard.until, 20);
    }
}
