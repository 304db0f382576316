//! What is found by the index is what the language says of each record.

use std::sync::Arc;

use super::*;
use crate::{
    filter::tests::exchange,
    model::{
        Authority, Captured, Fact, Failure, Flag, HeaderFields, Host, RequestHead, ResponseHead, Severity,
        State, Subject, Verdict,
    },
    store::Write,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn filter(text: &str) -> Filter {
    Filter::parse(text, NOW).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Numbers that look random and are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn record(id: u64, dice: &mut Dice) -> Record {
    let kind = dice.of(&[Kind::Exchange, Kind::Exchange, Kind::Flow, Kind::Dns, Kind::Control]);
    // The clock goes back now and then.
    let started = NOW.0 - 10_000_000_000 + i64::try_from(id * 1_000_000 - dice.below(3) * 500_000).unwrap();
    let mut record = Record::new(kind, Timestamp(started));
    record.id = RecordId(id);
    record.state = dice.of(&[State::Done, State::Refused, State::Failed]);
    record.finished = Some(Timestamp(started + i64::try_from(dice.below(5_000_000)).unwrap()));
    if dice.below(10) > 0 {
        let host = dice.of(&["api.example.com", "a.github.com", "b.github.com", "github.com", "192.0.2.1"]);
        record.authority = Some(Authority { host: Host::parse(host).unwrap(), port: 443 });
    }
    if dice.below(10) > 0 {
        let session = dice.of(&["run-u1.service@1", "run-u2.service@2", "run-u2.service@3", "-"]);
        let exe = dice.of(&["/usr/bin/node", "/usr/bin/python3", ""]);
        record.subject = Some(Arc::new(Subject {
            exe: Some(exe.to_owned()).filter(|exe| !exe.is_empty()),
            comm: dice.of(&["node", "Main", ""]).to_owned(),
            ..Subject::unknown(SessionId(session.into()), u32::try_from(dice.below(5)).unwrap(), 0)
        }));
    }
    if dice.below(4) > 0 {
        let action = dice.of(&[Action::Allow, Action::Deny, Action::Passthrough]);
        let rule = dice.of(&["allow:*.github.com", "mode:audit", ""]).to_owned();
        record.verdict = Some(Verdict { action, rule, reason: "because".into() });
    }
    for _ in 0..dice.below(3) {
        record.flags.push(Flag::new(dice.of(&["slow", "pinned", "odd_name"]), Severity::Low, "seen"));
    }
    record.protocol = dice.of(&["http/1", "http/2", "tls", ""]).to_owned();
    if kind == Kind::Exchange {
        record.parent = Some(RecordId(dice.below(50)));
        record.request = Some(RequestHead {
            method: dice.of(&["GET", "POST", ""]).into(),
            scheme: "https".into(),
            target: format!("/v1/items/{}?q=red", id % 7),
            headers: HeaderFields::from(vec![("x-trace", dice.of(&["alpha beta", "beta alpha"]))]),
            body: Captured { total: dice.below(3) * 700, truncated: false, bytes: "needle in hay".into() },
            ..RequestHead::default()
        });
        record.response = (dice.below(5) > 0)
            .then(|| ResponseHead { status: dice.of(&[200, 201, 404, 500, 503]), ..ResponseHead::default() });
    } else {
        record.bytes_up = dice.below(2000);
        record.bytes_down = dice.below(2000);
    }
    if dice.below(4) == 0 {
        let code = dice.of(&["origin_reset", "origin_timeout"]).to_owned();
        record.failure = Some(Failure { blame: "origin".into(), code, detail: "gone".into() });
    }
    for _ in 0..dice.below(3) {
        record.facts.push(match dice.below(4) {
            0 => Fact::text("model", dice.of(&["claude-4", "gpt-5"])),
            1 => Fact::text("pii", dice.of(&["email", "phone", ""])),
            2 => Fact::micros("cost", i64::try_from(dice.below(2_000_000)).unwrap()),
            _ => Fact::integer("tokens", i64::try_from(dice.below(10)).unwrap()),
        });
    }
    record
}

/// A log of `count` records: some over at once, some later in the same batch or another, some never.
fn filled(count: u64) -> (tempfile::TempDir, Store, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    let mut dice = Dice(11);
    let mut last: Vec<Record> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut entries: Vec<(bool, Record)> = Vec::new();
    for id in 1..=count {
        let record = record(id, &mut dice);
        if dice.below(3) == 0 {
            let mut begun = record.clone();
            begun.state = State::Open;
            begun.finished = None;
            begun.response = None;
            begun.flags.clear();
            begun.failure = None;
            if dice.below(2) == 0 {
                begun.authority = None;
                begun.verdict = None;
            }
            if dice.below(20) == 0 {
                // Its body is not stored yet.
                begun.request.iter_mut().for_each(|head| head.body.bytes = bytes::Bytes::new());
                last.push(begun.clone());
            } else {
                last.push(record);
                open.push(last.len() - 1);
            }
            entries.push((true, begun));
        } else {
            entries.push((false, record.clone()));
            last.push(record);
        }
        if dice.below(40) == 0 {
            for at in open.drain(..) {
                entries.push((false, last[at].clone()));
            }
        }
        if dice.below(100) == 0 || id == count {
            if id == count {
                entries.extend(open.drain(..).map(|at| (false, last[at].clone())));
            }
            let writes: Vec<_> = entries
                .iter()
                .map(|(open, record)| if *open { Write::Open(record) } else { Write::Final(record) })
                .collect();
            store.apply(&writes).unwrap();
            entries.clear();
        }
    }
    (dir, store, last)
}

const PARTS: [&str; 44] = [
    "host:a.github.com",
    "host:*.github.com",
    "host:*github*",
    "host:*",
    "host:nowhere",
    "host:192.0.2.*",
    "session:run-u2.service",
    "session:run-u2.service@3",
    "session:*",
    "agent:node",
    "agent:m*",
    "exe:/usr/*",
    "pid:3",
    "pid:>2",
    "verdict:deny",
    "verdict:allow,passthrough",
    "flag:slow",
    "flag:*",
    "status:200",
    "status:5xx",
    "status:>=404",
    "method:get",
    "kind:exchange",
    "kind:dns,flow",
    "state:open",
    "state:failed",
    "rule:allow:*",
    "protocol:http/*",
    "code:origin_reset",
    "id:100..900",
    "id:<50",
    "parent:7",
    "since:90m",
    "until:80m",
    "duration:>4s",
    "duration:<=1ms",
    "bytes:0",
    "bytes:>2k",
    "path:/v1/items/3*",
    "url:https://*.com/*",
    "model:claude*",
    "pii:*",
    "cost:>1.5",
    "fact.tokens:5",
];

const WORDS: [&str; 6] = ["needle", "\"alpha beta\"", "alph*", "github", "red", "gone"];

fn all_pages(store: &Store, mut query: Query) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let page = store.query(&query).unwrap();
        assert_eq!((page.unreadable, page.unsearched), (0, None));
        found.extend(page.records.iter().map(|record| record.id.0));
        match page.next {
            Some(next) => query.before = Some(next),
            None => return found,
        }
    }
}

fn counted(store: &Store, mut query: Query) -> u64 {
    let mut count = 0;
    loop {
        let counted = store.count(&query).unwrap();
        count += counted.count;
        match counted.next {
            Some(next) => query.before = Some(next),
            None => return count,
        }
    }
}

/// Says where two lists differ, and not all that is in them.
fn same<T: PartialEq + std::fmt::Debug>(found: &[T], expect: &[T], what: &str) {
    let at = found.iter().zip(expect).position(|(found, expect)| found != expect);
    let at = at.or_else(|| (found.len() != expect.len()).then(|| found.len().min(expect.len())));
    if let Some(at) = at {
        panic!("{what}: at {at} {:?} in place of {:?}", found.get(at), expect.get(at));
    }
}

#[test]
fn the_index_says_what_the_records_say() {
    let (_dir, store, records) = filled(4400);
    let mut dice = Dice(5);
    let mut texts: Vec<String> = PARTS.iter().chain(&WORDS).map(|part| (*part).to_owned()).collect();
    texts.extend(PARTS.iter().map(|part| format!("-{part}")));
    for _ in 0..40 {
        let (a, b, c) = (dice.of(&PARTS), dice.of(&PARTS), dice.of(&PARTS));
        let word = dice.of(&WORDS);
        texts.push(match dice.below(6) {
            0 => format!("{a} {b}"),
            1 => format!("{a} -{b} {c}"),
            2 => format!("{a} or {b} {c}"),
            3 => format!("-({a} or -{b})"),
            4 => format!("{a} {word} -{b}"),
            _ => format!("({a} or {b}) (-{c} or {word})"),
        });
    }
    for (nth, text) in texts.iter().enumerate() {
        let filter = filter(text);
        let expect: Vec<&Record> = records.iter().filter(|record| filter.matches(record)).collect();
        let mut ids: Vec<u64> = expect.iter().map(|record| record.id.0).collect();
        let query = |sort, limit| Query { sort, ..Query::of(filter.clone(), limit) };
        let oldest = ids.clone();
        ids.reverse();
        same(&all_pages(&store, query(None, 997)), &ids, text);
        assert_eq!(counted(&store, query(None, 1)), ids.len() as u64, "{text}");
        // What the other orders add is the same for every filter.
        if nth % 8 != 0 {
            continue;
        }
        same(&all_pages(&store, query(Some(Sort::Oldest), 1000)), &oldest, text);
        for (sort, of) in [
            (
                Sort::Duration,
                &(|r: &Record| crate::filter::duration(r).unwrap_or(0)) as &dyn Fn(&Record) -> u64,
            ),
            (Sort::Bytes, &crate::filter::amount),
        ] {
            let mut sorted: Vec<_> = expect.iter().map(|r| (of(r), r.id.0)).collect();
            sorted.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
            sorted.truncate(1500);
            let mut found = Vec::new();
            let mut before = None;
            while found.len() < sorted.len() {
                let page = store.query(&Query { before, ..query(Some(sort), 700) }).unwrap();
                found.extend(page.records.iter().map(|r| (of(r), r.id.0)));
                before = page.next;
                assert!(before.is_some() || found.len() >= sorted.len(), "{text}");
            }
            found.truncate(1500);
            same(&found, &sorted, text);
        }
    }
    // Pages of any size join.
    for limit in [1, 7, 64] {
        let query = Query::of(filter("host:*.github.com status:5xx"), limit);
        let expect = all_pages(&store, Query { limit: 1000, ..query.clone() });
        assert_eq!(all_pages(&store, query), expect);
    }
}

#[test]
fn what_must_be_looked_at_ends_at_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    let count = SCAN_CAP as u64 * 2 + 500;
    let records: Vec<Record> = (1..=count)
        .map(|id| {
            let mut record = exchange();
            record.id = RecordId(id);
            record.request.as_mut().unwrap().target = if id == 3 { "/rare".into() } else { "/often".into() };
            record
        })
        .collect();
    store.apply(&records.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
    let rare = Query::of(filter("path:/rare"), 10);
    let first = store.query(&rare).unwrap();
    assert_eq!((first.records.len(), first.next), (0, Some(RecordId(count - SCAN_CAP as u64 + 1).into())));
    assert_eq!(all_pages(&store, rare.clone()), [3]);
    let counted_once = store.count(&rare).unwrap();
    assert_eq!((counted_once.count, counted_once.next), (0, first.next));
    assert_eq!(counted(&store, rare.clone()), 1);
    assert_eq!(counted(&store, Query::of(filter("-path:/rare"), 1)), count - 1);
    let oldest = store.query(&Query { sort: Some(Sort::Oldest), ..rare.clone() }).unwrap();
    assert_eq!((oldest.records.len(), oldest.next), (1, Some(RecordId(SCAN_CAP as u64).into())));
    let largest = store.query(&Query { sort: Some(Sort::Bytes), ..rare }).unwrap();
    assert_eq!(largest.unsearched, Some(RecordId(count - SCAN_CAP as u64 + 1)));
    // By the index alone nothing ends.
    assert_eq!(store.count(&Query::of(filter("status:503"), 1)).unwrap().count, count);
}

#[test]
fn cursors_are_texts_and_numbers() {
    for (cursor, text, json) in [
        (Cursor::from(RecordId(17)), "17", "17"),
        (Cursor { value: Some(5000), id: RecordId(17) }, "5000.17", "\"5000.17\""),
    ] {
        assert_eq!(cursor.to_string(), text);
        assert_eq!(text.parse(), Ok(cursor));
        assert_eq!(serde_json::to_string(&cursor).unwrap(), json);
        assert_eq!(serde_json::from_str::<Cursor>(json).unwrap(), cursor);
    }
    for text in ["", "x", "1.", ".1", "1.2.3", "-1"] {
        assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
    }
}
