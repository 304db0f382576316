//! What may reach a terminal.
//!
//! Paths, headers, process names and notes hold what an agent or an origin chose. A terminal obeys
//! control characters in them: it can be made to hide lines, to retitle itself, to answer as if the
//! person had typed. So each of them is shown, not sent.

use std::fmt::Write;

/// Characters that a terminal acts on, or that make text read otherwise than it is: C0, DEL and C1
/// controls, line and paragraph separators, direction controls (UTS 55), invisible joiners and tags.
#[must_use]
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with unsafe characters in the notation of Rust: `\n`, `\u{1b}`. A backslash stays as it is, so
/// this is for reading and cannot be reversed.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if is_unsafe(c) {
            escaped.extend(c.escape_debug());
            // escape_debug leaves some of them as they are.
            if escaped.ends_with(c) {
                escaped.pop();
                escaped.extend(c.escape_unicode());
            }
        } else {
            escaped.push(c);
        }
        escaped
    })
}

/// The same for text of several lines: line ends and tabs stay.
#[must_use]
pub(super) fn escape_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(escape).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// JSON with unsafe characters as `\u` escapes. serde escapes C0 only; outside strings JSON has none of
/// the others, so the meaning stays.
#[must_use]
pub(super) fn escape_json(json: &str) -> String {
    let mut units = [0; 2];
    json.chars().fold(String::with_capacity(json.len()), |mut escaped, c| {
        if is_unsafe(c) && c != '\n' {
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String does not fail.
                let _infallible = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
        escaped
    })
}

/// Colours of the eight that every terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Dim => "2",
        }
    }

    /// `text`, escaped by the caller, in this colour.
    pub(super) fn paint(self, text: &str) -> String {
        format!("\u{1b}[{}m{text}\u{1b}[0m", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_gets_through() {
        let rows = [
            ("plain /path?q=ü漢", "plain /path?q=ü漢"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("a\rb\nc\td", r"a\rb\nc\td"),
            ("\u{7f}\u{202e}cod\u{2066}\u{200d}\u{feff}", r"\u{7f}\u{202e}cod\u{2066}\u{200d}\u{feff}"),
            ("nul\0", r"nul\0"),
            ("\u{e0041}\u{fe0f}\u{2028}", r"\u{e0041}\u{fe0f}\u{2028}"),
            (r"C:\n", r"C:\n"),
        ];
        for (text, expect) in rows {
            assert_eq!(escape(text), expect, "{text:?}");
        }
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert!(!escape(&c.to_string()).chars().any(is_unsafe), "{c:?}");
        }
    }

    #[test]
    fn lines_and_tabs_stay_in_bodies() {
        assert_eq!(escape_lines("a\tb\r\n\u{1b}[2J"), "a\tb\\r\n\\u{1b}[2J");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({ "x": "\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0041}é\n" });
        let safe = escape_json(&value.to_string());
        assert!(!safe.chars().any(is_unsafe), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
