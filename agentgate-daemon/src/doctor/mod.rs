//! `agentctl doctor`: whether this host can guard, and does.
//!
//! `trust` tries the runtimes. The rest looks and asks; changes nothing and sends nothing to the network. Works as an ordinary user as far as
//! it goes: what it could not see it says, and that is neither well nor a fault.

mod gate;
mod host;
mod store;
pub mod trust;

use std::path::Path;

use serde::Serialize;

use crate::config::{Config, Paths};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// A layer is missing, or something is not as people mostly want it.
    Warn,
    /// Agents are not guarded, or cannot work.
    Fail,
    /// Could not be seen by whoever asked.
    Unseen,
}

impl State {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Unseen => "?",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    pub state: State,
    /// What there is.
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

impl Check {
    fn new(name: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { name, state, found: found.into(), advice: String::new() }
    }
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Ok, found)
    }
    fn warn(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Warn, found)
    }
    fn fail(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Fail, found)
    }
    fn unseen(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Unseen, found)
    }
    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// No check failed.
    pub ok: bool,
    pub checks: Vec<Check>,
}

/// Looks at this host, whose gate has its files below `root`, its settings in `file` or at their place
/// there, and answers at `socket`.
#[must_use]
pub fn examine(root: &Path, file: Option<&Path>, socket: &Path) -> Report {
    let paths = Paths::below(root);
    let (config, settings) = settings(root, file, &paths);
    let mut checks = host::checks(&config);
    checks.push(settings);
    checks.extend(gate::checks(&paths, socket, config.audit.retention.bytes));
    checks.extend(store::checks(&config, &paths));
    Report { ok: checks.iter().all(|check| check.state != State::Fail), checks }
}

/// The settings, or their defaults where they cannot be read.
fn settings(root: &Path, file: Option<&Path>, paths: &Paths) -> (Config, Check) {
    let name = "settings";
    if let Err(error) = std::fs::File::open(file.unwrap_or(&paths.config()))
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return (Config::default(), Check::unseen(name, "cannot be read by this user; defaults are taken"));
    }
    match Config::load(file, root) {
        Ok(config) => (config, Check::ok(name, "in order")),
        Err(errors) => {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let check =
                Check::fail(name, all.join("; ")).advise("mend it; `agentgated --check-config` checks");
            (Config::default(), check)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_gate_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let report = examine(dir.path(), None, &Paths::below(dir.path()).control_socket);
        assert!(!report.ok);
        let find = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(find("daemon").state, State::Fail);
        assert!(find("daemon").advice.contains("systemctl"));
        assert_eq!(find("policy").state, State::Fail);
        for (at, check) in report.checks.iter().enumerate() {
            assert!(report.checks[..at].iter().all(|other| other.name != check.name), "{}", check.name);
            assert!(check.state != State::Fail || !check.advice.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn settings_that_do_not_hold_are_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(&paths.etc).unwrap();
        std::fs::write(paths.config(), "[run]\nhide = [\"dockr\"]\n[dns]\nresolvers = [\"127.0.0.1\"]\n")
            .unwrap();
        let (_, check) = settings(dir.path(), None, &paths);
        assert!(check.state == State::Fail && check.found.contains("dockr"), "{check:?}");
    }
}
