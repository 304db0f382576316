//! What stands around the programs on the guarded cgroup: the watch above it, and LSM hooks.
//!
//! A kernel may lack the means for either. Then the layer is absent, with the reason, and told as that:
//! the programs on the cgroup itself are never optional, these are never assumed.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{
    GuardedCgroup, KernelError,
    cgroup::{Guarded, cgroup2_mount},
    link::{AttachType, CgroupLink},
    load::descriptor,
    pin::{self, PinDirectory},
    step,
};

/// Whether a layer is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    On,
    /// Why not.
    Absent(String),
}

/// The layers that not every kernel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Address families at socket(2), sockets that are handed over, writes to foreign sockets.
    pub lsm: LayerState,
    /// connect(2) and sendto(2) on foreign sockets.
    pub watch: LayerState,
    /// Packets of foreign sockets.
    pub watch_packets: LayerState,
}

impl Layers {
    /// No layer, for one reason.
    #[must_use]
    pub fn absent(why: &str) -> Self {
        let absent = LayerState::Absent(why.to_owned());
        Self { lsm: absent.clone(), watch: absent.clone(), watch_packets: absent }
    }

    /// Name and state of each, for people.
    #[must_use]
    pub fn each(&self) -> [(&'static str, &LayerState); 3] {
        [("lsm", &self.lsm), ("watch", &self.watch), ("watch_packets", &self.watch_packets)]
    }
}

/// Where these programs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Guarded,
    Watched,
}

/// A program: its name, its hook, where it goes.
type Hooked = (&'static str, AttachType, At);

const WATCH: [Hooked; 4] = [
    ("watch_connect4", AttachType::Connect4, At::Watched),
    ("watch_connect6", AttachType::Connect6, At::Watched),
    ("watch_sendmsg4", AttachType::SendMsg4, At::Watched),
    ("watch_sendmsg6", AttachType::SendMsg6, At::Watched),
];
const WATCH_PACKETS: [Hooked; 1] = [("watch_egress", AttachType::Egress, At::Watched)];
const LSM: [Hooked; 3] = [
    ("lsm_socket", AttachType::LsmCgroup, At::Guarded),
    ("lsm_receive", AttachType::LsmCgroup, At::Guarded),
    ("lsm_send", AttachType::LsmCgroup, At::Watched),
];

/// Where the kernel says which security modules run.
const ACTIVE_MODULES: &str = "/sys/kernel/security/lsm";
/// Said of a layer that the settings leave out.
const TURNED_OFF: &str = "turned off: gate.watch is empty";

/// Directory of the cgroup that `gate.watch` names: `/` for the root of what is mounted, else below the
/// mount or absolute, as `gate.cgroup` is; `None` where it is empty, which turns the watch off.
///
/// # Errors
/// When it is not above the guarded cgroup: sockets made beside it would not be seen.
pub fn watched(guarded: &GuardedCgroup, config: &str) -> Result<Option<PathBuf>, KernelError> {
    if config.is_empty() {
        return Ok(None);
    }
    let mount = cgroup2_mount()?;
    let directory = if config == "/" { mount.clone() } else { mount.join(config) };
    if directory.starts_with(&mount)
        && guarded.directory() != directory
        && guarded.directory().starts_with(&directory)
    {
        return Ok(Some(directory));
    }
    Err(step(&format!("watching {config}"))(io::Error::other(format!(
        "it is not above the guarded cgroup {}",
        guarded.directory().display()
    ))))
}

/// A cgroup to attach to.
#[derive(Debug)]
struct Target {
    directory: OwnedFd,
    id: u64,
}

impl Target {
    fn open(path: &Path) -> Result<Self, KernelError> {
        let shown = path.display().to_string();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(step(&shown))?;
        let id = fs::metadata(path).map_err(step(&shown))?.ino();
        Ok(Self { directory, id })
    }
}

/// A link and the id of the cgroup that it has to be on.
pub(super) type Anchored = (CgroupLink, u64);

/// Puts every layer in place that the kernel has the means for, in the stead of what an earlier daemon
/// left. `layout` says why the kernel's structures cannot be read, where they cannot.
///
/// # Errors
/// When a cgroup cannot be opened.
pub(super) fn place(
    ebpf: &mut Ebpf,
    layout: Result<(), String>,
    guarded: &Guarded,
    watch: Option<&Path>,
    pins: &PinDirectory,
) -> Result<(Layers, Vec<Anchored>), KernelError> {
    let inner = Target::open(&guarded.path)?;
    let outer = watch.map(Target::open).transpose()?;
    let mut links = Vec::new();
    let mut layer = |hooks: &[Hooked], able: Result<(), String>| {
        let placed = able
            .and_then(|()| hooks.iter().try_for_each(|(name, ..)| verify(ebpf, name)))
            .and_then(|()| put(ebpf, hooks, &inner, outer.as_ref(), pins));
        match placed {
            Ok(placed) => {
                links.extend(placed);
                LayerState::On
            }
            Err(why) => LayerState::Absent(why),
        }
    };
    let watching = if outer.is_some() { sees_the_root() } else { Err(TURNED_OFF.to_owned()) };
    let layers = Layers {
        watch: layer(&WATCH, watching.clone()),
        watch_packets: layer(&WATCH_PACKETS, watching.and_then(|()| layout.clone())),
        lsm: layer(&LSM, layout.and_then(|()| runs_bpf_lsm())),
    };
    if outer.is_none() {
        for (name, ..) in WATCH.iter().chain(&WATCH_PACKETS).chain(&LSM).filter(|(.., at)| *at == At::Watched)
        {
            pin::remove(&pins.pin(name));
        }
    }
    Ok((layers, links))
}

/// The programs above the guarded cgroup find it by its depth alone, for the sake of everybody else.
/// From within a cgroup namespace the hierarchy seems less deep than it is.
fn sees_the_root() -> Result<(), String> {
    // PROC_CGROUP_INIT_INO of include/linux/proc_ns.h.
    const INITIAL: &str = "cgroup:[4026531835]";
    match fs::read_link("/proc/self/ns/cgroup") {
        Ok(namespace) if namespace.as_os_str() == INITIAL => Ok(()),
        Ok(_) => {
            Err("this is a cgroup namespace, from which the depth of cgroups is not to be told".to_owned())
        }
        Err(error) => Err(format!("/proc/self/ns/cgroup: {error}")),
    }
}

/// Programs load also where the module does not run, and are then never called.
fn runs_bpf_lsm() -> Result<(), String> {
    let active = fs::read_to_string(ACTIVE_MODULES).map_err(|error| {
        format!("cannot tell whether BPF LSM runs: {ACTIVE_MODULES}: {error}; is securityfs mounted?")
    })?;
    if active.trim().split(',').any(|module| module == "bpf") {
        return Ok(());
    }
    Err(format!("BPF LSM does not run (boot with lsm={},bpf)", active.trim()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "aya's list of program types, of which these are ours")]
fn verify(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::LsmCgroup(program) => {
            let hook = lsm_hook(name).ok_or_else(|| format!("{name} has no LSM hook"))?;
            let btf = Btf::from_sys_fs().map_err(|error| format!("{name}: {error}"))?;
            program.load(hook, &btf)
        }
        other => return Err(format!("{name}: {:?} is not a program of a layer", other.prog_type())),
    };
    match loaded {
        Ok(()) => Ok(()),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            let more = objection(&log).map_or_else(String::new, |line| format!(" ({line})"));
            Err(format!("the kernel does not take {name}: {io_error}{more}"))
        }
        Err(error) => Err(format!("the kernel does not take {name}: {error}")),
    }
}

/// What the verifier says last, before its statistics.
fn objection(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word)))
}

fn lsm_hook(name: &str) -> Option<&'static str> {
    [("lsm_socket", "socket_create"), ("lsm_receive", "file_receive"), ("lsm_send", "socket_sendmsg")]
        .into_iter()
        .find_map(|(program, hook)| (program == name).then_some(hook))
}

/// All of one layer or nothing. What goes to the watched cgroup is left out where there is none.
fn put(
    ebpf: &Ebpf,
    hooks: &[Hooked],
    inner: &Target,
    outer: Option<&Target>,
    pins: &PinDirectory,
) -> Result<Vec<Anchored>, String> {
    let mut made: Vec<PathBuf> = Vec::new();
    let mut links = Vec::new();
    for (name, hook, at) in hooks {
        let target = match at {
            At::Guarded => inner,
            At::Watched => match outer {
                Some(outer) => outer,
                None => continue,
            },
        };
        match put_one(ebpf, name, *hook, target, pins) {
            Ok((link, new)) => {
                links.push((link, target.id));
                made.extend(new.then(|| pins.pin(name)));
            }
            Err(error) => {
                made.iter().for_each(|pin| pin::remove(pin));
                return Err(format!("{name}: {error}"));
            }
        }
    }
    Ok(links)
}

/// Replaces the program of a link that is there, without a moment in between, or makes a link. One on
/// another cgroup goes when the new one stands.
fn put_one(
    ebpf: &Ebpf,
    name: &str,
    hook: AttachType,
    target: &Target,
    pins: &PinDirectory,
) -> io::Result<(CgroupLink, bool)> {
    let program = descriptor(ebpf, name).map_err(io::Error::other)?;
    let pin = pins.pin(name);
    if pin.exists() {
        let link = CgroupLink::open(&pin)?;
        if link.info()?.cgroup == target.id {
            link.update(program)?;
            return Ok((link, false));
        }
    }
    let link = CgroupLink::create(program, target.directory.as_fd(), hook)?;
    pin::remove(&pin);
    link.pin(&pin)?;
    Ok((link, true))
}

#[cfg(test)]
mod tests {
    use agentgate_common::names;

    use super::*;

    #[test]
    fn every_program_of_a_layer_has_its_pin_and_its_hook() {
        let mut placed: Vec<&str> =
            WATCH.iter().chain(&WATCH_PACKETS).chain(&LSM).map(|hook| hook.0).collect();
        let mut named = names::LAYERS.to_vec();
        placed.sort_unstable();
        named.sort_unstable();
        assert_eq!(placed, named);
        for (name, hook, _) in WATCH.iter().chain(&WATCH_PACKETS).chain(&LSM) {
            assert_eq!(lsm_hook(name).is_some(), *hook == AttachType::LsmCgroup, "{name}");
        }
    }

    #[test]
    fn the_verifier_is_quoted_without_its_statistics() {
        let log = "19: (85) call x#123\nunknown func x#123\nverification time 12 usec\nstack depth 16\n\
                   processed 19 insns (limit 1000000)\n\n";
        assert_eq!(objection(log), Some("unknown func x#123"));
        assert_eq!(objection(""), None);
    }

    #[test]
    fn only_what_is_above_is_watched() {
        let mount = cgroup2_mount().unwrap();
        let guarded = GuardedCgroup::find("a/b/agent.slice").unwrap();
        let rows = [
            ("", Some(None)),
            ("/", Some(Some(mount.clone()))),
            ("a/b", Some(Some(mount.join("a/b")))),
            ("a/b/agent.slice", None),
            ("a/bc", None),
            ("a/b/agent.slice/inner", None),
            ("/etc", None),
            ("a/../..", None),
        ];
        for (config, expect) in rows {
            assert_eq!(watched(&guarded, config).ok(), expect, "{config}");
        }
    }

    #[test]
    fn states_read_as_they_are_written() {
        let layers = Layers { watch: LayerState::On, ..Layers::absent("no BTF") };
        let json = serde_json::to_string(&layers).unwrap();
        assert_eq!(json, r#"{"lsm":{"absent":"no BTF"},"watch":"on","watch_packets":{"absent":"no BTF"}}"#);
        assert_eq!(serde_json::from_str::<Layers>(&json).unwrap(), layers);
    }
}
