//! What the index's sources expect around them.

#[path = "../../../../src/store/packed.rs"]
mod packed;

pub(crate) mod canonical {
    //! Numbers, as the record's encoding has them.

    /// The bytes are not what they should be.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("malformed: {0}")]
    pub struct Malformed(pub(in crate::store) &'static str);

    pub(in crate::store) fn put_number(out: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            out.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    pub(in crate::store) fn take_number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first().ok_or(Malformed("a number is cut off"))?;
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }

    pub(in crate::store) fn take<'b>(bytes: &mut &'b [u8], count: u64) -> Result<&'b [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed("a length is too long"))?;
        let (taken, rest) = bytes.split_at_checked(count).ok_or(Malformed("a field is cut off"))?;
        *bytes = rest;
        Ok(taken)
    }
}

/// Failures that the sources name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{0}")]
    Packing(#[source] std::io::Error),
    #[error("{0}")]
    Text(#[source] canonical::Malformed),
    #[error("{0}")]
    Redb(Box<redb::Error>),
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

pub(crate) mod text;
