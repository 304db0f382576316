//! The daemon's settings: `agentgate.toml` and the places of its files, read and checked once.
//!
//! Unknown keys are errors, every key has a default, and nothing else reads settings.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

mod check;
mod checkpoints;
pub mod hide;
mod mirror;
mod origin;
mod paths;
mod resolvers;

use crate::model::{Durability, TextIndex};

pub use crate::model::TextError as ConfigError;
pub use checkpoints::{Checkpoints, Syslog, Webhook};
pub use hide::Run;
pub use mirror::{Mirror, MirrorFormat};
pub use origin::{ClientCertificate, CrlDepth, Lenience, Origin};
pub use paths::Paths;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where files are.
    pub paths: Paths,
    pub gate: Gate,
    pub dns: Dns,
    pub tls: Tls,
    pub origin: Origin,
    pub capture: Capture,
    pub audit: AuditLog,
    pub limits: Limits,
    pub dashboard: Dashboard,
    pub control: ControlConfig,
    pub run: Run,
    pub log: Log,
}

/// `agentgate.toml` as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    gate: Gate,
    dns: Dns,
    tls: Tls,
    origin: Origin,
    capture: Capture,
    audit: AuditLog,
    limits: Limits,
    dashboard: Dashboard,
    control: ControlConfig,
    run: Run,
    log: Log,
}

/// `[gate]`: what is guarded, and where the listener is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// The guarded cgroup: relative to the cgroup v2 mount, or the absolute path of its directory.
    pub cgroup: String,
    /// Port of the listener on 127.0.0.1 and ::1; 0: any that is free.
    pub listen_port: u16,
    /// A cgroup above the guarded one whose programs refuse sockets made elsewhere to guarded processes:
    /// `/` for the root of cgroup v2, so that there is no elsewhere; empty for none.
    pub watch: String,
    /// Directory on a bpffs for pinned links and maps.
    pub pin_dir: PathBuf,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            cgroup: "agent.slice".to_owned(),
            listen_port: 7879,
            watch: "/".to_owned(),
            pin_dir: PathBuf::from("/sys/fs/bpf/agentgate"),
        }
    }
}

/// `[dns]`: how the daemon resolves names, for itself and for the agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Port of the agents' DNS server on 127.0.0.1 and ::1, UDP and TCP; 0: any that is free.
    pub listen_port: u16,
    /// Asked in this order; port 53 where none is written. [`Config::load`] puts the nameservers of
    /// `/etc/resolv.conf` here where the file names none.
    #[serde(with = "resolvers::written")]
    pub resolvers: Vec<SocketAddr>,
}

impl Default for Dns {
    fn default() -> Self {
        Self { listen_port: 7880, resolvers: Vec::new() }
    }
}

/// `[tls]`: whom the daemon trusts as an origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of roots to trust besides the host's.
    #[serde(with = "paths::optional")]
    pub extra_roots: Option<PathBuf>,
}

/// `[capture]`: how much of each body the record keeps, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    pub request_bytes: usize,
    pub response_bytes: usize,
}

impl Default for Capture {
    fn default() -> Self {
        Self { request_bytes: 1024 * 1024, response_bytes: 1024 * 1024 }
    }
}

/// `[audit]`: the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditLog {
    /// When a record is on disk: `before-forward`, before anything of a request is forwarded, or
    /// `backpressure`, within 50 ms.
    pub durability: Durability,
    /// Of what an index of words is kept, for free text: `bodies`, `heads` (URLs, hosts, headers, notes), or
    /// `off`. What is not indexed is looked through, but bodies are not with `heads`.
    pub text: TextIndex,
    /// Where its signed checkpoints are sent.
    pub checkpoints: Checkpoints,
    /// What is kept of it.
    pub retention: Retention,
    pub mirror: Mirror,
}

/// `[audit.retention]`: what is kept. 0: no such bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days since a record began.
    pub days: u64,
    /// Records.
    pub records: u64,
    /// Bytes that the log has in use of its file.
    pub bytes: u64,
    /// Days for which captured bodies are kept, where that is shorter than `days`.
    pub body_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 90, records: 0, bytes: 10 << 30, body_days: 0 }
    }
}

/// `[limits]`: deadlines in milliseconds, sizes in bytes, and the number of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From the first byte of a connection until it is known what it is.
    pub sniff_timeout_ms: u64,
    /// How long an agent may send nothing before it counts as one that lets the server speak first, but
    /// on ports where servers never do.
    pub silence_ms: u64,
    /// From the first byte of a request's head to its last.
    pub header_timeout_ms: u64,
    /// For the TLS handshake with the agent, and the one with the origin.
    pub handshake_timeout_ms: u64,
    /// Longest head of a request or response.
    pub header_bytes: usize,
    /// For resolving a name and connecting to it.
    pub connect_timeout_ms: u64,
    /// How long a connection may be without traffic. Long, because a model may think for minutes
    /// before its first token.
    pub idle_timeout_ms: u64,
    /// How long connections may take to end when the daemon stops.
    pub drain_timeout_ms: u64,
    /// Connections at one time; more wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sniff_timeout_ms: 5_000,
            silence_ms: 1_000,
            header_timeout_ms: 30_000,
            handshake_timeout_ms: 10_000,
            header_bytes: 256 * 1024,
            connect_timeout_ms: 10_000,
            idle_timeout_ms: 600_000,
            drain_timeout_ms: 10_000,
            connections: 4_096,
        }
    }
}

impl Limits {
    #[must_use]
    pub fn sniff_timeout(&self) -> Duration {
        Duration::from_millis(self.sniff_timeout_ms)
    }
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms)
    }
    #[must_use]
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

/// `[dashboard]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dashboard {
    pub enabled: bool,
    /// A loopback address: from elsewhere it is reached through ssh. Port 0: any that is free.
    pub listen: SocketAddr,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([127, 0, 0, 1], 7878)) }
    }
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Group whose members may use the control socket.
    pub group: String,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { group: "agentgate".to_owned() }
    }
}

/// `[log]`: the daemon's own log, on standard error. Not the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A tracing filter, such as `info` or `info,agentgate::tls=debug`.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::default() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Largest settings file, in bytes.
const LARGEST: u64 = 1024 * 1024;

impl Config {
    /// Reads and checks the settings. Without `file` they are `etc/agentgate/agentgate.toml` below
    /// `root`, or the defaults where there is no such file. Every path but `pin_dir` lies below `root`;
    /// `/etc/resolv.conf` is always the host's.
    ///
    /// # Errors
    /// Everything that is wrong with them, with file, line and column.
    pub fn load(file: Option<&Path>, root: &Path) -> Result<Self, Vec<ConfigError>> {
        let paths = Paths::below(root);
        let path = file.map_or_else(|| paths.config(), Path::to_owned);
        let name = path.display().to_string();
        let fault = |message: String| vec![ConfigError::whole(&name, message, "")];
        let text = match read(&path) {
            Ok(text) => text,
            // A file that was asked for by name is not to be missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(error) => return Err(fault(error.to_string())),
        };
        let mut config = Self { paths, ..Self::parse(&name, &text)? };
        if config.dns.resolvers.is_empty() {
            config.dns.resolvers = resolvers::of_host(Path::new("/etc/resolv.conf")).map_err(|reason| {
                vec![ConfigError::whole(&name, reason, "name one: dns.resolvers = [\"198.51.100.53\"]")]
            })?;
        }
        Ok(config)
    }

    /// Reads and checks settings from `text`; `file` is its name in messages. Paths are those of `/`,
    /// resolvers those that are written.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let document: Document = toml::from_str(text)
            .map_err(|e| vec![ConfigError::from_toml(file, text, e.message(), e.span())])?;
        let Document { gate, dns, tls, origin, capture, audit, limits, dashboard, control, run, log } =
            document;
        let config = Self {
            paths: Paths::default(),
            gate,
            dns,
            tls,
            origin,
            capture,
            audit,
            limits,
            dashboard,
            control,
            run,
            log,
        };
        let errors = check::check(&config, file, text);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file of at most 1 MiB"));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests;
