//! The gzip format around deflate (RFC 1952): members, their headers and trailers.

use super::{
    Coding, Fault,
    stage::{Step, inflated},
};
use crate::parse::deflate::{Format, Inflate};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// Members, one after another.
pub(super) struct Gzip {
    at: At,
    flags: u8,
    inflate: Inflate,
    checksum: crc32fast::Hasher,
    /// Of this member, modulo 2^32.
    length: u32,
    /// True once a member has ended.
    any: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The ten bytes that every header has; which of them.
    Fixed(u8),
    /// FEXTRA's length: its low byte, once there.
    ExtraLength(Option<u8>),
    Extra(u16),
    Name,
    Comment,
    /// FHCRC's bytes left.
    HeaderChecksum(u8),
    Body,
    /// CRC32 and ISIZE; how many of their bytes are there.
    Trailer([u8; 8], usize),
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            at: At::Fixed(0),
            flags: 0,
            inflate: Inflate::new(Format::Raw),
            checksum: crc32fast::Hasher::new(),
            length: 0,
            any: false,
        }
    }

    /// True between members.
    pub(super) fn is_at_end(&self) -> bool {
        self.any && self.at == At::Fixed(0)
    }

    /// Header and trailer byte by byte, the body as far as it goes.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Step {
        let mut read = 0;
        while self.at != At::Body {
            let Some(byte) = input.get(read) else {
                return Step { read, ..Step::default() };
            };
            match self.around(*byte) {
                Ok(next) => self.at = next,
                Err(fault) => return Step { read, written: 0, fault: Some(fault(Coding::Gzip)) },
            }
            read += 1;
        }
        let step = inflated(&mut self.inflate, input.get(read..).unwrap_or_default(), output);
        let piece = output.get(..step.written).unwrap_or_default();
        self.checksum.update(piece);
        // ISIZE is the length modulo 2^32, and a piece is far shorter.
        self.length = self.length.wrapping_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        if step.ended {
            self.at = At::Trailer([0; 8], 0);
        }
        let fault = step.fault.map(|()| Fault::Corrupt(Coding::Gzip));
        Step { read: read + step.read, written: step.written, fault }
    }

    /// One byte of a header or trailer, and what comes after it.
    fn around(&mut self, byte: u8) -> Result<At, fn(Coding) -> Fault> {
        match self.at {
            At::Fixed(index) => {
                let wrong = match index {
                    0 | 1 => MAGIC.get(usize::from(index)) != Some(&byte),
                    2 => byte != 8,
                    3 => byte & RESERVED != 0,
                    _ => false,
                };
                if wrong {
                    let trailing = self.any && index == 0;
                    return Err(if trailing { Fault::Trailing } else { Fault::Corrupt });
                }
                if index == 3 {
                    self.flags = byte;
                }
                Ok(if index < 9 { At::Fixed(index + 1) } else { self.after(FEXTRA >> 1) })
            }
            At::ExtraLength(None) => Ok(At::ExtraLength(Some(byte))),
            At::ExtraLength(Some(low)) => match u16::from_le_bytes([low, byte]) {
                0 => Ok(self.after(FEXTRA)),
                length => Ok(At::Extra(length)),
            },
            At::Extra(1) => Ok(self.after(FEXTRA)),
            At::Extra(left) => Ok(At::Extra(left.saturating_sub(1))),
            At::Name => Ok(if byte == 0 { self.after(FNAME) } else { At::Name }),
            At::Comment => Ok(if byte == 0 { self.after(FCOMMENT) } else { At::Comment }),
            At::HeaderChecksum(2) => Ok(At::HeaderChecksum(1)),
            At::HeaderChecksum(_) => Ok(At::Body),
            At::Body => Ok(At::Body),
            At::Trailer(mut bytes, have) => {
                if let Some(place) = bytes.get_mut(have) {
                    *place = byte;
                }
                if have < 7 { Ok(At::Trailer(bytes, have + 1)) } else { self.end(bytes) }
            }
        }
    }

    /// What follows the optional field `past` in a header: fields stand in the order of FEXTRA, FNAME,
    /// FCOMMENT, FHCRC.
    fn after(&self, past: u8) -> At {
        [(FEXTRA, At::ExtraLength(None)), (FNAME, At::Name), (FCOMMENT, At::Comment)]
            .into_iter()
            .find(|(flag, _)| *flag > past && self.flags & flag != 0)
            .map_or(if self.flags & FHCRC == 0 { At::Body } else { At::HeaderChecksum(2) }, |(_, at)| at)
    }

    /// The end of a member, and perhaps the start of another.
    fn end(&mut self, trailer: [u8; 8]) -> Result<At, fn(Coding) -> Fault> {
        let [a, b, c, d, e, f, g, h] = trailer;
        let checksum = std::mem::take(&mut self.checksum).finalize();
        let length = std::mem::take(&mut self.length);
        if checksum != u32::from_le_bytes([a, b, c, d]) || length != u32::from_le_bytes([e, f, g, h]) {
            return Err(Fault::Checksum);
        }
        self.any = true;
        self.flags = 0;
        self.inflate.reset();
        Ok(At::Fixed(0))
    }
}
