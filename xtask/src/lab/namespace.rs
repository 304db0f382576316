//! Leaving for namespaces of one's own, and telling which one is in.

#![expect(unsafe_code, reason = "unshare(2) is unsafe in rustix; the one call stands below")]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context as _;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount},
    process::{Signal, getppid, set_parent_process_death_signal},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Asks for SIGKILL when the parent dies, and dies at once if it has already.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("PR_SET_PDEATHSIG")?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    anyhow::ensure!(now == Some(parent), "the process that started this one is gone");
    Ok(())
}

/// Puts this process into its own mount and network namespace. Call before any thread exists: threads
/// made earlier would stay behind.
pub(crate) fn leave_host() -> anyhow::Result<()> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
    // Mount events must not travel back to the machine.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("make mounts private")
}

/// Puts this thread alone into a network namespace of its own.
pub(crate) fn leave_network() -> anyhow::Result<()> {
    unshare(UnshareFlags::NEWNET)
}

fn unshare(flags: UnshareFlags) -> anyhow::Result<()> {
    // SAFETY: the danger is in unsharing the file table (UnshareFlags::FILES), which no caller does.
    unsafe { unshare_unsafe(flags) }.context("unshare")
}

/// Makes the file system of the private mount namespace what the lab needs: an empty bpffs, the small
/// internet's name server, and no way round it through the machine's systemd or name cache.
pub(crate) fn dress(dir: &Path, name_server: &str) -> anyhow::Result<()> {
    mount("bpffs", "/sys/fs/bpf", "bpf", MountFlags::empty(), None).context("mount bpffs on /sys/fs/bpf")?;
    let resolv = dir.join("resolv.conf");
    fs::write(&resolv, format!("nameserver {name_server}\n"))?;
    mount_bind(&resolv, "/etc/resolv.conf").context("bind /etc/resolv.conf")?;
    if let Ok(switch) = fs::read_to_string("/etc/nsswitch.conf") {
        // `resolve` and `mdns` would ask daemons of the machine over unix sockets.
        let lines = switch.lines().map(|l| if l.starts_with("hosts:") { "hosts: files dns" } else { l });
        let plain = dir.join("nsswitch.conf");
        fs::write(&plain, lines.collect::<Vec<_>>().join("\n") + "\n")?;
        mount_bind(&plain, "/etc/nsswitch.conf").context("bind /etc/nsswitch.conf")?;
    }
    // Without /run/systemd nobody asks the machine's systemd for a scope outside the lab's cgroup.
    for hidden in ["/run/systemd", "/run/nscd"] {
        if Path::new(hidden).is_dir() {
            mount("tmpfs", hidden, "tmpfs", MountFlags::empty(), None)
                .with_context(|| format!("hide {hidden}"))?;
        }
    }
    Ok(())
}

/// Mounts a file system of 32 MiB; it goes with the mount namespace.
pub(crate) fn mount_small_disk(at: &Path) -> anyhow::Result<()> {
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=32m,mode=0700").context("mount a small disk")
}

/// Gives the small disk room for a flood of records.
pub(crate) fn grow_small_disk(at: &Path) -> anyhow::Result<()> {
    mount_remount(at, MountFlags::empty(), c"size=2g").context("grow the small disk")
}

/// What names the namespace behind a link such as `/proc/self/ns/net`: its inode number.
pub(crate) fn inode(link: &str) -> anyhow::Result<u64> {
    Ok(fs::metadata(link).with_context(|| link.to_owned())?.ino())
}
