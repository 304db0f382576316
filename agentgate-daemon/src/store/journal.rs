//! The journal in front of the tables: what was acknowledged and is not in them yet.
//!
//! One file beside the database, never shorter than what it once needed: a write goes to blocks that were
//! written before, so that one fdatasync, which then has no metadata to write, makes it durable. That is half
//! of what a commit of the tables takes.
//!
//! **Rounds.** What was written since the tables last began to take anything is a round. While they take one
//! the next is written beside it: before it where there is room, else behind it. The place of a round that
//! the tables have is free.
//!
//! **Layout.** Page 0: [`HEAD`], version (4 bytes), key (32), the first 16 bytes of the BLAKE3 of all
//! that; the rest is 0. From page 1 on *frames*, each begun at a multiple of 8: [`MARK`], length of the
//! payload (4), sequence (8), epoch (4), attempt (4), seal (16), payload. Integers are little endian. The
//! seal is the first half of the keyed BLAKE3 of the 24 bytes before it and of the payload: nothing that
//! an agent sends can pass for a frame, because it does not know the key. Sequences rise by one, wherever
//! the frames are; the tables keep the last that they took, so that what is left of earlier rounds is known
//! by its number. What could not be written for certain is tried again under the same sequence, and counts
//! less than a later attempt.
//!
//! **Payload.** For each write: length and bytes of the canonical record, how many bodies follow, and of
//! each its side (0 request, 1 response), length and bytes; counts and lengths in LEB128. A request's body
//! of which the record has the digest, and that does not follow, is that of the record's version before.
//!
//! **Reading.** After a crash all whole frames beyond what the tables have are read, in the order of their
//! sequences. One that is not whole is a write that was never acknowledged, unless there is a later one: then
//! the middle is damaged, which is told, and what can be read is kept.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::StoreError;

#[cfg(test)]
mod tests;

const HEAD: &[u8; 20] = b"agentgate journal\0\0\0";
const VERSION: u32 = 1;
const MARK: u32 = 0x314a_4741;
const PAGE: u64 = 4096;
const FRAME: usize = 40;
/// The file grows by this, written with zeros.
const STEP: u64 = 1 << 20;
/// More than this is given back when the tables have everything.
const KEEP: u64 = 32 << 20;

/// What the journal asks of its file. Tests have one that fails.
pub(crate) trait Disk: Send + Sync + fmt::Debug {
    fn size(&self) -> io::Result<u64>;
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn resize(&self, to: u64) -> io::Result<()>;
    /// Durable when it returns, but for times (fdatasync(2)).
    fn sync(&self) -> io::Result<()>;
}

impl Disk for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }
    fn resize(&self, to: u64) -> io::Result<()> {
        self.set_len(to)
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// One frame that was read back.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) epoch: u32,
    attempt: u32,
    pub(super) payload: Vec<u8>,
}

/// What a journal held.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Beyond what the tables have, in their order.
    pub(super) frames: Vec<Frame>,
    /// Frames that are missing or damaged before one that is not.
    pub(super) lost: u64,
}

#[derive(Debug)]
pub(super) struct Journal {
    disk: Box<dyn Disk>,
    key: [u8; 32],
    next: u64,
    /// Attempts at the next that failed.
    attempt: u32,
    at: u64,
    /// Where this round began, and bytes of frames in it.
    begun: u64,
    used: u64,
    /// Where the round is that the tables are taking.
    away: Option<Range<u64>>,
    /// Bytes of the file that were written once.
    written: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal on `disk`, or begins one where there is none. `None` for a file that is no
    /// journal of this version.
    pub(super) fn open(disk: Box<dyn Disk>) -> Result<Option<Self>, StoreError> {
        let size = disk.size().map_err(StoreError::Journal)?;
        if size < PAGE {
            return Self::begin(disk).map(Some);
        }
        let mut page = vec![0; PAGE as usize];
        disk.read_at(&mut page, 0).map_err(StoreError::Journal)?;
        if page.iter().all(|byte| *byte == 0) {
            return Self::begin(disk).map(Some);
        }
        let mut key = [0; 32];
        if let Some(from) = page.get(24..56) {
            key.copy_from_slice(from);
        }
        if page.get(..72) != Some(&head(&key)) {
            return Ok(None);
        }
        Ok(Some(Self::on(disk, key, size / 8 * 8)))
    }

    /// One that holds nothing, as far as is known.
    fn on(disk: Box<dyn Disk>, key: [u8; 32], written: u64) -> Self {
        let (buffer, away) = (Vec::new(), None);
        Self { disk, key, next: 1, attempt: 0, at: PAGE, begun: PAGE, used: 0, away, written, buffer }
    }

    fn begin(disk: Box<dyn Disk>) -> Result<Self, StoreError> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key)
            .map_err(|_| StoreError::Journal(io::Error::other("the system gives no random bytes")))?;
        let mut journal = Self::on(disk, key, PAGE);
        let begin = || {
            // The head last: a journal that has one is whole.
            journal.disk.resize(0)?;
            journal.disk.write_at(&vec![0; PAGE as usize], 0)?;
            Ok(())
        };
        begin().map_err(StoreError::Journal)?;
        journal.reserve(STEP)?;
        journal.disk.sync().map_err(StoreError::Journal)?;
        journal.disk.write_at(&head(&key), 0).map_err(StoreError::Journal)?;
        journal.disk.sync().map_err(StoreError::Journal)?;
        Ok(journal)
    }

    /// Names this journal among all.
    pub(super) fn identity(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(&self.key).as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Reads what is beyond `taken`, the last sequence that the tables have, and goes on after it.
    pub(super) fn read(&mut self, taken: u64) -> Result<Kept, StoreError> {
        let length = usize::try_from(self.written).map_err(|_| {
            StoreError::Journal(io::Error::new(io::ErrorKind::FileTooLarge, "the journal is too large"))
        })?;
        let mut bytes = vec![0; length];
        self.disk.read_at(&mut bytes, 0).map_err(StoreError::Journal)?;
        let mut found: BTreeMap<u64, Frame> = BTreeMap::new();
        let mut at = PAGE as usize;
        while at + FRAME <= bytes.len() {
            if bytes[at..at + 4] != MARK.to_le_bytes() {
                at += 8;
                continue;
            }
            // Frames of earlier rounds are whole, and have numbers that the tables have.
            let Some(frame) = self.frame(&bytes, at).filter(|frame| frame.sequence > taken) else {
                at += 8;
                continue;
            };
            at = aligned(at + FRAME + frame.payload.len());
            self.at = at as u64;
            if found.get(&frame.sequence).is_none_or(|other| other.attempt < frame.attempt) {
                found.insert(frame.sequence, frame);
            }
        }
        let last = found.keys().next_back().copied().unwrap_or(taken);
        self.next = last + 1;
        let frames: Vec<Frame> = found.into_values().collect();
        Ok(Kept { lost: last - taken - frames.len() as u64, frames })
    }

    fn frame(&self, bytes: &[u8], at: usize) -> Option<Frame> {
        let field =
            |from: usize| bytes.get(at + from..at + from + 4)?.try_into().ok().map(u32::from_le_bytes);
        if field(0)? != MARK {
            return None;
        }
        let payload = bytes.get(at + FRAME..(at + FRAME).checked_add(field(4)? as usize)?)?;
        let sealed = self.seal(bytes.get(at..at + 24)?, payload);
        if bytes.get(at + 24..at + FRAME)? != sealed {
            return None;
        }
        let sequence = u64::from(field(8)?) | u64::from(field(12)?) << 32;
        Some(Frame { sequence, epoch: field(16)?, attempt: field(20)?, payload: payload.to_vec() })
    }

    fn seal(&self, head: &[u8], payload: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(head).update(payload);
        let mut seal = [0; 16];
        seal.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        seal
    }

    /// Makes what `put` writes durable, as one frame, and returns its sequence. After an error nothing
    /// was added: the next attempt has the same number.
    pub(super) fn append(&mut self, epoch: u32, put: impl FnOnce(&mut Vec<u8>)) -> Result<u64, StoreError> {
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        frame.resize(FRAME, 0);
        put(&mut frame);
        let result = self.append_frame(epoch, &mut frame);
        // What large groups need is kept while they come, because to grow it anew for each is a quarter of
        // the thread's time, and what one needed is not kept for ever.
        if frame.capacity() <= STEP as usize || frame.len() >= frame.capacity() / 4 {
            self.buffer = frame;
        }
        result
    }

    fn append_frame(&mut self, epoch: u32, frame: &mut [u8]) -> Result<u64, StoreError> {
        let length = u32::try_from(frame.len() - FRAME).map_err(|_| {
            StoreError::Journal(io::Error::new(io::ErrorKind::FileTooLarge, "a group of more than 4 GiB"))
        })?;
        let sequence = self.next;
        frame[..4].copy_from_slice(&MARK.to_le_bytes());
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        frame[8..16].copy_from_slice(&sequence.to_le_bytes());
        frame[16..20].copy_from_slice(&epoch.to_le_bytes());
        frame[20..24].copy_from_slice(&self.attempt.to_le_bytes());
        let seal = {
            let (head, payload) = frame.split_at(FRAME);
            self.seal(&head[..24], payload)
        };
        frame[24..FRAME].copy_from_slice(&seal);
        let length = aligned(frame.len()) as u64;
        if let Some(away) = &self.away
            && self.at < away.end
            && self.at + length > away.start
        {
            self.at = away.end;
        }
        self.reserve(frame.len() as u64)?;
        let written = self.disk.write_at(frame, self.at).and_then(|()| self.disk.sync());
        if let Err(error) = written {
            // It may be there all the same.
            self.attempt += 1;
            return Err(StoreError::Journal(error));
        }
        self.at += length;
        self.used += length;
        self.next += 1;
        self.attempt = 0;
        Ok(sequence)
    }

    /// Makes sure that `more` bytes fit into blocks that were written before.
    fn reserve(&mut self, more: u64) -> Result<(), StoreError> {
        let zeros = vec![0; if self.at + more > self.written { STEP as usize } else { 0 }];
        while self.at + more > self.written {
            self.disk.write_at(&zeros, self.written).map_err(StoreError::Journal)?;
            self.written += STEP;
        }
        Ok(())
    }

    /// Begins from the start, with what comes after `sequence`.
    pub(super) fn go_on_after(&mut self, sequence: u64) {
        self.next = sequence + 1;
        self.rewind();
    }

    /// The tables begin to take this round; the next begins. One at a time.
    pub(super) fn hand_over(&mut self) {
        let end = self.at;
        self.away = Some(self.begun..end);
        if self.begun > PAGE {
            self.at = PAGE;
        }
        (self.begun, self.used) = (self.at, 0);
    }

    /// The tables have the round that was handed over.
    pub(super) fn taken(&mut self) {
        self.away = None;
        if self.used == 0 {
            self.rewind();
        }
    }

    /// The tables have everything: the space is free again.
    pub(super) fn rewind(&mut self) {
        (self.at, self.begun, self.used, self.away) = (PAGE, PAGE, 0, None);
        if self.written > KEEP {
            match self.disk.resize(KEEP) {
                Ok(()) => self.written = KEEP,
                Err(error) => tracing::warn!(%error, "the journal keeps its size"),
            }
        }
    }

    /// Bytes of frames in this round.
    pub(super) fn used(&self) -> u64 {
        self.used
    }
}

fn head(key: &[u8; 32]) -> [u8; 72] {
    let mut head = [0; 72];
    head[..20].copy_from_slice(HEAD);
    head[20..24].copy_from_slice(&VERSION.to_le_bytes());
    head[24..56].copy_from_slice(key);
    let sum = blake3::hash(&head[..56]);
    head[56..].copy_from_slice(&sum.as_bytes()[..16]);
    head
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(8)
}

/// The file of the journal, made (mode 0600) where there is none.
pub(super) fn file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
