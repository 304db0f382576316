//! The fields of an encoded record, as they lie there.

use super::{code, tag};
use crate::model::{Action, Kind, State, Timestamp};

/// The bytes are not the encoding of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no record: {0}")]
pub struct Malformed(pub(in crate::store) &'static str);

pub(in crate::store) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Zigzag: small numbers of either sign are short.
pub(in crate::store) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned());
}

/// Takes a number off the front of `bytes`.
#[inline]
pub(in crate::store) fn take_number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Lengths and tags, by far the most of them, have one byte.
    if let Some((&byte @ 0..0x80, rest)) = bytes.split_first() {
        *bytes = rest;
        return Ok(byte.into());
    }
    take_long_number(bytes)
}

fn take_long_number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    let mut shift = 0;
    loop {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed("a number is cut off"))?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return Err(Malformed("a number has more than 64 bits"));
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 {
                return Err(Malformed("a number is not in its shortest form"));
            }
            return Ok(number);
        }
        shift += 7;
        if shift > 63 {
            return Err(Malformed("a number has more than 64 bits"));
        }
    }
}

/// Takes `count` bytes off the front.
pub(in crate::store) fn take<'b>(bytes: &mut &'b [u8], count: u64) -> Result<&'b [u8], Malformed> {
    let count = usize::try_from(count).map_err(|_| Malformed("a length is too long"))?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Malformed("a field is cut off"))?;
    *bytes = rest;
    Ok(taken)
}

/// A payload that is one number.
pub(in crate::store) fn number(mut payload: &[u8]) -> Result<u64, Malformed> {
    let number = take_number(&mut payload)?;
    if payload.is_empty() { Ok(number) } else { Err(Malformed("bytes after a number")) }
}

/// A payload that is one number of either sign.
pub(in crate::store) fn signed(payload: &[u8]) -> Result<i64, Malformed> {
    let zigzag = number(payload)?;
    Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
}

pub(in crate::store) fn time(payload: &[u8]) -> Result<Timestamp, Malformed> {
    signed(payload).map(Timestamp)
}

pub(in crate::store) fn text(payload: &[u8]) -> Result<&str, Malformed> {
    str::from_utf8(payload).map_err(|_| Malformed("a text is not UTF-8"))
}

/// The fields of a run, in their order.
#[derive(Clone, Debug)]
pub(in crate::store) struct Fields<'b> {
    left: &'b [u8],
    last: u8,
}

impl<'b> Fields<'b> {
    pub(in crate::store) fn of(bytes: &'b [u8]) -> Self {
        Self { left: bytes, last: 0 }
    }

    fn step(&mut self) -> Result<(u8, &'b [u8]), Malformed> {
        let (&tag, rest) = self.left.split_first().ok_or(Malformed("a field is cut off"))?;
        if tag < self.last || !(1..0x80).contains(&tag) {
            return Err(Malformed("tags do not rise"));
        }
        self.last = tag;
        self.left = rest;
        let length = take_number(&mut self.left)?;
        Ok((tag, take(&mut self.left, length)?))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u8, &'b [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.left = &[];
        }
        Some(step)
    }
}

/// What the store itself asks of a record, without making one.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Glance<'b> {
    pub(in crate::store) id: u64,
    pub(in crate::store) kind: Option<Kind>,
    pub(in crate::store) state: Option<State>,
    pub(in crate::store) started: Timestamp,
    pub(in crate::store) action: Option<Action>,
    pub(in crate::store) rule: &'b str,
    pub(in crate::store) host: &'b str,
    pub(in crate::store) question: &'b str,
    pub(in crate::store) session: &'b str,
    pub(in crate::store) failure_code: &'b str,
    /// A flow's original destination (socket), session and time.
    pub(in crate::store) flow: Option<(&'b [u8], u64, u64)>,
    /// A loss's session, window, what and cause.
    pub(in crate::store) loss: Option<(u64, u32, &'b str, &'b str)>,
    pub(in crate::store) times: u64,
    /// Digests of the bodies.
    pub(in crate::store) digests: [Option<super::Digest>; 2],
}

impl<'b> Glance<'b> {
    pub(in crate::store) fn at(encoded: &'b [u8]) -> Result<Self, Malformed> {
        let mut seen = Self { times: 1, ..Self::default() };
        for field in Fields::of(encoded) {
            let (tag, payload) = field?;
            match tag {
                tag::ID => {
                    let id = payload.try_into().map_err(|_| Malformed("an id has 8 bytes"))?;
                    seen.id = u64::from_le_bytes(id);
                }
                tag::KIND => seen.kind = code::kind(number(payload)?),
                tag::STATE => seen.state = code::state(number(payload)?),
                tag::STARTED => seen.started = time(payload)?,
                tag::SUBJECT => seen.session = one_text(payload, 1)?,
                tag::FLOW => seen.flow = Some(flow(payload)?),
                tag::AUTHORITY => seen.host = one_text(payload, 1)?,
                tag::VERDICT => seen.verdict(payload)?,
                tag::REQUEST => seen.digests[0] = digest(payload, 6)?,
                tag::RESPONSE => seen.digests[1] = digest(payload, 4)?,
                tag::FAILURE => seen.failure_code = one_text(payload, 2)?,
                tag::QUESTION => seen.question = one_text(payload, 1)?,
                tag::LOSS => seen.loss = Some(loss(payload)?),
                tag::TIMES => seen.times = number(payload)?,
                _ => {}
            }
        }
        Ok(seen)
    }

    fn verdict(&mut self, payload: &'b [u8]) -> Result<(), Malformed> {
        for field in Fields::of(payload) {
            match field? {
                (1, payload) => self.action = code::action(number(payload)?),
                (2, payload) => self.rule = text(payload)?,
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn one_text(payload: &[u8], wanted: u8) -> Result<&str, Malformed> {
    for field in Fields::of(payload) {
        let (tag, payload) = field?;
        if tag == wanted {
            return text(payload);
        }
        if tag > wanted {
            break;
        }
    }
    Ok("")
}

fn flow(payload: &[u8]) -> Result<(&[u8], u64, u64), Malformed> {
    let mut seen: (&[u8], u64, u64) = (&[], 0, 0);
    for field in Fields::of(payload) {
        match field? {
            (2, payload) => seen.0 = payload,
            (8, payload) => seen.1 = number(payload)?,
            (10, payload) => seen.2 = number(payload)?,
            _ => {}
        }
    }
    Ok(seen)
}

fn loss(payload: &[u8]) -> Result<(u64, u32, &str, &str), Malformed> {
    let mut seen = (0, 0, "", "");
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => seen.0 = number(payload)?,
            (2, payload) => {
                seen.1 = u32::try_from(number(payload)?).map_err(|_| Malformed("a window has 32 bits"))?;
            }
            (3, payload) => seen.2 = text(payload)?,
            (4, payload) => seen.3 = text(payload)?,
            _ => {}
        }
    }
    Ok(seen)
}

/// The digest in the body of a head.
fn digest(head: &[u8], body: u8) -> Result<Option<super::Digest>, Malformed> {
    for field in Fields::of(head) {
        let (tag, payload) = field?;
        if tag == body
            && let Some(digest) = body_digest(payload)?
        {
            return Ok(Some(digest));
        }
    }
    Ok(None)
}

/// The digest of a body.
pub(super) fn body_digest(body: &[u8]) -> Result<Option<super::Digest>, Malformed> {
    for field in Fields::of(body) {
        if let (4, digest) = field? {
            return Ok(Some(digest.try_into().map_err(|_| Malformed("a digest has 32 bytes"))?));
        }
    }
    Ok(None)
}
