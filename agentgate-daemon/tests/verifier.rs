//! The format of the log as a stranger reads it: `tests/verifier/verify.py` was written from `docs/record.md`
//! and nothing else. What the gate exports it finds whole, what was changed in it it does not, and
//! `agentctl audit verify` says the same each time.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use agentgate::{
    audit::{Audit, AuditOptions, retain},
    chain::{self, Base64, Checkpoint, Hash, LogLine, SigningKey},
    export::{
        chained::{Chained, Had},
        pages::{From, Wanted},
    },
    filter::Filter,
    model::{Kind, Record, RecordId, Timestamp},
    store::{Store, StoreError, retention::Rules},
};
use serde_json::{Value, json};
use tokio::sync::watch;

#[path = "verifier/records.rs"]
mod records;

/// An export or a proof.
type Lines = Vec<Value>;

// --- the log ----------------------------------------------------------------

struct Log {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    /// Of the records that have every field.
    rich: Vec<RecordId>,
}

impl Log {
    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.redb")
    }

    fn key(&self) -> String {
        self.path().with_extension("pub").to_str().unwrap().to_owned()
    }

    fn export(&self, filter: &str, bodies: bool) -> Lines {
        let parsed = Filter::parse(filter, Timestamp::now()).unwrap();
        let wanted = Wanted { filter: parsed, bodies, ..Wanted::default() };
        let mut chain = Chained::new(From::Store(self.store.clone()), wanted, filter.to_owned(), 0);
        let mut lines = Vec::new();
        loop {
            let turned = chain.step(|line| {
                lines.push(serde_json::to_value(line).unwrap());
                Ok::<_, StoreError>(())
            });
            if turned.unwrap().is_over() {
                lines.push(serde_json::to_value(chain.end()).unwrap());
                return lines;
            }
        }
    }

    /// Goes on with an export that was cut off.
    fn go_on(&self, left: &Lines) -> Lines {
        let last = *at(left, "checkpoint").last().unwrap();
        let mut lines = left[..=last].to_vec();
        let head: LogLine = serde_json::from_value(lines[0].clone()).unwrap();
        let checkpoint = serde_json::from_value(lines[last].clone()).unwrap();
        let keys = (head.keys.len() + at(&lines, "key").len()) as u64;
        let had = Had { log: head.log, keys, checkpoint };
        let from = From::Store(self.store.clone());
        let mut chain = Chained::resumed(from, Wanted::default(), String::new(), had);
        loop {
            let turned = chain.step(|line| {
                lines.push(serde_json::to_value(line).unwrap());
                Ok::<_, StoreError>(())
            });
            if turned.unwrap().is_over() {
                let entries = at(&lines, "entry").len();
                lines.push(json!({"type": "end", "entries": entries}));
                return lines;
            }
        }
    }

    fn proof(&self, id: RecordId) -> Lines {
        let lines = self.store.prove(id).unwrap().unwrap();
        lines.iter().map(|line| serde_json::to_value(line).unwrap()).collect()
    }
}

/// Records with every field and small ones, by two keys.
async fn log() -> Log {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
    let mut rich = Vec::new();
    for round in 0..2 {
        let (audit, thread) = Audit::start(store.clone(), AuditOptions::default());
        for record in records::all() {
            let state = record.state;
            let mut entry = audit.open(record.clone()).await.unwrap();
            rich.push(entry.id());
            *entry.record() = record;
            entry.finish(state);
        }
        fill(&audit, 330).await;
        drop(audit);
        assert_eq!(thread.drain(Duration::from_secs(30)).await.left_open, 0);
        if round == 0 {
            store.rotate_key().unwrap();
        }
    }
    Log { dir, store, rich }
}

async fn fill(audit: &Audit, count: u32) {
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..count {
        let audit = audit.clone();
        writers.spawn(async move {
            let mut record = Record::new(Kind::Control, Timestamp(i64::from(number) * 1_000));
            record.note = Some(format!("note {number}"));
            audit.note(record).await.unwrap();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
}

/// Takes out by these rules what they want, as the daemon does.
async fn prune(log: &Log, rules: Rules) {
    let (audit, thread) = Audit::start(log.store.clone(), AuditOptions::default());
    let mut live = audit.live();
    let (drain, draining) = watch::channel(false);
    let keeping =
        tokio::spawn(retain::keep(log.store.clone(), audit.clone(), rules, Arc::default(), draining));
    // It records what it did, once that is done.
    let told = tokio::time::timeout(Duration::from_secs(60), live.recv()).await;
    assert_eq!(told.expect("retention has something to do").unwrap().kind, Kind::Control);
    drain.send(true).unwrap();
    keeping.await.unwrap();
    drop(audit);
    thread.drain(Duration::from_secs(30)).await;
}

// --- both verifiers ---------------------------------------------------------

struct Judges {
    dir: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Judges {
    fn new(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { dir: tempfile::tempdir().unwrap(), arguments }
    }

    /// What both say of a text: the exit status, and the verdict of the one in Python.
    fn ask(&self, text: &str) -> (i32, Value) {
        let file = self.dir.path().join("export.jsonl");
        fs::write(&file, text).unwrap();
        self.of(&file)
    }

    fn of(&self, file: &Path) -> (i32, Value) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier/verify.py");
        // `-B`: nothing is written beside the sources.
        let theirs = run(Command::new("python3").arg("-B").arg(script).args(&self.arguments).arg(file));
        let mut agentctl = Command::new(env!("CARGO_BIN_EXE_agentctl"));
        let ours = run(agentctl.args(["--json", "audit", "verify"]).args(&self.arguments).arg(file));
        let words = |output: &Output| {
            let said = String::from_utf8_lossy(&output.stdout).chars().take(3000).collect::<String>();
            format!("{said}{}", String::from_utf8_lossy(&output.stderr))
        };
        assert_eq!(
            theirs.status.code(),
            ours.status.code(),
            "{}: they differ\nverify.py: {}\nagentctl: {}",
            file.display(),
            words(&theirs),
            words(&ours)
        );
        let verdict = serde_json::from_slice(&theirs.stdout);
        let verdict = verdict.unwrap_or_else(|error| panic!("{error}: {}", words(&theirs)));
        (theirs.status.code().unwrap(), verdict)
    }

    fn whole(&self, what: &str, lines: &Lines) -> Value {
        let (status, verdict) = self.ask(&text(lines));
        assert_eq!(status, 0, "{what}: {verdict}");
        assert_eq!(verdict["verdict"], "whole");
        verdict
    }

    /// Both find the fault that `change` makes; the one in Python calls it `called`, where that is not empty.
    fn broken(&self, what: &str, lines: &Lines, called: &str, change: impl FnOnce(&mut Lines)) {
        let mut changed = lines.clone();
        change(&mut changed);
        assert_ne!(&changed, lines, "{what}: nothing was changed");
        let (status, verdict) = self.ask(&text(&changed));
        assert_eq!(status, 1, "{what}: {verdict}");
        let mut findings = verdict["findings"].as_array().unwrap().iter();
        assert!(findings.any(|finding| called.is_empty() || finding["what"] == called), "{what}: {verdict}");
    }
}

fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{name} cannot be run: {error}. This test needs python3, 3.9 or later"),
    }
}

fn text(lines: &Lines) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

// --- lines ------------------------------------------------------------------

fn at(lines: &Lines, kind: &str) -> Vec<usize> {
    let found = lines.iter().enumerate().filter(|(_, line)| line["type"] == kind);
    found.map(|(at, _)| at).collect()
}

fn is_of(line: &Value, id: RecordId) -> bool {
    line["record"]["id"] == id.0 && line["record"]["state"] != "open"
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::from_value::<Base64>(value.clone()).unwrap().0
}

fn based(bytes: Vec<u8>) -> Value {
    serde_json::to_value(Base64(bytes)).unwrap()
}

/// One bit of a field in base64, `part` of 8 into it.
fn flip(value: &mut Value, part: usize) {
    let mut changed = bytes(value);
    let at = (changed.len() - 1) * part / 8;
    changed[at] ^= 1;
    *value = based(changed);
}

/// Another digit in a field in hex.
fn turn(value: &mut Value) {
    let digits = value.as_str().unwrap();
    let first = if digits.starts_with('0') { "1" } else { "0" };
    *value = json!(format!("{first}{}", &digits[1..]));
}

/// Changes every value of a record, and gives the names of all.
fn change_all(value: &mut Value, name: &str, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                change_all(value, &name, names);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                change_all(item, &format!("{name}[{at}]"), names);
            }
        }
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => {
            *value = number.as_u64().map_or_else(|| json!(number.as_i64().unwrap() ^ 1), |n| json!(n ^ 1));
        }
        Value::String(text) => text.push('x'),
        Value::Null => *value = json!("x"),
    }
    if !value.is_object() && !value.is_array() {
        names.push(name.to_owned());
    }
}

// --- tests ------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_and_proven_is_whole_by_the_page_alone() {
    let log = log().await;
    let by_key = Judges::new(&["--key", &log.key()]);
    let all = log.export("", true);
    let verdict = by_key.whole("all", &all);
    let keys = all[0]["keys"].as_array().unwrap().clone();
    assert_eq!((keys.len(), verdict["entries"].as_u64()), (2, Some(at(&all, "entry").len() as u64)));
    assert!(verdict["checkpoints"].as_u64().unwrap() >= 3 && verdict["bodies"].as_u64().unwrap() >= 4);
    // By the first key, in hex, and by none.
    let first = Judges::new(&["--key", keys[0]["key"].as_str().unwrap()]);
    first.whole("by the first key", &all);
    assert_eq!(Judges::new(&[]).whole("by no key", &all)["notes"].as_array().unwrap().len(), 1);
    by_key.whole("without bodies", &log.export("", false));
    for filter in ["kind:exchange", "kind:dns", "method:PUT"] {
        let part = log.export(filter, true);
        assert!(!at(&part, "skipped").is_empty() && !at(&part, "entry").is_empty(), "{filter}");
        by_key.whole(filter, &part);
        by_key.broken(filter, &part, "", |lines| drop(lines.remove(at(lines, "skipped")[0])));
        by_key.broken(filter, &part, "", |lines| drop(lines.remove(at(lines, "entry")[0])));
    }
    for id in &log.rich {
        let proof = log.proof(*id);
        assert_eq!(by_key.whole("a proof", &proof)["entries"], 1);
        assert!(is_of(&proof[at(&proof, "entry")[0]], *id));
    }

    // Entries older than the key that signs for it are taken out; then bodies.
    prune(&log, Rules { records: Some(500), ..Rules::default() }).await;
    prune(&log, Rules { body_age: Some(Duration::from_secs(3600)), ..Rules::default() }).await;
    let left = log.export("", true);
    let pruned = at(&left, "pruned");
    let what = |at: &usize| left[*at]["what"].as_str().unwrap().to_owned();
    assert_eq!(pruned.iter().map(what).collect::<Vec<_>>(), ["entries", "bodies"]);
    assert!(left[pruned[0]]["to"].as_u64() < keys[1]["entries"].as_u64(), "{}", left[pruned[0]]);
    by_key.whole("what was left", &left);
    let oldest = RecordId(left[at(&left, "entry")[0]]["record"]["id"].as_u64().unwrap());
    by_key.whole("proof of the oldest", &log.proof(oldest));
    by_key.broken("reason of a prune", &left, "signature", |lines| lines[pruned[0]]["reason"] = json!("age"));
    by_key.broken("number of a prune", &left, "signature", |lines| lines[pruned[0]]["records"] = json!(1));
    by_key.broken("no prune", &left, "removed", |lines| drop(lines.remove(pruned[0])));
    by_key.broken("one entry more is gone", &left, "removed", |lines| {
        drop(lines.remove(at(lines, "entry")[0]))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_gone_on_with_after_a_change_of_keys_is_whole_by_the_page_alone() {
    let log = log().await;
    let before = log.export("", false);
    log.store.rotate_key().unwrap();
    let (audit, thread) = Audit::start(log.store.clone(), AuditOptions::default());
    fill(&audit, 300).await;
    drop(audit);
    thread.drain(Duration::from_secs(30)).await;
    let first = before[0]["keys"][0]["key"].as_str().unwrap();
    let judges = Judges::new(&["--key", first]);
    for cut in [before.len() - 1, before.len() * 2 / 3] {
        let joined = log.go_on(&before[..cut].to_vec());
        let keys = at(&joined, "key");
        assert_eq!(keys.len(), 1);
        judges.whole("joined", &joined);
        let kept = judges.dir.path().join("kept.jsonl");
        let last = &joined[*at(&joined, "checkpoint").last().unwrap()];
        assert_eq!(last["key"], joined[keys[0]]["key"]);
        fs::write(&kept, format!("{last}\n")).unwrap();
        let knowing = Judges::new(&["--key", first, "--checkpoints", kept.to_str().unwrap()]);
        knowing.whole("to those who kept the last", &joined);
        judges.broken("no statement", &joined, "unknown_key", |lines| drop(lines.remove(keys[0])));
        judges.broken("a late one", &joined, "statement", |lines| {
            let line = lines.remove(keys[0]);
            lines.insert(lines.len() - 2, line);
        });
        judges.broken("one not vouched for", &joined, "unknown_key", |lines| {
            lines[keys[0]]["vouched"] = Value::Null;
        });
        judges.broken("its link", &joined, "signature", |lines| turn(&mut lines[keys[0]]["link"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_found_by_the_page_alone() {
    let log = log().await;
    let judges = Judges::new(&["--key", &log.key()]);
    let all = log.export("", true);
    judges.whole("all", &all);
    entries(&judges, &all);
    signatures(&judges, &all);
    ends(&judges, &all, &log.key());

    // Another key than the log's; a key and an export that are not there.
    let stranger = SigningKey::generate().unwrap().0.public().to_string();
    Judges::new(&["--key", &stranger]).broken("another key", &all, "unknown_key", |lines| {
        lines[0]["made"] = json!(0);
    });
    assert_eq!(Judges::new(&["--key", "/no/such/key"]).ask(&text(&all)).0, 2);
    assert_eq!(judges.of(Path::new("/no/such/export")).0, 2);

    // What people read of a record is what was signed, each value of it.
    for id in &log.rich {
        let mut proof = log.proof(*id);
        let place = at(&proof, "entry")[0];
        let mut names = Vec::new();
        change_all(&mut proof[place]["record"], "", &mut names);
        let (status, verdict) = judges.ask(&text(&proof));
        assert_eq!(status, 1, "{verdict}");
        let findings = verdict["findings"].as_array().unwrap();
        let told = |name: &str| {
            let quoted = format!("`{name}`");
            findings.iter().any(|finding| finding["detail"].as_str().unwrap().contains(&quoted))
        };
        for name in names {
            let name = name.replace(".value.", ".");
            let pair = name.rsplit_once('[').map_or("", |(pair, _)| pair);
            assert!(told(&name) || told(pair), "{id}: {name} is not told: {verdict}");
        }
    }
}

/// Entries, their order and their bodies.
fn entries(judges: &Judges, all: &Lines) {
    let entries = at(all, "entry");
    let with_bodies = entries.iter().copied().find(|at| all[*at]["bodies"]["request"].is_string()).unwrap();
    for part in 0..8 {
        judges.broken("a bit of an entry", all, "altered", |lines| {
            flip(&mut lines[with_bodies]["entry"], part);
        });
    }
    judges.broken("entry and record, all links made anew", all, "altered", |lines| {
        let noted =
            |line: &Value| line["record"]["note"].as_str().is_some_and(|note| note.starts_with("note"));
        let line = lines.iter_mut().filter(|line| noted(line)).nth(200).unwrap();
        let mut entry = bytes(&line["entry"]);
        let note = line["record"]["note"].as_str().unwrap().replace("note", "NOTE");
        let place = entry.windows(4).position(|found| found == b"note").unwrap();
        entry[place..place + 4].copy_from_slice(b"NOTE");
        (line["entry"], line["record"]["note"]) = (based(entry), json!(note));
        let mut link: Option<Hash> = None;
        for line in lines.iter_mut().filter(|line| line["type"] == "entry") {
            let prev = link.unwrap_or_else(|| serde_json::from_value(line["prev"].clone()).unwrap());
            line["prev"] = json!(prev);
            link = Some(chain::next(&prev, &chain::digest(&bytes(&line["entry"]))));
        }
    });
    judges.broken("an entry removed", all, "removed", |lines| drop(lines.remove(entries[300])));
    judges.broken("the first removed", all, "removed", |lines| drop(lines.remove(entries[0])));
    judges.broken("two swapped", all, "moved", |lines| lines.swap(entries[100], entries[101]));
    judges.broken("two far ones swapped", all, "moved", |lines| lines.swap(entries[10], entries[400]));
    judges
        .broken("an entry twice", all, "moved", |lines| lines.insert(entries[50], all[entries[50]].clone()));
    judges.broken("a number", all, "removed", |lines| lines[entries[20]]["n"] = json!(21));
    judges.broken("a link", all, "links", |lines| turn(&mut lines[entries[20]]["prev"]));
    judges.broken("an entry hidden behind its digest", all, "removed", |lines| {
        let line = &mut lines[entries[30]];
        let digest = chain::digest(&bytes(&line["entry"]));
        *line = json!({"type": "skipped", "n": line["n"], "digests": based(digest.0.to_vec())});
        let end = lines.len() - 1;
        lines[end]["entries"] = json!(entries.len() - 1);
    });
    for side in ["request", "response"] {
        judges
            .broken("a body", all, "body_altered", |lines| flip(&mut lines[with_bodies]["bodies"][side], 4));
        judges.broken("a body cut off", all, "body_altered", |lines| {
            let body = &mut lines[with_bodies]["bodies"][side];
            let mut kept = bytes(body);
            kept.pop();
            *body = based(kept);
        });
    }
    judges.broken("a body where there was none", all, "body_altered", |lines| {
        lines[entries[100]]["bodies"] = json!({"request": "AAAA"});
    });
    judges.broken("a line of another type", all, "unreadable", |lines| lines.insert(9, json!({"type": "x"})));
    judges
        .broken("base64 that is none", all, "unreadable", |lines| lines[entries[9]]["entry"] = json!("A?=="));
}

/// Checkpoints, and statements of keys.
fn signatures(judges: &Judges, all: &Lines) {
    let checkpoints = at(all, "checkpoint");
    for field in ["link", "signature", "key"] {
        judges.broken(field, all, "signature", |lines| turn(&mut lines[checkpoints[0]][field]));
    }
    judges.broken("time of a checkpoint", all, "signature", |lines| lines[checkpoints[0]]["time"] = json!(1));
    judges.broken("number of a checkpoint", all, "signature", |lines| {
        lines[checkpoints[0]]["entries"] = json!(255);
    });
    judges.broken("no checkpoint", all, "checkpoint", |lines| drop(lines.remove(checkpoints[0])));
    judges.broken("a checkpoint too early", all, "checkpoint", |lines| {
        lines.swap(checkpoints[0], checkpoints[0] - 1);
    });
    judges.broken("no last checkpoint", all, "unsigned", |lines| {
        lines.remove(*checkpoints.last().unwrap());
    });
    judges.broken("a checkpoint by a stranger", all, "unknown_key", |lines| {
        let line = &mut lines[checkpoints[0]];
        let log = serde_json::from_value(all[0]["log"].clone()).unwrap();
        let (entries, link) = (line["entries"].as_u64().unwrap(), line["link"].clone());
        let key = SigningKey::generate().unwrap().0;
        let link = serde_json::from_value(link).unwrap();
        let forged = Checkpoint::sign(&log, entries, link, Timestamp(0), &key).unwrap();
        *line = serde_json::to_value(forged).unwrap();
        line["type"] = json!("checkpoint");
    });
    judges.broken("the log's id", all, "signature", |lines| turn(&mut lines[0]["log"]));
    judges.broken("link of a key", all, "signature", |lines| turn(&mut lines[0]["keys"][1]["link"]));
    judges.broken("a key not vouched for", all, "unknown_key", |lines| {
        lines[0]["keys"][1]["vouched"] = Value::Null;
    });
    judges.broken("no statement of a key", all, "unknown_key", |lines| {
        lines[0]["keys"].as_array_mut().unwrap().remove(0);
        lines[0]["keys"][0]["previous"] = Value::Null;
    });
}

/// Where it ends.
fn ends(judges: &Judges, all: &Lines, key: &str) {
    let checkpoints = at(all, "checkpoint");
    judges.broken("no end", all, "truncated", |lines| drop(lines.pop()));
    judges.broken("another count", all, "truncated", |lines| {
        let end = lines.len() - 1;
        lines[end]["entries"] = json!(1);
    });
    let whole = text(all);
    for cut in [whole.len() / 2, whole.len() - 2, 40] {
        let (status, verdict) = judges.ask(&whole[..whole.floor_char_boundary(cut)]);
        assert_eq!(status, 1, "{cut}: {verdict}");
    }
    let cut_at = |lines: &mut Lines, checkpoint: usize| {
        lines.truncate(checkpoint + 1);
        let count = at(lines, "entry").len();
        lines.push(json!({"type": "end", "entries": count}));
    };
    judges.broken("before the second key", all, "truncated", |lines| cut_at(lines, checkpoints[0]));
    // A checkpoint is an end as good as any, but to those who kept a later one.
    let mut cut = all.clone();
    cut_at(&mut cut, checkpoints[checkpoints.len() - 2]);
    judges.whole("cut off at a checkpoint", &cut);
    let kept = judges.dir.path().join("kept.jsonl");
    fs::write(&kept, format!("{}\n", all[*checkpoints.last().unwrap()])).unwrap();
    let knowing = Judges::new(&["--key", key, "--checkpoints", kept.to_str().unwrap()]);
    knowing.whole("all, to those who kept a checkpoint", all);
    knowing.broken("cut off at a checkpoint", all, "truncated", |lines| *lines = cut);
}
