//! Loading: the embedded object becomes programs and maps, maps pinned by name.

use std::os::fd::{AsFd, BorrowedFd};

use agentgate_common::{
    event::KernelEvent,
    flow::{Endpoint, FlowKey, KernelFlow, SocketState},
    names,
    rules::{UdpKey, UdpPorts},
    settings::Settings,
    tally::{Booked, Tally},
    verdict,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, MapType},
    programs::{Program, ProgramError},
};

use super::{KernelError, btf::SocketLayout, link::AttachType, pin::PinDirectory, step};

/// The object that build.rs made; empty where it found no toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agentgate-ebpf.o"));

// One event is one entry of the ring buffer, read as a whole.
const _: () = assert!(size_of::<KernelEvent>().is_multiple_of(8));

/// Lines of the verifier's log that an error shows.
const VERIFIER_LINES: usize = 8;

/// Name and hook of each program, in the order of attaching: what only refuses comes first, and a
/// connection is redirected only once its flow can be tied.
pub(super) const HOOKS: [(&str, AttachType); 14] = [
    ("gate_egress", AttachType::Egress),
    ("gate_option", AttachType::SetSockOpt),
    ("gate_create", AttachType::SockCreate),
    ("gate_bind4", AttachType::Bind4),
    ("gate_bind6", AttachType::Bind6),
    ("gate_sendmsg4", AttachType::SendMsg4),
    ("gate_sendmsg6", AttachType::SendMsg6),
    ("gate_recvmsg4", AttachType::RecvMsg4),
    ("gate_recvmsg6", AttachType::RecvMsg6),
    ("gate_getpeer4", AttachType::GetPeerName4),
    ("gate_getpeer6", AttachType::GetPeerName6),
    ("gate_sockops", AttachType::SockOps),
    ("gate_connect4", AttachType::Connect4),
    ("gate_connect6", AttachType::Connect6),
];

/// Loads the programs and opens or makes the maps.
pub(super) fn load(pins: &PinDirectory, layout: &SocketLayout) -> Result<Ebpf, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::NoObject);
    }
    for layout in layouts() {
        layout.check(pins)?;
    }
    let mut loader = EbpfLoader::new();
    for name in names::PINNED_MAPS {
        loader.map_pin_path(name, pins.pin(name));
    }
    // Levels that no subscriber wants are not worth a ring buffer entry.
    let level = log_level();
    loader.override_global(aya_log::LEVEL, &level, true);
    for (name, offset) in layout.globals() {
        loader.override_global(name, offset, true);
    }
    let mut ebpf = loader.load(OBJECT).map_err(step("loading the eBPF object"))?;
    for (name, _) in HOOKS {
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| step(name)(std::io::Error::other("the object has no such program")))?;
        verify(program).map_err(step(&format!("loading {name}")))?;
    }
    Ok(ebpf)
}

/// The most detailed level of aya-log that tracing shows, as the programs compare it.
fn log_level() -> u8 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current() {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => aya_log::Level::Error as u8,
        LevelFilter::WARN => aya_log::Level::Warn as u8,
        LevelFilter::INFO => aya_log::Level::Info as u8,
        LevelFilter::DEBUG => aya_log::Level::Debug as u8,
        LevelFilter::TRACE => aya_log::Level::Trace as u8,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya's list of program types, of which these five are ours"
)]
fn verify(program: &mut Program) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SockOps(program) => program.load(),
        other => return Err(format!("{:?} is not a program of a cgroup", other.prog_type()).into()),
    };
    match loaded {
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            Err(format!("{io_error}; the verifier ended with: {}", ending(&verifier_log.to_string())).into())
        }
        loaded => Ok(loaded?),
    }
}

/// The last lines of the verifier's log, which has thousands: they say what it objects to.
fn ending(log: &str) -> String {
    let mut lines: Vec<&str> = log.trim_end().lines().rev().take(VERIFIER_LINES).collect();
    lines.reverse();
    lines.join(" | ")
}

/// The descriptor of a loaded program.
pub(super) fn descriptor<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, KernelError> {
    let program = ebpf
        .program(name)
        .ok_or_else(|| step(name)(std::io::Error::other("the object has no such program")))?;
    Ok(program.fd().map_err(step(name))?.as_fd())
}

/// How a pinned map must be made for these programs to use it.
struct Layout {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

fn layouts() -> [Layout; names::PINNED_MAPS.len()] {
    let layout = |name, kind, key, value, entries| Layout { name, kind, key, value, entries };
    let key = size_of::<FlowKey>();
    [
        layout(names::SETTINGS, MapType::Array, 4, size_of::<Settings>(), 1),
        layout(names::FLOWS, MapType::Hash, key, size_of::<KernelFlow>(), names::FLOWS_CAPACITY),
        layout(names::PEERS, MapType::LruHash, key, size_of::<Endpoint>(), names::PEERS_CAPACITY),
        layout(names::ASKERS, MapType::LruHash, key, size_of::<KernelFlow>(), names::ASKERS_CAPACITY),
        layout(names::HOST, MapType::Hash, 16, 4, names::HOST_CAPACITY),
        layout(
            names::UDP,
            MapType::LpmTrie,
            4 + size_of::<UdpKey>(),
            size_of::<UdpPorts>(),
            names::UDP_CAPACITY,
        ),
        layout(names::NAMESPACES, MapType::Hash, 8, 4, names::NAMESPACES_CAPACITY),
        layout(names::TALLIES, MapType::Hash, size_of::<Tally>(), 8, names::TALLIES_CAPACITY),
        layout(names::BOOKS, MapType::Hash, size_of::<Booked>(), 8, names::BOOKS_CAPACITY),
        layout(names::EVENTS, MapType::RingBuf, 0, 0, names::EVENTS_BYTES),
        layout(names::COUNTERS, MapType::PerCpuArray, 4, 8, verdict::COUNTERS),
        layout(names::SOCKETS, MapType::SkStorage, 4, size_of::<SocketState>(), 0),
    ]
}

impl Layout {
    /// A map of another make, from another version, gives way: the programs that use it keep it
    /// until they are replaced, and refuse what the two generations do not share.
    fn check(&self, pins: &PinDirectory) -> Result<(), KernelError> {
        let pin = pins.pin(self.name);
        if !pin.exists() {
            return Ok(());
        }
        let shown = pin.display().to_string();
        let info = MapInfo::from_pin(&pin).map_err(step(&shown))?;
        let kind = info.map_type().map_err(step(&shown))?;
        let same = kind == self.kind
            && info.key_size() as usize == self.key
            && info.value_size() as usize == self.value
            && info.max_entries() == self.entries;
        if !same {
            tracing::warn!(map = self.name, "the pinned map is of another version and is replaced");
            std::fs::remove_file(&pin).map_err(step(&shown))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_end_of_the_verifiers_log() {
        let log: String = (0..1000).map(|line| format!("{line}\n")).collect();
        assert_eq!(ending(&log), "992 | 993 | 994 | 995 | 996 | 997 | 998 | 999");
        assert_eq!(ending("one"), "one");
        assert_eq!(ending(""), "");
    }

    #[test]
    fn every_program_has_its_hook_and_every_map_its_layout() {
        let mut hooked: Vec<&str> = HOOKS.into_iter().map(|(name, _)| name).collect();
        let mut named = names::PROGRAMS.to_vec();
        hooked.sort_unstable();
        named.sort_unstable();
        assert_eq!(hooked, named);
        assert_eq!(layouts().map(|layout| layout.name).len(), names::PINNED_MAPS.len());
        assert!(names::PINNED_MAPS.iter().all(|name| layouts().iter().any(|layout| layout.name == *name)));
    }
}
