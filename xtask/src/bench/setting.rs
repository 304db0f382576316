//! The place where everything is measured: one network namespace with the origin at a public-looking
//! address of its loopback, names for it, a directory on a real disk, and a cgroup for each peer.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command as Blocking,
};

use anyhow::Context as _;
use rustix::{
    mount::mount_bind,
    process::{Pid, Resource, Rlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::peer::{self, Kind, Running};
use crate::lab::namespace;

/// The origin's address, of a documentation range (RFC 5737).
pub(crate) const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 443);
/// Where it tells its counters.
pub(crate) const COUNTERS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8_900);
/// The name server.
pub(crate) const NAMES: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 53), 53);
/// A name that interceptors open.
pub(crate) const INTERCEPTED: &str = "bench.example";
/// A name that the gate passes through.
pub(crate) const RAW: &str = "raw.example";
/// A name with a certificate that nobody may accept.
pub(crate) const UNTRUSTED: &str = "untrusted.example";

/// Sockets of one process: a thousand connections are two thousand in a proxy.
const DESCRIPTORS: u64 = 16_384;
/// Settings of the namespace, so that 6,000 new connections a second do not run out of ports: ports of
/// connections are above those of listeners.
const SYSCTLS: [(&str, &str); 3] = [
    ("ipv4/ip_local_port_range", "10000 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/tcp_max_syn_backlog", "4096"),
];

/// What was built and installed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Programs {
    pub(crate) agentgated: PathBuf,
    /// Load generator, origin, relays, hudsucker.
    pub(crate) peers: PathBuf,
    pub(crate) mitmdump: Option<PathBuf>,
    pub(crate) squid: Option<PathBuf>,
    /// What squid's package was unpacked into: `/` where it is installed.
    pub(crate) squid_files: PathBuf,
}

/// Where everybody is.
#[derive(Debug)]
pub(crate) struct Setting {
    /// On a disk.
    pub(crate) dir: PathBuf,
    /// Cgroups are made in it.
    pub(crate) cgroups: PathBuf,
    pub(crate) programs: Programs,
    /// Whether everything is pinned, whatever the figure.
    pub(crate) pin: bool,
    cpus: CpuSet,
}

impl Setting {
    /// Leaves the machine's namespaces. Before any thread exists.
    pub(crate) fn build(dir: PathBuf, cgroups: PathBuf, programs: Programs) -> anyhow::Result<Self> {
        namespace::leave_host()?;
        namespace::dress(&dir, &NAMES.ip().to_string())?;
        let hosts = dir.join("hosts");
        let ip = ORIGIN.ip();
        fs::write(
            &hosts,
            format!("127.0.0.1 localhost\n{ip} {INTERCEPTED}\n{ip} {RAW}\n{ip} {UNTRUSTED}\n"),
        )?;
        mount_bind(&hosts, "/etc/hosts").context("bind /etc/hosts")?;
        for words in [
            vec!["link", "set", "lo", "up"],
            // Addresses of no interface, yet delivered here: an interface's own would be the host itself, to
            // which the gate lets nobody connect.
            vec!["route", "add", "local", "192.0.2.0/24", "dev", "lo"],
        ] {
            let output = Blocking::new("ip").args(&words).output().context("ip (package iproute2)")?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "ip {}: {}", words.join(" "), complaint.trim());
        }
        for (name, value) in SYSCTLS {
            fs::write(Path::new("/proc/sys/net").join(name), value).with_context(|| name.to_owned())?;
        }
        let limit = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
        setrlimit(Resource::Nofile, limit).context("RLIMIT_NOFILE")?;
        let cpus = sched_getaffinity(None).context("sched_getaffinity")?;
        let setting = Self { dir, cgroups, programs, pin: false, cpus };
        fs::create_dir_all(setting.pki())?;
        let made = Blocking::new(&setting.programs.peers).arg("pki").arg(setting.pki()).output();
        let made = made.context("make certificates")?;
        anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(setting)
    }

    /// The origin, ready.
    pub(crate) async fn origin(&self) -> anyhow::Result<Running> {
        let mut command = self.child(&self.cgroup("origin")?, &self.programs.peers);
        command.arg("origin").arg("--listen").arg(ORIGIN.to_string());
        command.arg("--counters").arg(COUNTERS.to_string()).arg("--dns").arg(NAMES.to_string());
        command.arg("--pki").arg(self.pki());
        peer::serve(command, &self.log("origin")).await.with_context(|| self.tail("origin"))
    }

    /// A program in a cgroup. It dies with this thread, and needs no unsafe code for either.
    pub(crate) fn child(&self, cgroup: &Path, program: &Path) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", "echo 0 >\"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup);
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program);
        command.kill_on_drop(true);
        command
    }

    /// A cgroup of that name, made where it is not there.
    pub(crate) fn cgroup(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.cgroups.join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// The cgroup of the client of a peer: the gate's is guarded, all others' are the same.
    pub(crate) fn client(&self, peer: &Running) -> PathBuf {
        let name = peer.kind.name();
        if peer.kind.is_gate() {
            self.cgroups.join(name).join("agent.slice/client")
        } else {
            self.cgroups.join("client")
        }
    }

    /// Certificates and keys.
    pub(crate) fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The one authority that the client of a peer trusts.
    pub(crate) fn trusted(&self, kind: Kind, name: &str) -> PathBuf {
        match kind {
            Kind::Direct | Kind::Splice => self.pki().join("origin-ca.pem"),
            Kind::Gate | Kind::GateBackpressure | Kind::GateBeforeForward if name == RAW => {
                self.pki().join("origin-ca.pem")
            }
            Kind::Gate | Kind::GateBackpressure | Kind::GateBeforeForward => {
                self.root(kind).join("var/lib/agentgate/ca.crt")
            }
            Kind::Tls
            | Kind::TlsResume
            | Kind::Mitmproxy
            | Kind::MitmproxyStream
            | Kind::Squid
            | Kind::Hudsucker => self.pki().join("mitm-ca.pem"),
        }
    }

    /// What a gate's `--root` names.
    pub(crate) fn root(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.name())
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The end of a log.
    pub(crate) fn tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// The CPU that pinned figures are measured on: interrupts mostly go to the first.
    pub(crate) fn last_cpu(&self) -> usize {
        (0..CpuSet::MAX_CPU).rev().find(|cpu| self.cpus.is_set(*cpu)).unwrap_or_default()
    }

    /// Puts the threads of a peer and of the origin onto one CPU, or lets them run on all again.
    pub(crate) fn pin(&self, peer: &Running, pinned: bool) -> anyhow::Result<()> {
        let mut set = self.cpus;
        if pinned {
            set = CpuSet::new();
            set.set(self.last_cpu());
        }
        let origin = self.cgroup("origin")?;
        for cgroup in peer.cgroup.iter().chain([&origin]) {
            for thread in fs::read_to_string(cgroup.join("cgroup.threads"))?.lines() {
                // One that has ended meanwhile needs no CPU.
                let _gone = sched_setaffinity(thread.parse().ok().and_then(Pid::from_raw), &set);
            }
        }
        Ok(())
    }

    /// One of squid's programs, as squid's user.
    pub(crate) fn squid(&self, program: &Path) -> Blocking {
        let mut command = Blocking::new("setpriv");
        command.args(["--reuid", SQUID_USER, "--regid", SQUID_USER, "--clear-groups"]).arg(program);
        if let Some(path) = self.squid_libraries() {
            command.env("LD_LIBRARY_PATH", path);
        }
        command
    }

    /// Where squid's libraries are, if not where the system has them.
    pub(crate) fn squid_libraries(&self) -> Option<PathBuf> {
        let files = &self.programs.squid_files;
        let architecture = std::env::consts::ARCH;
        (files != Path::new("/")).then(|| files.join(format!("usr/lib/{architecture}-linux-gnu")))
    }

    /// Lets squid's user write there.
    pub(crate) fn give_to_squid(&self, dir: &Path) -> anyhow::Result<()> {
        let done = Blocking::new("chown").args(["-R", SQUID_USER]).arg(dir).status().context("chown")?;
        anyhow::ensure!(done.success(), "chown {}: {done}", dir.display());
        Ok(())
    }
}

/// Debian's, with this number everywhere.
const SQUID_USER: &str = "proxy";
