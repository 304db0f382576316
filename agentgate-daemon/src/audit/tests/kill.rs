//! What was acknowledged survives SIGKILL at any moment.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher as _,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use super::*;

/// How often the process is killed.
const ROUNDS: u32 = 30;

const PATH: &str = "AGENTGATE_TEST_AUDIT_PATH";

/// One line to the parent. The test harness writes too, so it starts a line of its own; the dot shows
/// that it is whole.
fn say(what: &str, id: RecordId) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{what} {id}.\n").unwrap();
    out.flush().unwrap();
}

/// The process that is killed: records without end, and says each id once it is acknowledged.
#[test]
#[ignore = "not a test by itself: the child of survives_sigkill"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "a test's way to tell its child where")]
    let path = std::env::var_os(PATH).expect("started by survives_sigkill");
    let store = Arc::new(Store::open(path).unwrap());
    // The tables are written often, so that this is interrupted too.
    let options = AuditOptions { lag: Duration::from_millis(3), ..AuditOptions::default() };
    let (audit, _thread) = Audit::start(store, options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            tasks.spawn(record_until_refused(audit.clone()));
        }
        panic!("nothing ends this but a signal: {:?}", tasks.join_next().await);
    });
}

async fn record_until_refused(audit: Audit) -> Result<(), AuditError> {
    loop {
        let entry = audit.open(with_body(600)).await?;
        say("opened", entry.id());
        entry.finish(State::Done);
        say("noted", audit.note(record()).await?);
    }
}

/// A child's audit log, in which nobody waits.
fn unawaited(lag: Duration) -> (Audit, AuditThread) {
    #[expect(clippy::disallowed_methods, reason = "a test's way to tell its child where")]
    let path = std::env::var_os(PATH).expect("started by the test that kills it");
    let store = Arc::new(Store::open(path).unwrap());
    Audit::start(store, AuditOptions { durability: Durability::Backpressure, lag, ..AuditOptions::default() })
}

/// The same under back-pressure, where an open record is on disk once the thread came by, and so is one that is
/// over once its slot is free.
#[test]
#[ignore = "not a test by itself: the child of what_goes_on_survives_sigkill"]
fn going_on_child() {
    let (audit, _thread) = unawaited(Duration::from_millis(3));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            let written = audit.health().written;
            let entry = audit.open(with_body(600)).await.unwrap();
            while audit.health().written == written {
                tokio::task::yield_now().await;
            }
            say("opened", entry.id());
            entry.finish(State::Done);
            let entry = audit.open(record()).await.unwrap();
            let id = entry.id();
            entry.finish(State::Done);
            while audit.health().pending > 0 {
                tokio::task::yield_now().await;
            }
            say("noted", id);
        }
    });
}

#[test]
fn what_goes_on_survives_sigkill() {
    survives("going_on_child", ROUNDS / 3, 20);
}

#[test]
fn survives_sigkill() {
    survives("child", ROUNDS, 150);
}

/// Kills a child so often, each time within so many acknowledgements.
fn survives(child: &str, rounds: u32, most: u64) {
    let name = format!("audit::tests::kill::{child}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut acknowledged: BTreeMap<u64, bool> = BTreeMap::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name.as_str(), "--ignored", "--nocapture"])
            .env(PATH, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let after = 1 + RandomState::new().hash_one(round) % most;
        let mut seen = 0;
        for line in lines {
            let line = String::from_utf8(line.unwrap()).unwrap();
            let Some(line) = line.strip_suffix('.') else {
                continue;
            };
            let (id, note) = match (line.strip_prefix("opened "), line.strip_prefix("noted ")) {
                (Some(id), _) => (id, false),
                (_, Some(id)) => (id, true),
                (None, None) => continue,
            };
            let id = id.parse().unwrap();
            assert_eq!(acknowledged.insert(id, note), None, "round {round}: id {id} was given twice");
            seen += 1;
            if seen == after {
                // SIGKILL; what is in the pipe by then is read to its end.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= after, "round {round}: the child ended by itself after {seen}");

        let store = Store::open(&path).unwrap();
        for (&id, &note) in &acknowledged {
            let found = store.get(RecordId(id)).unwrap();
            let found = found.unwrap_or_else(|| panic!("round {round}: acknowledged record {id} is gone"));
            match found.state {
                State::Done => assert!(found.finished.is_some()),
                State::Failed if !note => assert_eq!(found.failure.unwrap().code, "interrupted"),
                State::Failed | State::Open | State::Refused | State::Cancelled => {
                    panic!("round {round}: record {id} is {:?}", found.state)
                }
            }
            if found.state == State::Done && !note {
                assert_eq!(store.body(RecordId(id), Side::Request).unwrap().unwrap().len(), 600);
            }
        }
        let next = store.next_id().0;
        for id in 1..next {
            let state = store.get(RecordId(id)).unwrap().unwrap_or_else(|| panic!("gap at {id}")).state;
            assert!(matches!(state, State::Done | State::Failed), "record {id} is {state:?}");
        }
        drop(store);
        let mut raw = redb::Database::open(&path).unwrap();
        assert!(raw.check_integrity().unwrap(), "round {round}: the file needed repair");
    }
}

/// The same, where records are acknowledged before they are durable; says some ids.
#[test]
#[ignore = "not a test by itself: the child of what_is_whole_survives_sigkill"]
fn unawaited_child() {
    let (audit, _thread) = unawaited(Duration::from_millis(30));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            let entry = audit.open(with_body(600)).await.unwrap();
            // Of two ids in a row one is of an entry that is finished.
            if entry.id().0 % 64 < 2 {
                say("opened", entry.id());
            }
            entry.finish(State::Done);
            let _open = audit.open(record()).await.unwrap();
        }
    });
}

#[test]
fn what_is_whole_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut last = 0;
    for round in 0..ROUNDS / 3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::tests::kill::unawaited_child", "--ignored", "--nocapture"])
            .env(PATH, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let after = 20 + RandomState::new().hash_one(round) % 150;
        let opened = lines.filter(|line| line.as_ref().unwrap().starts_with(b"opened "));
        for (seen, _) in (1..).zip(opened) {
            if seen == after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = Store::open(&path).unwrap();
        let next = store.next_id().0;
        assert!(next > last, "round {round}");
        for id in last + 1..next {
            let found = store.get(RecordId(id)).unwrap().unwrap_or_else(|| panic!("gap at {id}"));
            match found.state {
                State::Done => {
                    assert_eq!(store.body(RecordId(id), Side::Request).unwrap().unwrap().len(), 600);
                }
                State::Cancelled => assert!(found.request.is_none()),
                State::Failed => assert_eq!(found.failure.unwrap().code, "interrupted"),
                State::Open | State::Refused => panic!("record {id} is {:?}", found.state),
            }
        }
        last = next - 1;
    }
    assert!(last > 1000, "{last} in all: they were killed before they wrote");
}
