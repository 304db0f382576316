//! Fresh scopes in the guarded slice, made by systemd.
//!
//! Where systemd runs, the cgroups of a slice are its own and nobody else may make some there
//! (systemd.io/CGROUP_DELEGATION, "single-writer rule"). It is asked over D-Bus with `busctl`, and it
//! removes a scope by itself when the last process has left.

use std::{
    io,
    mem::MaybeUninit,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::inotify,
};

use super::cgroup::{confirm, of_peer, scope_name, stranger};
use crate::{
    control::{
        enrol::{EnrolError, Enroller},
        peer::{PeerError, Process, is_inside},
    },
    kernel::GuardedCgroup,
};

/// How long systemd may take from the call to the move. It queues a job; a loaded host needs a second.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where busctl is; never looked up by PATH, since the daemon is root.
const BUSCTL: [&str; 2] = ["/usr/bin/busctl", "/bin/busctl"];

/// Whether systemd is PID 1: sd_booted(3).
#[must_use]
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The slice's unit name, where `path` (below the cgroup v2 mount point) is where systemd puts that slice.
#[must_use]
pub fn slice_name(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let stem = name.strip_suffix(".slice").filter(|stem| !stem.is_empty())?;
    // systemd.slice(5): `a-b.slice` lies in `a.slice`.
    let mut expected = String::new();
    for (at, _) in stem.match_indices('-') {
        expected.push_str(&format!("/{}.slice", &stem[..at]));
    }
    expected.push_str(&format!("/{name}"));
    (expected == path).then_some(name)
}

/// Asks systemd for transient scopes.
#[derive(Debug)]
pub struct SystemdScopes {
    guarded: GuardedCgroup,
    slice: String,
    number: AtomicU64,
}

impl SystemdScopes {
    /// Scopes of `slice`, whose cgroup is `guarded`.
    #[must_use]
    pub fn new(guarded: GuardedCgroup, slice: String) -> Self {
        Self { guarded, slice, number: AtomicU64::new(0) }
    }
}

impl Enroller for SystemdScopes {
    fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
        // The time makes the name one that no earlier daemon gave to a scope that still runs.
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let stamp = u64::try_from(crate::model::Timestamp::now().0).unwrap_or(0);
        let unit = scope_name(process.pid(), stamp.wrapping_add(number));
        // Before the call, so that no event is missed.
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|e| EnrolError::step("inotify_init1")(e.into()))?;
        let directory = self.guarded.directory();
        watch(&events, directory, inotify::WatchFlags::CREATE)
            .map_err(EnrolError::step(format!("watch {}", directory.display())))?;
        if !process.is_alive().map_err(of_peer(process))? {
            return Err(EnrolError::ProcessGone { pid: process.pid() });
        }
        start(&unit, &self.slice, process.pid())?;
        let expected = self.guarded.child(&unit);
        self.wait(&events, process, &unit, &expected)?;
        confirm(process, &expected)
    }
}

impl SystemdScopes {
    /// Waits until the process is in `expected`: the call only queues a job, so the move comes later.
    /// Where it ends meanwhile, until the deadline for whom the job moves instead.
    fn wait(
        &self,
        events: &impl std::os::fd::AsFd,
        process: &Process,
        unit: &str,
        expected: &str,
    ) -> Result<(), EnrolError> {
        let deadline = Instant::now() + DEADLINE;
        let directory = self.guarded.directory().join(unit);
        let mut gone = false;
        loop {
            // `cgroup.events` changes when the first process comes in (cgroup-v2.rst, "populated"). It
            // exists once the scope does, which the watch on the slice tells.
            let populated = directory.join("cgroup.events");
            match watch(events, &populated, inotify::WatchFlags::MODIFY) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(EnrolError::step(format!("watch {}", populated.display()))(e)),
            }
            // Looked at after the watch is set: whatever happens from here on gives an event.
            match process.cgroup() {
                Ok(found) if is_inside(&found, Path::new(expected)) => return Ok(()),
                Ok(_) => {}
                // The job is queued with the number, and moves whoever has that by then: seen to the end.
                Err(PeerError::Gone { .. }) => match stranger(process, &directory, expected) {
                    Some(error) => return Err(error),
                    None => gone = true,
                },
                Err(error) => return Err(of_peer(process)(error)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = vec![PollFd::new(events, PollFlags::IN)];
            if !gone {
                fds.push(PollFd::from_borrowed_fd(process.handle(), PollFlags::IN));
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
                tv_nsec: left.subsec_nanos().into(),
            };
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) if gone => return Err(EnrolError::ProcessGone { pid: process.pid() }),
                Ok(0) => {
                    let detail =
                        format!("process {} was not in it after {} s", process.pid(), DEADLINE.as_secs());
                    return Err(EnrolError::Systemd { unit: unit.to_owned(), detail });
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(EnrolError::step("poll")(e.into())),
            }
            drain(events)?;
        }
    }
}

fn watch(events: &impl std::os::fd::AsFd, path: &Path, flags: inotify::WatchFlags) -> io::Result<()> {
    inotify::add_watch(events, path, flags)?;
    Ok(())
}

/// Reads what is there; which event it was does not matter, the state is looked at afresh.
fn drain(events: &impl std::os::fd::AsFd) -> Result<(), EnrolError> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut reader = inotify::Reader::new(events.as_fd(), &mut buffer);
    loop {
        match reader.next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(EnrolError::step("read inotify")(e.into())),
        }
    }
}

/// Arguments for busctl: `StartTransientUnit(name, mode, properties, aux)` of
/// org.freedesktop.systemd1(5).
fn arguments(unit: &str, slice: &str, pid: u32) -> Vec<String> {
    let pid = pid.to_string();
    let words = [
        "call",
        "--system",
        "--quiet",
        "--timeout=5",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        unit,
        // A name that is taken is an error.
        "fail",
        // Four properties, each: name, type, value.
        "4",
        "Description",
        "s",
        "Agent guarded by agentgate",
        "Slice",
        "s",
        slice,
        // Gone when empty, also if a process in it failed.
        "CollectMode",
        "s",
        "inactive-or-failed",
        // One pid.
        "PIDs",
        "au",
        "1",
        &pid,
        // No auxiliary units.
        "0",
    ];
    words.into_iter().map(str::to_owned).collect()
}

fn start(unit: &str, slice: &str, pid: u32) -> Result<(), EnrolError> {
    let failed = |detail: String| EnrolError::Systemd { unit: unit.to_owned(), detail };
    let busctl = BUSCTL
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| failed("busctl is not installed (package systemd)".to_owned()))?;
    let output = Command::new(busctl)
        .args(arguments(unit, slice, pid))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(EnrolError::step(format!("run {busctl}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().chars().take(300).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_known_by_where_systemd_would_put_it() {
        let rows = [
            ("/agent.slice", Some("agent.slice")),
            ("/agent.slice/agent-ci.slice", Some("agent-ci.slice")),
            ("/a.slice/a-b.slice/a-b-c.slice", Some("a-b-c.slice")),
            ("/agent-ci.slice", None),
            ("/x/agent.slice", None),
            ("/agent.slice/run-1.scope", None),
            ("/agents", None),
            ("/.slice", None),
            ("/", None),
            ("", None),
        ];
        for (path, expect) in rows {
            assert_eq!(slice_name(path), expect, "{path}");
        }
    }

    #[test]
    fn the_call_names_unit_slice_and_process() {
        let words = arguments("run-1-2.scope", "agent.slice", 77).join(" ");
        assert!(words.contains("StartTransientUnit ssa(sv)a(sa(sv)) run-1-2.scope fail 4 "), "{words}");
        assert!(words.contains(" Slice s agent.slice "), "{words}");
        assert!(words.ends_with(" PIDs au 1 77 0"), "{words}");
    }

    #[test]
    fn whom_a_queued_job_moved_instead_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let guarded = GuardedCgroup::on_mount("/", dir.path(), &dir.path().join("agent.slice")).unwrap();
        let scope = guarded.directory().join("run-1-0.scope");
        std::fs::create_dir_all(&scope).unwrap();
        std::fs::write(scope.join("cgroup.events"), "populated 0").unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        child.wait().unwrap();
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        let expected = guarded.child("run-1-0.scope");
        let scopes = SystemdScopes::new(guarded, "agent.slice".into());
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| scopes.wait(&events, &process, "run-1-0.scope", &expected));
            // Before or after the watch is set: either way it is found.
            std::fs::write(scope.join("cgroup.procs"), process.pid().to_string()).unwrap();
            std::fs::write(scope.join("cgroup.events"), "populated 1").unwrap();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, EnrolError::Stranger { .. }), "{error}");
        });
    }

    #[test]
    fn draining_ends_when_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        watch(&events, dir.path(), inotify::WatchFlags::CREATE).unwrap();
        drain(&events).unwrap();
        for n in 0..500 {
            std::fs::create_dir(dir.path().join(format!("a-rather-long-name-to-fill-the-buffer-{n}")))
                .unwrap();
        }
        drain(&events).unwrap();
        let ready = rustix::event::poll(
            &mut [PollFd::new(&events, PollFlags::IN)],
            Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
        );
        assert_eq!(ready, Ok(0));
    }
}
