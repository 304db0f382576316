//! A segment that lacks what its entries have is found, and one that does not is left in peace.

use std::sync::Arc;

use super::{
    super::{drop_tables, table::Writing},
    *,
};
use crate::{
    chain::{Trust, What},
    model::{Captured, Kind, Record, RecordId, RequestHead, State, Timestamp},
    store::{Store, Write, packed::Packer},
    words::{in_bodies, in_heads},
};

const RECORDS: u64 = 120;

fn log() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    for id in 1..=RECORDS {
        let mut record = Record::new(Kind::Exchange, Timestamp(id.cast_signed()));
        (record.id, record.state) = (RecordId(id), State::Done);
        let text = format!("asked question{} only{id} and word{}", id % 10, id % 3);
        let body = Captured { total: text.len() as u64, truncated: false, bytes: text.into() };
        record.request = Some(RequestHead { method: "POST".into(), body, ..RequestHead::default() });
        store.apply(&[Write::Final(&record)]).unwrap();
    }
    (dir, Arc::new(store))
}

/// A segment about the entries from `from` on, as the gate makes it, but for what is left out or other.
struct Forged {
    from: u64,
    below: u64,
    bodies: bool,
    without: &'static str,
    /// What ids are more than they should be.
    shift: u64,
}

impl Forged {
    fn all() -> Self {
        Self { from: 0, below: 0, bodies: true, without: "", shift: 0 }
    }

    fn segment(&self, store: &Store) -> Segment {
        let mut walk = store.walk_settled().unwrap();
        let mut builder = Builder::new(self.from, self.below, self.bodies);
        let mut at = self.from;
        while let Some(stretch) = walk.stretch(at).unwrap() {
            for entry in &stretch.entries {
                builder.begin(entry.id().0 + self.shift);
                let mut add = |token: Token<'_>| match token {
                    Token::Word(word) | Token::Also(word) => {
                        if word != self.without.as_bytes() {
                            builder.add(word);
                        }
                    }
                    Token::Gap | Token::Cut => {}
                };
                let record = entry.record().unwrap();
                in_heads(&record, &mut add);
                if self.bodies {
                    let bodies = walk.bodies(entry).unwrap();
                    let bodies = bodies.each_ref().map(|body| body.as_deref());
                    in_bodies(&record, bodies, &mut add);
                }
                builder.end();
            }
            at = stretch.next;
        }
        builder.finish().unwrap()
    }

    fn put(&self, store: &Store) {
        let segment = self.segment(store);
        let transaction = store.begin_write().unwrap();
        Writing::open(&transaction).unwrap().put(&segment, &mut Packer::new().unwrap()).unwrap();
        transaction.commit().unwrap();
    }
}

fn faults(store: &Store, words: bool) -> Vec<String> {
    let trust = Trust { words, ..Trust::default() };
    let mut told = Vec::new();
    let report = store.verify(trust, &mut |done, of| told.push((done, of))).unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert!(report.findings.iter().all(|finding| finding.what == What::Index), "{report:?}");
    report.findings.iter().map(|finding| finding.detail.clone()).collect()
}

#[test]
fn a_segment_that_hides_a_record_is_found() {
    let (_dir, store) = log();
    let rows = [
        (Forged::all(), ""),
        (Forged { bodies: false, ..Forged::all() }, ""),
        (Forged { from: 40, below: 40, ..Forged::all() }, ""),
        // More is looked into than must be.
        (Forged { from: 40, below: 90, ..Forged::all() }, ""),
        (Forged { without: "only77", ..Forged::all() }, "lacks words"),
        (Forged { without: "question3", ..Forged::all() }, "lacks words"),
        (Forged { without: "post", bodies: false, ..Forged::all() }, "lacks words"),
        (Forged { shift: 1, ..Forged::all() }, "names other records"),
        (Forged { from: 40, below: 39, ..Forged::all() }, "hides records that began before"),
    ];
    for (forged, expect) in rows {
        let transaction = store.begin_write().unwrap();
        drop_tables(&transaction).unwrap();
        super::super::open(&transaction).unwrap();
        transaction.commit().unwrap();
        assert!(faults(&store, true).is_empty());
        forged.put(&store);
        let found = faults(&store, true);
        assert_eq!(found.is_empty(), expect.is_empty(), "{expect}: {found:?}");
        assert!(found.iter().all(|fault| fault.contains(expect)), "{expect}: {found:?}");
        assert!(faults(&store, false).is_empty(), "words are compared where that is asked for");
    }
}

#[test]
fn words_that_are_not_where_they_are_looked_for_are_found() {
    let (_dir, store) = log();
    Forged::all().put(&store);
    assert!(faults(&store, true).is_empty());
    // A whole segment, of the same words in one set, with the content of another.
    let other = Forged { without: "asked", ..Forged::all() }.segment(&store);
    let transaction = store.begin_write().unwrap();
    {
        let mut words = transaction.open_table(super::super::WORDS).unwrap();
        words.insert((0, 0), &other.content[..other.content.len().min(4_064)]).unwrap();
    }
    transaction.commit().unwrap();
    assert!(!faults(&store, true).is_empty());
    // Two about the same entries.
    Forged::all().put(&store);
    Forged { from: 50, below: 50, ..Forged::all() }.put(&store);
    let found = faults(&store, true);
    assert!(found.iter().any(|fault| fault.contains("another is about")), "{found:?}");
}
