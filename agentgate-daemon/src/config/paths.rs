//! Where things are on a host, below one root.

use std::path::{Path, PathBuf};

/// The places of all files. Only the root is chosen; the rest follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `/etc/agentgate`: what people write.
    pub etc: PathBuf,
    /// `/var/lib/agentgate`: what the daemon keeps.
    pub var: PathBuf,
    /// `/run/agentgate`: what ends with the daemon.
    pub run: PathBuf,
    /// `policy.toml`.
    pub policy: PathBuf,
    /// Directory of the host lists.
    pub lists: PathBuf,
    /// The mode's override file. With the daemon's state, because the daemon writes it.
    pub mode: PathBuf,
    /// The audit log's database.
    pub store: PathBuf,
    /// The CA's certificate, PEM.
    pub ca_cert: PathBuf,
    /// The CA's key, PEM, 0600.
    pub ca_key: PathBuf,
    /// The control socket, for the group that may steer.
    pub control_socket: PathBuf,
    /// The enrolment socket, for every user.
    pub enrol_socket: PathBuf,
    /// The agent's trust bundle: the host's roots and the CA, PEM.
    pub bundle: PathBuf,
    /// The agent's environment, one `NAME=value` a line.
    pub env_file: PathBuf,
    /// The dashboard's token, 0600.
    pub dashboard_token: PathBuf,
}

impl Paths {
    /// The places below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let etc = root.join("etc/agentgate");
        let var = root.join("var/lib/agentgate");
        let run = root.join("run/agentgate");
        Self {
            policy: etc.join("policy.toml"),
            lists: etc.join("lists"),
            mode: var.join("mode"),
            store: var.join("audit.redb"),
            ca_cert: var.join("ca.crt"),
            ca_key: var.join("ca.key"),
            control_socket: run.join("control.sock"),
            enrol_socket: run.join("enrol.sock"),
            bundle: run.join("ca-bundle.pem"),
            env_file: run.join("agent.env"),
            dashboard_token: var.join("dashboard.token"),
            etc,
            var,
            run,
        }
    }

    /// `agentgate.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.etc.join("agentgate.toml")
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

/// A path that may be left out, which TOML has no value for: written as an empty string.
pub(super) mod optional {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.clone().unwrap_or_default().serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }
}
