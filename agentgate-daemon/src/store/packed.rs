//! Values that hold many things at once: compressed where that pays, and cut into parts that fill whole
//! pages, because redb gives a value that is larger than a page a run of a power of two of them.
//!
//! **Layout.** The parts of a value joined: 1 byte of method (0: as it is, 1: zstd), 4 bytes of length
//! (little endian), content. What the content means is the table's to say.

use redb::{ReadableTable, Table};

use super::{StoreError, canonical::Malformed};

/// (number, part).
pub(super) type Part = (u64, u16);

/// Bytes of a part that leave no room in a run of four pages, and in one page.
const PARTS: [usize; 2] = [16_352, 4_064];
/// zstd's level: what more would save takes longer than all the rest of a commit.
const LEVEL: i32 = 1;
/// No content is larger: captured bodies are cut long before.
const MOST: usize = 1 << 30;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Compresses; keeps its tables.
pub(super) struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    /// Bytes of values by which tables grew in this transaction.
    grown: i64,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    pub(super) fn new() -> Result<Self, StoreError> {
        Ok(Self { compressor: zstd::bulk::Compressor::new(LEVEL).map_err(StoreError::Packing)?, grown: 0 })
    }

    /// Puts `content` under `number`, in place of the `before` parts that are there. Returns how many
    /// parts it has now.
    pub(super) fn put(
        &mut self,
        table: &mut Table<'_, Part, &'static [u8]>,
        number: u64,
        content: &[u8],
        before: u16,
    ) -> Result<u16, StoreError> {
        let mut value = vec![0; 5 + content.len()];
        let packed = self.compressor.compress_to_buffer(content, &mut value[5..]);
        let packed = packed.ok().filter(|n| *n < content.len());
        match packed {
            Some(length) => {
                value[0] = ZSTD;
                value.truncate(5 + length);
            }
            None => {
                value[0] = PLAIN;
                value[5..].copy_from_slice(content);
            }
        }
        let length = u32::try_from(content.len()).map_err(|_| {
            StoreError::Packing(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "more than 4 GiB"))
        })?;
        value[1..5].copy_from_slice(&length.to_le_bytes());
        let mut left = value.as_slice();
        let mut part = 0;
        while !left.is_empty() {
            let size = PARTS.into_iter().find(|size| left.len() >= *size).unwrap_or(left.len());
            let (now, rest) = left.split_at(size);
            let replaced = table.insert((number, part), now)?;
            let replaced = replaced.map_or(0, |replaced| replaced.value().len());
            self.grown += signed(now.len()) - signed(replaced);
            left = rest;
            part += 1;
        }
        for gone in part..before {
            let removed = table.remove((number, gone))?.map_or(0, |removed| removed.value().len());
            self.grown -= signed(removed);
        }
        Ok(part)
    }

    /// Takes out what is under `number`. Returns whether there was something.
    pub(super) fn remove(
        &mut self,
        table: &mut Table<'_, Part, &'static [u8]>,
        number: u64,
    ) -> Result<bool, StoreError> {
        let mut any = false;
        for row in table.extract_from_if((number, 0)..=(number, u16::MAX), |_, _| true)? {
            let (_, value) = row?;
            self.grown -= signed(value.value().len());
            any = true;
        }
        Ok(any)
    }

    /// Bytes of values by which tables grew since this was asked last; negative where they shrank.
    pub(super) fn take_grown(&mut self) -> i64 {
        std::mem::take(&mut self.grown)
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The content under `number`; `None` where there is nothing.
pub(super) fn get(
    table: &impl ReadableTable<Part, &'static [u8]>,
    number: u64,
) -> Result<Option<Result<Vec<u8>, Malformed>>, StoreError> {
    Ok(value(table, number)?.map(|value| unpack(&value)))
}

/// The value under `number`, to be unpacked; `None` where there is nothing.
pub(super) fn value(
    table: &impl ReadableTable<Part, &'static [u8]>,
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut value = Vec::new();
    for part in table.range((number, 0)..=(number, u16::MAX))? {
        value.extend_from_slice(part?.1.value());
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// The content of a value.
pub(super) fn unpack(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (head, content) = value.split_first_chunk::<5>().ok_or(Malformed("a packed value is cut off"))?;
    let [method, length @ ..] = *head;
    let length = u32::from_le_bytes(length) as usize;
    match method {
        PLAIN if content.len() == length => Ok(content.to_vec()),
        ZSTD if length <= MOST => {
            let unpacked = zstd::bulk::decompress(content, length);
            unpacked
                .ok()
                .filter(|found| found.len() == length)
                .ok_or(Malformed("a packed value does not unpack"))
        }
        PLAIN | ZSTD => Err(Malformed("a packed value has another length than it says")),
        _ => Err(Malformed("packed by a method that is not known")),
    }
}
