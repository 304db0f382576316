//! Faults in files that people write: where, what is wrong, what would be right.

use std::{fmt, ops::Range};

/// One fault in a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TextError {
    /// The file's name as people know it.
    pub file: String,
    /// Counted from 1; 0 when the fault is the file's as a whole.
    pub line: usize,
    /// Counted from 1, in characters; 0 when the fault is the file's as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right; empty where nothing better than `message` can be said.
    pub hint: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl TextError {
    /// A fault of the whole file.
    pub fn whole(file: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into(), hint: hint.into() }
    }

    /// A fault at byte `offset` of `text`.
    pub fn at(
        file: &str,
        text: &str,
        offset: usize,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (line, column) = position(text, offset);
        Self { file: file.to_owned(), line, column, message: message.into(), hint: hint.into() }
    }

    /// A fault that a TOML deserialiser reported: `message` as serde words it, `span` in bytes.
    #[must_use]
    pub fn from_toml(file: &str, text: &str, message: &str, span: Option<Range<usize>>) -> Self {
        let (message, hint) = reworded(message);
        // An empty span at the very start is how a missing key of the document itself is reported.
        match span {
            Some(span) if span != (0..0) => Self::at(file, text, span.start, message, hint),
            Some(_) | None => Self::whole(file, message, hint),
        }
    }
}

/// Line and column, both from 1, of byte `offset`.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count();
    (before.matches('\n').count() + 1, column + 1)
}

/// serde's wording in the words of people who write files, and a hint.
fn reworded(message: &str) -> (String, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let subject = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    if message.starts_with("unknown field") {
        (format!("unknown key `{subject}`"), suggestion(subject, &known))
    } else if message.starts_with("unknown variant") {
        (format!("`{subject}` is not a value of this key"), suggestion(subject, &known))
    } else if message.starts_with("missing field") {
        (format!("missing key `{subject}`"), String::new())
    } else {
        (message.to_owned(), String::new())
    }
}

/// The likeliest of `known`, or all of them.
fn suggestion(given: &str, known: &[&str]) -> String {
    let given = given.to_lowercase();
    let nearest = known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&given, word), *word))
        .min()
        .filter(|(distance, word)| *distance <= 2 && *distance < word.len());
    match nearest {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None if known.is_empty() => String::new(),
        None => format!("known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters() {
        for (text, offset, expect) in [
            ("", 0, (1, 1)),
            ("ab", 1, (1, 2)),
            ("a\nb", 2, (2, 1)),
            ("ü = x", 5, (1, 5)),
            ("ü", 1, (1, 1)),
            ("a\n", 99, (2, 1)),
        ] {
            assert_eq!(position(text, offset), expect, "{text:?} {offset}");
        }
    }

    #[test]
    fn says_what_would_be_right() {
        let check = |serde: &str, expect: &str| {
            assert_eq!(TextError::from_toml("p.toml", "\nmodes = 1", serde, Some(1..6)).to_string(), expect);
        };
        check(
            "unknown field `modes`, expected one of `version`, `mode`",
            "p.toml:2:1: unknown key `modes`; did you mean `mode`?",
        );
        check(
            "unknown field `rule`, expected `version` or `mode`",
            "p.toml:2:1: unknown key `rule`; known here: version, mode",
        );
        check(
            "unknown variant `enforcing`, expected `enforce` or `audit`",
            "p.toml:2:1: `enforcing` is not a value of this key; known here: enforce, audit",
        );
        check("invalid type: integer", "p.toml:2:1: invalid type: integer");
        let missing = TextError::from_toml("p.toml", "", "missing field `version`", Some(0..0));
        assert_eq!(missing.to_string(), "p.toml: missing key `version`");
    }
}
