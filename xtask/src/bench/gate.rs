//! The gate as a peer: the real daemon, its programs on a cgroup of its own, recording on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Blocking,
};

use anyhow::Context as _;
use tokio::process::{Child, Command};

use super::{
    peer::Kind,
    setting::{INTERCEPTED, NAMES, RAW, Setting, UNTRUSTED},
};
use crate::lab::fdstore::Manager;

/// A store larger than this is thrown away between rounds, in bytes: a disk holds only so many.
const LARGE: u64 = 1 << 30;

/// Where the daemon itself runs; guarded is its sister.
pub(crate) fn daemon_cgroup(kind: Kind, setting: &Setting) -> anyhow::Result<PathBuf> {
    setting.cgroup(&format!("{}/daemon", kind.name()))
}

/// Starts it and waits until it says that it is ready.
pub(crate) async fn start(kind: Kind, setting: &Setting) -> anyhow::Result<(Child, Manager)> {
    let cgroup = daemon_cgroup(kind, setting)?;
    let guarded = setting.cgroup(&format!("{}/agent.slice", kind.name()))?;
    setting.cgroup(&format!("{}/agent.slice/client", kind.name()))?;
    write_settings(kind, setting, &guarded)?;
    let mut manager = Manager::at(&setting.dir.join(format!("{}.sock", kind.name())))?;
    let mut command = setting.child(&cgroup, &setting.programs.agentgated);
    for argument in arguments(kind, setting) {
        command.arg(argument);
    }
    let log = fs::File::options().create(true).append(true).open(setting.log(kind.name()))?;
    let mut child = manager.start(command, |mut command: Command| {
        command.stdout(log.try_clone()?).stderr(log).spawn().context("start agentgated")
    })?;
    tokio::select! {
        status = child.wait() => anyhow::bail!("agentgated ended with {}", status?),
        ready = manager.ready() => ready?,
    }
    Ok((child, manager))
}

fn arguments(kind: Kind, setting: &Setting) -> [PathBuf; 4] {
    let root = setting.root(kind);
    ["--config".into(), root.join("etc/agentgate/agentgate.toml"), "--root".into(), root]
}

fn write_settings(kind: Kind, setting: &Setting, guarded: &Path) -> anyhow::Result<()> {
    let etc = setting.root(kind).join("etc/agentgate");
    fs::create_dir_all(etc.join("lists"))?;
    let mut config = format!(
        "[gate]\ncgroup = \"{}\"\nwatch = \"{}\"\npin_dir = \"/sys/fs/bpf/{}\"\nlisten_port = {}\n\n\
         [dns]\nlisten_port = {}\nresolvers = [\"{NAMES}\"]\n\n\
         [tls]\nextra_roots = \"{}\"\n\n[dashboard]\nenabled = false\n\n[control]\ngroup = \"root\"\n",
        guarded.display(),
        // Nothing of other gates is watched.
        guarded.parent().unwrap_or(guarded).display(),
        kind.name(),
        kind.port(),
        kind.port() + 1,
        setting.pki().join("origin-ca.pem").display(),
    );
    if let Some(durability) = kind.durability() {
        config.push_str(&format!("\n[audit]\ndurability = \"{durability}\"\n"));
    }
    fs::write(etc.join("agentgate.toml"), config)?;
    let policy = format!(
        "version = 1\nmode = \"enforce\"\n\n\
         [hosts]\nallow = [\"{INTERCEPTED}\", \"{UNTRUSTED}\"]\npassthrough = [\"{RAW}\"]\n",
    );
    fs::write(etc.join("policy.toml"), policy)?;
    Ok(())
}

/// Whether this build knows the kind's setting of durability.
pub(crate) fn knows(kind: Kind, setting: &Setting) -> anyhow::Result<bool> {
    let guarded = setting.cgroup(&format!("{}/agent.slice", kind.name()))?;
    write_settings(kind, setting, &guarded)?;
    let mut command = Blocking::new(&setting.programs.agentgated);
    command.args(arguments(kind, setting)).arg("--check-config");
    let checked = command.output().context("agentgated --check-config")?;
    let complaint = String::from_utf8_lossy(&checked.stderr).into_owned();
    let unknown =
        ["audit", "durability"].iter().any(|key| complaint.contains(&format!("unknown key `{key}`")));
    anyhow::ensure!(checked.status.success() || unknown, "agentgated --check-config: {complaint}");
    Ok(checked.status.success())
}

/// Whether the store has grown so large that the next round begins with an empty one.
pub(crate) fn is_full(kind: Kind, setting: &Setting) -> bool {
    let state = setting.root(kind).join("var/lib/agentgate");
    let files = fs::read_dir(state).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file);
    sizes.map(|file| file.len()).sum::<u64>() > LARGE
}

/// Throws everything away that it keeps. It must not run.
pub(crate) fn forget(kind: Kind, setting: &Setting) -> anyhow::Result<()> {
    let state = setting.root(kind).join("var");
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| state.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
