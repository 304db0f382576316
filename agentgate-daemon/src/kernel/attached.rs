//! The kernel behind the seam: programs on a cgroup, and their maps.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agentgate_common::{
    event::{Hook, KernelEvent},
    flow::{Endpoint, FlowKey, INET, INET6, KernelFlow},
    names,
    settings::Settings,
    verdict::{self, Denial, Passage},
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use tokio::sync::mpsc;

use super::{
    Counter, Kernel, KernelError,
    attach::attach,
    cgroup::Guarded,
    events::{self, Source},
    link::{self, CgroupLink},
    load::{HOOKS, load},
    pin::{self, PinDirectory},
    step,
};
use crate::model::Flow;

/// What to guard, and where the pins are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the guarded cgroup, as [`super::guarded_path`] gives it.
    pub cgroup: PathBuf,
    /// Directory on a bpffs, such as `/sys/fs/bpf/agentgate`.
    pub pin_dir: PathBuf,
}

/// The programs, attached. Dropping this detaches nothing: the pinned links go on refusing and
/// redirecting, and without a listener there is no egress. [`detach`] takes them away.
pub struct Attached {
    settings: Mutex<Array<MapData, Settings>>,
    flows: Mutex<HashMap<MapData, FlowKey, KernelFlow>>,
    counters: PerCpuArray<MapData, u64>,
    netns: u64,
    source: Mutex<Option<Source>>,
    receiver: Mutex<Option<mpsc::Receiver<KernelEvent>>>,
    guarded: Guarded,
    links: Vec<CgroupLink>,
    // Last: the lock goes when everything else is gone.
    _pins: PinDirectory,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("guarded", &self.guarded)
            .field("links", &self.links)
            .field("netns", &self.netns)
            .finish_non_exhaustive()
    }
}

impl Attached {
    /// Guards the cgroup. Where a daemon guarded it before, its settings and flows stay in force
    /// and its programs are replaced in place.
    ///
    /// # Errors
    /// [`KernelError::AlreadyGuarded`] while another daemon does; else the step that failed, and
    /// everything is as it was before.
    pub fn start(options: &Options) -> Result<Self, KernelError> {
        let guarded = Guarded::open(&options.cgroup)?;
        let started = Self::locked(options, &guarded);
        match started {
            Ok((parts, pins)) => Ok(parts.into_attached(guarded, pins)),
            Err(error) => {
                guarded.undo();
                Err(error)
            }
        }
    }

    fn locked(options: &Options, guarded: &Guarded) -> Result<(Parts, PinDirectory), KernelError> {
        let Some(pins) = PinDirectory::open(&options.pin_dir)? else {
            return Err(KernelError::AlreadyGuarded { cgroup: guarded.path.display().to_string() });
        };
        let before = pins.maps();
        match Parts::new(guarded, &pins) {
            Ok(parts) => Ok((parts, pins)),
            Err(error) => {
                pins.undo(&before);
                Err(error)
            }
        }
    }

    /// Forwards kernel events to the receiver of [`Kernel::events`], and the programs' log lines to
    /// tracing, until `stop` is ready; then what is left, without waiting for the receiver. One task
    /// of the daemon; a second call returns at once.
    ///
    /// # Errors
    /// When the ring buffers cannot be polled.
    pub async fn run_events(&self, stop: impl Future<Output = ()> + Send) -> Result<(), KernelError> {
        let source = held(&self.source).take();
        match source {
            Some(source) => source.forward(stop).await.map_err(step("reading kernel events")),
            None => Ok(()),
        }
    }

    /// Whether every link is still on the cgroup and the path still names that cgroup. A cgroup that
    /// was removed takes its links along, and one made later under the same name has none.
    ///
    /// # Errors
    /// What is no longer as it was; start again to guard the cgroup that is there now.
    pub fn verify(&self) -> Result<(), KernelError> {
        let shown = self.guarded.path.display().to_string();
        let there = std::fs::metadata(&self.guarded.path).map_err(step(&shown))?;
        if std::os::unix::fs::MetadataExt::ino(&there) != self.guarded.id {
            return Err(step(&shown)(io::Error::other(
                "another cgroup has taken this path and is not guarded",
            )));
        }
        for link in &self.links {
            let info = link.info().map_err(step("asking a link"))?;
            if info.cgroup != self.guarded.id {
                return Err(step(&shown)(io::Error::other("a link is no longer on this cgroup")));
            }
        }
        Ok(())
    }
}

/// Takes the programs off the cgroup and removes every pin: its processes are no longer guarded.
///
/// # Errors
/// [`KernelError::AlreadyGuarded`] while a daemon runs, or the pin that stays.
pub fn detach(options: &Options) -> Result<(), KernelError> {
    pin::detach(&options.pin_dir, &options.cgroup)
}

/// Ids of the programs at our hooks of the cgroup itself, whoever attached them, sorted: what
/// `bpftool cgroup list` shows.
///
/// # Errors
/// When the cgroup cannot be opened or asked.
pub fn attached_programs(options: &Options) -> Result<Vec<u32>, KernelError> {
    let shown = options.cgroup.display().to_string();
    let directory = std::fs::File::open(&options.cgroup).map_err(step(&shown))?;
    let mut ids = Vec::new();
    for (name, hook) in HOOKS {
        ids.extend(link::attached(directory.as_fd(), hook).map_err(step(name))?);
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Everything but the cgroup and the pins.
struct Parts {
    settings: Array<MapData, Settings>,
    flows: HashMap<MapData, FlowKey, KernelFlow>,
    counters: PerCpuArray<MapData, u64>,
    netns: u64,
    source: Source,
    receiver: mpsc::Receiver<KernelEvent>,
    links: Vec<CgroupLink>,
}

impl Parts {
    /// Loads, opens the maps, and attaches last, when nothing else can fail any more.
    fn new(guarded: &Guarded, pins: &PinDirectory) -> Result<Self, KernelError> {
        let netns = netns_cookie()?;
        let mut ebpf = load(pins)?;
        let settings = opened::<Array<MapData, Settings>>(&mut ebpf, names::SETTINGS)?;
        let flows = opened::<HashMap<MapData, FlowKey, KernelFlow>>(&mut ebpf, names::FLOWS)?;
        let counters = opened::<PerCpuArray<MapData, u64>>(&mut ebpf, names::COUNTERS)?;
        let ring = opened::<RingBuf<MapData>>(&mut ebpf, names::EVENTS)?;
        let (sender, receiver) = mpsc::channel(events::QUEUE);
        let source = Source::new(&mut ebpf, ring, sender)?;
        let links = attach(&ebpf, guarded, pins)?;
        Ok(Self { settings, flows, counters, netns, source, receiver, links })
    }

    fn into_attached(self, guarded: Guarded, pins: PinDirectory) -> Attached {
        Attached {
            settings: Mutex::new(self.settings),
            flows: Mutex::new(self.flows),
            counters: self.counters,
            netns: self.netns,
            source: Mutex::new(Some(self.source)),
            receiver: Mutex::new(Some(self.receiver)),
            guarded,
            links: self.links,
            _pins: pins,
        }
    }
}

fn opened<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M, KernelError> {
    let map =
        ebpf.take_map(name).ok_or_else(|| step(name)(io::Error::other("the object has no such map")))?;
    M::try_from(map).map_err(step(name))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holder does one map operation; a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cookie of this process's network namespace, the one that `bpf_get_netns_cookie` gives.
#[expect(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper")]
fn netns_cookie() -> Result<u64, KernelError> {
    use std::os::fd::AsRawFd;
    let what = "asking for the network namespace (SO_NETNS_COOKIE)";
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).map_err(step(what))?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(step(what))?;
    // SAFETY: the buffer is ours and as long as said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result != 0 { Err(step(what)(io::Error::last_os_error())) } else { Ok(cookie) }
}

/// The key under which the programs tied a connection, from its address as accept(2) shows it.
fn key(peer: SocketAddr) -> FlowKey {
    let (ip, port) = (peer.ip().to_canonical(), peer.port());
    let (addr, family) = match ip {
        IpAddr::V4(ip) => (verdict::map_v4(ip.octets()), INET),
        IpAddr::V6(ip) => (ip.octets(), INET6),
    };
    FlowKey { local: Endpoint { addr, port, family } }
}

impl Kernel for Attached {
    fn take_flow(&self, peer: SocketAddr) -> Result<Option<Flow>, KernelError> {
        let key = key(peer);
        let mut flows = held(&self.flows);
        let flow = match flows.get(&key, 0) {
            Ok(flow) => flow,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(step("reading a flow")(error)),
        };
        match flows.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(Some(Flow::from(&flow))),
            Err(error) => Err(step("removing a flow")(error)),
        }
    }

    fn configure(&self, settings: &Settings) -> Result<(), KernelError> {
        let settings = Settings { netns: self.netns, ..*settings };
        held(&self.settings).set(0, settings, 0).map_err(step("writing the settings"))
    }

    fn events(&self) -> Option<mpsc::Receiver<KernelEvent>> {
        held(&self.receiver).take()
    }

    fn lost_events(&self) -> Result<u64, KernelError> {
        count(&self.counters, verdict::LOST)
    }

    fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        let passages = [
            (Passage::Direct, "direct"),
            (Passage::Connected, "connected"),
            (Passage::Listener, "listener"),
            (Passage::Resolver, "resolver"),
        ];
        let outcomes: Vec<(u8, &'static str)> = passages
            .into_iter()
            .map(|(passage, name)| (passage as u8, name))
            .chain(Denial::ALL.into_iter().map(|denial| (denial as u8, denial.code())))
            .collect();
        let mut found = Vec::new();
        for hook in Hook::ALL {
            for (number, outcome) in &outcomes {
                let count = count(&self.counters, verdict::counter(hook, *number))?;
                if count > 0 {
                    found.push(Counter { hook: hook.code(), outcome, count });
                }
            }
        }
        Ok(found)
    }
}

fn count(counters: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64, KernelError> {
    let values = counters.get(&index, 0).map_err(step("reading the counters"))?;
    Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_form_for_ipv4() {
        let plain = key("127.0.0.1:4000".parse().unwrap());
        let mapped = key("[::ffff:127.0.0.1]:4000".parse().unwrap());
        assert_eq!(plain, mapped);
        assert_eq!(plain.local.family, INET);
        let native = key("[::1]:4000".parse().unwrap());
        assert_eq!(native.local.family, INET6);
        assert_ne!(plain, native);
    }
}
