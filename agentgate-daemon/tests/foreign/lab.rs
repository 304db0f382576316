//! Throw-away cgroups, a mount namespace, a network namespace and a bpffs: `…/agent.slice` is guarded,
//! the cgroup above it is watched, `…/host` is where everybody else lives.

#[path = "../shared/namespaces.rs"]
mod namespaces;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agentgate::kernel::{Attached, Kernel as _, LayerState, Options, cgroup2_mount, detach};
use agentgate_common::settings::Settings;
use namespaces::run;

/// What the programs in Python begin with.
const PRELUDE: &str = include_str!("prelude.py");
/// Port of the listener.
pub(crate) const LISTENER: u16 = 7879;

/// Runs a test in namespaces of one thread, and of what it starts.
pub(crate) fn in_namespaces(test: impl FnOnce(&Lab) + Send) {
    namespaces::alone(|| test(&Lab::new()));
}

/// Undone when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    directory: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bpf = directory.path().join("bpf");
        std::fs::create_dir(&bpf).unwrap();
        run("mount", &["--make-rprivate", "/"]);
        run("mount", &["-t", "bpf", "bpf", bpf.to_str().unwrap()]);
        run("ip", &["link", "set", "lo", "up"]);
        let name = directory.path().file_name().unwrap().to_str().unwrap().replace('.', "");
        let root = cgroup2_mount().unwrap().join(format!("agentgate-test-{name}"));
        let options = Options {
            cgroup: root.join("agent.slice"),
            pin_dir: bpf.join("agentgate"),
            watch: Some(root.clone()),
        };
        std::fs::create_dir_all(options.cgroup.join("run-1.scope")).unwrap();
        std::fs::create_dir(root.join("host")).unwrap();
        Self { directory, root, options }
    }

    /// Starts guarding.
    pub(crate) fn start(&self) -> Attached {
        let attached = Attached::start(&self.options).expect("the programs attach");
        attached.configure(&Settings { listener_port: LISTENER, ..Settings::default() }).unwrap();
        attached
    }

    /// A cgroup of the guarded ones.
    pub(crate) fn session(&self) -> PathBuf {
        self.options.cgroup.join("run-1.scope")
    }

    /// Runs a program outside the guard, below the watch, and gives what it shows.
    pub(crate) fn outside(&self, script: &str) -> serde_json::Value {
        let mut child = self.python(&self.root.join("host"));
        let paths = format!("SESSION = {:?}\n", self.session().display().to_string());
        child.stdin.take().unwrap().write_all(format!("{paths}{PRELUDE}\n{script}").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the program failed: {}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn python(&self, cgroup: &Path) -> std::process::Child {
        Command::new("sh")
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(cgroup.join("cgroup.procs"))
            .args(["/usr/bin/python3", "-I", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let detached = detach(&self.options);
        let cgroups =
            [self.session(), self.options.cgroup.clone(), self.root.join("host"), self.root.clone()];
        let removed = cgroups.iter().try_for_each(std::fs::remove_dir);
        run("umount", &[self.directory.path().join("bpf").to_str().unwrap()]);
        if !std::thread::panicking() {
            detached.unwrap();
            removed.unwrap();
        }
    }
}

/// Whether a layer is in force.
pub(crate) fn is_on(state: &LayerState) -> bool {
    match state {
        LayerState::On => true,
        LayerState::Absent(_) => false,
    }
}
