//! What the running daemon may do, as the kernel sees it: the real binary on a throw-away cgroup.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use agentgate::{kernel::GuardedCgroup, privileges::RUNNING};
use rustix::thread::CapabilitySet;

/// A daemon that is up; gone with everything it made on drop.
struct Daemon {
    child: Child,
    cgroup: PathBuf,
    pins: PathBuf,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let name = format!("agentgate-privileges-{}", std::process::id());
        let cgroup = GuardedCgroup::find(&name).unwrap().directory().to_owned();
        let pins = Path::new("/sys/fs/bpf").join(&name);
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agentgate.toml");
        let text = format!(
            "[gate]\ncgroup = \"{name}\"\nlisten_port = 0\npin_dir = \"{}\"\n[dns]\nlisten_port = 0\nresolvers = [\"127.0.0.1:9\"]\n\
             [dashboard]\nenabled = false\n[control]\ngroup = \"root\"\n",
            pins.display()
        );
        fs::write(&config, text).unwrap();
        fs::create_dir_all(dir.path().join("etc/agentgate")).unwrap();
        fs::write(dir.path().join("etc/agentgate/policy.toml"), "version = 1\n").unwrap();
        let notify = dir.path().join("notify");
        let told = UnixDatagram::bind(&notify).unwrap();
        told.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentgated"));
        command.arg("--root").arg(dir.path()).arg("--config").arg(&config).env("NOTIFY_SOCKET", &notify);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let daemon = Self { child, cgroup, pins, dir };
        let mut state = [0; 256];
        loop {
            let length = told.recv(&mut state).expect("the daemon comes up within a minute");
            if state[..length].starts_with(b"READY=1") {
                return daemon;
            }
        }
    }

    /// The lines of one kind in every thread's status.
    fn each_thread(&self, name: &str) -> Vec<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                u64::from_str_radix(value.trim(), 16).unwrap()
            })
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        let _none = fs::remove_dir_all(&self.pins);
        for scope in fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
            let _file = fs::remove_dir(scope.path());
        }
        let _none = fs::remove_dir(&self.cgroup);
        assert!(self.dir.path().exists());
    }
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn every_thread_of_the_daemon_has_what_it_needs_and_no_more() {
    let daemon = Daemon::start();
    // Its own limit of priorities: where it may not raise that, it keeps what stands in for it.
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let nice = limits.lines().find_map(|line| line.strip_prefix("Max nice priority")).unwrap();
    let nice = nice.split_whitespace().next().unwrap();
    let ordinary = nice == "unlimited" || nice.parse::<u64>().unwrap() >= 20;
    let kept = if ordinary { RUNNING } else { RUNNING | CapabilitySet::SYS_NICE };
    let permitted = daemon.each_thread("CapPrm:");
    assert!(permitted.len() > 2, "{permitted:?}");
    assert!(permitted.iter().all(|set| *set == kept.bits()), "{permitted:x?}");
    // Threads come and go between two looks.
    let effective = daemon.each_thread("CapEff:");
    assert!(effective.len() > 2 && effective.iter().all(|set| *set == kept.bits()), "{effective:x?}");
    for none in ["CapInh:", "CapAmb:"] {
        assert!(daemon.each_thread(none).iter().all(|set| *set == 0), "{none}");
    }
    let bounding = daemon.each_thread("CapBnd:");
    let all = kept | agentgate::privileges::ATTACHING;
    assert!(bounding.iter().all(|set| set & !all.bits() == 0), "{bounding:x?}");
    assert!(daemon.each_thread("NoNewPrivs:").iter().all(|set| *set == 1));
}

/// What it keeps is enough to put another user's process under guard and to look at what it holds.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn a_daemon_with_so_little_guards_the_processes_of_other_users() {
    let daemon = Daemon::start();
    fs::set_permissions(daemon.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let agentctl = daemon.dir.path().join("agentctl");
    fs::copy(env!("CARGO_BIN_EXE_agentctl"), &agentctl).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1234", "--regid=1234", "--clear-groups", "--"]).arg(&agentctl);
    command.arg("--root").arg(daemon.dir.path()).args(["run", "--quiet", "--", "cat", "/proc/self/cgroup"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let inside = daemon.cgroup.file_name().unwrap().to_str().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(inside), "{output:?}");
}

/// Settings and policy can be checked before there is a daemon, by whoever wrote them.
#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn checking_settings_needs_no_privilege() {
    let dir = tempfile::tempdir().unwrap();
    let agentgated = dir.path().join("agentgated");
    fs::copy(env!("CARGO_BIN_EXE_agentgated"), &agentgated).unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.path().join("etc/agentgate")).unwrap();
    fs::write(dir.path().join("etc/agentgate/policy.toml"), "version = 1\n").unwrap();
    fs::write(dir.path().join("etc/agentgate/agentgate.toml"), "[dns]\nresolvers = [\"127.0.0.1:9\"]\n")
        .unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1234", "--regid=1234", "--clear-groups", "--bounding-set=-all", "--"]);
    let output =
        command.arg(&agentgated).arg("--root").arg(dir.path()).arg("--check-config").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn the_index_of_words_is_built_where_nothing_else_runs() {
    // Of sched(7), by the 41st field of proc_pid_stat(5): it is idle while it works, and raised meanwhile. A
    // thread that may not come back from there would be SCHED_OTHER, 0, all the time.
    const BATCH: &str = "3";
    const IDLE: &str = "5";
    let daemon = Daemon::start();
    let classes = || -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
        let classes = tasks.filter_map(|task| {
            let line = fs::read_to_string(task.unwrap().path().join("stat")).ok()?;
            let (name, fields) = line.rsplit_once(')')?;
            let class = fields.split_whitespace().nth(41 - 3)?.to_owned();
            name.ends_with("(text").then_some(class)
        });
        classes.collect()
    };
    let is_so = |classes: &[String]| matches!(classes, [class] if [BATCH, IDLE].contains(&class.as_str()));
    let until = Instant::now() + Duration::from_secs(30);
    let mut seen = classes();
    // It may not have begun yet.
    while !is_so(&seen) && Instant::now() < until {
        thread::yield_now();
        seen = classes();
    }
    assert!(is_so(&seen), "{seen:?}");
}
