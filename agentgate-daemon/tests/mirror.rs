//! The mirror beside a log that is written to, as the daemon runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use agentgate::{
    audit::{Audit, AuditOptions},
    export::{
        Format,
        mirror::{Mirror, Settings},
    },
    model::{Compress, Kind, Record, State, Timestamp},
    store::Store,
};
use tokio::sync::watch;

fn settings(path: PathBuf) -> Settings {
    Settings {
        path,
        format: Format::Jsonl,
        rotate_bytes: 8192,
        rotate_hours: 0,
        compress: Compress::None,
        keep: 0,
        bodies: false,
    }
}

fn ids(directory: &std::path::Path) -> Vec<u64> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for line in fs::read_to_string(path).unwrap().lines() {
                ids.push(serde_json::from_str::<Record>(line).unwrap().id.0);
            }
        }
    }
    ids.sort_unstable();
    ids
}

/// Records come from many sides, the mirror is stopped and begun again, its directory goes and comes back:
/// in the end each record has one line.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_has_what_the_log_has() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
    let (audit, thread) = Audit::start(store.clone(), AuditOptions::default());
    let mut made = Vec::new();
    for round in 0..4 {
        let mirror = Mirror::new(store.clone(), settings(out.join("audit.jsonl")));
        let (drain, draining) = watch::channel(false);
        let running = tokio::spawn(mirror.clone().run(draining));
        if round == 2 {
            fs::rename(&out, dir.path().join("away")).unwrap();
        }
        let writers = (0..4).map(|_| {
            let audit = audit.clone();
            tokio::spawn(async move {
                let mut made = Vec::new();
                for _ in 0..50 {
                    let entry = audit.open(Record::new(Kind::Control, Timestamp::now())).await.unwrap();
                    made.push(entry.id().0);
                    entry.finish(State::Done);
                }
                made
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            made.extend(writer.await.unwrap());
        }
        if round == 2 {
            let stuck = async {
                while mirror.report().error.is_none() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), stuck).await.expect("trouble is told");
            fs::rename(dir.path().join("away"), &out).unwrap();
        }
        drain.send_replace(true);
        running.await.unwrap();
    }
    // What is in the tables at the end; and all that was acknowledged is, once somebody has read.
    let end = store.walk().unwrap().end();
    let mirror = Mirror::new(store.clone(), settings(out.join("audit.jsonl")));
    assert!(mirror.step());
    let report = mirror.report();
    assert_eq!((report.next, report.behind, report.lost, report.error), (end, 0, 0, None));
    made.sort_unstable();
    assert_eq!(ids(&out), made);
    drop(audit);
    thread.drain(Duration::from_secs(5)).await;
}
