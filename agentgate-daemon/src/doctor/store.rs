//! The audit log's files: who may read them, whether the key that signs is there, and how long the disk lasts.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::Check;
use crate::config::{Config, Paths};

const FILES: &str = "log files";
const KEY: &str = "log key";
const ROOM: &str = "log room";
/// Less than this much free of the disk is a fault: the log refuses everything when there is none.
const LITTLE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

pub(super) fn checks(config: &Config, paths: &Paths) -> Vec<Check> {
    let room = rustix::fs::statvfs(&paths.var).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let held = fs::metadata(&paths.store).map(|file| file.blocks().saturating_mul(512));
    vec![
        files(paths),
        key(&paths.store.with_file_name("audit.key"), paths.store.exists()),
        space(room.map_err(io::Error::from), held.unwrap_or(0), config.audit.retention.bytes),
    ]
}

/// Nobody but the owner may look at the log.
fn files(paths: &Paths) -> Check {
    let places = [
        (paths.var.clone(), 0o700_u32),
        (paths.store.clone(), 0o600),
        (paths.store.with_extension("journal"), 0o600),
    ];
    let mut open = Vec::new();
    for (place, wanted) in &places {
        match fs::metadata(place) {
            Ok(found) if found.mode() & 0o777 & !wanted != 0 => {
                open.push(format!("{} has mode {:o}", place.display(), found.mode() & 0o777));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Check::unseen(FILES, "cannot be seen by this user").advise("ask with sudo");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Check::warn(FILES, format!("there is no {}", place.display()))
                    .advise("the first start makes it");
            }
            Err(error) => return Check::warn(FILES, error.to_string()).advise("see dmesg"),
        }
    }
    if open.is_empty() {
        return Check::ok(FILES, "for the gate alone");
    }
    Check::fail(FILES, open.join(", ")).advise("chmod go= them: bodies and secrets are in them")
}

fn key(path: &Path, has_log: bool) -> Check {
    match fs::metadata(path) {
        Ok(found) if found.mode() & 0o077 == 0 => Check::ok(KEY, "for the gate alone"),
        Ok(found) => Check::fail(KEY, format!("{} has mode {:o}", path.display(), found.mode() & 0o777))
            .advise("chmod 600 it, and `agentctl audit rotate-key`: who could read it can sign another log"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::unseen(KEY, "cannot be seen by this user").advise("ask with sudo")
        }
        Err(_) if !has_log => Check::warn(KEY, "there is none").advise("the first start makes it"),
        Err(error) => Check::fail(KEY, format!("{}: {error}", path.display()))
            .advise("put it back from where it was kept: without it the next start signs with another"),
    }
}

/// `held`: what the log takes; `bound`: what it may have in use, 0 for no bound.
fn space(room: io::Result<u64>, held: u64, bound: u64) -> Check {
    let room = match room {
        Ok(room) => room,
        Err(error) => return Check::unseen(ROOM, error.to_string()).advise("ask with sudo"),
    };
    let found = format!("{} MiB free, the log takes {} MiB", room / MIB, held / MIB);
    if room < LITTLE {
        return Check::fail(ROOM, found).advise("make room: with none the gate refuses everything");
    }
    if bound == 0 {
        return Check::warn(ROOM, format!("{found} and has no bound"))
            .advise("set `bytes` under [audit.retention]: with a full disk the gate refuses everything");
    }
    if bound.saturating_sub(held) > room {
        return Check::warn(ROOM, format!("{found} and may grow to {} MiB", bound / MIB))
            .advise("lower `bytes` under [audit.retention], or make room");
    }
    Check::ok(ROOM, found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{super::State, *};

    #[test]
    fn files_that_others_may_read_are_a_fault() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(files(&paths).state, State::Warn);
        fs::create_dir_all(&paths.var).unwrap();
        for file in [paths.store.clone(), paths.store.with_extension("journal")] {
            fs::write(&file, b"").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::set_permissions(&paths.var, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(files(&paths).state, State::Ok);
        for (place, mode) in [(&paths.store, 0o640), (&paths.var, 0o755)] {
            let before = fs::metadata(place).unwrap().permissions();
            fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
            let check = files(&paths);
            assert!(check.state == State::Fail && check.found.contains(&format!("{mode:o}")), "{check:?}");
            fs::set_permissions(place, before).unwrap();
        }
    }

    #[test]
    fn a_key_is_there_and_hidden() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("audit.key");
        assert_eq!(key(&path, false).state, State::Warn);
        assert_eq!(key(&path, true).state, State::Fail);
        fs::write(&path, b"").unwrap();
        for (mode, state) in [(0o600, State::Ok), (0o644, State::Fail)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(key(&path, true).state, state);
        }
    }

    #[test]
    fn room_is_compared_with_what_the_log_may_take() {
        let rows = [
            (1 << 40, 0, 10 << 30, State::Ok),
            (9 << 30, 0, 10 << 30, State::Warn),
            (9 << 30, 2 << 30, 10 << 30, State::Ok),
            (1 << 40, 0, 0, State::Warn),
            (1 << 20, 0, 10 << 30, State::Fail),
        ];
        for (room, held, bound, state) in rows {
            assert_eq!(space(Ok(room), held, bound).state, state, "{room} {held} {bound}");
        }
        assert_eq!(space(Err(io::ErrorKind::PermissionDenied.into()), 0, 0).state, State::Unseen);
    }
}
