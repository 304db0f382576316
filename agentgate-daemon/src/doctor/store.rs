//! The audit log's files: who may read them, whether the key that signs is there, and how long the disk lasts.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::Check;
use crate::{
    config::{Config, Paths},
    store::stats::Pace,
};

const FILES: &str = "log files";
const KEY: &str = "log key";
const ROOM: &str = "log room";
/// Less than this much free of the disk is a fault: the log refuses everything when there is none.
const LITTLE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
const GROWTH: &str = "log growth";
const TEXT: &str = "log full text";
/// A disk that lasts for fewer days is to be looked after.
const DAYS: u64 = 14;
/// So many entries may wait for the index of words: it is built when there is nothing else to do.
const BEHIND: u64 = 50_000;

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

/// How long the disk lasts, and whether full text keeps up, as the gate tells. `room`: free on the disk.
pub(super) fn pace(pace: &Pace, room: Option<u64>, bound: u64) -> Vec<Check> {
    vec![growth(pace, room, bound), text(pace)]
}

fn growth(pace: &Pace, room: Option<u64>, bound: u64) -> Check {
    let Some(growth) = pace.growth else {
        return Check::ok(GROWTH, "the log covers too little time to tell");
    };
    let found = format!("{} MiB a day, {} MiB in use", growth / MIB, pace.used / MIB);
    let Some(room) = room else { return Check::unseen(GROWTH, found).advise("ask with sudo") };
    if bound != 0 && bound.saturating_sub(pace.used) <= room {
        return Check::ok(GROWTH, format!("{found}; its bound of {} MiB is reached first", bound / MIB));
    }
    let days = room / growth.max(1);
    let found = format!("{found}; the disk lasts {days} days");
    let check = match days {
        0 => Check::fail(GROWTH, found),
        days if days < DAYS => Check::warn(GROWTH, found),
        _ => return Check::ok(GROWTH, found),
    };
    check.advise("lower `bytes` or `days` under [audit.retention], or make room: with none the gate refuses everything")
}

fn text(pace: &Pace) -> Check {
    match pace.unindexed {
        None => Check::ok(TEXT, "no index: records are looked through"),
        Some(behind) if behind > BEHIND => Check::warn(TEXT, format!("{behind} entries are not indexed yet"))
            .advise("searches look through them meanwhile; the index is built when the machine has nothing else to do"),
        Some(behind) => Check::ok(TEXT, format!("{behind} entries are not indexed yet")),
    }
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
    fn growth_is_compared_with_what_is_free() {
        let rows = [
            (Some(1 << 30), Some(1 << 40), 0, State::Ok),
            (Some(1 << 30), Some(10 << 30), 0, State::Warn),
            (Some(1 << 30), Some(1 << 20), 0, State::Fail),
            (Some(1 << 30), Some(10 << 30), 8 << 30, State::Ok),
            (Some(1 << 30), Some(10 << 30), 80 << 30, State::Warn),
            (Some(1 << 30), None, 0, State::Unseen),
            (None, Some(0), 0, State::Ok),
        ];
        for (growth, room, bound, state) in rows {
            let found = pace(&Pace { used: 1 << 30, growth, unindexed: Some(3) }, room, bound);
            assert_eq!(found.iter().map(|check| check.state).collect::<Vec<_>>(), [state, State::Ok]);
        }
        for (unindexed, state) in
            [(None, State::Ok), (Some(BEHIND), State::Ok), (Some(BEHIND + 1), State::Warn)]
        {
            assert_eq!(text(&Pace { unindexed, ..Pace::default() }).state, state);
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
