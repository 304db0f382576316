//! What of a body was seen: the facts by which a record, and a policy, know how far inspection went.

use super::decode::{Codings, Decoded, Limits, UnsupportedCoding, decode};
use crate::model::{Captured, HeaderFields, Inspected};

/// A captured body, decoded, with what that says of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The decoded prefix; as captured where the coding is not known.
    pub bytes: Vec<u8>,
    pub inspected: Inspected,
}

/// The content codings of a body, from the headers of its record.
///
/// # Errors
/// [`UnsupportedCoding`].
pub fn recorded(headers: &HeaderFields) -> Result<Codings, UnsupportedCoding> {
    let named = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    Codings::parse(named.map(|(_, value)| value.as_bytes()))
}

/// What is known of a body without decoding it, at the price of two numbers: `None` where all of it was kept
/// as any client reads it. A coding is undone when somebody looks, with [`open`].
#[must_use]
pub fn glance(captured: &Captured, codings: &Result<Codings, UnsupportedCoding>) -> Option<Inspected> {
    let kept = captured.bytes.len() as u64;
    let (encoding, fault) = match codings {
        Ok(codings) if codings.is_identity() && !captured.truncated => return None,
        Ok(codings) => (codings.to_string(), None),
        Err(why) => ("unknown".to_owned(), Some(why.to_string())),
    };
    let truncated = captured.truncated || (fault.is_some() && kept > 0);
    Some(Inspected { captured: kept, total: captured.total, decoded: None, truncated, encoding, fault })
}

/// Decodes a captured prefix and says what was seen.
#[must_use]
pub fn open(captured: &Captured, codings: &Result<Codings, UnsupportedCoding>, limits: Limits) -> Opened {
    let of = |decoded: Decoded, encoding: String, unknown: Option<String>| {
        let fault = unknown.or_else(|| decoded.faults.first().map(ToString::to_string));
        let inspected = Inspected {
            captured: captured.bytes.len() as u64,
            total: captured.total,
            decoded: Some(decoded.bytes.len() as u64),
            truncated: captured.truncated || decoded.truncated,
            encoding,
            fault,
        };
        Opened { bytes: decoded.bytes, inspected }
    };
    match codings {
        Ok(codings) => of(decode(codings, &captured.bytes, limits), codings.to_string(), None),
        Err(why) => {
            let mut opaque = decode(&Codings::default(), &captured.bytes, limits);
            // Bytes that cannot be read are bytes that were not seen.
            opaque.truncated |= !captured.bytes.is_empty();
            of(opaque, "unknown".to_owned(), Some(why.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &'static [u8], total: u64) -> Captured {
        Captured { total, truncated: total > bytes.len() as u64, bytes: bytes.into() }
    }

    #[test]
    fn says_what_was_seen() {
        let plain = Ok(Codings::default());
        let unknown = Codings::parse([b"snappy".as_slice()]);
        let gzip = Codings::parse([b"gzip".as_slice()]);
        // name, body, codings, cap: decoded, truncated, whole
        let rows = [
            ("all of it", captured(b"hello", 5), &plain, 100, 5, false, true),
            ("a prefix", captured(b"hello", 50), &plain, 100, 5, true, false),
            ("capped", captured(b"hello", 5), &plain, 4, 4, true, false),
            ("nothing", captured(b"", 0), &gzip, 4, 0, false, true),
            ("not its coding", captured(b"hello", 5), &gzip, 100, 0, true, false),
            ("a coding nobody knows", captured(b"hello", 5), &unknown, 100, 5, true, false),
            ("the same without a body", captured(b"", 0), &unknown, 100, 0, false, false),
        ];
        for (name, body, codings, cap, decoded, truncated, whole) in rows {
            let opened = open(&body, codings, Limits::of(cap));
            let seen = &opened.inspected;
            assert_eq!(
                (seen.decoded, seen.truncated, seen.is_whole()),
                (Some(decoded), truncated, whole),
                "{name}"
            );
            assert_eq!(opened.bytes.len() as u64, decoded, "{name}");
            assert_eq!((seen.captured, seen.total), (body.bytes.len() as u64, body.total), "{name}");
        }
    }
    #[test]
    fn a_glance_says_what_costs_nothing() {
        let plain = Ok(Codings::default());
        let (gzip, unknown) = (Codings::parse([b"gzip".as_slice()]), Codings::parse([b"snappy".as_slice()]));
        assert_eq!(glance(&captured(b"hello", 5), &plain), None);
        let seen = |body, codings: &_| glance(&body, codings).unwrap();
        let cut = seen(captured(b"hello", 50), &plain);
        assert_eq!((cut.truncated, cut.encoding.as_str(), cut.total), (true, "identity", 50));
        let coded = seen(captured(b"hello", 5), &gzip);
        assert_eq!((coded.truncated, coded.encoding.as_str(), coded.decoded), (false, "gzip", None));
        let opaque = seen(captured(b"hello", 5), &unknown);
        assert!(opaque.truncated && opaque.fault.is_some_and(|fault| fault.contains("snappy")));
    }
}
