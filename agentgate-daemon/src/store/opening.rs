//! What is done to the log when it is opened: its schema, what the journal has and the tables lack, and the
//! ends of what a previous run left open.

use std::{collections::HashMap, fs, io, sync::atomic::Ordering};

use bytes::Bytes;
use redb::ReadableTable as _;

use super::{
    Store, StoreError, canonical, chain,
    file::{restrict, sync_directory},
    journal::{self, Journal},
    migrate,
    read::Reader,
    retention, tables, whole,
    write::{self, Batch, Entry},
};
use crate::model::{Failure, RecordId, State, Timestamp};

/// Bytes of entries that one transaction takes of a journal that is read back.
const REPLAY_BYTES: u64 = 8 << 20;

impl Store {
    /// Brings the file to this program's schema, with every table in it.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        let transaction = self.begin_write()?;
        let found = write::schema(&transaction)?;
        retention::weigh_all(&transaction)?;
        let mut packing = self.packing();
        let key = chain::key(self, &transaction)?;
        if found < tables::SCHEMA_VERSION {
            migrate::run(&transaction, &mut packing, &key, found)?;
        }
        let mut batch = Batch::open(&transaction, 0, &mut packing, key)?;
        batch.chain.settle()?;
        let (_, last_id) = batch.finish()?;
        self.last_id.store(last_id, Ordering::Release);
        transaction.commit()?;
        Ok(())
    }

    /// Opens the journal and brings what the tables lack of it into them.
    pub(super) fn replay(&self) -> Result<Journal, StoreError> {
        let (taken, known) = {
            let meta = self.snapshot()?.open_table(tables::META)?;
            let number = |name| Ok::<_, StoreError>(meta.get(name)?.map(|value| value.value()));
            (number(tables::TAKEN)?.unwrap_or(0), number(tables::JOURNAL)?)
        };
        let path = self.files.path.with_extension("journal");
        let unusable = |source| StoreError::File { path: path.clone(), source };
        let open = || {
            let file = journal::file(&path).map_err(unusable)?;
            restrict(&file).map_err(unusable)?;
            Journal::open((self.files.disk)(file))
        };
        let aside = |why: &str| {
            let other = path.with_extension("journal.other");
            tracing::error!(kept = %other.display(), "the journal of the audit log {why}; it is kept aside");
            fs::rename(&path, &other).map_err(unusable)
        };
        let mut journal = match open()? {
            Some(journal) => journal,
            None => {
                aside("is damaged, or of a later version")?;
                open()?.ok_or_else(|| unusable(io::Error::other("it is no journal")))?
            }
        };
        sync_directory(&path).map_err(unusable)?;
        let own = known == Some(journal.identity());
        let mut kept = journal.read(if own { taken } else { 0 })?;
        if !own {
            if !kept.frames.is_empty() {
                aside("is of another log")?;
                journal = open()?.ok_or_else(|| unusable(io::Error::other("it is no journal")))?;
            }
            kept = journal::Kept::default();
            journal.go_on_after(taken);
            let transaction = self.begin_write()?;
            transaction.open_table(tables::META)?.insert(tables::JOURNAL, journal.identity())?;
            transaction.commit()?;
        }
        if kept.lost > 0 {
            tracing::error!(
                groups = kept.lost,
                "the journal of the audit log is damaged: records that were acknowledged are lost"
            );
        }
        self.take_back(kept)?;
        journal.rewind();
        Ok(journal)
    }

    fn take_back(&self, kept: journal::Kept) -> Result<(), StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        // Bodies of requests that are under way, which later versions do not repeat.
        let mut begun: HashMap<u64, Bytes> = HashMap::new();
        let (mut bytes, mut epoch, mut last) = (0, 0, None);
        for frame in kept.frames {
            if last.is_some() && (frame.epoch != epoch || bytes >= REPLAY_BYTES) {
                self.commit(&std::mem::take(&mut entries), epoch, last)?;
                bytes = 0;
            }
            let read = Entry::all(&frame.payload);
            let mut read = read.map_err(|source| StoreError::Malformed { id: RecordId(0), source })?;
            for entry in &mut read {
                self.complete(entry, &mut begun)?;
            }
            bytes += read.iter().map(Entry::size).sum::<u64>();
            entries.extend(read);
            (epoch, last) = (frame.epoch, Some(frame.sequence));
        }
        if last.is_some() {
            self.commit(&entries, epoch, last)?;
        }
        Ok(())
    }

    /// Gives an entry of the journal the request's body that an earlier version has. `begun` are those of
    /// records under way.
    fn complete(&self, entry: &mut Entry, begun: &mut HashMap<u64, Bytes>) -> Result<(), StoreError> {
        let id = entry.id();
        let seen = canonical::Glance::at(&entry.encoded);
        let seen = seen.map_err(|source| StoreError::Malformed { id, source })?;
        let (digest, open) = (seen.digests[0], seen.state == Some(State::Open));
        let before = begun.remove(&id.0);
        if let (None, Some(digest)) = (&entry.bodies[0], digest) {
            let before = match before {
                Some(bytes) => Some(bytes),
                None => self.entry(id)?.and_then(|before| before.bodies[0].clone()),
            };
            entry.bodies[0] = before.filter(|bytes| canonical::digest(bytes) == digest);
        }
        if let (Some(bytes), true) = (&entry.bodies[0], open) {
            begun.insert(id.0, bytes.clone());
        }
        Ok(())
    }

    /// Ends records that are open. Costs one look-up for each, whatever the size of the log.
    pub(super) fn end_interrupted(&self) -> Result<(), StoreError> {
        let mut ended = Vec::new();
        {
            let transaction = self.snapshot()?;
            let mut reader = Reader::of(&transaction)?;
            let (now, failure) = (Timestamp::now(), interrupted());
            for row in transaction.open_table(tables::UNDERWAY)?.iter()? {
                let id = RecordId(row?.0.value());
                let version = reader.get(id.0)?.ok_or(StoreError::Missing { id })?;
                let begun = whole(&transaction, &version);
                match begun.and_then(|entry| entry.ended(State::Failed, now, Some(&failure))) {
                    Ok(entry) => ended.push(entry),
                    // No reason to guard nobody: it stays as it is, and is told at every start.
                    Err(error @ StoreError::Malformed { .. }) => {
                        tracing::error!(%error, "a record that was open cannot be ended");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if ended.is_empty() { Ok(()) } else { self.commit(&ended, 0, None) }
    }
}

/// Why a record ended that was open when the gate was.
pub(super) fn interrupted() -> Failure {
    Failure {
        blame: "gate".into(),
        code: "interrupted".into(),
        detail: "the gate stopped before this ended; the time of its end is that of the next start".into(),
    }
}
