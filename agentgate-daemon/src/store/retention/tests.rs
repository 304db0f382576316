//! Whatever is pruned in whatever order: what is kept reads as before, what is not is gone.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::ReadableTableMetadata as _;

use super::*;
use crate::{
    chain::Trust,
    model::{Authority, Captured, Host, Kind, Record, RequestHead, ResponseHead, State},
    store::{
        Entry, Known, Query, Side, bodies,
        postings::{BEGUN, TERMS},
        reindex,
        tables::{CONTENTS, ENDS, PACKS, UNDERWAY},
        uses::USES,
    },
};

/// Small, quick and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

const HOUR: i64 = 3_600_000_000;

/// What the log should say.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, Record>,
    /// Ids of those that are open.
    open: Vec<u64>,
    next: u64,
    hours: i64,
}

impl Model {
    fn body(dice: &mut Dice) -> Bytes {
        match dice.below(6) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![dice.below(4) as u8; 9000 + dice.below(3) as usize]),
            2 => Bytes::from_static(b"the same each time"),
            _ => (0..dice.below(900) + 1).map(|_| dice.below(256) as u8).collect::<Vec<_>>().into(),
        }
    }

    fn fill(record: &mut Record, dice: &mut Dice) {
        let host = format!("h{}.test", dice.below(9));
        record.authority = Some(Authority { host: Host::parse(&host).unwrap(), port: 443 });
        let head = |bytes: Bytes| Captured { total: bytes.len() as u64, truncated: false, bytes };
        record.request = Some(RequestHead { body: head(Self::body(dice)), ..RequestHead::default() });
        if dice.below(2) == 0 {
            record.response =
                Some(ResponseHead { status: 200, body: head(Self::body(dice)), ..ResponseHead::default() });
        }
    }

    fn write(&mut self, store: &Store, dice: &mut Dice) {
        let mut writes = Vec::new();
        for _ in 0..dice.below(120) + 1 {
            self.hours += i64::try_from(dice.below(3)).unwrap();
            match dice.below(10) {
                0..4 => {
                    self.next += 1;
                    let mut record = Record::new(Kind::Exchange, Timestamp(self.hours * HOUR));
                    record.id = RecordId(self.next);
                    Self::fill(&mut record, dice);
                    record.state = State::Done;
                    writes.push((record, false));
                }
                4..7 => {
                    self.next += 1;
                    let mut record = Record::new(Kind::Exchange, Timestamp(self.hours * HOUR));
                    record.id = RecordId(self.next);
                    self.open.push(self.next);
                    self.records.insert(self.next, record.clone());
                    writes.push((record, true));
                }
                _ if self.open.is_empty() => {}
                choice => {
                    // The youngest mostly: one in a while stays open for very long.
                    let back = dice.below(self.open.len().min(20) as u64) as usize;
                    let at = self.open.len() - 1 - back;
                    let id = self.open[at];
                    if writes.iter().any(|(record, _)| record.id.0 == id) {
                        continue;
                    }
                    let mut record = self.records[&id].clone();
                    Self::fill(&mut record, dice);
                    let ends = choice != 9;
                    if ends {
                        record.state = State::Done;
                        record.finished = Some(Timestamp(self.hours * HOUR));
                        self.open.remove(at);
                    }
                    writes.push((record, !ends));
                }
            }
            if let Some((record, _)) = writes.last() {
                self.records.insert(record.id.0, record.clone());
            }
        }
        let entries: Vec<_> = writes
            .iter()
            .map(|(record, open)| match (open, &record.request) {
                (true, None) => Entry::open(record),
                (true, Some(_)) => Entry::version(record, &mut Known::default()),
                (false, _) => Entry::last(record),
            })
            .collect();
        store.commit(&entries, store.epoch.load(Ordering::Relaxed), None).unwrap();
    }
}

fn shown(record: &Record) -> Record {
    let mut record = record.clone();
    if let Some(head) = &mut record.request {
        head.body.bytes = Bytes::new();
    }
    if let Some(head) = &mut record.response {
        head.body.bytes = Bytes::new();
    }
    record
}

fn all(store: &Store, host: Option<&str>) -> Vec<u64> {
    let mut query = Query { host: host.map(Into::into), limit: 1000, ..Query::default() };
    let mut found = Vec::new();
    loop {
        let page = store.query(&query).unwrap();
        assert_eq!(page.unreadable, 0);
        found.extend(page.records.iter().map(|record| record.id.0));
        query.before = page.next;
        if query.before.is_none() {
            return found;
        }
    }
}

/// Holds the log against what it should say; returns the ids that are there.
fn check(store: &Store, model: &Model) -> Vec<u64> {
    let mut kept = Vec::new();
    let bodies_from = number(&store.snapshot().unwrap().open_table(META).unwrap(), BODIES_FROM).unwrap();
    for (id, record) in &model.records {
        let Some(read) = store.get(RecordId(*id)).unwrap() else {
            assert!(!model.open.contains(id), "{id} is under way and gone");
            continue;
        };
        assert_eq!(read, shown(record));
        kept.push(*id);
        let bodies = [
            record.request.as_ref().map(|head| head.body.bytes.clone()),
            record.response.as_ref().map(|head| head.body.bytes.clone()),
        ];
        for (side, expect) in [Side::Request, Side::Response].into_iter().zip(bodies) {
            let expect = expect.filter(|bytes| !bytes.is_empty());
            match store.body(RecordId(*id), side) {
                Err(StoreError::BodyDropped { .. }) => assert!(bodies_from > 0 && expect.is_some()),
                other => assert_eq!(other.unwrap(), expect),
            }
        }
    }
    let mut listed = all(store, None);
    listed.reverse();
    assert_eq!(listed, kept);
    for host in ["h0.test", "h5.test"] {
        let is = |id: &&u64| {
            model.records[*id].authority.as_ref().is_some_and(|authority| authority.host.as_str() == host)
        };
        let mut expect: Vec<u64> = kept.iter().filter(is).copied().collect();
        expect.reverse();
        assert_eq!(all(store, Some(host)), expect);
    }
    sound(store);
    let report = store.verify(Trust::default(), &mut |_, _| ()).unwrap();
    assert!(report.whole, "{report:?}");
    kept
}

/// No row leads nowhere, and none is left that nothing leads to.
fn sound(store: &Store) {
    let snapshot = store.snapshot().unwrap();
    let groups = snapshot.open_table(GROUPS).unwrap();
    let packs = snapshot.open_table(PACKS).unwrap();
    let numbers = |table: &redb::ReadOnlyTable<Part, &'static [u8]>| {
        let mut weight = 0;
        let mut numbers = BTreeSet::new();
        for row in table.iter().unwrap() {
            let (key, value) = row.unwrap();
            numbers.insert(key.value().0);
            weight += value.value().len() as u64;
        }
        (numbers, weight)
    };
    let ((groups, weight), (packs, more)) = (numbers(&groups), numbers(&packs));
    let meta = snapshot.open_table(META).unwrap();
    assert_eq!(number(&meta, WEIGHT).unwrap(), weight + more);
    let uses = snapshot.open_table(USES).unwrap();
    let used: BTreeMap<u64, u64> = uses
        .iter()
        .unwrap()
        .map(|row| row.map(|(pack, group)| (pack.value(), group.value())).unwrap())
        .collect();
    assert_eq!(used.keys().copied().collect::<BTreeSet<_>>(), packs);
    assert!(used.values().all(|group| groups.contains(group)));
    for row in snapshot.open_table(CONTENTS).unwrap().iter().unwrap() {
        assert!(packs.contains(&row.unwrap().1.value()));
    }
    let spans: BTreeMap<u64, SpanRow> = snapshot
        .open_table(SPANS)
        .unwrap()
        .iter()
        .unwrap()
        .map(|row| row.map(|(first, row)| (first.value(), row.value())).unwrap())
        .collect();
    assert!(spans.values().all(|row| groups.contains(&row.1)));
    let home = |id: u64| spans.range(..=id).next_back().is_some_and(|(_, row)| row.0 >= id);
    for row in snapshot.open_table(ENDS).unwrap().iter().unwrap() {
        let (id, group) = row.unwrap();
        assert!(home(id.value()) && groups.contains(&group.value()));
    }
    for row in snapshot.open_table(UNDERWAY).unwrap().iter().unwrap() {
        let (id, first) = row.unwrap();
        assert!(home(id.value()) && spans.contains_key(&first.value()));
    }
    for row in snapshot.open_table(BEGUN).unwrap().iter().unwrap() {
        assert!(home(row.unwrap().0.value()), "terms of a record that is gone");
    }
}

fn prune(store: &Store, rules: &Rules, now: Timestamp) -> Option<Pruned> {
    prune_for(store, rules, &Readers::default(), now)
}

fn prune_for(store: &Store, rules: &Rules, readers: &Readers, now: Timestamp) -> Option<Pruned> {
    let (mut run, mut over) = (Run::default(), None);
    loop {
        let slice = store.retain(rules, readers, &mut run, now).unwrap();
        over = over.or(slice.over);
        if !slice.more {
            return over;
        }
    }
}

/// A record of a host, that is over.
fn visit(store: &Store, id: u64, host: &str) {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap() * HOUR));
    (record.id, record.state) = (RecordId(id), State::Done);
    record.authority = Some(Authority { host: Host::parse(host).unwrap(), port: 443 });
    store.apply(&[crate::store::Write::Final(&record)]).unwrap();
}

fn texts(store: &Store) -> u64 {
    store.snapshot().unwrap().open_table(TERMS).unwrap().len().unwrap()
}

fn found(store: &Store, host: &str) -> usize {
    let filter = crate::filter::Filter::parse(&format!("host:{host}"), Timestamp(0)).unwrap();
    store.query(&Query { limit: 100, ..Query::of(filter, 100) }).unwrap().records.len()
}

#[test]
fn texts_of_records_that_are_gone_go_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut store = Store::open(&path).unwrap();
    let rules = Rules { records: Some(500), ..Rules::default() };
    let mut most = 0;
    for round in 0..6 {
        for id in round * 600 + 1..=round * 600 + 600 {
            visit(&store, id, &format!("h{id}.test"));
        }
        most = most.max(texts(&store));
        prune(&store, &rules, Timestamp(0));
        // 500 hosts, and what all records have in common.
        assert!(texts(&store) < 520 + 130, "{round}: {}", texts(&store));
        assert!(store.verify(Trust::default(), &mut |_, _| ()).unwrap().whole);
        if round == 3 {
            drop(store);
            store = Store::open(&path).unwrap();
        }
    }
    assert!(most > 1000, "they would have stayed: {most}");
    for (host, is) in [("h3600.test", 1), ("h3500.test", 1), ("h1.test", 0), ("h2000.test", 0)] {
        assert_eq!(found(&store, host), is, "{host}");
    }
    // One that went and comes again.
    visit(&store, 3601, "h1.test");
    assert_eq!(found(&store, "h1.test"), 1);
}

#[test]
fn a_text_that_is_used_again_while_texts_go_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    for id in 1..=1200 {
        visit(&store, id, &format!("h{id}.test"));
    }
    let rules = Rules { records: Some(600), ..Rules::default() };
    let mut run = Run::default();
    let retain = |run: &mut Run| store.retain(&rules, &Readers::default(), run, Timestamp(0)).unwrap();
    while !matches!(run.cleaning, Cleaning::Found { .. }) {
        assert!(retain(&mut run).more);
    }
    // It was not in use when that was looked at.
    assert_eq!(found(&store, "h5.test"), 0);
    visit(&store, 1201, "h5.test");
    let before = texts(&store);
    while retain(&mut run).more {}
    assert!(texts(&store) < before - 400, "{} of {before}", texts(&store));
    assert_eq!(found(&store, "h5.test"), 1);
    assert!(store.verify(Trust::default(), &mut |_, _| ()).unwrap().whole);
    // After a transaction that failed it is not known what was used: nothing goes.
    for id in 1202..=2400 {
        visit(&store, id, &format!("h{id}.test"));
    }
    while !matches!(run.cleaning, Cleaning::Found { .. }) {
        assert!(retain(&mut run).more);
    }
    let before = texts(&store);
    store.forget_packing();
    visit(&store, 2401, "h6.test");
    assert!(!retain(&mut run).more);
    assert!(texts(&store) >= before);
    assert_eq!(found(&store, "h6.test"), 1);
}

#[test]
fn what_a_reader_has_not_read_stays_until_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    for id in 1..=900 {
        visit(&store, id, "h.test");
    }
    let readers = Readers::default();
    readers.came_to(0, false);
    let rules = Rules { records: Some(300), ..Rules::default() };
    assert_eq!(prune_for(&store, &rules, &readers, Timestamp(0)), None);
    assert!(readers.is_waited_for());
    // So far, and no group that is not read to its end.
    readers.came_to(400, false);
    let pruned = prune_for(&store, &rules, &readers, Timestamp(0)).unwrap();
    assert!((300..=400).contains(&pruned.first), "{pruned:?}");
    assert!(readers.is_waited_for());
    // The bound in bytes holds regardless.
    let tight = Rules { bytes: Some(1), ..rules };
    let pruned = prune_for(&store, &tight, &readers, Timestamp(0)).unwrap();
    assert!(pruned.first > 700 && pruned.why == Some(Why::Bytes), "{pruned:?}");
    readers.came_to(u64::MAX, false);
    prune_for(&store, &rules, &readers, Timestamp(0));
    assert!(!readers.is_waited_for());
}

#[test]
fn bodies_wait_for_a_reader_that_reads_them() {
    for bodies in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("audit.redb")).unwrap();
        let mut dice = Dice(3);
        let mut model = Model::default();
        while model.next < 900 {
            model.write(&store, &mut dice);
        }
        let readers = Readers::default();
        readers.came_to(0, bodies);
        let rules = Rules { body_age: hours(1), ..Rules::default() };
        let pruned = prune_for(&store, &rules, &readers, Timestamp((model.hours + 1000) * HOUR));
        assert_eq!(pruned.is_none(), bodies, "{pruned:?}");
        assert_eq!(readers.is_waited_for(), bodies);
    }
}

fn hours(hours: i64) -> Option<Duration> {
    Some(Duration::from_hours(u64::try_from(hours.max(1)).unwrap()))
}

#[test]
fn what_is_kept_reads_as_before_and_the_rest_is_gone() {
    for seed in 1..=4 {
        let mut dice = Dice(seed * 7_919);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let mut store = Store::open(&path).unwrap();
        store.enter_epoch("boot/1").unwrap();
        let mut model = Model::default();
        let (mut gone, mut records) = (0, 0);
        for _ in 0..12 {
            for _ in 0..dice.below(5) + 1 {
                model.write(&store, &mut dice);
            }
            let now = Timestamp(model.hours * HOUR);
            let kept = check(&store, &model).len() as u64;
            let rules = match dice.below(4) {
                0 => Rules { age: hours(model.hours / 2), ..Rules::default() },
                1 => Rules { records: Some(kept * 2 / 3), ..Rules::default() },
                2 => Rules { body_age: hours(model.hours / 3), ..Rules::default() },
                _ => Rules {
                    age: hours(model.hours * 3 / 4),
                    body_age: hours(model.hours / 4),
                    ..Rules::default()
                },
            };
            let pruned = prune(&store, &rules, now);
            let left = check(&store, &model);
            assert_eq!(left.len() as u64 + pruned.as_ref().map_or(0, |pruned| pruned.records), kept);
            if let Some(pruned) = pruned {
                gone += 1;
                records += pruned.records;
                if pruned.entries > 0 {
                    let first = store.walk().unwrap().stretch(0).unwrap().unwrap();
                    assert_eq!(first.entries[0].n, pruned.first);
                }
            }
            // What is gone stays gone.
            model.records.retain(|id, _| left.contains(id));
            assert_eq!(store.recount().unwrap(), [], "what is pruned stays counted");
            match dice.below(3) {
                0 => {
                    let transaction = store.begin_write().unwrap();
                    let mut packing = store.packing();
                    let key = store.key(&packing, &transaction).unwrap();
                    reindex::run(&transaction, &mut packing, key).unwrap();
                    drop(packing);
                    transaction.commit().unwrap();
                    assert_eq!(check(&store, &model), left);
                }
                1 => {
                    // What is open is ended by the next start.
                    drop(store);
                    store = Store::open(&path).unwrap();
                    store.enter_epoch("boot/1").unwrap();
                    for id in std::mem::take(&mut model.open) {
                        let record = store.get(RecordId(id)).unwrap().unwrap();
                        assert_eq!(record.state, State::Failed);
                        let known = model.records.get_mut(&id).unwrap();
                        (known.state, known.finished, known.failure) =
                            (record.state, record.finished, record.failure);
                    }
                    assert_eq!(check(&store, &model), left);
                }
                _ => {}
            }
        }
        assert!(gone > 3 && records > 100, "seed {seed}: {gone} prunes of {records}");
    }
}

#[test]
fn a_bound_in_bytes_holds() {
    let mut dice = Dice(5);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    let rules = Rules { bytes: Some(4 << 20), ..Rules::default() };
    let (mut pruned, mut largest, mut id) = (0, 0, 0);
    for _ in 0..24 {
        let entries: Vec<_> = (0..96)
            .map(|_| {
                id += 1;
                let mut record = Record::new(Kind::Exchange, Timestamp(0));
                (record.id, record.state) = (RecordId(id), State::Done);
                let bytes: Bytes = (0..9000).map(|_| dice.below(256) as u8).collect::<Vec<_>>().into();
                let body = Captured { total: 9000, truncated: false, bytes };
                record.request = Some(RequestHead { body, ..RequestHead::default() });
                Entry::last(&record)
            })
            .collect();
        store.commit(&entries, 0, None).unwrap();
        pruned += u64::from(prune(&store, &rules, Timestamp(0)).is_some());
        largest = largest.max(store.blocks());
    }
    assert!(pruned > 8, "{pruned} prunes, {largest} bytes");
    assert!(largest < 7 << 20, "{largest} bytes of disk for 20 MiB");
    let kept = all(&store, None);
    assert!(kept.len() > 100 && kept[0] == id, "{} kept", kept.len());
    sound(&store);
}

#[test]
fn nothing_is_pruned_that_is_within_bounds_or_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    let mut model = Model::default();
    let mut dice = Dice(3);
    model.write(&store, &mut dice);
    let far = Timestamp(model.hours * HOUR * 1000 + HOUR);
    assert_eq!(prune(&store, &Rules::default(), far), None);
    let wide =
        Rules { age: hours(1 << 20), records: Some(1000), bytes: Some(1 << 40), body_age: hours(1 << 20) };
    assert_eq!(prune(&store, &wide, Timestamp(model.hours * HOUR)), None);
    // The clock went back.
    let short = Rules { age: hours(1), ..Rules::default() };
    assert_eq!(prune(&store, &short, Timestamp(-5)), None);
    let before = all(&store, None);
    let entries = number(&store.snapshot().unwrap().open_table(META).unwrap(), ENTRIES).unwrap();
    assert!(entries < 128, "more than one group is no test");
    assert_eq!(prune(&store, &short, far), None, "the group under way stays");
    assert_eq!(all(&store, None), before);
}

#[test]
fn a_group_that_cannot_be_read_does_not_hold_up_what_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let mut model = Model::default();
    let mut dice = Dice(11);
    {
        let store = Store::open(&path).unwrap();
        while model.next < 900 {
            model.write(&store, &mut dice);
        }
        let transaction = store.begin_write().unwrap();
        {
            let mut groups = transaction.open_table(GROUPS).unwrap();
            let number = groups.range((100, 0)..).unwrap().next().unwrap().unwrap().0.value().0;
            groups.retain_in((number, 1)..=(number, u16::MAX), |_, _| false).unwrap();
            groups.insert((number, 0), [1_u8, 255, 0, 0, 0, 9].as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let store = Store::open(&path).unwrap();
    let pruned = prune(&store, &Rules { records: Some(200), ..Rules::default() }, Timestamp(0)).unwrap();
    assert!(pruned.records > 600, "{pruned:?}");
    let page = store.query(&Query { limit: 1000, ..Query::default() }).unwrap();
    assert_eq!(page.unreadable, 0);
    assert!(page.records.len() >= 60);
    let snapshot = store.snapshot().unwrap();
    let uses = snapshot.open_table(USES).unwrap();
    let mut packs = BTreeSet::new();
    for row in snapshot.open_table(PACKS).unwrap().iter().unwrap() {
        packs.insert(row.unwrap().0.value().0);
    }
    assert_eq!(uses.len().unwrap(), packs.len() as u64);
    let body = bodies::body_in(&[1, 7], 0).unwrap();
    assert_eq!(body, [7]);
}
