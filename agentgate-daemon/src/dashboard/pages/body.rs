//! A captured body as a person reads it. Bytes are never decoded, only laid out: JSON is re-indented
//! token by token, so what is shown is what was sent.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::{
    dashboard::show::{size, visible_lines},
    model::{Captured, HeaderFields},
};

/// Text shown of one body; more makes browsers slow and helps nobody.
const MAX_TEXT: usize = 256 * 1024;
/// Bytes shown of a body that is not text.
const MAX_HEX: usize = 512;
/// Steps of indentation; deeper nesting stays at this depth, so that hostile JSON cannot make the
/// page quadratic in its size.
const MAX_INDENT: usize = 32;

/// How a body can be shown.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Json(String),
    Text(String),
    Hex(String),
}

fn form(content_type: &str, encoded: bool, bytes: &[u8]) -> Form {
    let text = if encoded { None } else { text_of(bytes) };
    let Some(text) = text else {
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

/// Re-indents JSON without reading it: strings stay as they are, white space between tokens is
/// replaced. Works on the beginning of a document too.
fn indent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut chars = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth.min(MAX_INDENT)).for_each(|_| out.push_str("  "));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.peek().is_some_and(|c| c.is_ascii_whitespace()) {
                    chars.next();
                }
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
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

/// A body with what there is to say about it; `bytes` is the captured prefix, `None` where it was not
/// asked for.
#[must_use]
pub(super) fn body(headers: &HeaderFields, captured: &Captured, bytes: Option<&[u8]>, open: bool) -> Markup {
    let content_type = header(headers, "content-type").to_ascii_lowercase();
    let encoding = header(headers, "content-encoding");
    let encoded = !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity");
    html! {
        div.body-head {
            h3 { "Body" }
            span.dim { (size(captured.total)) @if !content_type.is_empty() { " · " (visible_lines(&content_type)) } }
        }
        @if captured.total == 0 {
            p.dim { @if open { "Nothing so far." } @else { "No body." } }
        } @else if bytes.is_some_and(<[u8]>::is_empty) {
            p.dim { "Not captured." }
        } @else if let Some(bytes) = bytes {
            @let shown = form(&content_type, encoded, bytes);
            @if captured.truncated {
                p.note { "Captured the first " (size(bytes.len() as u64)) " of " (size(captured.total)) "." }
            }
            @match shown {
                Form::Json(text) | Form::Text(text) => {
                    @if bytes.len() > MAX_TEXT { p.note { "Showing the first " (size(MAX_TEXT as u64)) "." } }
                    pre.body tabindex="0" { (visible_lines(&text)) }
                }
                Form::Hex(text) => {
                    p.note {
                        @if encoded { "Encoded as " code { (visible_lines(encoding)) } "; shown as captured, not decoded" }
                        @else { "Not text" }
                        @if bytes.len() > MAX_HEX { ": the first " (MAX_HEX) " bytes." } @else { "." }
                    }
                    pre.body.hex tabindex="0" { (text) }
                }
            }
        } @else {
            p.dim { "Not shown." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_not_changed() {
        let rows = [
            ("{}", "{}"),
            ("[ ]", "[]"),
            (r#"{"b":1.0e5,"a":[1,2]}"#, "{\n  \"b\": 1.0e5,\n  \"a\": [\n    1,\n    2\n  ]\n}"),
            (r#"{"k":"a,{}[]:\" \\"}"#, "{\n  \"k\": \"a,{}[]:\\\" \\\\\"\n}"),
            (r#"{"cut":"in the mid"#, "{\n  \"cut\": \"in the mid"),
            ("}}", "\n}\n}"),
        ];
        for (text, expect) in rows {
            assert_eq!(indent(text), expect, "{text:?}");
        }
        let deep = "[".repeat(50_000);
        assert!(indent(&deep).len() <= deep.len() * (2 + 2 * MAX_INDENT));
    }

    #[test]
    fn forms() {
        let json = |s: &str| Form::Json(s.to_owned());
        let text = |s: &str| Form::Text(s.to_owned());
        assert_eq!(form("application/json", false, b"[1]"), json("[\n  1\n]"));
        assert_eq!(form("", false, b"{}"), json("{}"));
        assert_eq!(form("text/event-stream", false, b"data: {}"), text("data: {}"));
        assert_eq!(form("text/plain", false, "ü".as_bytes()), text("ü"));
        assert_eq!(form("text/plain", false, &"aü".as_bytes()[..2]), text("a"), "cut in half");
        assert!(matches!(form("application/json", true, b"{}"), Form::Hex(_)), "encoded");
        assert!(matches!(form("", false, b"a\0b"), Form::Hex(_)), "NUL");
        assert!(matches!(form("text/plain", false, b"\xff\xfe"), Form::Hex(_)), "not UTF-8");
        assert_eq!(hex(b"GET /\x01"), format!("000000  47 45 54 20 2f 01 {} GET /.\n", "   ".repeat(10)));
    }
}
