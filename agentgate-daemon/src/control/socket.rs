//! The sockets in the file system: who may connect to which.
//!
//! Steering is for root and one group. Enrolment is for everybody with an account, since whoever puts
//! itself under guard only gives something up. Who serves them is `server`'s.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

/// Connections the kernel keeps waiting.
const BACKLOG: i32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("another agentgated listens on {path}", path = path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the path.
    #[error("{path} exists and is not a socket", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call.
    #[error("{step} {path}: {source}", path = path.display())]
    Step {
        /// Which.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Makes the control socket at `path`: 0660 and of `group` where `/etc/group` has that group, else 0600.
/// A socket that nobody listens on is replaced. Needs the tokio runtime.
///
/// # Errors
/// [`BindError`].
pub fn bind_control(path: &Path, group: &str) -> Result<UnixListener, BindError> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    match group_id(&groups, group) {
        Some(gid) => bind(path, Some(gid), 0o660),
        None => bind(path, None, 0o600),
    }
}

/// Makes the enrolment socket at `path`: 0666, for every user. Otherwise as [`bind_control`].
///
/// # Errors
/// [`BindError`].
pub fn bind_enrol(path: &Path) -> Result<UnixListener, BindError> {
    bind(path, None, 0o666)
}

fn bind(path: &Path, group: Option<u32>, mode: u32) -> Result<UnixListener, BindError> {
    let step =
        |step: &'static str| move |source: io::Error| BindError::Step { step, path: path.to_owned(), source };
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|e| step("socket")(e.into()))?;
    let address = SocketAddrUnix::new(path).map_err(|e| step("address")(e.into()))?;
    rustix::net::bind(&socket, &address).map_err(|e| step("bind")(e.into()))?;
    // Nobody can connect before listen(2), so nobody meets the permissions that bind(2) gave.
    if let Some(gid) = group {
        rustix::fs::chown(path, None, Some(rustix::fs::Gid::from_raw(gid)))
            .map_err(|e| step("chown")(e.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(step("chmod"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|e| step("listen")(e.into()))?;
    UnixListener::from_std(socket.into()).map_err(step("register"))
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let step =
        |step: &'static str| move |source: io::Error| BindError::Step { step, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(step("stat")(e)),
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(BindError::AlreadyRunning { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(step("remove"))
        }
        // A full backlog means that somebody does listen.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::AlreadyRunning { path: path.to_owned() })
        }
        Err(e) => Err(step("connect")(e)),
    }
}

/// Id of `group` in the text of `/etc/group` (group(5)). Groups of network directories are not looked
/// at: the package makes this one locally.
fn group_id(groups: &str, group: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        (name == group).then(|| id.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_control_socket_is_private_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = bind_control(&path, "no-such-group").unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o600);
        assert!(matches!(bind_control(&path, "no-such-group"), Err(BindError::AlreadyRunning { .. })));
        drop(listener);
        assert!(path.exists(), "stale");
        let own = rustix::process::getegid().as_raw();
        let groups = fs::read_to_string("/etc/group").unwrap();
        let group = groups
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2).is_some_and(|id| *id == own.to_string()))
            .map(|fields| fields[0].to_owned())
            .unwrap();
        drop(bind_control(&path, &group).unwrap());
        assert_eq!(mode(), 0o660);
        let _listener = bind_enrol(&path).unwrap();
        assert_eq!(mode(), 0o666);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind_control(&path, "g"), Err(BindError::NotASocket { .. })));
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(bind_control(&link, "g"), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(matches!(
            bind_control(Path::new("/nonexistent/x"), "g"),
            Err(BindError::Step { step: "bind", .. })
        ));
    }

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let groups =
            "root:x:0:\nagentgate-x:x:5:\n#agentgate:x:6:\nbroken\nagentgate:x:nine:\nagentgate:x:991:a,b\n";
        assert_eq!(group_id(groups, "agentgate"), Some(991));
        assert_eq!(group_id(groups, "root"), Some(0));
        assert_eq!(group_id(groups, "agent"), None);
        assert_eq!(group_id("", "agentgate"), None);
    }
}
