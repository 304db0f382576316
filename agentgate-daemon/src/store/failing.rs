//! A file that fails on demand, for the tests of `store` and `audit`.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::{Files, Store, StoreError, journal::Disk};

mod drive;
pub(crate) use drive::{Drive, Fault, Random};

/// What goes wrong at the moment.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Writes and growth: ENOSPC.
    pub(crate) full: AtomicBool,
    /// Opening: EIO.
    pub(crate) unopenable: AtomicBool,
    /// Reads: EIO.
    pub(crate) unreadable: AtomicBool,
    /// Of either file: 1 for the next sync to fail with EIO, 2 for the one after it, 0 for none.
    pub(crate) sync_in: AtomicU32,
}

#[derive(Debug)]
struct Failing {
    inner: FileBackend,
    faults: Arc<Faults>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.faults.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.write()?;
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.inner.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

impl Faults {
    fn write(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let left = &self.sync_in;
        if left.load(Ordering::SeqCst) > 0 && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

/// The journal's file, which fails with the other.
#[derive(Debug)]
struct FailingDisk {
    inner: File,
    faults: Arc<Faults>,
}

impl Disk for FailingDisk {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        Disk::read_at(&self.inner, into, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.faults.write()?;
        Disk::write_at(&self.inner, bytes, at)
    }
    fn resize(&self, to: u64) -> io::Result<()> {
        self.inner.resize(to)
    }
    fn sync(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.inner.sync()
    }
}

fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// A store on `path` whose files do as `faults` says.
pub(crate) fn store(path: PathBuf, faults: Arc<Faults>) -> Result<Store, StoreError> {
    let (at, of_journal) = (path.clone(), faults.clone());
    let database = move || {
        let unusable = |source| StoreError::File { path: at.clone(), source };
        if faults.unopenable.load(Ordering::SeqCst) {
            return Err(unusable(io::Error::from_raw_os_error(libc::EIO)));
        }
        let inner = FileBackend::new(file(&at).map_err(unusable)?)?;
        // No cache to speak of, so that reads meet the file.
        Ok(Database::builder()
            .set_cache_size(4096)
            .create_with_backend(Failing { inner, faults: faults.clone() })?)
    };
    let disk = move |inner| -> Box<dyn Disk> { Box::new(FailingDisk { inner, faults: of_journal.clone() }) };
    Store::open_by(Files { database: Box::new(database), path, disk: Box::new(disk) })
}
