//! What a record may hold of what others chose: cut, and said to be cut, so that no request can make
//! a record that nobody can read any more.

use http::HeaderMap;

use super::redact;
use crate::model::{HeaderFields, Subject};

/// Bytes of all header fields of one head.
const HEADERS: usize = 64 * 1024;
/// Bytes of a request target.
const TARGET: usize = 8 * 1024;
/// Bytes of a path of an executable.
const EXE: usize = 1024;

/// As [`fields`], of a map.
#[must_use]
pub fn headers(headers: &HeaderMap) -> HeaderFields {
    fields(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}

/// Header fields, masked; those beyond 64 KiB in all are left out, and a last field says how many.
#[must_use]
pub fn fields<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> HeaderFields {
    let mut fields = redact::mask_fields(fields);
    let mut room = HEADERS;
    let fitting = fields.iter().take_while(|(name, value)| {
        let size = name.len() + value.len();
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    });
    let count = fitting.count();
    let left_out = fields.len() - count;
    if left_out > 0 {
        fields.truncate(count);
        fields.push("…", &format!("{left_out} more fields are not recorded"));
    }
    fields
}

/// A request target, masked and cut at 8 KiB.
#[must_use]
pub fn target(target: &str) -> String {
    cut(redact::mask_target(target), TARGET)
}

/// A subject with its command line masked and its paths cut.
#[must_use]
pub fn subject(mut subject: Subject) -> Subject {
    subject.cmdline = redact::mask_cmdline(&subject.cmdline);
    subject.exe = subject.exe.map(|exe| cut(exe, EXE));
    for ancestor in &mut subject.ancestors {
        ancestor.exe = cut(std::mem::take(&mut ancestor.exe), EXE);
    }
    subject
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cuts_what_is_too_much_and_says_so() {
        let mut map = HeaderMap::new();
        for _ in 0..40 {
            map.append("x-big", HeaderValue::from_bytes(&[0x80; 4096]).unwrap());
        }
        let kept = headers(&map);
        assert!(kept.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() < HEADERS + 100);
        assert!(kept.iter().last().unwrap().1.contains("more fields"), "{kept:?}");
        let long = target(&"/ü".repeat(10_000));
        assert!(long.len() <= TARGET + 3 && long.ends_with('…'), "{}", long.len());
        let mut small = HeaderMap::new();
        small.insert("accept", HeaderValue::from_static("*/*"));
        assert_eq!(headers(&small), HeaderFields::from(vec![("accept", "*/*")]));
    }
}
