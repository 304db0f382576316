//! Every row of one snapshot as a stream of bytes, and a file made of such a stream: what backups are.
//!
//! **Layout.** [`HEAD`]; for each table byte 1, its name, rows, byte 3 and how many rows there were (8
//! bytes, little endian); after the last table byte 4 and the SHA-256 of all bytes before it. A row is byte
//! 2, key and value. Names, keys and values are length (LEB128) and bytes, as redb has them in the file.
//!
//! Neither end keeps more of it than one row and a few MiB, whatever the size of the log.

use std::{fs, io, mem, path::Path};

use aws_lc_rs::digest::{Context, SHA256};
use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, TableDefinition, TableHandle as _, Value,
};
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    canonical::{Malformed, put_number},
    error::unharmed,
    every::{self, Role, Visitor},
    file::{CACHE_BYTES, restrict, sync_directory},
    tables::there,
};

const HEAD: &[u8; 17] = b"agentgate dump 1\n";
const TABLE: u8 = 1;
const ROW: u8 = 2;
const ROWS: u8 = 3;
const END: u8 = 4;
const DIGEST: usize = 32;

/// Bytes of a piece of the stream, but for the last and for rows that are larger.
pub const PIECE: usize = 256 << 10;
/// Bytes of rows that one transaction of a file that is made takes.
const SLICE: usize = 8 << 20;
/// No name, key or value is as long: groups and packs are cut into parts far below.
const LONGEST: u64 = 64 << 20;

/// What a stream held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumped {
    pub rows: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// SHA-256 of the stream up to its end mark, in hex.
    pub digest: String,
}

impl Store {
    /// Gives every row of one snapshot, with all that was acknowledged before, to `out` in pieces of
    /// about [`PIECE`] bytes; `None` where `out` says false, which ends it. Writers are not held up; what
    /// they free meanwhile is used again only afterwards.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read, or is not up to date.
    pub fn dump(&self, out: impl FnMut(Vec<u8>) -> bool) -> Result<Option<Dumped>, StoreError> {
        let _whole = self.upkeep()?;
        unharmed(|| dump(&self.read_all()?, out))
    }
}

/// Gives every row of the snapshot to `out`.
pub(super) fn dump(
    snapshot: &ReadTransaction,
    out: impl FnMut(Vec<u8>) -> bool,
) -> Result<Option<Dumped>, StoreError> {
    let mut writer =
        Writer { snapshot, out, piece: HEAD.to_vec(), hash: Context::new(&SHA256), rows: 0, bytes: 0 };
    match every::table(&mut writer) {
        Err(StoreError::Stopped) => return Ok(None),
        other => other?,
    }
    writer.piece.push(END);
    writer.hash.update(&writer.piece);
    let digest = writer.hash.clone().finish();
    writer.piece.extend_from_slice(digest.as_ref());
    writer.bytes += writer.piece.len() as u64;
    let last = mem::take(&mut writer.piece);
    if !(writer.out)(last) {
        return Ok(None);
    }
    Ok(Some(Dumped { rows: writer.rows, bytes: writer.bytes, digest: hex(digest.as_ref()) }))
}

struct Writer<'s, O> {
    snapshot: &'s ReadTransaction,
    out: O,
    piece: Vec<u8>,
    hash: Context,
    rows: u64,
    bytes: u64,
}

impl<O: FnMut(Vec<u8>) -> bool> Writer<'_, O> {
    fn put(&mut self, bytes: &[u8]) {
        put_number(&mut self.piece, bytes.len() as u64);
        self.piece.extend_from_slice(bytes);
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.hash.update(&self.piece);
        self.bytes += self.piece.len() as u64;
        let piece = mem::replace(&mut self.piece, Vec::with_capacity(PIECE + (PIECE >> 2)));
        if (self.out)(piece) { Ok(()) } else { Err(StoreError::Stopped) }
    }
}

impl<O: FnMut(Vec<u8>) -> bool> Visitor for Writer<'_, O> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
        _role: Role,
    ) -> Result<(), StoreError> {
        let Some(table) = there(self.snapshot, definition)? else { return Ok(()) };
        self.piece.push(TABLE);
        self.put(definition.name().as_bytes());
        let mut rows: u64 = 0;
        for row in table.iter()? {
            let (key, value) = row?;
            self.piece.push(ROW);
            self.put(K::as_bytes(&key.value()).as_ref());
            self.put(V::as_bytes(&value.value()).as_ref());
            rows += 1;
            if self.piece.len() >= PIECE {
                self.flush()?;
            }
        }
        self.piece.push(ROWS);
        self.piece.extend_from_slice(&rows.to_le_bytes());
        self.rows += rows;
        Ok(())
    }
}

/// A file that is made of a stream.
pub struct Loader {
    database: Database,
    left: Vec<u8>,
    hash: Context,
    begun: bool,
    /// The table under way, and rows of it so far.
    table: Option<(String, u64)>,
    /// Rows that are not in the file yet.
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    pending: usize,
    dumped: Dumped,
    done: bool,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("dumped", &self.dumped).finish_non_exhaustive()
    }
}

impl Loader {
    /// A file (mode 0600) at `path`, where nothing may be.
    ///
    /// # Errors
    /// [`StoreError::File`] where there is one, or none can be made.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            database: create(path)?,
            left: Vec::new(),
            hash: Context::new(&SHA256),
            begun: false,
            table: None,
            rows: Vec::new(),
            pending: 0,
            dumped: Dumped::default(),
            done: false,
        })
    }

    /// Takes the next piece, cut anywhere.
    ///
    /// # Errors
    /// [`StoreError::NotADump`] where it does not go on as it must; [`StoreError`] of the file.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.left.extend_from_slice(piece);
        let mut left = mem::take(&mut self.left);
        let mut at = 0;
        while let Some(used) = self.step(left.get(at..).unwrap_or_default())? {
            at += used;
        }
        left.drain(..at);
        self.left = left;
        Ok(())
    }

    /// Rows taken so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.dumped.rows
    }

    /// Takes one part of the stream from the start of `bytes`; `None` where there is more to come.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, StoreError> {
        if !self.begun {
            let Some((head, _)) = bytes.split_first_chunk::<{ HEAD.len() }>() else { return Ok(None) };
            if head != HEAD {
                return Err(not("it does not begin as one"));
            }
            self.begun = true;
            return Ok(Some(self.count(head)));
        }
        if self.done {
            return if bytes.is_empty() { Ok(None) } else { Err(not("something follows its end")) };
        }
        let Some((&tag, mut cursor)) = bytes.split_first() else { return Ok(None) };
        match (tag, &mut self.table) {
            (TABLE, None) => {
                let Some(name) = taken(&mut cursor)? else { return Ok(None) };
                let name = str::from_utf8(name).map_err(|_| not("a table without a name"))?;
                self.table = Some((name.to_owned(), 0));
            }
            (ROW, Some((_, count))) => {
                let Some(key) = taken(&mut cursor)? else { return Ok(None) };
                let Some(value) = taken(&mut cursor)? else { return Ok(None) };
                *count += 1;
                self.pending += key.len() + value.len();
                self.rows.push((key.to_vec(), value.to_vec()));
                if self.pending >= SLICE {
                    self.flush(false)?;
                }
            }
            (ROWS, Some((_, count))) => {
                let Some((told, after)) = cursor.split_first_chunk::<8>() else { return Ok(None) };
                cursor = after;
                if *count != u64::from_le_bytes(*told) {
                    return Err(not("rows are missing"));
                }
                self.dumped.rows += *count;
                self.flush(true)?;
                self.table = None;
            }
            (END, None) => {
                let Some((told, after)) = cursor.split_first_chunk::<DIGEST>() else { return Ok(None) };
                self.hash.update(&[END]);
                let digest = self.hash.clone().finish();
                if digest.as_ref() != told {
                    return Err(not("its digest is not that of its bytes"));
                }
                self.dumped.digest = hex(told);
                self.dumped.bytes += 1 + DIGEST as u64;
                self.done = true;
                return Ok(Some(bytes.len() - after.len()));
            }
            _ => return Err(not("a part that is not known, or out of place")),
        }
        let used = bytes.len() - cursor.len();
        Ok(Some(self.count(bytes.get(..used).unwrap_or_default())))
    }

    fn count(&mut self, bytes: &[u8]) -> usize {
        self.hash.update(bytes);
        self.dumped.bytes += bytes.len() as u64;
        bytes.len()
    }

    /// Puts the rows that are held into the table under way; makes it even where it has none.
    fn flush(&mut self, even: bool) -> Result<(), StoreError> {
        let Some((name, _)) = &self.table else { return Ok(()) };
        if self.rows.is_empty() && !even {
            return Ok(());
        }
        let mut put = Put { database: &self.database, name, rows: mem::take(&mut self.rows), found: false };
        every::table(&mut put)?;
        self.pending = 0;
        if put.found { Ok(()) } else { Err(not("a table that this program does not know")) }
    }

    /// Makes the file durable, and closes it. Says what it was made of.
    ///
    /// # Errors
    /// [`StoreError::NotADump`] where the stream has no end, and [`StoreError`] of the file.
    pub fn finish(self, path: &Path) -> Result<Dumped, StoreError> {
        if !self.done {
            return Err(not("it is cut off"));
        }
        settle(&self.database)?;
        drop(self.database);
        sync_directory(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        Ok(self.dumped)
    }
}

fn not(why: &'static str) -> StoreError {
    StoreError::NotADump(Malformed(why))
}

/// Length and bytes from the start of `left`, which moves behind them; `None` where they are not all there.
fn taken<'b>(left: &mut &'b [u8]) -> Result<Option<&'b [u8]>, StoreError> {
    let (mut length, mut shift) = (0_u64, 0);
    let mut rest = *left;
    loop {
        let Some((&byte, after)) = rest.split_first() else { return Ok(None) };
        rest = after;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return Err(not("a length is too long"));
        }
    }
    if length > LONGEST {
        return Err(not("a length is too long"));
    }
    let Some((bytes, after)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
    else {
        return Ok(None);
    };
    *left = after;
    Ok(Some(bytes))
}

struct Put<'d> {
    database: &'d Database,
    name: &'d str,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    found: bool,
}

impl Visitor for Put<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
        _role: Role,
    ) -> Result<(), StoreError> {
        if definition.name() != self.name {
            return Ok(());
        }
        self.found = true;
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        {
            let mut table = transaction.open_table(definition)?;
            for (key, value) in self.rows.drain(..) {
                let fits =
                    |width: Option<usize>, bytes: &[u8]| width.is_none_or(|width| width == bytes.len());
                if !fits(K::fixed_width(), &key) || !fits(V::fixed_width(), &value) {
                    return Err(not("a row of another type"));
                }
                table.insert(K::from_bytes(&key), V::from_bytes(&value))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// A database (mode 0600) in a new file.
pub(super) fn create(path: &Path) -> Result<Database, StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let unusable = |source| StoreError::File { path: path.to_owned(), source };
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(unusable)?;
    restrict(&file).map_err(unusable)?;
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_file(file)?)
}

/// Makes all that was written without that durable, in the manner of all commits of a log.
pub(super) fn settle(database: &Database) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    transaction.commit()?;
    Ok(())
}

/// Copies tables of a snapshot into a database, in transactions that are not durable.
pub(super) struct Copy<'c> {
    pub(super) from: &'c ReadTransaction,
    pub(super) to: &'c Database,
    /// Only tables of this role; all where it is `None`. What the copy has of such a table goes.
    pub(super) only: Option<Role>,
    /// Told the bytes of rows that were copied; false ends it.
    pub(super) progress: &'c mut dyn FnMut(u64) -> bool,
}

impl Visitor for Copy<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
        role: Role,
    ) -> Result<(), StoreError> {
        if self.only.is_some_and(|only| only != role) {
            return Ok(());
        }
        let Some(table) = there(self.from, definition)? else { return Ok(()) };
        let mut rows = table.iter()?;
        let mut fresh = true;
        loop {
            let mut transaction = self.to.begin_write()?;
            transaction.set_durability(Durability::None)?;
            let mut bytes = 0;
            let mut last = true;
            {
                if mem::take(&mut fresh) {
                    transaction.delete_table(definition)?;
                }
                let mut copy = transaction.open_table(definition)?;
                for row in rows.by_ref() {
                    let (key, value) = row?;
                    let (key, value) = (key.value(), value.value());
                    bytes += K::as_bytes(&key).as_ref().len() + V::as_bytes(&value).as_ref().len();
                    copy.insert(&key, &value)?;
                    if bytes >= SLICE {
                        last = false;
                        break;
                    }
                }
            }
            transaction.commit()?;
            if !(self.progress)(bytes as u64) {
                return Err(StoreError::Stopped);
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// How many rows the tables of a file have, all together; as many as [`Dumped::rows`] where it is a whole
/// backup.
///
/// # Errors
/// [`StoreError`] where it is no log, or cannot be read.
pub fn rows(path: &Path) -> Result<u64, StoreError> {
    struct Count(ReadTransaction, u64);
    impl Visitor for Count {
        fn visit<K: Key + 'static, V: Value + 'static>(
            &mut self,
            definition: TableDefinition<'static, K, V>,
            _role: Role,
        ) -> Result<(), StoreError> {
            if let Some(table) = there(&self.0, definition)? {
                self.1 += table.len()?;
            }
            Ok(())
        }
    }
    unharmed(|| {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).open_read_only(path)?;
        let mut count = Count(database.begin_read()?, 0);
        every::table(&mut count)?;
        Ok(count.1)
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Removes a file; that there is none is as good.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::File { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
