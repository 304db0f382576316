//! What `proxy` measures, built and installed: nothing outside the build's directory, and none of it in the
//! product's lock file. What is not to be had is left out, with a line that says so.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::{options::ProfileOptions, outside::Job, peer::Kind, setting::Programs};
use crate::ebpf;

/// Where squid's package has what makes its leaves.
pub(crate) const SQUID_HELPER: &str = "usr/lib/squid/security_file_certgen";
const SQUID: &str = "usr/sbin/squid";

/// What is built, and measured: the release, with names for the profiler.
const PROFILE: &str = "profiling";

/// `target/bench`.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let dir = target()?.join("bench");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Cargo's directory for what it builds, which this program was built into.
fn target() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("where this program is")?;
    let target = own.parent().and_then(Path::parent).context("this program is in no target directory")?;
    Ok(target.to_owned())
}

/// The workspace that this program was built from.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// What there is by now.
pub(crate) fn programs() -> anyhow::Result<Programs> {
    let mitmdump = directory()?.join("mitmproxy/bin/mitmdump");
    let (squid, squid_files) = match squid()? {
        Some((program, files)) => (Some(program), files),
        None => (None, PathBuf::from("/")),
    };
    Ok(Programs {
        agentgated: target()?.join(PROFILE).join("agentgated"),
        peers: target()?.join("bench-peers/release/bench-peers"),
        mitmdump: mitmdump.exists().then_some(mitmdump),
        squid,
        squid_files,
    })
}

/// Everything.
///
/// # Errors
/// When our own programs cannot be built.
pub(crate) fn all() -> anyhow::Result<()> {
    build()?;
    tell("mitmproxy", mitmproxy());
    tell("squid", install_squid());
    Ok(())
}

/// What a job needs.
///
/// # Errors
/// When our own programs cannot be built.
pub(crate) fn wanted(job: &Job) -> anyhow::Result<()> {
    let kinds = match job {
        Job::Proxy(options) => options.peers(),
        Job::Profile(ProfileOptions { peer, .. }) => vec![*peer],
    };
    build()?;
    if kinds.contains(&Kind::Mitmproxy) || kinds.contains(&Kind::MitmproxyStream) {
        tell("mitmproxy", mitmproxy());
    }
    if kinds.contains(&Kind::Squid) {
        tell("squid", install_squid());
    }
    Ok(())
}

fn tell(what: &str, done: anyhow::Result<()>) {
    match done {
        Ok(()) => eprintln!("setup: {what:<14} ready"),
        Err(error) => eprintln!("setup: {what:<14} is not to be had here, and is left out: {error:#}"),
    }
}

/// The gate, and our own peers in their own workspace.
fn build() -> anyhow::Result<()> {
    let mut gate = Command::new("cargo");
    gate.args(["build", "--package", "agentgate-daemon", "--bins", "--profile", PROFILE]);
    succeeds(gate.current_dir(workspace()))?;
    let manifest = workspace().join("agentgate-daemon/bench-peers/Cargo.toml");
    let mut peers = Command::new("cargo");
    peers.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest);
    // Of the package that this program is: build scripts that read them would run again and again, between a
    // build from here and one by hand.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            peers.env_remove(name);
        }
    }
    succeeds(peers.arg("--target-dir").arg(target()?.join("bench-peers")))
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {program}"))?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

/// The newest mitmproxy that the newest Python found here can run, in an environment of its own.
fn mitmproxy() -> anyhow::Result<()> {
    let place = directory()?.join("mitmproxy");
    if place.join("bin/mitmdump").exists() {
        return Ok(());
    }
    let python = newest_python().context("no Python with venv")?;
    succeeds(Command::new(python).args(["-m", "venv", "--clear"]).arg(&place))?;
    let mut pip = Command::new(place.join("bin/pip"));
    succeeds(pip.args(["install", "--quiet", "--disable-pip-version-check", "mitmproxy"]))
}

/// Of the Pythons on the path and those of pyenv.
fn newest_python() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["python3", "python3.12", "python3.13", "python3.14"].into_iter().filter_map(ebpf::program).collect();
    if let Ok(root) = Command::new("pyenv").arg("root").output() {
        let versions = Path::new(String::from_utf8_lossy(&root.stdout).trim()).join("versions");
        let entries = fs::read_dir(versions).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().join("bin/python3")));
    }
    found.into_iter().filter_map(|path| Some((version_of(&path)?, path))).max().map(|(_, path)| path)
}

/// Of a Python that can make environments.
fn version_of(python: &Path) -> Option<Vec<u32>> {
    let script = "import venv, ensurepip, sys; print(*sys.version_info[:3])";
    let output = Command::new(python).args(["-c", script]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (output.status.success() && numbers.len() == 3).then_some(numbers)
}

/// Squid with OpenSSL, and what its package was unpacked into.
fn squid() -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    for files in [PathBuf::from("/"), directory()?.join("squid")] {
        let program = files.join(SQUID);
        if program.exists() && files.join(SQUID_HELPER).exists() {
            return Ok(Some((program, files)));
        }
    }
    Ok(None)
}

/// Unpacks Debian's packages without installing them: that would start a service.
fn install_squid() -> anyhow::Result<()> {
    if squid()?.is_some() {
        return Ok(());
    }
    let place = directory()?.join("squid");
    let packages = place.join("packages");
    fs::create_dir_all(&packages)?;
    let mut plan = Command::new("apt-get");
    plan.args(["install", "--print-uris", "--quiet=2", "--no-install-recommends", "squid-openssl"]);
    let output = plan.output().context("apt-get")?;
    let uris = String::from_utf8_lossy(&output.stdout).into_owned();
    // 'uri' name_version_architecture.deb size hash
    let names = uris.lines().filter_map(|line| line.split(' ').nth(1)?.split('_').next().map(str::to_owned));
    let names: Vec<String> = names.collect();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        names.iter().any(|name| name == "squid-openssl"),
        "no package squid-openssl {}",
        complaint.trim()
    );
    succeeds(Command::new("apt-get").args(["download", "--quiet=2"]).args(&names).current_dir(&packages))?;
    for entry in fs::read_dir(&packages)? {
        succeeds(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(&place))?;
    }
    ensure!(squid()?.is_some(), "the package has no {SQUID}");
    Ok(())
}
