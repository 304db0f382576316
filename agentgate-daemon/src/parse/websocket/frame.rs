//! Frame headers and masks (RFC 6455 5.2, 5.3).

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// The first of the three reserved bits, where they stand in the header's first byte.
pub(super) const RSV1: u8 = 0x40;
const RESERVED: u8 = 0x70;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// FIN.
    pub(super) last: bool,
    /// RSV1 to RSV3 in their places.
    pub(super) reserved: u8,
    pub(super) opcode: u8,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) length: u64,
    /// False where a shorter form would have held the length.
    pub(super) minimal: bool,
}

/// A header that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    bytes: [u8; 14],
    have: usize,
}

impl Header {
    /// Takes what belongs to the header and says how much that was.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let mut read = 0;
        while self.have < self.needed() {
            let (Some(byte), Some(place)) = (bytes.get(read), self.bytes.get_mut(self.have)) else {
                break;
            };
            *place = *byte;
            self.have += 1;
            read += 1;
        }
        read
    }

    /// Bytes that the header has, by what is known of it.
    fn needed(&self) -> usize {
        let [_, second, ..] = self.bytes;
        if self.have < 2 {
            return 2;
        }
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    /// The header, once it is whole; and the next one may come.
    pub(super) fn take(&mut self) -> Option<Head> {
        if self.have < self.needed() {
            return None;
        }
        let [first, second, a, b, c, d, e, f, g, h, i, j, k, l] = std::mem::take(self).bytes;
        let (length, minimal, mask) = match second & 0x7f {
            126 => {
                let length = u16::from_be_bytes([a, b]);
                (u64::from(length), length > 125, [c, d, e, f])
            }
            127 => {
                let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                (length, length > u64::from(u16::MAX), [i, j, k, l])
            }
            short => (u64::from(short), true, [a, b, c, d]),
        };
        Some(Head {
            last: first & 0x80 != 0,
            reserved: first & RESERVED,
            opcode: first & 0x0f,
            mask: (second & 0x80 != 0).then_some(mask),
            length,
            minimal,
        })
    }
}

/// Appends what of `piece` fits below `most`, unmasked. `passed` bytes of the frame went before it.
pub(super) fn keep(mask: Option<[u8; 4]>, passed: u64, piece: &[u8], kept: &mut Vec<u8>, most: usize) {
    let old = kept.len();
    let piece = piece.get(..most.saturating_sub(old)).unwrap_or(piece);
    kept.extend_from_slice(piece);
    if let (Some(mask), Some(added)) = (mask, kept.get_mut(old..)) {
        unmask(mask, passed, added);
    }
}

/// Takes the mask off bytes that begin `passed` bytes into a frame's payload.
pub(super) fn unmask(mut mask: [u8; 4], passed: u64, bytes: &mut [u8]) {
    // Less than four, so nothing is cut off.
    mask.rotate_left((passed % 4) as usize);
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Eight bytes at a time, which the compiler makes into vectors.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
