//! Doors of the gate inside other network namespaces: for containers and sandboxes whose processes are
//! guarded but have a network, and so a loopback, of their own.
//!
//! The kernel programs send a guarded socket to 127.0.0.1 or ::1 of its own namespace, and refuse it
//! (`kernel:namespace`) where the gate has no doors. This looks at guarded threads several times a
//! second; where one is in a namespace that has none, the daemon binds listener and DNS server there on
//! the ports that they have outside, and only then admits the namespace. Until then, and wherever doors
//! cannot stand, what is in it stays refused. What comes to the doors goes the way of everything else.
//!
//! A namespace may belong to unguarded processes too: doors are on its loopback only, and a connection
//! that no program redirected is refused there as it is outside.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet, spawn_blocking},
    time::sleep,
};

mod enter;
mod look;

pub use self::enter::{Opened, Ports};
use self::{
    enter::EnterError,
    look::{Guest, NamespaceId, Place, Seen},
};
use crate::{
    audit::Audit,
    drain::told,
    kernel::{GuardedCgroup, Kernel},
    model::{Flag, Flow, Kind, OriginalDestination, Record, Severity, State, Timestamp},
    session::Sessions,
    share::Few,
};

/// From one look to the next: what a container sends first may come sooner, and is refused.
const LOOK: Duration = Duration::from_millis(250);
/// Looking may take this part of the time at most, however many threads agents have.
const SHARE: u32 = 20;
/// Namespaces with doors: as many as the kernel's map has room for.
const MOST: usize = agentgate_common::names::NAMESPACES_CAPACITY as usize;
/// Namespaces with doors of one session, so that it does not take those of all others.
const MOST_OF_ONE: usize = 16;
/// Namespaces without doors that are kept in mind; beyond them nothing is tried.
const WAITING: usize = 512;
/// Of one session: whoever makes namespaces by the hundred keeps its own waiting, and nobody else's.
const WAITING_OF_ONE: usize = 32;
/// Namespaces without doors that are recorded, a second.
const TOLD: u32 = 5;
/// Looks that have to find nobody in a namespace before its doors go: a process is between two cgroups
/// for a moment when it is moved.
const ABSENT: u32 = 4;
/// Attempts without success until that is recorded: loopback is down for a moment in every namespace.
const PATIENCE: u32 = 4;
/// Longest time from one attempt to the next.
const SLOWEST: Duration = Duration::from_secs(5);

/// Serves at doors until it is dropped.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Makes it.
pub type Serve = Arc<dyn Fn(Opened) -> std::io::Result<Serving> + Send + Sync>;

/// Keeps doors in the namespaces of guarded processes.
pub struct Doors {
    pub kernel: Arc<dyn Kernel>,
    pub guarded: GuardedCgroup,
    pub sessions: Arc<Sessions>,
    pub audit: Audit,
    pub ports: Ports,
    pub serve: Serve,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A namespace with guarded processes in it.
struct Known {
    session: u64,
    absent: u32,
    doors: Standing,
}

/// Whether it has doors.
enum Standing {
    Closed { attempts: u32, next: Instant, told: bool },
    Open { netns: u64, serving: AbortHandle },
}

/// What is known, between two looks.
struct Watched {
    namespaces: HashMap<NamespaceId, Known>,
    serving: JoinSet<()>,
    /// Said once, not with every look.
    denied: bool,
    cut: bool,
    few: Few,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
            serving: JoinSet::new(),
            denied: false,
            cut: false,
            few: Few::new(TOLD),
        }
    }
}

impl Doors {
    /// Runs until `drain`; then no namespace is admitted any more.
    pub async fn run(self, mut drain: watch::Receiver<bool>) {
        let place = match Place::here(self.guarded.directory()) {
            Ok(place) => place,
            Err(error) => {
                return tracing::error!(%error, "other network namespaces get no doors: what is in them is refused");
            }
        };
        let mut watched = Watched::default();
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = told(&mut drain) => break,
            }
            let began = Instant::now();
            let looking = place.clone();
            match spawn_blocking(move || looking.look()).await {
                Ok(seen) => {
                    pause = LOOK.max(began.elapsed() * SHARE);
                    self.follow(&place, seen, &mut watched).await;
                }
                Err(error) => {
                    tracing::error!(%error, "looking for network namespaces");
                    pause = SLOWEST;
                }
            }
        }
        for known in watched.namespaces.into_values() {
            self.close(known.doors);
        }
    }

    /// Opens doors where somebody came, closes them where nobody is left.
    async fn follow(&self, place: &Place, seen: Seen, watched: &mut Watched) {
        let Seen { guests, cut, denied } = seen;
        if let Some(error) = &denied
            && !watched.denied
        {
            tracing::error!(%error, "the network namespaces of some guarded processes cannot be seen (CAP_SYS_PTRACE): they get no doors");
        }
        if cut && !watched.cut {
            tracing::warn!("too many guarded threads to look at all: some network namespaces get no doors");
        }
        (watched.denied, watched.cut) = (denied.is_some(), cut);
        // Who was not looked at may be there.
        if !cut {
            self.forget(&guests, watched).await;
        }
        for (id, guest) in guests {
            self.meet(place, id, guest, watched).await;
        }
        while watched.serving.try_join_next().is_some() {}
    }

    /// Takes away the doors of namespaces that no guarded process is in.
    async fn forget(&self, guests: &HashMap<NamespaceId, Guest>, watched: &mut Watched) {
        let mut gone = Vec::new();
        for (id, known) in &mut watched.namespaces {
            known.absent = if guests.contains_key(id) { 0 } else { known.absent + 1 };
            if known.absent >= ABSENT {
                gone.push(*id);
            }
        }
        for id in gone {
            let Some(known) = watched.namespaces.remove(&id) else { continue };
            if let Standing::Open { netns, .. } = known.doors {
                self.close(known.doors);
                let what = format!(
                    "network namespace {} (cookie {netns}): no guarded process is left in it; its doors are closed",
                    id.ino
                );
                self.note(None, State::Done, what).await;
            }
        }
    }

    async fn meet(&self, place: &Place, id: NamespaceId, guest: Guest, watched: &mut Watched) {
        if !watched.namespaces.contains_key(&id) {
            if !may_wait(watched.namespaces.values(), guest.session) {
                return;
            }
            let doors = Standing::Closed { attempts: 0, next: Instant::now(), told: false };
            watched.namespaces.insert(id, Known { session: guest.session, absent: 0, doors });
        }
        let room = room(watched.namespaces.values(), guest.session);
        let Some(known) = watched.namespaces.get_mut(&id) else { return };
        let Standing::Closed { attempts, next, told } = &mut known.doors else { return };
        if *next > Instant::now() {
            return;
        }
        *attempts += 1;
        *next =
            Instant::now() + (LOOK * 2_u32.saturating_pow(attempts.saturating_sub(PATIENCE))).min(SLOWEST);
        let (ports, link, ipv4_alone) = (self.ports, place.link(guest.tid), *attempts > 1);
        let opened = match room {
            Ok(()) => spawn_blocking(move || enter::open(id, &link, ports, ipv4_alone))
                .await
                .unwrap_or(Err(EnterError::Panic))
                .map_err(|error| (matches!(error, EnterError::Gone), error.to_string())),
            Err(why) => Err((false, why.to_owned())),
        };
        let opened = match opened {
            Ok(opened) => self.admit(place, id, &guest, opened, &mut watched.serving).await,
            Err((true, _gone)) => return,
            Err((false, why)) => Err(why),
        };
        match opened {
            Ok(open) => known.doors = open,
            Err(why) if *attempts >= PATIENCE && !*told => {
                // One that is not told of now is with its next attempt.
                let Some(more) = watched.few.admit() else { return };
                *told = true;
                let more = if more > 0 { format!("; {more} more before it") } else { String::new() };
                let what = format!("network namespace {}: {why}; what is in it has no network{more}", id.ino);
                self.note(Some((place, &guest)), State::Refused, what).await;
            }
            Err(_) => {}
        }
    }

    /// Records that there are doors, serves there, and lets the namespace's sockets come to them: in this
    /// order, so that nobody is admitted where nobody serves, or unrecorded.
    async fn admit(
        &self,
        place: &Place,
        id: NamespaceId,
        guest: &Guest,
        opened: Opened,
        serving: &mut JoinSet<()>,
    ) -> Result<Standing, String> {
        let netns = opened.netns;
        let families = if opened.listeners.len() > 1 { "" } else { " (IPv4 alone)" };
        let what = format!("network namespace {} (cookie {netns}): doors opened{families}", id.ino);
        let served = (self.serve)(opened).map_err(|error| error.to_string())?;
        if !self.note(Some((place, guest)), State::Done, what).await {
            return Err("it could not be recorded".to_owned());
        }
        let serving = serving.spawn(served);
        if let Err(error) = self.kernel.admit_namespace(netns) {
            serving.abort();
            return Err(error.to_string());
        }
        Ok(Standing::Open { netns, serving })
    }

    fn close(&self, doors: Standing) {
        let Standing::Open { netns, serving } = doors else { return };
        // First, or sockets would go where somebody else may listen by then.
        if let Err(error) = self.kernel.expel_namespace(netns) {
            tracing::error!(%error, netns, "a network namespace stays admitted without doors");
        }
        serving.abort();
    }

    /// Whether it could be recorded.
    async fn note(&self, who: Option<(&Place, &Guest)>, state: State, what: String) -> bool {
        let now = Timestamp::now();
        let mut record = Record::new(Kind::Guard, now);
        record.finished = Some(now);
        record.state = state;
        record.protocol = "namespace".to_owned();
        if state == State::Refused {
            record.flags.push(Flag::new("namespace_without_doors", Severity::Medium, what.clone()));
        }
        record.note = Some(what);
        if let Some((place, guest)) = who {
            let (place, guest, sessions) = (place.clone(), guest.clone(), self.sessions.clone());
            let subject = spawn_blocking(move || {
                let flow = place.flow(&guest, since_boot_ns(), nowhere());
                crate::audit::fit::subject(sessions.subject(&flow))
            });
            record.subject = subject.await.ok().map(Arc::new);
        }
        match self.audit.note(record).await {
            Ok(_id) => true,
            Err(error) => {
                tracing::error!(%error, "a network namespace is not recorded");
                false
            }
        }
    }
}

/// Whether another namespace of this session is kept in mind.
fn may_wait<'a>(known: impl Iterator<Item = &'a Known>, session: u64) -> bool {
    let (mut all, mut own) = (0, 0);
    for known in known {
        all += 1;
        own += usize::from(known.session == session);
    }
    all < MOST + WAITING && own < MOST_OF_ONE + WAITING_OF_ONE
}

/// Whether another namespace of this session may have doors.
fn room<'a>(known: impl Iterator<Item = &'a Known>, session: u64) -> Result<(), &'static str> {
    let open = known.filter(|known| matches!(known.doors, Standing::Open { .. }));
    let (mut all, mut own) = (0, 0);
    for known in open {
        all += 1;
        own += usize::from(known.session == session);
    }
    if own >= MOST_OF_ONE {
        return Err("its session has doors in 16 others");
    }
    if all >= MOST { Err("the gate has doors in 64 others") } else { Ok(()) }
}

/// A flow of nobody to nowhere.
fn nowhere() -> Flow {
    Flow {
        cookie: 0,
        original: OriginalDestination(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        pid: 0,
        uid: 0,
        gid: 0,
        comm: String::new(),
        cgroup: 0,
        session: 0,
        netns: 0,
        connected_ns: 0,
    }
}

/// `CLOCK_BOOTTIME` in nanoseconds, as the programs stamp flows.
fn since_boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_takes_its_share_and_no_more() {
        let open = |session| Known {
            session,
            absent: 0,
            doors: Standing::Open { netns: 1, serving: JoinSet::<()>::new().spawn(std::future::pending()) },
        };
        let waiting = |session| Known {
            session,
            absent: 0,
            doors: Standing::Closed { attempts: 0, next: Instant::now(), told: false },
        };
        let mut crowd: Vec<Known> = (0..MOST_OF_ONE + WAITING_OF_ONE).map(|_| waiting(1)).collect();
        assert!(!may_wait(crowd.iter(), 1), "it made too many");
        assert!(may_wait(crowd.iter(), 2), "and nobody else suffers for it");
        crowd.extend((crowd.len()..MOST + WAITING).map(|number| waiting(number as u64 + 100)));
        assert!(!may_wait(crowd.iter(), 2));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let mut known: Vec<Known> = (0..MOST_OF_ONE).map(|_| open(1)).collect();
        assert!(room(known.iter(), 1).is_err());
        assert!(room(known.iter(), 2).is_ok());
        known.extend((MOST_OF_ONE..MOST).map(|number| open(number as u64)));
        assert!(room(known.iter(), 0).is_err());
        known.pop();
        assert!(room(known.iter(), 0).is_ok());
    }
}
