//! Parts of an address: what patterns of paths and URLs have of words.
//!
//! A pattern matches bytes and an index has words, so a part is a run of ASCII letters and digits of the
//! pattern. In whatever matches, it stands within one word, and where the pattern has something else beside
//! it, that is where the word begins or ends. What a word is otherwise (see [`scan`](super)) makes letters and
//! digits of an address be in no word; the scanner tells, and the index knows such addresses.

use super::scan::WORD;

/// How a word that is looked for lies in one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Whole,
    Begins,
    Ends,
    Within,
}

impl Reach {
    /// Whether `word` lies so in `found`.
    pub(crate) fn holds(self, word: &[u8], found: &[u8]) -> bool {
        match self {
            Self::Whole => found == word,
            Self::Begins => found.starts_with(word),
            Self::Ends => found.ends_with(word),
            Self::Within => found.windows(word.len().max(1)).any(|part| part == word),
        }
    }
}

/// A run of bytes that a text has, in lower case where they are ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) bytes: Vec<u8>,
    /// Whether something else may come before it, and behind it.
    pub(crate) open: (bool, bool),
}

/// Fewer bytes are part of very many words.
const LEAST: usize = 3;
/// Parts that are looked up.
const PARTS: usize = 8;

/// Parts of words that an address must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Vec<(Box<[u8]>, Reach)>);

impl Address {
    /// Of the target of a request, which has these runs. `None`: nothing that could be looked up.
    pub(crate) fn of_target(runs: &[Run]) -> Option<Self> {
        Self::of(runs, |_| true)
    }

    /// Of a URL.
    pub(crate) fn of_url(runs: &[Run]) -> Option<Self> {
        // An index knows no port.
        Self::of(runs, |part| part.first().is_some_and(|first| !first.is_ascii_digit()))
    }

    fn of(runs: &[Run], may: impl Fn(&[u8]) -> bool) -> Option<Self> {
        let mut parts: Vec<_> = runs.iter().flat_map(parts).filter(|(part, _)| may(part)).collect();
        // What is long is rare, and what is whole is found at once.
        parts.sort_by_key(|(part, reach)| {
            (matches!(reach, Reach::Ends | Reach::Within), usize::MAX - part.len())
        });
        parts.dedup();
        parts.truncate(PARTS);
        Some(Self(parts)).filter(|address| !address.0.is_empty())
    }

    /// Its parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&[u8], Reach)> {
        self.0.iter().map(|(part, reach)| (&**part, *reach))
    }

    /// Whether all words there are have to be looked at.
    pub(crate) fn is_dear(&self) -> bool {
        self.0.iter().any(|(_, reach)| matches!(reach, Reach::Ends | Reach::Within))
    }
}

/// The parts of a run.
fn parts(run: &Run) -> Vec<(Box<[u8]>, Reach)> {
    let mut found = Vec::new();
    let bytes = run.bytes.as_slice();
    let mut at = 0;
    while let Some(start) = bytes.get(at..).and_then(|rest| rest.iter().position(u8::is_ascii_alphanumeric)) {
        let start = at + start;
        let rest = bytes.get(start..).unwrap_or_default();
        let end = start + rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        // What is not ASCII may be a letter, and may be none.
        let ends = |neighbour: Option<&u8>, open: bool| neighbour.map_or(!open, u8::is_ascii);
        let begins_here = ends(start.checked_sub(1).and_then(|before| bytes.get(before)), run.open.0);
        let ends_here = ends(bytes.get(end), run.open.1);
        let reach = match (begins_here, ends_here) {
            (true, true) => Reach::Whole,
            (true, false) => Reach::Begins,
            (false, true) => Reach::Ends,
            (false, false) => Reach::Within,
        };
        let part = bytes.get(start..end).unwrap_or_default();
        let enough = if begins_here { 1 } else { LEAST };
        if (enough..=WORD).contains(&part.len()) {
            found.push((part.into(), reach));
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Pattern;

    #[test]
    fn parts_of_patterns() {
        use Reach::{Begins, Ends, Whole, Within};
        type Row<'r> = (&'r str, &'r [(&'r str, Reach)]);
        let rows: [Row<'_>; 14] = [
            ("*ffff*", &[("ffff", Within)]),
            ("/v1/Messages/*", &[("messages", Whole), ("v1", Whole)]),
            ("*/v1/mess*", &[("mess", Begins), ("v1", Whole)]),
            ("*.json", &[("json", Whole)]),
            ("*on?name", &[("name", Ends)]),
            ("*abc/def*", &[("def", Begins), ("abc", Ends)]),
            ("abc", &[("abc", Whole)]),
            ("*", &[]),
            ("*ab*", &[]),
            ("/a*", &[("a", Begins)]),
            ("*für*", &[]),
            ("*/fürst/*", &[("f", Begins), ("rst", Ends)]),
            ("*?trace=7*", &[("trace", Ends), ("7", Begins)]),
            ("/a/a", &[("a", Whole)]),
        ];
        for (pattern, expect) in rows {
            let runs = Pattern::whole(pattern).runs();
            let found = Address::of_target(&runs);
            let mut found: Vec<_> = found
                .iter()
                .flat_map(Address::parts)
                .map(|(part, reach)| (str::from_utf8(part).unwrap(), reach))
                .collect();
            let mut expect = expect.to_vec();
            found.sort_by_key(|part| part.0);
            expect.sort_by_key(|part| part.0);
            assert_eq!(found, expect, "{pattern}");
        }
        let url = |pattern| Address::of_url(&Pattern::whole(pattern).runs()).map(|found| found.0.len());
        assert_eq!((url("*:8443/*"), url("https://*:8443/v1/*")), (None, Some(2)));
    }

    #[test]
    fn reaches_hold() {
        for (reach, expect) in [
            (Reach::Whole, [true, false, false, false]),
            (Reach::Begins, [true, true, false, false]),
            (Reach::Ends, [true, false, true, false]),
            (Reach::Within, [true, true, true, true]),
        ] {
            let held = ["abc", "abcd", "zabc", "zabcd"].map(|found| reach.holds(b"abc", found.as_bytes()));
            assert_eq!(held, expect, "{reach:?}");
            assert!(!reach.holds(b"abc", b"ab"));
        }
    }
}
