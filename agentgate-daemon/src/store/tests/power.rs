//! The power fails at any moment, and of what was not synced anything may be there: what was acknowledged is
//! on record all the same, nothing is half there, and no file needs repair.

use std::collections::BTreeMap;

use super::{
    failing::{Drive, Fault, Random},
    *,
};

/// Tests with other seeds, or more: how many, and the first.
const SEEDS: &str = "AGENTGATE_TEST_POWER_SEEDS";
const FIRST: &str = "AGENTGATE_TEST_POWER_FIRST";

fn number(name: &str, otherwise: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob")]
    let text = std::env::var(name);
    text.ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What the log has acknowledged of a record, and what is under way.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Option<Version>,
    /// Tried last, without an answer.
    tried: Option<Version>,
}

#[derive(Clone, Debug, PartialEq)]
struct Version {
    record: Record,
    bodies: [Bytes; 2],
}

impl Version {
    fn entry(&self, body_known: bool) -> Entry {
        let mut record = self.record.clone();
        let [request, response] = self.bodies.clone();
        if let Some(head) = &mut record.request {
            head.body.bytes = request;
        }
        if let Some(head) = &mut record.response {
            head.body.bytes = response;
        }
        Entry { kept: body_known, ..Entry::last(&record) }
    }
}

/// The log as those see it who write, over several lives of a machine.
#[derive(Debug, Default)]
struct Model {
    records: BTreeMap<u64, Known>,
}

fn bytes(random: &mut Random, most: u64) -> Bytes {
    let length = random.below(most + 1);
    (0..length).map(|_| random.below(256) as u8).collect::<Vec<_>>().into()
}

/// A record that begins, or is all of it.
fn made(random: &mut Random, id: u64) -> Version {
    let host = format!("h{}.example", random.below(9));
    let mut record = judged(to(record(id), &host), Action::Allow);
    record.request = Some(RequestHead {
        method: "POST".into(),
        target: format!("/{}", random.below(1000)),
        ..RequestHead::default()
    });
    let most = if random.below(20) == 0 { 40_000 } else { 600 };
    Version { record, bodies: [bytes(random, most), Bytes::new()] }
}

fn over(random: &mut Random, begun: &Version) -> Version {
    let mut record = done(begun.record.clone());
    record.response = Some(ResponseHead { status: 200, ..ResponseHead::default() });
    let most = if random.below(20) == 0 { 40_000 } else { 600 };
    Version { record, bodies: [begun.bodies[0].clone(), bytes(random, most)] }
}

impl Model {
    /// One life of the machine: opens, writes and reads, until something fails or enough was done.
    fn live(
        &mut self,
        drive: &Drive,
        path: &Path,
        random: &mut Random,
        opened: &mut bool,
    ) -> Result<(), StoreError> {
        let store = drive.open(path.to_owned())?;
        *opened = true;
        self.check(&store);
        if random.below(4) == 0 {
            store.enter_epoch(&format!("boot/{}", random.below(3)))?;
        }
        let mut next = store.next_id().0;
        let mut open: Vec<u64> = Vec::new();
        let mut behind: Vec<Entry> = Vec::new();
        let mut sequence = 0;
        for _ in 0..random.below(60) {
            let mut group: Vec<(u64, Version)> = Vec::new();
            let mut entries = Vec::new();
            for _ in 0..=random.below(6) {
                let at = random.below(open.len() as u64 + 1) as usize;
                if at < open.len() {
                    let id = open.swap_remove(at);
                    let begun = self.records[&id].acknowledged.clone().unwrap();
                    let version = over(random, &begun);
                    entries.push(version.entry(!begun.bodies[0].is_empty()));
                    group.push((id, version));
                } else {
                    let begun = made(random, next);
                    let version = if random.below(3) == 0 { over(random, &begun) } else { begun };
                    entries.push(version.entry(false));
                    group.push((next, version));
                    next += 1;
                }
            }
            for (id, version) in &group {
                self.records.entry(*id).or_default().tried = Some(version.clone());
            }
            sequence = store.log(entries.iter())?;
            for (id, version) in group {
                if version.record.state == State::Open {
                    open.push(id);
                }
                self.records.insert(id, Known { acknowledged: Some(version), tried: None });
            }
            behind.extend(entries);
            if random.below(4) == 0 {
                store.take(&behind, sequence)?;
                behind.clear();
            }
        }
        if !behind.is_empty() && random.below(2) == 0 {
            store.take(&behind, sequence)?;
        }
        Ok(())
    }

    /// Everything that was acknowledged is there, nothing else but what was under way, and nothing half.
    fn check(&mut self, store: &Store) {
        let next = store.next_id().0;
        for (id, known) in std::mem::take(&mut self.records) {
            let found = store.get(RecordId(id)).unwrap();
            let Some(found) = found else {
                assert_eq!(known.acknowledged, None, "record {id} was acknowledged and is gone");
                continue;
            };
            let kept = |side| store.body(RecordId(id), side).unwrap().unwrap_or_default();
            let mut found = Version { record: found, bodies: [kept(Side::Request), kept(Side::Response)] };
            let mut expected: Vec<Version> =
                [known.tried.clone(), known.acknowledged.clone()].into_iter().flatten().collect();
            for version in &mut expected {
                if version.record.state == State::Open {
                    version.record.state = State::Failed;
                    version.record.failure = Some(interrupted());
                    version.record.finished = found.record.finished;
                    assert!(found.record.finished.is_some());
                }
            }
            // Totals are as the heads say.
            found.record.id = RecordId(id);
            assert!(expected.contains(&found), "record {id} is {found:?}, not of {expected:?}");
            self.records.insert(id, Known { acknowledged: Some(found), tried: None });
        }
        assert_eq!(self.records.len() as u64 + 1, next, "records that nobody wrote, or gaps");
    }
}

/// A disk with a database that has nothing.
fn fresh() -> [Vec<u8>; 2] {
    let drive = Drive::default();
    drop(drive.database().unwrap());
    drive.contents()
}

fn seeds(otherwise: u64) -> std::ops::Range<u64> {
    let first = number(FIRST, 0);
    first..first + number(SEEDS, otherwise)
}

#[test]
fn power_fails_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.redb");
    let (mut cuts, mut in_the_opening, mut records) = (0, 0, 0);
    let (fresh, used) = (fresh(), Drive::with(fresh()));
    drop(used.open(path.clone()).unwrap());
    let used = used.contents();
    for seed in seeds(200) {
        let mut random = Random(seed);
        let mut model = Model::default();
        // Some are new: a database alone, which is made beside its place and moved there when it is whole.
        let mut drive = Drive::with(if random.below(8) == 0 { fresh.clone() } else { used.clone() });
        for life in 0..2 + random.below(3) {
            let most = [40, 200, 500][random.below(3) as usize];
            drive.plan(drive.operations() + 1 + random.below(most), Fault::PowerCut);
            let mut opened = false;
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                model.live(&drive, &path, &mut random, &mut opened)
            }));
            let ended = ended.unwrap_or_else(|panic| {
                eprintln!("seed {seed}, life {life}");
                std::panic::resume_unwind(panic)
            });
            let cut = drive.fault() == Some(Fault::PowerCut);
            assert!(ended.is_ok() || cut, "seed {seed}, life {life}: {ended:?}");
            cuts += u32::from(cut);
            in_the_opening += u32::from(cut && !opened);
            drive = drive.lose(&mut random);
        }
        drive.mend();
        let store = drive.open(path.clone()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.check(&store);
        records += model.records.len();
        drop(store);
        assert!(drive.database().unwrap().check_integrity().unwrap(), "seed {seed}: the file needed repair");
    }
    assert!(!path.with_extension("journal.other").exists(), "no journal was taken for damaged");
    println!("{cuts} cuts, {in_the_opening} in the opening; {records} records");
}
