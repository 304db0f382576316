//! A captured body as a person reads it: content codings undone, and laid out.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::{
    dashboard::{
        read::Body,
        show::{size, visible, visible_lines},
    },
    inspect::indent,
    model::{Captured, HeaderFields, Inspected},
};

/// Text shown of one body; more makes browsers slow and helps nobody.
const MAX_TEXT: usize = 256 * 1024;
/// Bytes shown of a body that is not text.
const MAX_HEX: usize = 512;
/// How a body can be shown.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Json(String),
    Text(String),
    Hex(String),
}

fn form(content_type: &str, bytes: &[u8]) -> Form {
    let Some(text) = text_of(bytes) else {
        return Form::Hex(hex(bytes.get(..MAX_HEX).unwrap_or(bytes)));
    };
    let first = text.trim_start().as_bytes().first().copied();
    let json_type = content_type.contains("json") && !content_type.contains("ndjson");
    let cut = cut(text);
    if matches!(first, Some(b'{' | b'[')) && (json_type || content_type.is_empty()) {
        return Form::Json(indent(cut));
    }
    Form::Text(cut.to_owned())
}

/// The text of `bytes`, without a character that the capture cut in half; `None` for what is not
/// UTF-8 or holds NUL.
fn text_of(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(bytes.get(..e.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

/// Offset, sixteen bytes in hex, and the printable ones.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{:06x}  ", row * 16);
        for at in 0..16 {
            let _ = match chunk.get(at) {
                Some(byte) => write!(out, "{byte:02x} "),
                None => write!(out, "   "),
            };
        }
        out.push(' ');
        out.extend(chunk.iter().map(
            |b| {
                if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' }
            },
        ));
        out.push('\n');
    }
    out
}

fn header<'a>(headers: &'a HeaderFields, name: &str) -> &'a str {
    headers.get(name).unwrap_or_default()
}

/// A body with what there is to say about it; `None` where it was not asked for.
#[must_use]
pub(super) fn body(headers: &HeaderFields, captured: &Captured, shown: Option<&Body>, open: bool) -> Markup {
    let content_type = header(headers, "content-type").to_ascii_lowercase();
    html! {
        div.body-head {
            h3 { "Body" }
            span.dim { (size(captured.total)) @if !content_type.is_empty() { " · " (visible_lines(&content_type)) } }
        }
        @if captured.total == 0 {
            p.dim { @if open { "Nothing so far." } @else { "No body." } }
        } @else if let Some(Body { raw, opened }) = shown {
            @if raw.is_empty() {
                p.dim { "Not captured." }
            } @else {
                @if captured.truncated {
                    p.note { "Captured the first " (size(raw.len() as u64)) " of " (size(captured.total)) "." }
                }
                @if let Some(opened) = opened {
                    (decoded(&opened.inspected))
                    @if opened.inspected.decoded != Some(0) { (laid_out(&content_type, &opened.bytes)) }
                    details {
                        summary { "As it was sent" }
                        (hexadecimal(raw, ""))
                    }
                } @else {
                    (laid_out(&content_type, raw))
                }
            }
        } @else {
            p.dim { "Not shown." }
        }
    }
}

/// How far the content coding could be undone.
fn decoded(inspected: &Inspected) -> Markup {
    let (coding, decoded) = (&inspected.encoding, inspected.decoded.unwrap_or_default());
    html! {
        @if let Some(fault) = &inspected.fault {
            p.note { "Sent as " code { (visible(coding)) } ": " (visible(fault)) ". " (size(decoded)) " could be read." }
        } @else if inspected.truncated {
            p.note { "Decoded from " code { (visible(coding)) } ", the first " (size(decoded)) "." }
        } @else {
            p.dim { "Decoded from " code { (visible(coding)) } ": " (size(decoded)) "." }
        }
    }
}

/// Bytes as text where they are.
fn laid_out(content_type: &str, bytes: &[u8]) -> Markup {
    match form(content_type, bytes) {
        Form::Json(text) | Form::Text(text) => html! {
            @if bytes.len() > MAX_TEXT { p.note { "Showing the first " (size(MAX_TEXT as u64)) "." } }
            pre.body tabindex="0" { (visible_lines(&text)) }
        },
        Form::Hex(_) => hexadecimal(bytes, "Not text"),
    }
}

/// The beginning in hexadecimal, and what to say of it.
fn hexadecimal(bytes: &[u8], what: &str) -> Markup {
    let more = if bytes.len() > MAX_HEX { format!("the first {MAX_HEX} bytes.") } else { String::new() };
    let separator = if what.is_empty() || more.is_empty() { "" } else { ": " };
    let end = if more.is_empty() && !what.is_empty() { "." } else { "" };
    html! {
        p.note { (what) (separator) (more) (end) }
        pre.body.hex tabindex="0" { (hex(bytes.get(..MAX_HEX).unwrap_or(bytes))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Opened;

    #[test]
    fn forms() {
        let json = |s: &str| Form::Json(s.to_owned());
        let text = |s: &str| Form::Text(s.to_owned());
        assert_eq!(form("application/json", b"[1]"), json("[\n  1\n]"));
        assert_eq!(form("", b"{}"), json("{}"));
        assert_eq!(form("text/event-stream", b"data: {}"), text("data: {}"));
        assert_eq!(form("text/plain", "ü".as_bytes()), text("ü"));
        assert_eq!(form("text/plain", &"aü".as_bytes()[..2]), text("a"), "cut in half");
        assert!(matches!(form("", b"a\0b"), Form::Hex(_)), "NUL");
        assert!(matches!(form("text/plain", b"\xff\xfe"), Form::Hex(_)), "not UTF-8");
        assert_eq!(hex(b"GET /\x01"), format!("000000  47 45 54 20 2f 01 {} GET /.\n", "   ".repeat(10)));
    }

    #[test]
    fn what_was_coded_is_shown_decoded_with_how_far_that_went() {
        let headers = HeaderFields::from(vec![("content-encoding", "gzip")]);
        let captured = Captured { total: 30, truncated: false, ..Captured::default() };
        let page = |truncated, fault: Option<&str>| {
            let inspected = Inspected {
                decoded: Some(5),
                truncated,
                encoding: "gzip".into(),
                fault: fault.map(ToOwned::to_owned),
                ..Inspected::default()
            };
            let opened = Opened { bytes: b"<hi> ".to_vec(), inspected };
            let shown = Body { raw: vec![0x1f, 0x8b].into(), opened: Some(opened) };
            body(&headers, &captured, Some(&shown), false).into_string()
        };
        let whole = page(false, None);
        assert!(
            whole.contains("&lt;hi&gt;") && whole.contains("Decoded from <code>gzip</code>: 5 B."),
            "{whole}"
        );
        assert!(whole.contains("1f 8b"), "{whole}");
        assert!(page(true, None).contains("the first 5 B."));
        assert!(
            page(true, Some("gzip data is corrupt")).contains("gzip data is corrupt. 5 B could be read.")
        );
    }
}
