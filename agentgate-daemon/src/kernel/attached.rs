//! The kernel behind the seam: programs on a cgroup, and their maps.

use std::{
    future::Future,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use agentgate_common::{
    event::{Hook, KernelEvent},
    flow::{Endpoint, FlowKey, INET, INET6, KernelFlow, SocketState},
    names,
    rules::{UdpKey, UdpPorts},
    settings::Settings,
    tally::{Booked, Tally},
    verdict::{self, TCP, UDP},
};
use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, RingBuf, SkStorage,
        lpm_trie::{Key, LpmTrie},
    },
};
use tokio::sync::mpsc;

use super::{
    AgentEnd, Counter, Kernel, KernelError, SessionCounter, UdpRange,
    attach::attach,
    btf,
    cgroup::Guarded,
    events::{self, Source},
    layers::{self, Anchored, Layers},
    link::{self, CgroupLink},
    load::{HOOKS, load},
    pin::{self, PinDirectory},
    step,
    take::take,
};
use crate::model::Flow;

/// `BPF_NOEXIST`: only where there is no such entry.
const NO_EXIST: u64 = 1;

/// What to guard, and where the pins are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the guarded cgroup, as [`super::GuardedCgroup`] gives it.
    pub cgroup: PathBuf,
    /// Directory on a bpffs, such as `/sys/fs/bpf/agentgate`.
    pub pin_dir: PathBuf,
    /// Directory of a cgroup above it whose programs watch for sockets made elsewhere, as
    /// [`super::watched`] gives it.
    pub watch: Option<PathBuf>,
}

/// The programs, attached. Dropping this detaches nothing: the pinned links go on refusing and
/// redirecting, and without a listener there is no egress. [`detach`] takes them away.
pub struct Attached {
    maps: Mutex<Maps>,
    netns: u64,
    epoch: String,
    heard: Arc<AtomicU64>,
    source: Mutex<Option<Source>>,
    receiver: Mutex<Option<mpsc::Receiver<KernelEvent>>>,
    guarded: Guarded,
    links: Vec<CgroupLink>,
    layers: Layers,
    anchored: Vec<Anchored>,
    // Last: the lock goes when everything else is gone.
    _pins: PinDirectory,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("guarded", &self.guarded)
            .field("links", &self.links)
            .field("layers", &self.layers)
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
        match Parts::new(options, guarded, &pins) {
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
        for (link, cgroup) in &self.anchored {
            if link.info().map_err(step("asking a link"))?.cgroup != *cgroup {
                return Err(step("asking a link")(io::Error::other("the watched cgroup is gone")));
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

/// The maps that the daemon reads and writes.
struct Maps {
    settings: Array<MapData, Settings>,
    /// The same map as `flows`.
    flow_entries: MapData,
    flows: HashMap<MapData, FlowKey, KernelFlow>,
    askers: HashMap<MapData, FlowKey, KernelFlow>,
    counters: PerCpuArray<MapData, u64>,
    tallies: HashMap<MapData, Tally, u64>,
    books: HashMap<MapData, Booked, u64>,
    sockets: SkStorage<MapData, SocketState>,
    host: HashMap<MapData, [u8; 16], u32>,
    udp: LpmTrie<MapData, UdpKey, UdpPorts>,
    namespaces: HashMap<MapData, u64, u32>,
}

impl Maps {
    fn open(ebpf: &mut Ebpf, pins: &PinDirectory) -> Result<Self, KernelError> {
        Ok(Self {
            settings: opened(ebpf, names::SETTINGS)?,
            flow_entries: MapData::from_pin(pins.pin(names::FLOWS)).map_err(step(names::FLOWS))?,
            flows: opened(ebpf, names::FLOWS)?,
            askers: opened(ebpf, names::ASKERS)?,
            counters: opened(ebpf, names::COUNTERS)?,
            tallies: opened(ebpf, names::TALLIES)?,
            books: opened(ebpf, names::BOOKS)?,
            sockets: opened(ebpf, names::SOCKETS)?,
            host: opened(ebpf, names::HOST)?,
            udp: opened(ebpf, names::UDP)?,
            namespaces: opened(ebpf, names::NAMESPACES)?,
        })
    }

    /// Before the first settings come: the watch and sessions go by it.
    fn say_what_is_guarded(&mut self, guarded: &Guarded) -> Result<(), KernelError> {
        let what = "writing the settings";
        let before = self.settings.get(&0, 0).map_err(step(what))?;
        let settings = Settings { guarded: guarded.id, depth: guarded.depth, ..before };
        self.settings.set(0, settings, 0).map_err(step(what))
    }

    /// Takes a flow, of which there is one a connection.
    #[expect(unsafe_code, reason = "the types of a map are known by its name alone")]
    fn take(&self, key: &FlowKey) -> io::Result<Option<KernelFlow>> {
        // SAFETY: loading has checked the sizes of this map's keys and values.
        unsafe { take(self.flow_entries.fd().as_fd(), key) }
    }

    /// Doors in other network namespaces went with the daemon that held them. Nobody else takes these
    /// entries out, and there is room for few.
    fn forget_namespaces(&mut self) -> Result<(), KernelError> {
        let what = "forgetting the network namespaces of before";
        let there: Result<Vec<u64>, _> = self.namespaces.keys().collect();
        for netns in there.map_err(step(what))? {
            self.namespaces.remove(&netns).map_err(step(what))?;
        }
        Ok(())
    }
}

/// Everything but the cgroup and the pins.
struct Parts {
    maps: Maps,
    netns: u64,
    epoch: String,
    heard: Arc<AtomicU64>,
    source: Source,
    receiver: mpsc::Receiver<KernelEvent>,
    links: Vec<CgroupLink>,
    layers: Layers,
    anchored: Vec<Anchored>,
}

impl Parts {
    /// Loads, opens the maps, and attaches last, when nothing else can fail any more.
    fn new(options: &Options, guarded: &Guarded, pins: &PinDirectory) -> Result<Self, KernelError> {
        let netns = netns_cookie()?;
        let layout = btf::socket_layout();
        let mut ebpf = load(pins, &layout.as_ref().copied().unwrap_or_default())?;
        let mut maps = Maps::open(&mut ebpf, pins)?;
        maps.forget_namespaces()?;
        maps.say_what_is_guarded(guarded)?;
        let ring = opened::<RingBuf<MapData>>(&mut ebpf, names::EVENTS)?;
        let (sender, receiver) = mpsc::channel(events::QUEUE);
        let epoch = epoch(pins)?;
        let heard = Arc::new(AtomicU64::new(0));
        let source = Source::new(&mut ebpf, ring, sender, heard.clone())?;
        let links = attach(&ebpf, guarded, pins)?;
        let layout = layout.map(drop).map_err(|error| error.to_string());
        let (layers, anchored) = layers::place(&mut ebpf, layout, guarded, options.watch.as_deref(), pins)?;
        Ok(Self { maps, netns, epoch, heard, source, receiver, links, layers, anchored })
    }

    fn into_attached(self, guarded: Guarded, pins: PinDirectory) -> Attached {
        Attached {
            maps: Mutex::new(self.maps),
            netns: self.netns,
            epoch: self.epoch,
            heard: self.heard,
            source: Mutex::new(Some(self.source)),
            receiver: Mutex::new(Some(self.receiver)),
            guarded,
            links: self.links,
            layers: self.layers,
            anchored: self.anchored,
            _pins: pins,
        }
    }
}

/// Names the life of the books. Ids of maps rise and are not given out again while the host is up.
fn epoch(pins: &PinDirectory) -> Result<String, KernelError> {
    let what = "asking which map of books this is";
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(step(what))?;
    let info = MapInfo::from_pin(pins.pin(names::BOOKS)).map_err(step(what))?;
    Ok(format!("{}/{}", boot.trim(), info.id()))
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

/// Cookie of this thread's network namespace, the one that `bpf_get_netns_cookie` gives.
///
/// # Errors
/// Where no socket can be bound to 127.0.0.1.
pub fn netns_cookie() -> Result<u64, KernelError> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).map_err(step(ASKING_NETNS))?;
    netns_cookie_of(socket.as_fd())
}

const ASKING_NETNS: &str = "asking for the network namespace (SO_NETNS_COOKIE)";

/// Cookie of the network namespace that a socket is of.
///
/// # Errors
/// Where the kernel does not say.
#[expect(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper")]
pub fn netns_cookie_of(socket: BorrowedFd<'_>) -> Result<u64, KernelError> {
    let what = ASKING_NETNS;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(step(what))?;
    // SAFETY: the buffer is ours and as long as said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result != 0 { Err(step(what)(io::Error::last_os_error())) } else { Ok(cookie) }
}

impl Attached {
    /// The key under which the programs tied what came from there.
    fn key(&self, end: AgentEnd, protocol: u32) -> FlowKey {
        let (ip, port) = (end.peer.ip().to_canonical(), end.peer.port());
        let family = if ip.is_ipv4() { INET } else { INET6 };
        let local = Endpoint { addr: octets(ip), port, family };
        FlowKey {
            netns: end.netns.unwrap_or(self.netns),
            local,
            towards: end.door,
            protocol: protocol as u16,
        }
    }
}

/// The sixteen bytes of an address, IPv4 mapped.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => verdict::map_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

impl Kernel for Attached {
    fn take_flow(&self, end: AgentEnd) -> Result<Option<Flow>, KernelError> {
        let flow = held(&self.maps).take(&self.key(end, TCP)).map_err(step("taking a flow"))?;
        Ok(flow.as_ref().map(Flow::from))
    }

    fn asker(&self, end: AgentEnd) -> Result<Option<Flow>, KernelError> {
        match held(&self.maps).askers.get(&self.key(end, UDP), 0) {
            Ok(flow) => Ok(Some(Flow::from(&flow))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(step("reading an asker")(error)),
        }
    }

    fn abandoned_flows(&self, before_ns: u64) -> Result<Vec<Flow>, KernelError> {
        let what = "reading the flows";
        let maps = &mut held(&self.maps);
        let entries: Result<Vec<_>, _> = maps.flows.iter().collect();
        let mut found = Vec::new();
        for (key, old) in entries.map_err(step(what))? {
            if old.connected_ns >= before_ns {
                continue;
            }
            // Nothing where the listener was quicker.
            let Some(flow) = maps.take(&key).map_err(step(what))? else { continue };
            if flow.connected_ns >= before_ns {
                // Another connection from the same port has taken its place since it was read.
                maps.flows.insert(key, flow, NO_EXIST).map_err(step("putting a flow back"))?;
                continue;
            }
            found.push(Flow::from(&flow));
        }
        Ok(found)
    }

    fn pending_flows(&self) -> Result<Vec<Flow>, KernelError> {
        let entries: Result<Vec<_>, _> = held(&self.maps).flows.iter().collect();
        Ok(entries.map_err(step("reading the flows"))?.iter().map(|(_, flow)| Flow::from(flow)).collect())
    }

    fn configure(&self, settings: &Settings) -> Result<(), KernelError> {
        let settings =
            Settings { netns: self.netns, guarded: self.guarded.id, depth: self.guarded.depth, ..*settings };
        held(&self.maps).settings.set(0, settings, 0).map_err(step("writing the settings"))
    }

    fn set_host_addresses(&self, addresses: &[IpAddr]) -> Result<(), KernelError> {
        let what = "writing the host's addresses";
        let host = &mut held(&self.maps).host;
        let wanted: Vec<[u8; 16]> = addresses.iter().map(|ip| octets(ip.to_canonical())).collect();
        for address in &wanted {
            host.insert(address, 1, 0).map_err(step(what))?;
        }
        let there: Result<Vec<_>, _> = host.keys().collect();
        for address in there.map_err(step(what))? {
            if !wanted.contains(&address) {
                host.remove(&address).map_err(step(what))?;
            }
        }
        Ok(())
    }

    fn set_udp(&self, ranges: &[UdpRange]) -> Result<(), KernelError> {
        let what = "writing the ranges of UDP";
        let udp = &mut held(&self.maps).udp;
        let mut wanted = Vec::with_capacity(ranges.len());
        for range in ranges {
            let prefix = match range.net {
                ipnet::IpNet::V4(net) => u32::from(net.prefix_len()) + 96,
                ipnet::IpNet::V6(net) => u32::from(net.prefix_len()),
            };
            let mut ports = UdpPorts::default();
            for (slot, (first, last)) in ports.ranges.iter_mut().zip(&range.ports) {
                *slot = [*first, *last];
            }
            wanted.push((prefix, octets(range.net.network()), ports));
        }
        // What is no longer wanted goes first: for a moment less passes, never more.
        let there: Result<Vec<_>, _> = udp.keys().collect();
        for key in there.map_err(step(what))? {
            let kept =
                wanted.iter().any(|(prefix, data, _)| *prefix == key.prefix_len() && *data == key.data());
            if !kept {
                udp.remove(&key).map_err(step(what))?;
            }
        }
        // Holes before the ranges that are around them.
        wanted.sort_by_key(|(prefix, ..)| std::cmp::Reverse(*prefix));
        for (prefix, data, ports) in wanted {
            udp.insert(&Key::new(prefix, data), ports, 0).map_err(step(what))?;
        }
        Ok(())
    }

    fn admit_namespace(&self, netns: u64) -> Result<(), KernelError> {
        held(&self.maps).namespaces.insert(netns, 1, 0).map_err(step("admitting a network namespace"))
    }

    fn expel_namespace(&self, netns: u64) -> Result<(), KernelError> {
        match held(&self.maps).namespaces.remove(&netns) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(step("expelling a network namespace")(error)),
        }
    }

    fn is_guarded(&self, socket: BorrowedFd<'_>) -> Result<bool, KernelError> {
        match held(&self.maps).sockets.get(&socket.as_raw_fd(), 0) {
            Ok(state) => Ok(state.guarded == 1),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(step("asking for a socket's origin")(error)),
        }
    }

    fn layers(&self) -> Layers {
        self.layers.clone()
    }

    fn events(&self) -> Option<mpsc::Receiver<KernelEvent>> {
        held(&self.receiver).take()
    }

    fn lost_events(&self) -> Result<u64, KernelError> {
        count(&held(&self.maps).counters, verdict::LOST)
    }

    fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        let counters = &held(&self.maps).counters;
        let mut found = Vec::new();
        for hook in Hook::ALL {
            for (number, outcome) in verdict::outcomes() {
                let count = count(counters, verdict::counter(hook, number))?;
                if count > 0 {
                    found.push(Counter { hook: hook.code(), outcome, count });
                }
            }
        }
        Ok(found)
    }

    fn untallied(&self) -> Result<u64, KernelError> {
        count(&held(&self.maps).counters, verdict::UNTALLIED)
    }

    fn session_counters(&self) -> Result<Vec<SessionCounter>, KernelError> {
        let entries: Result<Vec<_>, _> = held(&self.maps).tallies.iter().collect();
        let mut found = Vec::new();
        for (Tally { session, hook, outcome }, count) in entries.map_err(step("reading the tallies"))? {
            let hook = u8::try_from(hook).ok().and_then(Hook::from_u8).map_or("unknown", Hook::code);
            let outcome = verdict::outcomes()
                .find(|(number, _)| u32::from(*number) == outcome)
                .map_or("unknown", |(_, name)| name);
            found.push(SessionCounter { session, counter: Counter { hook, outcome, count } });
        }
        Ok(found)
    }

    fn booked(&self) -> Result<Vec<(Booked, u64)>, KernelError> {
        let entries: Result<Vec<_>, _> = held(&self.maps).books.iter().collect();
        entries.map_err(step("reading the books"))
    }

    fn unbooked(&self) -> Result<u64, KernelError> {
        count(&held(&self.maps).counters, verdict::UNBOOKED)
    }

    fn forget_booked(&self, keys: &[Booked]) -> Result<(), KernelError> {
        let books = &mut held(&self.maps).books;
        for key in keys {
            match books.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(step("taking numbers out of the books")(error)),
            }
        }
        Ok(())
    }

    fn heard_until(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    fn epoch(&self) -> String {
        self.epoch.clone()
    }
}

fn count(counters: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64, KernelError> {
    let values = counters.get(&index, 0).map_err(step("reading the counters"))?;
    Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
}
