//! Who is measured: what each is, how it is started, and when it is ready.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{interval, timeout},
};

use super::{
    gate,
    install::SQUID_HELPER,
    setting::{ORIGIN, Setting},
};
use crate::lab::fdstore::Manager;

/// From start to readiness: Python on a busy machine takes its time.
const START: Duration = Duration::from_secs(60);
/// From SIGTERM, or the end of its input, to the end.
const STOP: Duration = Duration::from_secs(20);

/// A way from the client to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Nothing between
    Direct,
    /// A relay of TCP
    Splice,
    /// The floor: a relay that terminates and originates TLS and parses nothing
    Tls,
    /// The same, resuming its sessions with the origin
    TlsResume,
    /// The gate where its setting of durability is not to be had
    Gate,
    /// The gate, recording with back-pressure
    GateBackpressure,
    /// The gate, each request durably on record before it leaves
    GateBeforeForward,
    /// mitmdump as it comes
    Mitmproxy,
    /// mitmdump that streams bodies
    MitmproxyStream,
    /// squid with ssl-bump
    Squid,
    /// hudsucker
    Hudsucker,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Direct,
        Self::Splice,
        Self::Tls,
        Self::TlsResume,
        Self::Gate,
        Self::GateBackpressure,
        Self::GateBeforeForward,
        Self::Mitmproxy,
        Self::MitmproxyStream,
        Self::Squid,
        Self::Hudsucker,
    ];

    /// In tables, and in names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Splice => "splice",
            Self::Tls => "tls",
            Self::TlsResume => "tls-resume",
            Self::Gate => "gate",
            Self::GateBackpressure => "gate-backpressure",
            Self::GateBeforeForward => "gate-before-forward",
            Self::Mitmproxy => "mitmproxy",
            Self::MitmproxyStream => "mitmproxy-stream",
            Self::Squid => "squid",
            Self::Hudsucker => "hudsucker",
        }
    }

    pub(crate) fn is_gate(self) -> bool {
        matches!(self, Self::Gate | Self::GateBackpressure | Self::GateBeforeForward)
    }

    /// What `[audit] durability` says.
    pub(crate) fn durability(self) -> Option<&'static str> {
        match self {
            Self::GateBackpressure => Some("backpressure"),
            Self::GateBeforeForward => Some("before-forward"),
            Self::Direct
            | Self::Splice
            | Self::Tls
            | Self::TlsResume
            | Self::Gate
            | Self::Mitmproxy
            | Self::MitmproxyStream
            | Self::Squid
            | Self::Hudsucker => None,
        }
    }

    /// Whether the client asks it for a tunnel.
    pub(crate) fn is_explicit(self) -> bool {
        matches!(self, Self::Mitmproxy | Self::MitmproxyStream | Self::Squid | Self::Hudsucker)
    }

    /// The port that it listens on, of those that no connection takes.
    pub(crate) fn port(self) -> u16 {
        let at = Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default();
        9_000 + u16::try_from(at).unwrap_or_default() * 10
    }

    fn listens(self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Where the client connects to.
    pub(crate) fn meets(self) -> SocketAddr {
        match self {
            Self::Direct | Self::Gate | Self::GateBackpressure | Self::GateBeforeForward => {
                SocketAddr::V4(ORIGIN)
            }
            Self::Splice
            | Self::Tls
            | Self::TlsResume
            | Self::Mitmproxy
            | Self::MitmproxyStream
            | Self::Squid
            | Self::Hudsucker => self.listens(),
        }
    }
}

/// How its end is brought about.
#[derive(Debug)]
enum Life {
    /// There is nobody.
    None,
    /// Ends with its input.
    Piped(Child),
    /// Ends at a signal. The gate's manager hears what it says.
    Signalled(Child, Option<Manager>),
}

/// A peer that is ready.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) kind: Kind,
    /// What its CPU time and memory are charged to; `None` where there is nobody.
    pub(crate) cgroup: Option<PathBuf>,
    life: Life,
}

impl Running {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// With the end of its log, when it ends or is not ready in time.
    pub(crate) async fn start(kind: Kind, setting: &Setting) -> anyhow::Result<Self> {
        if kind == Kind::Direct {
            return Ok(Self { kind, cgroup: None, life: Life::None });
        }
        let cgroup = setting.cgroup(kind.name())?;
        let started = async {
            anyhow::Ok(match kind {
                Kind::Direct => Life::None,
                Kind::Splice | Kind::Tls | Kind::TlsResume | Kind::Hudsucker => {
                    piped(own(kind, setting, &cgroup), &setting.log(kind.name())).await?
                }
                Kind::Gate | Kind::GateBackpressure | Kind::GateBeforeForward => {
                    let (child, manager) = gate::start(kind, setting).await?;
                    Life::Signalled(child, Some(manager))
                }
                Kind::Mitmproxy | Kind::MitmproxyStream => {
                    listening(mitmproxy(kind, setting, &cgroup)?, kind, setting).await?
                }
                Kind::Squid => listening(squid(setting, &cgroup)?, kind, setting).await?,
            })
        };
        let late = || format!("{} is not ready in {START:?}\n{}", kind.name(), setting.tail(kind.name()));
        let life = timeout(START, started).await.with_context(late)?;
        let life = life.with_context(|| format!("start {}\n{}", kind.name(), setting.tail(kind.name())))?;
        let charged = if kind.is_gate() { gate::daemon_cgroup(kind, setting)? } else { cgroup };
        Ok(Self { kind, cgroup: Some(charged), life })
    }

    /// Ends it and waits for its end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let ended = match self.life {
            Life::None => return Ok(()),
            Life::Piped(mut child) => {
                drop(child.stdin.take());
                timeout(STOP, child.wait()).await
            }
            Life::Signalled(mut child, _manager) => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                kill_process(pid.context("it has ended already")?, Signal::TERM)?;
                timeout(STOP, child.wait()).await
            }
        };
        ended.with_context(|| format!("{} does not end", self.kind.name()))??;
        Ok(())
    }

    /// Resident memory of all its processes, in KiB.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let cgroup = self.cgroup.as_ref().context("nobody has no memory")?;
        let mut sum = 0;
        for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()).unwrap_or("0");
            sum += kib.parse::<u64>()?;
        }
        Ok(sum)
    }
}

/// Our own peers say `ready`, and end with their input.
async fn piped(mut command: Command, log: &Path) -> anyhow::Result<Life> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(appended(log)?);
    let mut child = command.spawn().context("start it")?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let line = lines.next_line().await?;
    anyhow::ensure!(line.as_deref() == Some("ready"), "it ended before it was ready");
    Ok(Life::Piped(child))
}

/// One of our own peers, or the origin, started and ready.
pub(crate) async fn serve(command: Command, log: &Path) -> anyhow::Result<Running> {
    let life = timeout(START, piped(command, log)).await.context("it is not ready")??;
    Ok(Running { kind: Kind::Direct, cgroup: None, life })
}

fn appended(log: &Path) -> anyhow::Result<fs::File> {
    fs::File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())
}

/// Others are ready when they take a connection.
async fn listening(mut command: Command, kind: Kind, setting: &Setting) -> anyhow::Result<Life> {
    let log = appended(&setting.log(kind.name()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().context("start it")?;
    let mut look = interval(Duration::from_millis(20));
    while TcpStream::connect(kind.listens()).await.is_err() {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("it ended with {status}");
        }
        look.tick().await;
    }
    Ok(Life::Signalled(child, None))
}

fn own(kind: Kind, setting: &Setting, cgroup: &Path) -> Command {
    let mut command = setting.child(cgroup, &setting.programs.peers);
    match kind {
        Kind::Splice => command.args(["relay", "splice"]),
        Kind::Tls | Kind::TlsResume => command.args(["relay", "tls"]),
        Kind::Direct
        | Kind::Gate
        | Kind::GateBackpressure
        | Kind::GateBeforeForward
        | Kind::Mitmproxy
        | Kind::MitmproxyStream
        | Kind::Squid
        | Kind::Hudsucker => command.arg("hudsucker"),
    };
    command.arg("--listen").arg(kind.listens().to_string());
    if kind != Kind::Hudsucker {
        command.arg("--to").arg(ORIGIN.to_string());
    }
    if kind != Kind::Splice {
        command.arg("--pki").arg(setting.pki());
    }
    command.args((kind == Kind::TlsResume).then_some("--resume"));
    command
}

fn mitmproxy(kind: Kind, setting: &Setting, cgroup: &Path) -> anyhow::Result<Command> {
    let program = setting.programs.mitmdump.as_ref().context("mitmproxy is not installed")?;
    let mut command = setting.child(cgroup, program);
    let set = |command: &mut Command, name: &str, value: &Path| {
        command.arg("--set").arg(format!("{name}={}", value.display()));
    };
    command.args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", &kind.port().to_string()]);
    set(&mut command, "confdir", &setting.pki());
    set(&mut command, "ssl_verify_upstream_trusted_ca", &setting.pki().join("origin-ca.pem"));
    if kind == Kind::MitmproxyStream {
        command.args(["--set", "stream_large_bodies=1"]);
    }
    Ok(command)
}

fn squid(setting: &Setting, cgroup: &Path) -> anyhow::Result<Command> {
    let program = setting.programs.squid.as_ref().context("squid is not installed")?;
    let dir = setting.dir.join("squid");
    fs::create_dir_all(&dir)?;
    let helper = setting.programs.squid_files.join(SQUID_HELPER);
    let share = setting.programs.squid_files.join("usr/share/squid");
    let (pki, at) = (setting.pki(), dir.display());
    let database = dir.join("leaves");
    if database.exists() {
        fs::remove_dir_all(&database)?;
    }
    // As the user that squid gives its privileges up for.
    setting.give_to_squid(&dir)?;
    let made = setting.squid(&helper).arg("-c").arg("-s").arg(&database).args(["-M", "16MB"]).output();
    let made = made.context("security_file_certgen")?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let config = format!(
        "http_port 127.0.0.1:{port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=16MB \
         tls-cert={pki}/mitm-ca.pem tls-key={pki}/mitm-ca.key\n\
         sslcrtd_program {helper} -s {at}/leaves -M 16MB\n\
         tls_outgoing_options cafile={pki}/origin-ca.pem\n\
         acl step1 at_step SslBump1\nssl_bump peek step1\nssl_bump bump all\n\
         http_access allow all\ncache deny all\nworkers 1\nmax_filedescriptors 16384\n\
         access_log none\ncache_log {at}/cache.log\npid_filename {at}/squid.pid\ncoredump_dir {at}\n\
         mime_table {share}/mime.conf\nerror_directory {langpack}/en\nicon_directory {share}/icons\n\
         unlinkd_program {lib}/unlinkd\nlogfile_daemon {lib}/log_file_daemon\n\
         client_idle_pconn_timeout 1 hour\nserver_idle_pconn_timeout 1 hour\nhosts_file /etc/hosts\nshutdown_lifetime 0 seconds\nvisible_hostname bench.example\n",
        port = Kind::Squid.port(),
        pki = pki.display(),
        helper = helper.display(),
        share = share.display(),
        lib = setting.programs.squid_files.join("usr/lib/squid").display(),
        langpack = setting.programs.squid_files.join("usr/share/squid-langpack").display(),
    );
    fs::write(dir.join("squid.conf"), config)?;
    setting.give_to_squid(&dir)?;
    let mut command = setting.child(cgroup, program);
    command.args(["-N", "-f"]).arg(dir.join("squid.conf"));
    if let Some(path) = setting.squid_libraries() {
        command.env("LD_LIBRARY_PATH", path);
    }
    Ok(command)
}
