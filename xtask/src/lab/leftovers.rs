//! What a lab could leave behind, and its removal: cgroups, processes, namespaces, pins, directories.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{LabId, cgroup};

/// File in the lab's directory that names its namespaces, one inode number a line.
pub(crate) const NAMESPACES: &str = "namespaces";
/// Where pins would show if a private bpffs had not been in the way.
const PINS: &str = "/sys/fs/bpf";

/// Things that should be gone.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    cgroups: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    /// Process id and what holds it here.
    processes: Vec<(u32, String)>,
    pins: Vec<PathBuf>,
}

impl Leftovers {
    /// True when there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.cgroups.is_empty()
            && self.directories.is_empty()
            && self.processes.is_empty()
            && self.pins.is_empty()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for path in &self.cgroups {
            writeln!(f, "cgroup     {}", path.display())?;
        }
        for (pid, why) in &self.processes {
            writeln!(f, "process    {pid} ({why})")?;
        }
        for path in &self.pins {
            writeln!(f, "pin        {}", path.display())?;
        }
        for path in &self.directories {
            writeln!(f, "directory  {}", path.display())?;
        }
        Ok(())
    }
}

/// Leftovers of labs whose owner is dead.
pub(crate) fn of_dead_labs() -> anyhow::Result<Leftovers> {
    find(|id| !id.alive())
}

/// Leftovers of one lab, whose owner may be this process. `namespaces` and `pins` are what it had and
/// what was there before it.
pub(crate) fn of_lab(id: LabId, namespaces: &[u64], pins_before: &[PathBuf]) -> anyhow::Result<Leftovers> {
    let mut found = find(|other| other == id)?;
    found.processes.extend(holding(namespaces)?);
    found.pins = pins().into_iter().filter(|pin| !pins_before.contains(pin)).collect();
    Ok(found)
}

/// Removes what dead labs left; says what.
pub(crate) fn sweep() -> anyhow::Result<Leftovers> {
    let found = of_dead_labs()?;
    for path in &found.cgroups {
        cgroup::destroy(path).with_context(|| path.display().to_string())?;
    }
    for path in &found.directories {
        fs::remove_dir_all(path).with_context(|| path.display().to_string())?;
    }
    Ok(found)
}

fn find(wanted: impl Fn(LabId) -> bool) -> anyhow::Result<Leftovers> {
    let cgroups = labs_in(&cgroup::mount_point()?, &wanted)?;
    let mut processes = Vec::new();
    for root in &cgroups {
        collect_processes(root, &mut processes)?;
    }
    let directories = labs_in(&std::env::temp_dir(), &wanted)?;
    Ok(Leftovers { cgroups, directories, processes, pins: Vec::new() })
}

fn labs_in(dir: &Path, wanted: impl Fn(LabId) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.parse::<LabId>().is_ok_and(&wanted)
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(named).collect())
}

fn collect_processes(dir: &Path, into: &mut Vec<(u32, String)>) -> anyhow::Result<()> {
    for line in fs::read_to_string(dir.join("cgroup.procs"))?.lines() {
        into.push((line.parse()?, format!("in {}", dir.display())));
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.path().is_dir() {
            collect_processes(&entry.path(), into)?;
        }
    }
    Ok(())
}

/// Threads that live in one of these namespaces.
fn holding(namespaces: &[u64]) -> anyhow::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Processes come and go while this looks: what cannot be read is gone.
        let Ok(tasks) = fs::read_dir(process.path().join("task")) else {
            continue;
        };
        for task in tasks.flatten() {
            for kind in ["net", "mnt"] {
                let inode = fs::metadata(task.path().join("ns").join(kind)).map(|m| m.ino());
                if inode.is_ok_and(|inode| namespaces.contains(&inode)) {
                    found.push((pid, format!("in a {kind} namespace of the lab")));
                }
            }
        }
    }
    found.dedup();
    Ok(found)
}

/// Entries of the machine's own bpffs; none where it is not mounted.
pub(crate) fn pins() -> Vec<PathBuf> {
    fs::read_dir(PINS).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

/// Reads the file [`NAMESPACES`].
pub(crate) fn read_namespaces(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(dir.join(NAMESPACES)).unwrap_or_default();
    text.lines().map(|line| line.parse().with_context(|| format!("namespaces: {line:?}"))).collect()
}
