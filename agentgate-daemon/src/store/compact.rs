//! Giving back to the disk what is free within the file.
//!
//! redb's own compaction wants the database for itself, for as long as it takes to read and write all of
//! it, and a crash during it costs a repair that reads everything again. And moving rows within the file,
//! a few in each transaction, does not make it shorter: redb gives a page where a block of its size is free,
//! not the first one, so some pages stay at the end (tried: of 807 MiB that held 161, all 807 were left).
//! So the log is copied to a file beside it, from a snapshot, while writing goes on; what was written
//! meanwhile is put into the copy as entries, as it was put into the log, until little is left; and under
//! the locks of those who write the tables, the rest and the small tables are taken over, and the copy has
//! the log's name. Acknowledgements do not wait: the journal gives them. Until the last step a crash leaves
//! the log as it was, and a copy that the next one removes.
//!
//! It takes as much room beside the log as the log has in use.

use std::{fs, os::unix::fs::MetadataExt as _};

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, WriteTransaction};

use super::{
    Files, Store, StoreError,
    dump::{Copy, create, remove, settle},
    error::unharmed,
    every::{self, Role},
    file::sync_directory,
    order::Walk,
    tables::{ENTRIES, META, NEXT_PACK, WEIGHT, WEIGHT_MOST},
    text,
    write::Entry,
};

/// Entries that are put into the copy in one transaction.
const BATCH: usize = 4096;
/// So few are left for the time when nobody writes.
const FEW: u64 = 2048;
/// How often the copy goes after the log before the rest is taken, however much that is.
const ROUNDS: usize = 16;

/// What a compaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Compacted {
    /// Bytes of disk before and after.
    pub before: u64,
    pub after: u64,
}

impl Store {
    /// Copies the log to a file of its own that has no room left in it. `progress` is told bytes that were
    /// copied, and says false to end it. Reads that are under way when the files are changed fail.
    ///
    /// # Errors
    /// [`StoreError::Upkeep`] during a backup or another compaction, [`StoreError::Stopped`], and what the
    /// file system or redb reports: the log is as it was then.
    pub fn compact(&self, mut progress: impl FnMut(u64) -> bool) -> Result<Compacted, StoreError> {
        let _whole = self.upkeep()?;
        let path = self.files.path.with_extension("compact");
        let unusable = |source| StoreError::File { path: path.clone(), source };
        let before = self.disk();
        // Of one that came to no end.
        remove(&path)?;
        let database = create(&path)?;
        let result = unharmed(|| {
            let copy = self.copy(database, &mut progress)?;
            self.change_to(&copy, &path)
        });
        if let Err(error) = result {
            remove(&path)?;
            return Err(error);
        }
        sync_directory(&path).map_err(unusable)?;
        Ok(Compacted { before, after: self.disk() })
    }

    fn disk(&self) -> u64 {
        fs::metadata(&self.files.path).map_or(0, |file| file.blocks() * 512)
    }

    /// The log in another database, all but the last entries of it.
    fn copy(&self, database: Database, progress: &mut dyn FnMut(u64) -> bool) -> Result<Self, StoreError> {
        let snapshot = self.read_all()?;
        every::table(&mut Copy { from: &snapshot, to: &database, only: None, progress })?;
        drop(snapshot);
        settle(&database)?;
        let files = Files {
            database: Box::new(|| Err(StoreError::Closed)),
            path: self.files.path.clone(),
            disk: Box::new(|file| Box::new(file)),
        };
        let copy = Self::of(files, database)?;
        for _ in 0..ROUNDS {
            if copy.go_after(&self.read_all()?)? <= FEW {
                break;
            }
            if !progress(0) {
                return Err(StoreError::Stopped);
            }
        }
        Ok(copy)
    }

    /// Puts the entries of `from` that are not here into the tables; returns how many they were.
    fn go_after(&self, from: &ReadTransaction) -> Result<u64, StoreError> {
        let meta = self.snapshot()?.open_table(META)?;
        let first = meta.get(ENTRIES)?.map_or(0, |value| value.value());
        let mut walk = Walk::of(from)?;
        let (mut at, end) = (first, walk.end());
        let mut held = Vec::new();
        while let Some(stretch) = walk.stretch(at)? {
            if stretch.pruned > 0 || stretch.unreadable > 0 {
                return Err(StoreError::Incomplete);
            }
            for placed in &stretch.entries {
                let bodies = walk.bodies(placed)?;
                held.push(Entry { encoded: placed.encoded.clone(), bodies, kept: false });
            }
            at = stretch.next;
            if held.len() >= BATCH {
                self.commit(&std::mem::take(&mut held), 0, None)?;
            }
        }
        if !held.is_empty() {
            self.commit(&held, 0, None)?;
        }
        Ok(end.saturating_sub(first))
    }

    /// Takes over what is left, and puts the copy in the log's place.
    fn change_to(&self, copy: &Self, path: &std::path::Path) -> Result<(), StoreError> {
        // Whoever writes entries waits here, and at the database whoever writes anything else.
        let mut packing = self.packing();
        let mut database = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let log = database.as_ref().ok_or(StoreError::Closed)?;
        // One that was begun before is over when this one can begin.
        log.begin_write()?.abort()?;
        let last = log.begin_read()?;
        copy.go_after(&last)?;
        let mut into = copy.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let new = into.take().ok_or(StoreError::Closed)?;
        let own = {
            let meta = new.begin_read()?.open_table(META)?;
            let number = |name| Ok::<_, StoreError>(meta.get(name)?.map_or(0, |value| value.value()));
            [(NEXT_PACK, number(NEXT_PACK)?), (WEIGHT, number(WEIGHT)?), (WEIGHT_MOST, number(WEIGHT)?)]
        };
        every::table(&mut Copy { from: &last, to: &new, only: Some(Role::State), progress: &mut |_| true })?;
        let transaction = new.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            for (name, value) in own {
                meta.insert(name, value)?;
            }
            words(&last, &transaction)?;
        }
        transaction.commit()?;
        settle(&new)?;
        drop(last);
        let unusable = |source| StoreError::File { path: path.to_owned(), source };
        fs::rename(path, &self.files.path).map_err(unusable)?;
        let old = database.replace(new);
        packing.forget();
        // The thread of the text index reads the file that was.
        self.text.reset();
        drop((database, packing));
        // Closing it takes a while, and nobody waits for it.
        drop(old);
        Ok(())
    }
}

/// Takes over segments of the index of words that came after the copy was made: the last ones, from the
/// first that is not the same in both.
fn words(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), StoreError> {
    let (Ok(segments), Ok(words)) = (from.open_table(text::SEGMENTS), from.open_table(text::WORDS)) else {
        return Ok(());
    };
    let mut begin = 0;
    {
        let copied = to.open_table(text::SEGMENTS)?;
        for row in copied.iter()?.rev() {
            let (key, value) = row?;
            let key = key.value();
            begin = key.0;
            if segments.get(key)?.is_some_and(|same| same.value() == value.value()) {
                break;
            }
        }
    }
    for (table, log) in [(text::SEGMENTS, segments), (text::WORDS, words)] {
        let mut copied = to.open_table(table)?;
        copied.retain_in((begin, 0).., |_, _| false)?;
        for row in log.range((begin, 0)..)? {
            let (key, value) = row?;
            copied.insert(key.value(), value.value())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };

    use super::*;
    use crate::{
        chain::Trust,
        model::{Captured, Kind, Record, RecordId, RequestHead, State, Timestamp},
        store::{Side, Write, retention::Rules, verify::verify_file},
    };

    fn record(id: u64) -> Record {
        let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap()));
        (record.id, record.state) = (RecordId(id), State::Done);
        let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let body: Vec<u8> = (0..5000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let body = Captured { total: 5000, truncated: false, bytes: body.into() };
        record.request = Some(RequestHead { body, ..RequestHead::default() });
        record
    }

    fn put(store: &Store, ids: std::ops::Range<u64>) {
        let records: Vec<_> = ids.map(record).collect();
        store.apply(&records.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
    }

    fn check(store: &Store, ids: std::ops::Range<u64>) {
        for id in ids {
            let (record, id) = (record(id), RecordId(id));
            let body = store.body(id, Side::Request).unwrap().unwrap();
            assert_eq!(body, record.request.unwrap().body.bytes, "{id}");
        }
    }

    #[test]
    fn what_is_written_meanwhile_is_in_the_smaller_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let store = Arc::new(Store::open(&path).unwrap());
        for chunk in 0..16 {
            put(&store, 1 + chunk * 128..1 + (chunk + 1) * 128);
        }
        let rules = Rules { records: Some(400), ..Rules::default() };
        let mut run = super::super::retention::Run::default();
        while store
            .retain(&rules, &crate::store::retention::Readers::default(), &mut run, Timestamp(0))
            .unwrap()
            .more
        {}
        assert!(store.get(RecordId(1)).unwrap().is_none());
        let (next, over) = (Arc::new(AtomicU64::new(2049)), Arc::new(AtomicBool::new(false)));
        let writer = std::thread::spawn({
            let (store, next, over) = (store.clone(), next.clone(), over.clone());
            move || {
                while !over.load(Ordering::SeqCst) {
                    let id = next.load(Ordering::SeqCst);
                    put(&store, id..id + 3);
                    store.add_up("all", "writes", 1, Timestamp(0)).unwrap();
                    next.store(id + 3, Ordering::SeqCst);
                }
            }
        });
        let begun = next.load(Ordering::SeqCst);
        let compacted = store.compact(|_| {
            assert!(matches!(store.compact(|_| true), Err(StoreError::Upkeep)));
            // The writer is at work while rows are copied.
            while next.load(Ordering::SeqCst) < begun + 6 {
                std::thread::yield_now();
            }
            true
        });
        over.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        let compacted = compacted.unwrap();
        assert!(compacted.after < compacted.before * 2 / 3, "{compacted:?}");
        let end = next.load(Ordering::SeqCst);
        put(&store, end..end + 5);
        check(&store, 2000..end + 5);
        let written = store.counters("all").unwrap()[0].1.value;
        assert_eq!(u64::try_from(written).unwrap(), (end - 2049) / 3);
        let report = store.verify(Trust::default(), &mut |_, _| ()).unwrap();
        assert!(report.whole && report.first > 0, "{report:?}");
        drop(store);
        let report = verify_file(&path, Trust::default(), &mut |_, _| ()).unwrap();
        assert!(report.whole, "{report:?}");
        let store = Store::open(&path).unwrap();
        check(&store, 2000..end + 5);
        assert_eq!(store.next_id(), RecordId(end + 5));
        assert!(!path.with_extension("compact").exists());
    }

    #[test]
    fn one_that_is_stopped_leaves_the_log_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let store = Store::open(&path).unwrap();
        put(&store, 1..40);
        fs::write(path.with_extension("compact"), b"of an earlier one").unwrap();
        assert!(matches!(store.compact(|_| false), Err(StoreError::Stopped)));
        assert!(!path.with_extension("compact").exists());
        put(&store, 40..50);
        check(&store, 1..50);
        assert!(store.verify(Trust::default(), &mut |_, _| ()).unwrap().whole);
    }
}
