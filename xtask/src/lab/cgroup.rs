//! The lab's own cgroups: `agentgate-lab-…/host` for itself, `agentgate-lab-…/agent.slice` to guard.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::LabId;

/// How long killed processes may take to go: one in an uninterruptible wait of the kernel takes its
/// time, a lab that hangs for ever helps nobody.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// The mount point of cgroup v2: `/sys/fs/cgroup`, or below it where version 1 is mounted too.
///
/// # Errors
/// Where cgroup v2 is not mounted.
pub(crate) fn mount_point() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    find_mount(&mounts).context("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        // proc_pid_mountinfo(5): … root mount-point options [optional…] - type source options
        let (fields, kind) = line.split_once(" - ")?;
        let whole = fields.split(' ').nth(3)? == "/";
        let point = fields.split(' ').nth(4)?;
        (kind.starts_with("cgroup2 ") && whole).then(|| PathBuf::from(point))
    })
}

/// The cgroups of one lab. Dropping kills what is in them and removes them.
#[derive(Debug)]
pub(crate) struct LabCgroup {
    root: PathBuf,
}

impl LabCgroup {
    /// Makes them.
    pub(crate) fn create(id: LabId) -> anyhow::Result<Self> {
        let root = mount_point()?.join(id.to_string());
        fs::create_dir(&root).with_context(|| format!("make {}", root.display()))?;
        let made = Self { root };
        for dir in [made.host(), made.guarded()] {
            fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        Ok(made)
    }

    /// Where the lab's own processes and the daemon live.
    pub(crate) fn host(&self) -> PathBuf {
        self.root.join("host")
    }

    /// What the daemon guards.
    pub(crate) fn guarded(&self) -> PathBuf {
        self.root.join("agent.slice")
    }
}

impl Drop for LabCgroup {
    fn drop(&mut self) {
        if let Err(error) = destroy(&self.root) {
            eprintln!("cannot remove {}: {error:#}", self.root.display());
        }
    }
}

/// Makes one that has none below it.
pub(crate) fn create(root: &Path) -> anyhow::Result<()> {
    fs::create_dir(root).with_context(|| format!("make {}", root.display()))
}

/// Kills everything in a cgroup and below; the cgroups stay.
pub(crate) fn kill(root: &Path) -> anyhow::Result<()> {
    fs::write(root.join("cgroup.kill"), "1").context("cgroup.kill")?;
    wait_until_empty(root)
}

/// Kills everything in a cgroup and below, and removes both.
pub(crate) fn destroy(root: &Path) -> anyhow::Result<()> {
    match fs::write(root.join("cgroup.kill"), "1") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && !root.exists() => return Ok(()),
        Err(error) => return Err(error).context("cgroup.kill"),
    }
    wait_until_empty(root)?;
    remove(root)
}

/// Waits for `populated 0` in `cgroup.events`, whose changes the kernel tells through poll(2).
fn wait_until_empty(root: &Path) -> anyhow::Result<()> {
    let path = root.join("cgroup.events");
    loop {
        // Opened each time: the kernel tells of changes since the last read of this very file.
        let file = fs::File::open(&path).context("cgroup.events")?;
        let events = std::io::read_to_string(&file)?;
        if events.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let mut fds = [PollFd::new(&file, PollFlags::PRI | PollFlags::ERR)];
        if poll(&mut fds, Some(&PATIENCE))? == 0 {
            let stuck = fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default();
            anyhow::bail!("processes do not die: {}", stuck.replace('\n', " "));
        }
    }
}

/// Removes a tree of empty cgroups, leaves first.
fn remove(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(dir).with_context(|| format!("rmdir {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let unified =
            "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n";
        let part = "35 24 0:30 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let rows = [
            (hybrid, Some("/sys/fs/cgroup/unified")),
            (unified, Some("/sys/fs/cgroup")),
            (part, None),
            ("", None),
        ];
        for (text, expect) in rows {
            assert_eq!(find_mount(text).as_deref(), expect.map(Path::new), "{text}");
        }
    }
}
