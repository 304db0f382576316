//! Hides from a command the sockets behind which processes outside the guarded cgroup act for it.
//!
//! The command gets a mount namespace of its own. Below `/run` and the gate's own directory it sees a
//! view: a tmpfs in which everything that was there is bound, but for what is hidden. What is made there
//! later by others, such as the socket of a daemon that is restarted, is not in the view. Elsewhere a path
//! is covered as it is found; a socket there that is made anew shows again, so directories are better
//! hidden than sockets.
//!
//! An ordinary user gets a user namespace for this in which it has its own uid and gid only. That is also
//! the wall around the rest: from within it no process outside may be traced, nor its `/proc/PID/root`
//! or descriptors opened (cap_ptrace_access_check of security/commoncap.c). What the command makes of
//! namespaces inside cannot take the covers off (mount_namespaces(7), locked mounts). Root needs no user
//! namespace and has no such wall: it can unmount what covers.

mod mount;
mod pattern;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    mount::MountPropagationFlags,
    thread::{CapabilitySet, UnshareFlags},
};

use crate::control::wire::Hidden;
use pattern::Pattern;
pub use pattern::{ExposeError, Wanted};

/// Where services have their sockets.
const RUNTIME: [&str; 2] = ["/run", "/var/run"];

/// Settings of the ssh client whose owner it checks, and which would seem to belong to nobody in a user
/// namespace: it refuses to start then.
const SSH_SETTINGS: &str = "/etc/ssh/ssh_config.d";

/// Why nothing could be hidden. The command must not run then.
#[derive(Debug, thiserror::Error)]
pub enum HideError {
    /// `--expose` of what is not hidden.
    #[error(transparent)]
    Expose(#[from] ExposeError),
    /// Set-uid programs and user namespaces exclude each other.
    #[error(
        "--allow-new-privileges does nothing in the user namespace that hides sockets from the command; \
         add --expose all, and it sees them all"
    )]
    NoNewPrivileges,
    /// The host does not let this user have a namespace.
    #[error("{what}: {source}; {advice}")]
    Namespace {
        /// The step.
        what: &'static str,
        #[source]
        source: io::Error,
        /// What can be done.
        advice: String,
    },
    /// `--system-bundle` without a view to have it in.
    #[error("--system-bundle is for what the command sees, and with --expose all it sees what the host has")]
    NoView,
    /// A step on the file system.
    #[error("hiding {path}: {source}", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system's own roots could not be shown with the gate's among them.
    #[error("showing the gate's roots at {path}: {source}; --keep-system-bundle does without", path = path.display())]
    Show {
        /// The place.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The command would start outside of what it sees.
    #[error("the working directory {path} is hidden from the command: {source}", path = path.display())]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> HideError {
    let path = path.to_owned();
    move |source| HideError::Path { path, source }
}

/// What is to be hidden from this process's user.
///
/// # Errors
/// [`HideError::Expose`].
pub(super) fn wanted(
    hidden: &Hidden,
    expose: &[String],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Wanted, HideError> {
    // By passwd(5) where HOME is not set.
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let user = pattern::User { uid: rustix::process::getuid().as_raw(), home: home.as_deref() };
    Ok(pattern::wanted(hidden, expose, user, variable)?)
}

/// Whether this process needs a user namespace to have a mount namespace.
pub(super) fn needs_user_namespace() -> io::Result<bool> {
    let sets = rustix::thread::capabilities(None)?;
    Ok(!sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// What a view shows that the host does not.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Files with other contents than the host's, in directories of which there is a view.
    pub(super) instead: Vec<(PathBuf, String)>,
    /// What is mounted over what, in this order and read-only, after that.
    pub(super) covers: Vec<(PathBuf, PathBuf)>,
}

/// Moves this process, which must have one thread, into namespaces in which `wanted` is hidden and what
/// `shown` says is shown.
///
/// # Errors
/// [`HideError`]; some of it may be done then.
pub(super) fn apply(wanted: &Wanted, sockets: &[PathBuf], shown: &Shown) -> Result<(), HideError> {
    if !wanted.makes_view() {
        return Ok(());
    }
    for pattern in wanted.patterns.iter().filter(|pattern| pattern.made) {
        make(&pattern.path())?;
    }
    let here = std::env::current_dir()
        .map_err(|source| HideError::WorkingDirectory { path: PathBuf::from("."), source })?;
    let as_user = needs_user_namespace().map_err(namespace("capget"))?;
    enter(as_user)?;
    let instead: Vec<(PathBuf, &str)> =
        shown.instead.iter().map(|(path, text)| (resolve_parent(path), text.as_str())).collect();
    let roots = roots(sockets.iter().chain(instead.iter().map(|(path, _)| path)));
    let patterns = located(&wanted.patterns);
    for root in &roots {
        let below: Vec<Pattern> =
            patterns.iter().filter(|pattern| pattern.directory.starts_with(root)).cloned().collect();
        let other: Vec<_> = instead.iter().filter(|(path, _)| path.starts_with(root)).cloned().collect();
        if !below.is_empty() || !other.is_empty() {
            mount::view(root, &below, &other).map_err(at(root))?;
        }
    }
    let elsewhere =
        patterns.iter().filter(|pattern| !roots.iter().any(|root| pattern.directory.starts_with(root)));
    for pattern in elsewhere {
        for path in found(pattern)? {
            mount::cover(&path).map_err(at(&path))?;
        }
    }
    for (what, place) in &shown.covers {
        // Nobody but root could write to what is mounted; root could, to the host's.
        mount::cover_with(what, place, !as_user)
            .map_err(|source| HideError::Show { path: place.clone(), source })?;
    }
    if as_user {
        let settings = Path::new(SSH_SETTINGS);
        mount::own_copy(settings).map_err(at(settings))?;
    }
    // By its path, for what covers it now.
    std::env::set_current_dir(&here).map_err(|source| HideError::WorkingDirectory { path: here, source })
}

/// Makes a directory that only this user may enter, where there is none.
fn make(path: &Path) -> Result<(), HideError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                // There is one; or nobody of this user's can make one there.
                io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(at(path)(error)),
    }
}

/// Leaves the mount namespace of the shell, for one in which mounts of the host still arrive but from
/// which none goes back.
#[expect(unsafe_code, reason = "unshare(2) is unsafe for file tables, which are not unshared")]
fn enter(as_user: bool) -> Result<(), HideError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut flags = UnshareFlags::NEWNS;
    flags.set(UnshareFlags::NEWUSER, as_user);
    // SAFETY: FILES is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|error| namespace("unshare")(error.into()))?;
    if as_user {
        // In this order: an unprivileged gid map is taken only where setgroups(2) is closed
        // (user_namespaces(7)).
        for (file, text) in [
            ("/proc/self/uid_map", format!("{uid} {uid} 1")),
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/gid_map", format!("{gid} {gid} 1")),
        ] {
            fs::write(file, text).map_err(namespace(file))?;
        }
    }
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| namespace("making mounts private")(error.into()))
}

fn namespace(what: &'static str) -> impl FnOnce(io::Error) -> HideError {
    move |source| HideError::Namespace { what, source, advice: advice() }
}

/// What stands in the way of a namespace, as far as the host tells.
fn advice() -> String {
    let why = crate::launch::namespaces::obstacle().map(|why| format!("{why}; ")).unwrap_or_default();
    format!(
        "{why}without a namespace the command would see sockets that act for it outside: let root run it as \
         a unit (agent@.service, systemd-run with the properties that docs/agents.md names), or show them to \
         it with --expose all"
    )
}

/// Directories of which the command gets a view, without links in their paths.
fn roots<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let own = files.filter_map(|file| file.parent());
    let mut roots: Vec<PathBuf> =
        RUNTIME.iter().map(Path::new).chain(own).filter_map(|path| fs::canonicalize(path).ok()).collect();
    roots.sort();
    roots.dedup();
    // `/run/agentgate` is part of the view of `/run`.
    let all = roots.clone();
    roots.retain(|root| !all.iter().any(|other| root != other && root.starts_with(other)));
    roots
}

/// The patterns with paths as the kernel has them, in which no link hides where they are; with what a
/// hidden link points to.
fn located(patterns: &[Pattern]) -> Vec<Pattern> {
    let mut all = Vec::new();
    for pattern in patterns {
        // Made already: the same path asked for in both ways is one.
        let mut places = vec![Pattern { made: false, ..pattern.clone() }];
        // Two directories where /var/run is no link to /run.
        if let Ok(rest) = pattern.directory.strip_prefix("/run") {
            let directory = Path::new("/var/run").join(rest);
            places.push(Pattern { directory, last: pattern.last.clone(), made: false });
        }
        if pattern.is_plain() {
            places.extend(fs::canonicalize(pattern.path()).ok().as_deref().and_then(Pattern::new));
        }
        all.extend(places.into_iter().map(|place| Pattern { directory: resolve(&place.directory), ..place }));
    }
    all.sort();
    all.dedup();
    all
}

/// `path` in its directory without links.
fn resolve_parent(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => resolve(directory).join(name),
        _ => path.to_owned(),
    }
}

/// `path` with the part of it that exists resolved.
fn resolve(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut there = path;
    loop {
        if let Ok(found) = fs::canonicalize(there) {
            return rest.iter().rev().fold(found, |path, part| path.join(part));
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                there = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

/// What there is of `pattern`. What this user cannot look up is hidden as it is.
fn found(pattern: &Pattern) -> Result<Vec<PathBuf>, HideError> {
    let nothing = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
        )
    };
    let one = pattern.path();
    if pattern.is_plain() {
        return match fs::symlink_metadata(&one) {
            Ok(metadata) if metadata.is_symlink() => Ok(Vec::new()),
            Ok(_) => Ok(vec![one]),
            Err(error) if nothing(&error) => Ok(Vec::new()),
            Err(error) => Err(at(&one)(error)),
        };
    }
    let entries = match fs::read_dir(&pattern.directory) {
        Ok(entries) => entries,
        Err(error) if nothing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(at(&pattern.directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(&pattern.directory))?;
        if pattern.takes(&entry.file_name()) && !entry.file_type().map_err(at(&entry.path()))?.is_symlink() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
