//! What was measured on what.

use std::{fs, process::Command};

use serde::Serialize;

use super::{install, setting::Setting};

/// Names and versions, as a table tells them.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Versions {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    /// File system of the stores.
    pub(crate) disk: String,
    /// Peers and libraries.
    pub(crate) programs: Vec<(String, String)>,
}

/// Reads them all; what cannot be told is empty.
pub(crate) fn read(setting: &Setting) -> Versions {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_start_matches([' ', '\t', ':']).to_owned()
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = after(&meminfo, "MemTotal").split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
    let dir = setting.dir.display().to_string();
    Versions {
        date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        cpu: after(&cpuinfo, "model name"),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: memory.unwrap_or_default() / 1024,
        disk: said("stat", &["--file-system", "--format=%T", &dir]),
        programs: programs(setting),
    }
}

fn programs(setting: &Setting) -> Vec<(String, String)> {
    let workspace = install::workspace();
    let git = |arguments: &[&str]| {
        let mut all = vec!["-c", "safe.directory=*", "-C"];
        let dir = workspace.display().to_string();
        all.push(&dir);
        all.extend_from_slice(arguments);
        said("git", &all)
    };
    let changed =
        if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { ", changed" };
    let lock = fs::read_to_string(workspace.join("agentgate-daemon/bench-peers/Cargo.lock"));
    let lock = lock.unwrap_or_default();
    let mut all =
        vec![("agentgate".to_owned(), format!("{}{changed}", git(&["rev-parse", "--short", "HEAD"])))];
    for name in ["rustls", "tokio-rustls", "aws-lc-rs", "h2", "hyper", "hudsucker"] {
        all.push((name.to_owned(), locked(&lock, name)));
    }
    if let Some(mitmdump) = &setting.programs.mitmdump {
        let text = said(&mitmdump.display().to_string(), &["--version"]);
        let of = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
        };
        all.push(("mitmproxy".to_owned(), format!("{}, Python {}", of("Mitmproxy:"), of("Python:"))));
    }
    if let Some(squid) = &setting.programs.squid {
        let mut command = Command::new(squid);
        if let Some(path) = setting.squid_libraries() {
            command.env("LD_LIBRARY_PATH", path);
        }
        let text = output(command.arg("-v"));
        let version = text.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
        all.push(("squid".to_owned(), format!("{version}, OpenSSL, ssl-bump")));
    }
    all
}

/// The version of a package in a lock file: the newest, where there are several.
fn locked(lock: &str, name: &str) -> String {
    let start = format!("name = \"{name}\"");
    let mut lines = lock.lines();
    let mut found = String::new();
    while lines.any(|line| line == start) {
        let version = lines.next().and_then(|line| line.strip_prefix("version = "));
        found = version.unwrap_or_default().trim_matches('"').to_owned();
    }
    found
}

fn said(program: &str, arguments: &[&str]) -> String {
    output(Command::new(program).args(arguments))
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_lock_file() {
        let lock = "[[package]]\nname = \"h2\"\nversion = \"0.3.1\"\n\n[[package]]\nname = \"h2\"\nversion = \"0.4.20\"\n";
        assert_eq!(locked(lock, "h2"), "0.4.20");
        assert_eq!(locked(lock, "h3"), "");
    }
}
