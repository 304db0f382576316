//! The lines of a file, unpacked where it is packed, with a digest over the bytes as they are in it.

use std::{
    cell::RefCell,
    fs, io,
    io::{BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
};

use aws_lc_rs::digest::{Context, SHA256};

/// Longest line, in bytes: a record with two bodies of the largest that can be captured.
const LINE: usize = 256 << 20;
/// A buffer of a line that is larger is not kept for the next.
const KEPT: usize = 1 << 20;
/// Bytes that are read at once.
const READ: usize = 256 << 10;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What was read so far.
struct Progress {
    hash: Context,
    bytes: u64,
}

struct Hashed<'s> {
    from: Box<dyn Read + 's>,
    state: Rc<RefCell<Progress>>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let mut state = self.state.borrow_mut();
        state.hash.update(into.get(..count).unwrap_or_default());
        state.bytes += count as u64;
        Ok(count)
    }
}

/// See the module.
pub(super) struct Source<'s> {
    lines: Box<dyn BufRead + 's>,
    state: Rc<RefCell<Progress>>,
    line: Vec<u8>,
    number: u64,
    compressed: bool,
}

impl<'s> Source<'s> {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::of(fs::File::open(path)?)
    }

    pub(super) fn of(from: impl Read + 's) -> io::Result<Self> {
        let state = Rc::new(RefCell::new(Progress { hash: Context::new(&SHA256), bytes: 0 }));
        let mut from = Hashed { from: Box::new(from), state: state.clone() };
        let mut magic = Vec::new();
        from.by_ref().take(4).read_to_end(&mut magic)?;
        let (gzip, zstd) = (magic.starts_with(GZIP), magic.starts_with(ZSTD));
        let whole = BufReader::with_capacity(READ, io::Cursor::new(magic).chain(from));
        let lines: Box<dyn BufRead + 's> = if gzip {
            Box::new(BufReader::with_capacity(READ, flate2::bufread::MultiGzDecoder::new(whole)))
        } else if zstd {
            Box::new(BufReader::with_capacity(READ, zstd::Decoder::with_buffer(whole)?))
        } else {
            Box::new(whole)
        };
        Ok(Self { lines, state, line: Vec::new(), number: 0, compressed: gzip || zstd })
    }

    /// Reads the next line that is not empty; false at the end.
    pub(super) fn next(&mut self) -> io::Result<bool> {
        loop {
            if self.line.capacity() > KEPT {
                self.line = Vec::new();
            }
            self.line.clear();
            self.number += 1;
            let limit = LINE as u64 + 1;
            self.lines.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
            if self.line.is_empty() {
                return Ok(false);
            }
            if self.line.len() > LINE {
                let words = format!("it has more than {LINE} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, words));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The line that was read last.
    pub(super) fn current(&self) -> &[u8] {
        &self.line
    }

    /// Its number, from 1 on.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// SHA-256 over all that there is, in hex, and how many bytes that is.
    pub(super) fn end(mut self) -> (String, u64) {
        // What comes after the end of an export, or after a fault in it, is of interest to the digest only.
        let _rest_that_cannot_be_unpacked = io::copy(&mut self.lines, &mut io::sink());
        let state = self.state.borrow();
        let digest = state.hash.clone().finish();
        (data_encoding::HEXLOWER.encode(digest.as_ref()), state.bytes)
    }
}
