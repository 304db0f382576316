//! Where cgroup v2 is mounted, which cgroup is guarded, and that this process is not in it.

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

/// The guarded cgroup's directory: `config` below the mount, or as it is where it is absolute.
///
/// # Errors
/// When it is not a cgroup below the root of the hierarchy.
pub fn guarded_path(config: &str) -> Result<PathBuf, KernelError> {
    let point = cgroup2_mount()?;
    below(&point, config).ok_or_else(|| {
        step(&format!("guarding {config}"))(io::Error::other(format!(
            "it is not a cgroup below {}",
            point.display()
        )))
    })
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
        let own = own_directory(&mount, &text);
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
        Ok(Self { path: path.to_owned(), directory, id, created })
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

/// Directory of the cgroup in the text of `/proc/PID/cgroup`; `None` where the mount does not show it.
fn own_directory(mount: &Mount, text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let inner = Path::new(path).strip_prefix(&mount.root).ok()?;
    Some(mount.point.join(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let rows: &[(&str, Option<(&str, &str)>)] = &[
            (hybrid, Some(("/", "/sys/fs/cgroup/unified"))),
            ("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 none rw", Some(("/", "/sys/fs/cgroup"))),
            (
                "30 23 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 none rw",
                Some(("/docker/ab", "/sys/fs/cgroup")),
            ),
            ("30 23 0:26 / /mnt/a\\040b rw - cgroup2 none rw", Some(("/", "/mnt/a b"))),
            ("31 23 0:28 / /sys/fs/cgroup rw - tmpfs cgroup2 rw", None),
            ("", None),
            ("30 23 - cgroup2", None),
        ];
        for (text, expect) in rows {
            let expect = expect.map(|(root, point)| Mount { root: root.into(), point: point.into() });
            assert_eq!(parse_mountinfo(text), expect, "{text}");
        }
    }

    #[test]
    fn guarded_paths() {
        let rows = [
            ("agent.slice", Some("/cg/agent.slice")),
            ("a/b", Some("/cg/a/b")),
            ("/cg/agent.slice", Some("/cg/agent.slice")),
            ("/cg/agent.slice/", Some("/cg/agent.slice")),
            ("", None),
            ("/cg", None),
            ("/", None),
            ("..", None),
            ("a/../..", None),
            ("/cgroup/agent.slice", None),
            ("/etc", None),
        ];
        for (config, expect) in rows {
            assert_eq!(below(Path::new("/cg"), config), expect.map(PathBuf::from), "{config}");
        }
    }

    #[test]
    fn own_cgroup() {
        let plain = Mount { root: "/".into(), point: "/cg".into() };
        let nested = Mount { root: "/docker/ab".into(), point: "/cg".into() };
        let rows = [
            (&plain, "1:cpu:/x\n0::/agent.slice/a\n", Some("/cg/agent.slice/a")),
            (&plain, "0::/", Some("/cg")),
            (&nested, "0::/docker/ab/c", Some("/cg/c")),
            (&nested, "0::/../x", None),
            (&plain, "1:cpu:/x\n", None),
        ];
        for (mount, text, expect) in rows {
            assert_eq!(own_directory(mount, text), expect.map(PathBuf::from), "{text}");
        }
    }
}
