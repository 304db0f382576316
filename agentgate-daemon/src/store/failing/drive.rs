//! A disk in memory, with the database and its journal on it. When its power fails, of what was not synced
//! anything may be there and anything may not, in any order, down to single sectors; and each write, resize and
//! sync can be made to fail, as a disk without room or with errors has it.
//!
//! After a sync that failed, what it was to bring to the disk counts as clean, as in Linux: it is read back as
//! it was written, the next sync says that all is well, and it is on the disk only once it is written again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use redb::{Database, StorageBackend};

use crate::store::{Files, Store, StoreError, journal::Disk};

/// What reaches the disk whole or not at all.
const SECTOR: usize = 512;
/// Sectors of a page of the kernel's cache, which is clean or dirty as a whole.
const PAGE: usize = 8;
/// Of redb. Next to nothing, so that reads meet the disk.
const CACHE: usize = 4096;

/// Random numbers that a seed gives again (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// What goes wrong, from an operation on that is chosen by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing works any more.
    PowerCut,
    /// No room, until there is some: nothing is written.
    Full,
    /// The same, and the first write is cut short by it.
    Short,
    /// This one operation fails with EIO; half of a write is there, and nothing of a sync.
    Once,
}

/// Which file.
#[derive(Clone, Copy, Debug)]
enum Of {
    Database,
    Journal,
}

#[derive(Debug, Default)]
struct Medium {
    /// What is read.
    view: Vec<u8>,
    /// What the disk may have in place of a sector, oldest first.
    before: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths that it may have in place of the last.
    lengths: Vec<usize>,
    /// Pages that the next sync brings to the disk.
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct State {
    media: [Medium; 2],
    /// Writes, resizes and syncs so far.
    operations: u64,
    plan: Option<(u64, Fault)>,
    fault: Option<Fault>,
    /// Syncs wait while this is so.
    held: bool,
    /// Syncs that wait.
    waiting: usize,
}

/// See the module's header. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drive(Arc<(Mutex<State>, Condvar)>);

impl Medium {
    fn range(&self, sector: usize) -> std::ops::Range<usize> {
        (sector * SECTOR).min(self.view.len())..((sector + 1) * SECTOR).min(self.view.len())
    }

    /// Keeps what the sectors from here to there are before they change.
    fn keep(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let now = self.view[self.range(sector)].to_vec();
            self.before.entry(sector).or_default().push(now);
            self.dirty.insert(sector / PAGE);
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.view.len() {
            self.resize(end);
        }
        self.keep(at, end);
        self.view[at..end].copy_from_slice(bytes);
    }

    fn resize(&mut self, to: usize) {
        self.lengths.push(self.view.len());
        if to < self.view.len() {
            self.keep(to, self.view.len());
        }
        self.view.resize(to, 0);
    }

    fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            for sector in page * PAGE..(page + 1) * PAGE {
                self.before.remove(&sector);
            }
        }
        self.lengths.clear();
    }

    /// What is on the disk when the power comes back.
    fn lose(&self, random: &mut Random) -> Self {
        // Nothing of what was under way, all of it, nearly all, or any part.
        let way = random.below(5);
        let mut pick = |of: usize| match way {
            0 => 0,
            1 => of,
            2 if random.below(8) > 0 => of,
            _ => random.below(of as u64 + 1) as usize,
        };
        let length = match pick(self.lengths.len()) {
            last if last == self.lengths.len() => self.view.len(),
            earlier => self.lengths[earlier],
        };
        let mut view = self.view.clone();
        view.resize(length.max(view.len()), 0);
        for (sector, versions) in &self.before {
            if let Some(bytes) = versions.get(pick(versions.len())) {
                let at = sector * SECTOR;
                let end = (at + SECTOR).min(view.len());
                if at < end {
                    view[at..end].fill(0);
                    let kept = bytes.len().min(end - at);
                    view[at..at + kept].copy_from_slice(&bytes[..kept]);
                }
            }
        }
        view.truncate(length);
        Self { view, ..Self::default() }
    }
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Drive {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes, resizes and syncs so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Has `fault` happen at the operation of this number, counted from 1 since the disk was made.
    pub(crate) fn plan(&self, at: u64, fault: Fault) {
        self.state().plan = Some((at, fault));
    }

    /// What is wrong now.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.state().fault
    }

    /// Whether what was planned has happened.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.state();
        state.plan.is_none_or(|(at, _)| state.operations >= at)
    }

    /// Nothing is wrong any more, and nothing will be.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        state.fault = None;
        state.plan = None;
    }

    /// Has syncs wait, or lets them go.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.0.1.notify_all();
    }

    /// Waits until a sync waits.
    pub(crate) fn until_held(&self) {
        let state = self.state();
        drop(self.0.1.wait_while(state, |state| state.waiting == 0).unwrap_or_else(PoisonError::into_inner));
    }

    /// The disk after its power failed at this moment and came back.
    pub(crate) fn lose(&self, random: &mut Random) -> Self {
        let state = self.state();
        let media = state.media.each_ref().map(|medium| medium.lose(random));
        let lost = State { media, operations: 0, ..State::default() };
        Self(Arc::new((Mutex::new(lost), Condvar::new())))
    }

    /// Changes what both files have, in place: database, journal.
    pub(crate) fn damage(&self, change: impl FnOnce([&mut Vec<u8>; 2])) {
        let mut state = self.state();
        change(state.media.each_mut().map(|medium| &mut medium.view));
    }

    /// A disk with these two files.
    pub(crate) fn with([database, journal]: [Vec<u8>; 2]) -> Self {
        let media = [database, journal].map(|view| Medium { view, ..Medium::default() });
        Self(Arc::new((Mutex::new(State { media, ..State::default() }), Condvar::new())))
    }

    /// What both files have: database, journal.
    pub(crate) fn contents(&self) -> [Vec<u8>; 2] {
        self.state().media.each_ref().map(|medium| medium.view.clone())
    }

    /// Opens the store on this disk. `path` names places of a real file system for what is none of the two
    /// files, such as a journal that is set aside.
    pub(crate) fn open(&self, path: PathBuf) -> Result<Store, StoreError> {
        let (of_database, of_journal) = (self.clone(), self.clone());
        let database = move || of_database.database();
        let disk = move |_file| -> Box<dyn Disk> { Box::new(Handle(of_journal.clone(), Of::Journal)) };
        Store::open_by(Files { database: Box::new(database), path, disk: Box::new(disk) })
    }

    /// Opens the database alone.
    pub(crate) fn database(&self) -> Result<Database, StoreError> {
        let handle = Handle(self.clone(), Of::Database);
        Ok(Database::builder().set_cache_size(CACHE).create_with_backend(handle)?)
    }

    fn read(&self, of: Of, at: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.fault == Some(Fault::PowerCut) {
            return Err(error(libc::EIO));
        }
        let from = usize::try_from(at).ok();
        let bytes = from.and_then(|from| state.media[of as usize].view.get(from..from + into.len()));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Counts an operation on a file; what it is to fail with.
    fn operate(&self) -> (MutexGuard<'_, State>, Option<Fault>) {
        let mut state = self.state();
        state.operations += 1;
        if let Some((at, fault)) = state.plan
            && at == state.operations
        {
            state.fault = Some(fault);
        }
        let fault = state.fault;
        match fault {
            Some(Fault::Once) => state.fault = None,
            // The next has nothing to cut short.
            Some(Fault::Short) => state.fault = Some(Fault::Full),
            Some(Fault::PowerCut | Fault::Full) | None => {}
        }
        (state, fault)
    }

    fn write(&self, of: Of, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, fault) = self.operate();
        let (at, medium) = (usize::try_from(at).map_err(io::Error::other)?, &mut state.media[of as usize]);
        // Sectors are whole.
        let half = ((at + bytes.len() / 2) / SECTOR * SECTOR).saturating_sub(at);
        match fault {
            None => medium.write(at, bytes),
            Some(Fault::Full) => return Err(error(libc::ENOSPC)),
            Some(Fault::Short) => {
                medium.write(at, &bytes[..half]);
                return Err(error(libc::ENOSPC));
            }
            Some(Fault::Once | Fault::PowerCut) => {
                medium.write(at, &bytes[..half]);
                return Err(error(libc::EIO));
            }
        }
        Ok(())
    }

    fn resize(&self, of: Of, to: u64) -> io::Result<()> {
        let (mut state, fault) = self.operate();
        match fault {
            None => state.media[of as usize].resize(usize::try_from(to).map_err(io::Error::other)?),
            Some(Fault::Full | Fault::Short) => return Err(error(libc::ENOSPC)),
            Some(Fault::Once | Fault::PowerCut) => return Err(error(libc::EIO)),
        }
        Ok(())
    }

    fn sync(&self, of: Of) -> io::Result<()> {
        let (mut state, fault) = self.operate();
        state.waiting += 1;
        self.0.1.notify_all();
        let wait = self.0.1.wait_while(state, |state| state.held);
        state = wait.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        let medium = &mut state.media[of as usize];
        let number = match fault {
            None => {
                medium.sync();
                return Ok(());
            }
            Some(Fault::Full | Fault::Short) => libc::ENOSPC,
            Some(Fault::Once | Fault::PowerCut) => libc::EIO,
        };
        medium.dirty.clear();
        Err(error(number))
    }
}

/// One of the two files.
#[derive(Debug)]
struct Handle(Drive, Of);

impl Handle {
    fn size(&self) -> u64 {
        self.0.state().media[self.1 as usize].view.len() as u64
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.size())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(self.1, offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.resize(self.1, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync(self.1)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(self.1, offset, data)
    }
}

impl Disk for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(Self::size(self))
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read(self.1, at, into)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write(self.1, at, bytes)
    }
    fn resize(&self, to: u64) -> io::Result<()> {
        self.0.resize(self.1, to)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync(self.1)
    }
}
