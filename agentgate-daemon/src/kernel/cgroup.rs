//! Where cgroup v2 is mounted, which cgroup is guarded, what is in it, and that this process is not.
//!
//! A cgroup has two names: a directory below the mount point, and the path that `/proc/PID/cgroup`
//! shows. Where the mount shows only a part of the hierarchy (containers, bind mounts) the two differ by
//! the mount's root. [`GuardedCgroup`] is the one place that translates between them.

use std::{
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{KernelError, step};

/// The cgroup v2 hierarchy as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// Path within the hierarchy that is mounted: `/` but in containers.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

impl Mount {
    /// Directory of the cgroup that `/proc/PID/cgroup` shows as `path`; `None` where it is not below
    /// what is mounted. Steps upwards after that would leave it again.
    fn directory_of(&self, path: &str) -> Option<PathBuf> {
        let inner = Path::new(path).strip_prefix(&self.root).ok()?;
        let down = inner.components().all(|part| matches!(part, Component::Normal(_)));
        down.then(|| if inner.as_os_str().is_empty() { self.point.clone() } else { self.point.join(inner) })
    }
}

/// Mount point of the cgroup v2 hierarchy, from `/proc/self/mountinfo`: distributions differ.
///
/// # Errors
/// When it is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf, KernelError> {
    mount().map(|mount| mount.point)
}

fn mount() -> Result<Mount, KernelError> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(step(path))?;
    parse_mountinfo(&text).ok_or_else(|| step("finding cgroup v2")(io::Error::other("it is not mounted")))
}

/// The last cgroup2 mount wins: it is the one on top.
fn parse_mountinfo(text: &str) -> Option<Mount> {
    text.lines().rev().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if kind.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let root = unescape(fields.next()?);
        let point = unescape(fields.next()?);
        Some(Mount { root: root.into(), point: point.into() })
    })
}

/// Undoes the octal escapes of proc(5) for blank, tab, newline and backslash.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

/// The guarded cgroup by both of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedCgroup {
    mount: Mount,
    directory: PathBuf,
    path: String,
}

/// Where a process is, seen from the guarded cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In it or below it.
    Inside,
    /// Certainly elsewhere.
    Outside,
    /// Not to be told from the path that `/proc` shows: treat as inside.
    Unknown,
}

impl GuardedCgroup {
    /// The cgroup that the settings name: `config` below the mount, or as it is where it is absolute.
    ///
    /// # Errors
    /// When cgroup v2 is not mounted, or when it is not a cgroup below the mount point.
    pub fn find(config: &str) -> Result<Self, KernelError> {
        let mount = mount()?;
        let shown = mount.point.display().to_string();
        below(&mount.point, config).and_then(|directory| Self::of(mount, directory)).ok_or_else(|| {
            step(&format!("guarding {config}"))(io::Error::other(format!("it is not a cgroup below {shown}")))
        })
    }

    /// The cgroup at `directory` of a hierarchy of which `root` is mounted at `point`, both as
    /// mountinfo has them; `None` where it is not on that mount.
    #[must_use]
    pub fn on_mount(root: &str, point: &Path, directory: &Path) -> Option<Self> {
        Self::of(Mount { root: root.into(), point: point.to_owned() }, directory.to_owned())
    }

    fn of(mount: Mount, directory: PathBuf) -> Option<Self> {
        let path = mount.root.join(directory.strip_prefix(&mount.point).ok()?);
        // `join` with nothing leaves a slash at the end.
        let path = path.components().collect::<PathBuf>().to_string_lossy().into_owned();
        path.starts_with('/').then_some(Self { mount, directory, path })
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its path as this process reads it in `/proc/PID/cgroup`, such as `/agent.slice`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its path below the mount point, with a leading slash: what a service manager that sees the same
    /// mount calls it.
    #[must_use]
    pub fn below_mount(&self) -> String {
        let inner = self.directory.strip_prefix(&self.mount.point).unwrap_or(&self.directory);
        format!("/{}", inner.display())
    }

    /// Path of a child, as `/proc/PID/cgroup` shows it.
    #[must_use]
    pub fn child(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }

    /// Directory of the cgroup that `/proc/PID/cgroup` shows as `path`; `None` where the mount does not
    /// show it.
    #[must_use]
    pub fn directory_of(&self, path: &str) -> Option<PathBuf> {
        self.mount.directory_of(path)
    }

    /// Where a process is whose `/proc/PID/cgroup` shows `path`.
    ///
    /// Paths are compared by whole components, and then by the inode numbers (the cgroups' ids) from the
    /// process's cgroup up to the mount point, so that neither another spelling nor another mount on top
    /// makes an agent look like somebody else.
    #[must_use]
    pub fn place(&self, path: &str) -> Place {
        let there = Path::new(path);
        if there.starts_with(&self.path) {
            return Place::Inside;
        }
        let Some(directory) = self.directory_of(path) else {
            // Both are told from the root of this process's cgroup namespace, downwards, so they can be
            // compared as they are. With steps upwards one cgroup can have two spellings.
            let plain = [there, Path::new(&self.path)].iter().all(|path| descends(path));
            return if plain { Place::Outside } else { Place::Unknown };
        };
        match self.is_above(&directory) {
            Ok(true) => Place::Inside,
            Ok(false) => Place::Outside,
            Err(error) => {
                tracing::warn!(cgroup = path, %error, "a process cannot be placed");
                Place::Unknown
            }
        }
    }

    /// Whether `directory` or one above it, up to the mount point, is the guarded cgroup by its id.
    fn is_above(&self, directory: &Path) -> io::Result<bool> {
        let id = match fs::symlink_metadata(&self.directory) {
            Ok(guarded) => (guarded.dev(), guarded.ino()),
            // Nothing is in a cgroup that is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for at in directory.ancestors().take_while(|at| at.starts_with(&self.mount.point)) {
            let found = fs::symlink_metadata(at)?;
            if (found.dev(), found.ino()) == id {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an absolute path has no step upwards.
fn descends(path: &Path) -> bool {
    path.has_root() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

fn below(point: &Path, config: &str) -> Option<PathBuf> {
    let path = point.join(config);
    let inner = path.strip_prefix(point).ok()?;
    let mut components = inner.components().peekable();
    components.peek()?;
    components.all(|component| matches!(component, Component::Normal(_))).then(|| point.join(inner))
}

/// The guarded cgroup, open.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) path: PathBuf,
    pub(super) directory: OwnedFd,
    /// Inode number, which is the cgroup's id.
    pub(super) id: u64,
    /// Steps from the root of the hierarchy, which has 0.
    pub(super) depth: u32,
    /// Made by this call; undone when the start fails.
    pub(super) created: bool,
}

impl Guarded {
    /// Opens the cgroup, making it where it is missing, and sees to it that this process is
    /// outside: its own connections would come back to itself.
    pub(super) fn open(path: &Path) -> Result<Self, KernelError> {
        let shown = path.display().to_string();
        let mount = mount()?;
        if !path.starts_with(&mount.point) || path == mount.point {
            return Err(step(&shown)(io::Error::other("it is not a cgroup below the root of cgroup v2")));
        }
        let text = fs::read_to_string("/proc/self/cgroup").map_err(step("/proc/self/cgroup"))?;
        let own = own_path(&text).and_then(|own| mount.directory_of(own));
        if own.is_none_or(|own| own.starts_with(path)) {
            return Err(step(&shown)(io::Error::other(
                "the daemon itself is in this cgroup, or its own cgroup is unknown: start it outside",
            )));
        }
        let created = !path.exists();
        fs::create_dir_all(path).map_err(step(&shown))?;
        let directory =
            rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(step(&shown))?;
        let id = fs::metadata(path).map_err(step(&shown))?.ino();
        let inner = path.strip_prefix(&mount.point).unwrap_or(path);
        let depth = [mount.root.as_path(), inner].into_iter().flat_map(Path::components);
        let depth = depth.filter(|part| matches!(part, Component::Normal(_))).count();
        let depth = u32::try_from(depth).map_err(step(&shown))?;
        Ok(Self { path: path.to_owned(), directory, id, depth, created })
    }

    /// Removes the cgroup if this start made it.
    pub(super) fn undo(&self) {
        if self.created
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::warn!(cgroup = %self.path.display(), %error, "the cgroup stays");
        }
    }
}

/// The cgroup v2 path in the text of `/proc/PID/cgroup`.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests;
