//! A file that is read only, under writes that are kept in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

const PAGE: u64 = 4096;
/// Pages that are kept; mending for reading takes few.
const PAGES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Overlay {
    file: fs::File,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    length: u64,
    /// Bytes of the file that still count.
    below: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: fs::File, length: u64) -> Self {
        Self { file, over: Mutex::new(Over { length, below: length, pages: BTreeMap::new() }) }
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page of the file.
    fn page(&self, page: u64, below: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE as usize];
        let there = below.saturating_sub(page * PAGE).min(PAGE) as usize;
        self.file.read_exact_at(&mut bytes[..there], page * PAGE)?;
        Ok(bytes)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= over.length);
        end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let (mut at, mut out) = (offset, out);
        while !out.is_empty() {
            let within = (at % PAGE) as usize;
            let count = out.len().min(PAGE as usize - within);
            let (now, rest) = out.split_at_mut(count);
            match over.pages.get(&(at / PAGE)) {
                Some(page) => now.copy_from_slice(&page[within..within + count]),
                None => {
                    let there = over.below.saturating_sub(at).min(count as u64) as usize;
                    self.file.read_exact_at(&mut now[..there], at)?;
                    now[there..].fill(0);
                }
            }
            at += count as u64;
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut over = self.over();
        over.length = length;
        over.below = over.below.min(length);
        let kept = length.div_ceil(PAGE);
        over.pages.retain(|page, _| *page < kept);
        if let Some(page) = over.pages.get_mut(&(length / PAGE)) {
            page[(length % PAGE) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= over.length);
        end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let (mut at, mut data) = (offset, data);
        while !data.is_empty() {
            let within = (at % PAGE) as usize;
            let count = data.len().min(PAGE as usize - within);
            let (now, rest) = data.split_at(count);
            let page = at / PAGE;
            if !over.pages.contains_key(&page) {
                if over.pages.len() >= PAGES {
                    return Err(io::Error::from(io::ErrorKind::OutOfMemory));
                }
                let bytes = self.page(page, over.below)?;
                over.pages.insert(page, bytes);
            }
            if let Some(page) = over.pages.get_mut(&page) {
                page[within..within + count].copy_from_slice(now);
            }
            at += count as u64;
            data = rest;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}
