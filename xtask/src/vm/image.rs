//! The file system that a machine boots from: Debian's base, made once and kept, and what is tested.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{archive::Archive, kernel::Kernel, programs::Program};

/// What the base holds besides Debian's essential packages: a host that agentgate is installed on, and
/// the clients of the lab and of the selftest.
const PACKAGES: [&str; 15] = [
    "bash",
    "ca-certificates",
    "curl",
    "dbus",
    "git",
    "iproute2",
    "kmod",
    "nftables",
    "openssh-client",
    "procps",
    "python3",
    "slirp4netns",
    "systemd",
    "systemd-sysv",
    "util-linux",
];
/// Files of packages that nobody reads in there; each costs memory.
const WITHOUT: [&str; 4] = ["doc", "man", "locale", "info"];
/// Makes the archive. The lists and files of apt are still there when it runs.
const PACK: &str = "cd \"$1\" && find . -xdev \\( -path ./var/lib/apt/lists -o -path ./var/cache/apt \\) \
     -prune -o -print0 | cpio --null --create --format=newc --quiet >&3";
/// Modules that are taken along: every address family, so that what could be loaded on a host is loaded
/// here when an agent asks for it.
const MODULES: [&str; 4] = ["kernel/net", "kernel/crypto", "kernel/lib", "kernel/arch/x86/crypto"];
/// And of the drivers those without hardware.
const DRIVERS: [&str; 11] =
    ["bonding", "dummy", "geneve", "macvlan", "macvtap", "tap", "tun", "veth", "vsock", "vxlan", "wireguard"];
/// Where the lab and the guest's own script are.
const LAB: &str = "usr/lib/agentgate-lab";
/// Units that only cost time in there. Nobody logs in on the console.
const MASKED: [&str; 8] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
];

/// Debian's base as an archive below `work`, made where the list of packages has changed.
///
/// # Errors
/// When mmdebstrap fails.
pub(super) fn base(work: &Path) -> anyhow::Result<PathBuf> {
    let (suite, sources) = (suite()?, sources()?);
    let mut hasher = DefaultHasher::new();
    (&PACKAGES, WITHOUT, PACK, &suite).hash(&mut hasher);
    let path = work.join(format!("base-{:016x}.cpio", hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    println!("making Debian {suite} with {}", PACKAGES.join(", "));
    let half = work.join("base.half");
    // In the hook it is root, at least of a namespace of its own, so that owners come out right; there it
    // may not open files of whoever started it, so it gets one that is open.
    let status = Command::new("sh")
        .args(["-c", "exec 3>\"$0\"; exec mmdebstrap \"$@\""])
        .arg(&half)
        .args(["--variant=minbase", "--format=null"])
        .args(WITHOUT.map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*")))
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(format!("--customize-hook={PACK}"))
        .args([suite.as_str(), "/dev/null"])
        .arg(sources)
        .status()
        .context("start mmdebstrap")?;
    anyhow::ensure!(status.success(), "mmdebstrap: {status}");
    fs::rename(&half, &path)?;
    Ok(path)
}

/// The release of this machine: programs that were built here run there.
fn suite() -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let named = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(named.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
}

/// Debian's own package sources of this machine.
fn sources() -> anyhow::Result<&'static str> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .into_iter()
        .find(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
        .context("no package sources of Debian in /etc/apt")
}

/// Writes the file system of one boot: the base, and behind it what is tested.
///
/// # Errors
/// When something of it cannot be read or written.
pub(super) fn write(
    path: &Path,
    base: &Path,
    kernel: &Kernel,
    programs: &[Program],
    root: &Path,
) -> anyhow::Result<()> {
    fs::copy(base, path).with_context(|| base.display().to_string())?;
    let file = fs::File::options().append(true).open(path)?;
    let mut archive = Archive::new(BufWriter::new(file));
    product(&mut archive, programs, root)?;
    lab(&mut archive, programs)?;
    modules(&mut archive, kernel)?;
    archive.finish()?;
    Ok(())
}

/// What a package would install, where it would.
fn product<W: io::Write>(archive: &mut Archive<W>, programs: &[Program], root: &Path) -> anyhow::Result<()> {
    for Program { name, file, .. } in programs.iter().filter(|program| is_product(program)) {
        archive.file(&format!("usr/bin/{name}"), 0o755, &read(file)?)?;
    }
    let packaging = root.join("packaging");
    for (path, name) in files(&packaging.join("systemd"))? {
        let at = match name.rsplit_once('.') {
            Some((stem, "sysusers")) => format!("usr/lib/sysusers.d/{stem}.conf"),
            Some((stem, "tmpfiles")) => format!("usr/lib/tmpfiles.d/{stem}.conf"),
            Some(_) | None => format!("usr/lib/systemd/system/{name}"),
        };
        archive.file(&at, 0o644, &read(&path)?)?;
    }
    let settings = packaging.join("agentgate.toml");
    let text = fs::read_to_string(&settings).with_context(|| settings.display().to_string())?;
    let (shipped, here) = ("extra_roots = \"\"", "extra_roots = \"/run/internet/root.pem\"");
    anyhow::ensure!(text.contains(shipped), "{}: no {shipped}", settings.display());
    archive.file("etc/agentgate/agentgate.toml", 0o644, text.replace(shipped, here).as_bytes())?;
    archive.file("etc/agentgate/policy.toml", 0o644, &read(&root.join("policies/default.toml"))?)?;
    Ok(())
}

/// What is installed, rather than what tests it.
fn is_product(program: &Program) -> bool {
    ["agentgated", "agentctl"].contains(&program.name.as_str())
}

/// The lab, the script, and the unit that runs it.
fn lab<W: io::Write>(archive: &mut Archive<W>, programs: &[Program]) -> anyhow::Result<()> {
    for program in programs {
        let Program { name, file, built } = program;
        if is_product(program) {
            // Beside the lab, and where the tests that start them were built.
            let installed = format!("/usr/bin/{name}");
            archive.link(&format!("{LAB}/{name}"), &installed)?;
            archive.link(&built.strip_prefix("/").unwrap_or(built).to_string_lossy(), &installed)?;
        } else {
            archive.file(&format!("{LAB}/{name}"), 0o755, &read(file)?)?;
        }
    }
    archive.file(&format!("{LAB}/check.sh"), 0o755, include_bytes!("guest/check.sh"))?;
    archive.file(&format!("{LAB}/agent.py"), 0o644, include_bytes!("guest/agent.py"))?;
    archive.file(&format!("{LAB}/probe.py"), 0o644, include_bytes!("guest/probe.py"))?;
    archive.file(&format!("{LAB}/ask.py"), 0o644, include_bytes!("guest/ask.py"))?;
    let unit = "agentgate-check.service";
    archive.file(&format!("etc/systemd/system/{unit}"), 0o644, include_bytes!("guest/check.service"))?;
    archive.link(&format!("etc/systemd/system/multi-user.target.wants/{unit}"), &format!("../{unit}"))?;
    for masked in MASKED {
        archive.link(&format!("etc/systemd/system/{masked}"), "/dev/null")?;
    }
    archive.file("etc/hostname", 0o644, b"vm\n")?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost vm\n::1 localhost\n")?;
    // What the kernel starts.
    archive.link("init", "usr/lib/systemd/systemd")?;
    Ok(())
}

/// The kernel's modules, and the index of them.
fn modules<W: io::Write>(archive: &mut Archive<W>, kernel: &Kernel) -> anyhow::Result<()> {
    let version = &kernel.version;
    // depmod(8) wants them below lib/modules, where the package has them.
    let base = kernel.modules.ancestors().nth(3).context("a directory of modules")?;
    let status = Command::new("/sbin/depmod").arg("--basedir").arg(base).arg(version).status();
    anyhow::ensure!(status.context("start depmod (package kmod)")?.success(), "depmod {version} failed");
    let mut wanted = Vec::new();
    for directory in MODULES.map(|directory| kernel.modules.join(directory)) {
        if directory.is_dir() {
            wanted.extend(files(&directory)?.into_iter().map(|(path, _)| path));
        }
    }
    for (path, name) in files(&kernel.modules.join("kernel/drivers"))? {
        let file = name.rsplit('/').next().unwrap_or(&name);
        if DRIVERS.iter().any(|driver| file.split('.').next().is_some_and(|stem| stem.starts_with(driver))) {
            wanted.push(path);
        }
    }
    for entry in fs::read_dir(&kernel.modules)? {
        let path = entry?.path();
        if path.is_file() {
            wanted.push(path);
        }
    }
    for path in wanted {
        let below = path.strip_prefix(&kernel.modules)?;
        let at = format!("usr/lib/modules/{version}/{}", below.display());
        archive.file(&at, 0o644, &read(&path)?)?;
    }
    Ok(())
}

/// Every file below a directory, with its path from there, sorted.
fn files(directory: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).with_context(|| at.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(directory)?.to_string_lossy().into_owned();
                found.push((entry.path(), name));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
