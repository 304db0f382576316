//! Numbers of a block's records, one after the other: what lists are sorted by, and compared with.
//!
//! **Layout.** Length of what follows (LEB128) and which records have a number ([`Bits`]), then the numbers
//! in the order of the ids, LEB128. Times are zigzag, each less the one before it.

use super::bits::{BLOCK, Bits};
use crate::store::canonical::{Malformed, put_number, take, take_number};

/// Columns. Part of the file's format.
pub(in crate::store) mod kind {
    /// Earliest and latest beginning, each a zigzag number.
    pub(in crate::store) const BOUNDS: u8 = 0;
    pub(in crate::store) const STARTED: u8 = 1;
    pub(in crate::store) const DURATION: u8 = 2;
    pub(in crate::store) const BYTES: u8 = 3;
}

/// A number for each record that has one.
#[derive(Clone, Debug)]
pub(in crate::store) struct Column {
    pub(in crate::store) has: Bits,
    numbers: Box<[u64]>,
}

impl Column {
    pub(in crate::store) fn empty() -> Self {
        Self { has: Bits::NONE, numbers: vec![0; BLOCK as usize].into() }
    }

    pub(in crate::store) fn get(&self, at: usize) -> Option<u64> {
        self.has.has(at).then(|| self.numbers.get(at).copied().unwrap_or(0))
    }

    pub(in crate::store) fn set(&mut self, at: usize, number: Option<u64>) {
        self.has.set(at, number.is_some());
        if let Some(place) = self.numbers.get_mut(at) {
            *place = number.unwrap_or(0);
        }
    }

    pub(in crate::store) fn put(&self, times: bool, out: &mut Vec<u8>) {
        let mut has = Vec::new();
        self.has.put(&mut has);
        put_number(out, has.len() as u64);
        out.extend_from_slice(&has);
        let mut before = 0_i64;
        for at in self.has.rising() {
            let number = self.numbers.get(at).copied().unwrap_or(0);
            if times {
                let time = number.cast_signed();
                put_number(out, zigzag(time.wrapping_sub(before)));
                before = time;
            } else {
                put_number(out, number);
            }
        }
    }

    /// Which records have a number, by the head of the layout.
    pub(in crate::store) fn read_has(mut bytes: &[u8]) -> Result<Bits, Malformed> {
        let length = take_number(&mut bytes)?;
        Bits::read(take(&mut bytes, length)?)
    }

    pub(in crate::store) fn read(mut bytes: &[u8], times: bool) -> Result<Self, Malformed> {
        let length = take_number(&mut bytes)?;
        let mut column = Self::empty();
        column.has = Bits::read(take(&mut bytes, length)?)?;
        let mut before = 0_i64;
        for at in column.has.rising() {
            let mut number = take_number(&mut bytes)?;
            if times {
                before = before.wrapping_add(unzigzag(number));
                number = before.cast_unsigned();
            }
            if let Some(place) = column.numbers.get_mut(at) {
                *place = number;
            }
        }
        if bytes.is_empty() { Ok(column) } else { Err(Malformed("bytes after a column")) }
    }
}

pub(in crate::store) fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

pub(in crate::store) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        for times in [false, true] {
            let mut column = Column::empty();
            for (at, number) in [(0, 5), (1, i64::MIN), (7, i64::MAX), (4095, -1), (64, 0)] {
                column.set(at, Some(number.cast_unsigned()));
            }
            column.set(7, None);
            let mut bytes = Vec::new();
            column.put(times, &mut bytes);
            let read = Column::read(&bytes, times).unwrap();
            for at in 0..4096 {
                assert_eq!(read.get(at), column.get(at), "{at}");
            }
            assert_eq!(Column::read_has(&bytes).unwrap(), column.has);
            for end in 0..bytes.len() {
                assert!(Column::read(&bytes[..end], times).is_err(), "{end}");
            }
        }
    }
}
