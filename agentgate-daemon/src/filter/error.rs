//! A filter that cannot be read.

use std::ops::Range;

/// Where a filter is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {}: {message}{}{hint}", .column, if .hint.is_empty() { "" } else { "; " })]
pub struct FilterError {
    /// Counted from 1, in characters.
    pub column: usize,
    /// The part that is wrong, in characters; 1 at least.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
}

impl FilterError {
    /// A fault in the bytes `at` of `text`.
    pub(super) fn at(
        text: &str,
        at: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let count = |part: Option<&str>| part.map_or(0, |part| part.chars().count());
        Self {
            column: count(text.get(..at.start)) + 1,
            length: count(text.get(at)).max(1),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The filter as it was given, in three: what is before the wrong part, that part, and what is after it. The
    /// wrong part is empty where something is missing at the end.
    #[must_use]
    pub fn parts<'t>(&self, text: &'t str) -> (&'t str, &'t str, &'t str) {
        let place = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
        let start = self.column.saturating_sub(1);
        let (before, rest) = text.split_at(place(start));
        let (wrong, after) = rest.split_at(place(start.saturating_add(self.length)) - before.len());
        (before, wrong, after)
    }

    /// Two lines: the filter as it was given, and marks under what is wrong. Control characters are replaced.
    #[must_use]
    pub fn pointed(&self, text: &str) -> String {
        let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{shown}\n{}{}", " ".repeat(self.column - 1), "^".repeat(self.length))
    }
}

/// The word of `known` that is most like `given`, if one is like it at all.
pub(super) fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let given = given.to_lowercase();
    let close = |word: &str| strsim::damerau_levenshtein(&given, word);
    known
        .into_iter()
        .map(|word| (if word.starts_with(&given) { 1 } else { close(word) }, word))
        .min()
        .filter(|(distance, word)| *distance <= 2 && *distance < word.len())
        .map(|(_, word)| word)
}
