//! Texts with wildcards.

use super::lex::Character;
use crate::words::Run;

/// Longest pattern, in bytes; a longer one matches nothing.
const PATTERN_CAP: usize = 1024;

/// A text to look for: `*` stands for any run of bytes and `?` for any one, the rest for itself. The case of
/// ASCII letters does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Unit>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Lower case.
    Byte(u8),
    One,
    Run,
}

impl Pattern {
    /// With `*` or `?` a pattern of the whole text, else a part of it: as flags and form fields take it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let whole = Self::whole(text);
        if whole.is_literal() { Self::part(text) } else { whole }
    }

    /// A pattern of the whole text.
    #[must_use]
    pub fn whole(text: &str) -> Self {
        Self::of(text.chars().map(|is| Character { at: 0, is, literal: false }))
    }

    /// Exactly this text.
    #[must_use]
    pub fn exactly(text: &str) -> Self {
        Self::of(text.chars().map(|is| Character { at: 0, is, literal: true }))
    }

    /// Any text that this is a part of.
    #[must_use]
    pub fn part(text: &str) -> Self {
        let mut units = vec![Unit::Run];
        units.extend(Self::exactly(text).0);
        units.push(Unit::Run);
        Self(units)
    }

    pub(super) fn of(characters: impl IntoIterator<Item = Character>) -> Self {
        let mut units = Vec::new();
        for Character { is, literal, .. } in characters {
            match is {
                '*' if !literal => {
                    // Runs of them are one.
                    if units.last() != Some(&Unit::Run) {
                        units.push(Unit::Run);
                    }
                }
                '?' if !literal => units.push(Unit::One),
                _ => {
                    let mut bytes = [0; 4];
                    let encoded = is.to_ascii_lowercase().encode_utf8(&mut bytes);
                    units.extend(encoded.bytes().map(Unit::Byte));
                }
            }
        }
        Self(units)
    }

    /// Whether it has no wildcard.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.0.iter().all(|unit| matches!(unit, Unit::Byte(_)))
    }

    /// Whether it is `*`, which any text matches.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == [Unit::Run]
    }

    /// What a text that matches begins with, in lower case; the whole text where there is no wildcard.
    #[must_use]
    pub fn prefix(&self) -> Vec<u8> {
        self.0.iter().map_while(|unit| unit.byte()).collect()
    }

    /// What a text that matches ends with, in lower case, last byte first.
    #[must_use]
    pub fn suffix_reversed(&self) -> Vec<u8> {
        self.0.iter().rev().map_while(|unit| unit.byte()).collect()
    }

    /// What is in every text that matches, between the wildcards.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let (mut runs, mut begun) = (Vec::new(), false);
        for units in self.0.split(|unit| unit.byte().is_none()) {
            let bytes: Vec<u8> = units.iter().filter_map(|unit| unit.byte()).collect();
            runs.push(Run { bytes, open: (begun, true) });
            begun = true;
        }
        if let Some(last) = runs.last_mut() {
            last.open.1 = false;
        }
        runs
    }

    /// Whether `text` matches. Costs the product of both lengths at most: it goes back to the last `*` only.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// The same of bytes.
    #[must_use]
    pub fn matches_bytes(&self, text: &[u8]) -> bool {
        let pattern = &self.0;
        if pattern.len() > PATTERN_CAP {
            return false;
        }
        let (mut p, mut t) = (0, 0);
        let mut run: Option<(usize, usize)> = None;
        while let Some(byte) = text.get(t) {
            match pattern.get(p) {
                Some(Unit::Run) => {
                    run = Some((p, t));
                    p += 1;
                }
                Some(unit) if unit.is(*byte) => {
                    p += 1;
                    t += 1;
                }
                Some(_) | None => match run {
                    Some((at, from)) => {
                        run = Some((at, from + 1));
                        p = at + 1;
                        t = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.get(p..).unwrap_or_default().iter().all(|unit| *unit == Unit::Run)
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl Unit {
    fn byte(self) -> Option<u8> {
        match self {
            Self::Byte(byte) => Some(byte),
            Self::One | Self::Run => None,
        }
    }

    fn is(self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => wanted == byte.to_ascii_lowercase(),
            Self::One => true,
            Self::Run => false,
        }
    }
}
