//! What is looked for: words that stand one after the other.

use super::scan::{self, Form, Token};

/// Words of a needle.
const MOST_WORDS: usize = 64;

/// A word, or words that follow each other with nothing but separators between them: `main.rs`, a phrase.
/// With a `*` at its end the last may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    words: Vec<Box<[u8]>>,
    prefix: bool,
}

/// There is nothing to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNeedle {
    #[error("there is no letter or digit in it")]
    NoWord,
    #[error("it has more than {MOST_WORDS} words")]
    TooLong,
}

impl NoNeedle {
    /// Words that a needle has at most.
    pub const MOST: usize = MOST_WORDS;
}

impl Needle {
    /// The words of `text`.
    ///
    /// # Errors
    /// Where it has none, or too many.
    pub fn parse(text: &str) -> Result<Self, NoNeedle> {
        let mut found: Vec<Box<[u8]>> = Vec::new();
        let bare = text.strip_suffix('*');
        let prefix = bare.is_some_and(|bare| bare.ends_with(char::is_alphanumeric));
        scan::each(bare.unwrap_or(text).as_bytes(), Form::Plain, &mut |token| match token {
            Token::Word(word) if found.len() <= MOST_WORDS => found.push(word.into()),
            Token::Word(_) | Token::Also(_) | Token::Gap | Token::Cut => {}
        });
        match found.len() {
            0 => Err(NoNeedle::NoWord),
            1..=MOST_WORDS => Ok(Self { words: found, prefix }),
            _ => Err(NoNeedle::TooLong),
        }
    }

    /// The words of `words`, one after the other; the last may go on where it is `open`.
    ///
    /// # Errors
    /// Where they have none, or too many.
    pub fn of<'w>(words: impl IntoIterator<Item = &'w str>, open: bool) -> Result<Self, NoNeedle> {
        let words: Vec<_> = words.into_iter().collect();
        Self::parse(&words.join(" ")).map(|needle| Self { prefix: open, ..needle })
    }

    /// Its words, each with whether it may go on.
    pub(crate) fn words(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let last = self.words.len() - 1;
        self.words.iter().enumerate().map(move |(at, word)| (&**word, self.prefix && at == last))
    }

    /// At which of its words this one may stand.
    fn places(&self, found: &[u8]) -> u64 {
        self.words().enumerate().fold(0, |places, (at, (word, open))| {
            let same = if open { found.starts_with(word) } else { found == word };
            places | u64::from(same) << at
        })
    }
}

/// How far each of some needles has been found.
#[derive(Debug)]
pub(crate) struct Matcher<'n> {
    runs: Vec<Run<'n>>,
    missing: usize,
}

#[derive(Debug)]
struct Run<'n> {
    needle: &'n Needle,
    /// A bit for each of its words that the last word found may be.
    state: u64,
    before: u64,
    found: bool,
}

impl<'n> Matcher<'n> {
    pub(crate) fn new(needles: &'n [Needle]) -> Self {
        let run = |needle| Run { needle, state: 0, before: 0, found: false };
        Self { runs: needles.iter().map(run).collect(), missing: needles.len() }
    }

    /// Which were found.
    pub(crate) fn found(&self) -> Vec<bool> {
        self.runs.iter().map(|run| run.found).collect()
    }

    /// Whether all were found.
    pub(crate) fn is_done(&self) -> bool {
        self.missing == 0
    }

    pub(crate) fn take(&mut self, token: Token<'_>) {
        for run in self.runs.iter_mut().filter(|run| !run.found) {
            match token {
                Token::Word(word) => {
                    run.before = run.state;
                    run.state = (run.before << 1 | 1) & run.needle.places(word);
                }
                Token::Also(word) => run.state |= (run.before << 1 | 1) & run.needle.places(word),
                Token::Gap => (run.state, run.before) = (0, 0),
                Token::Cut => {}
            }
            if run.state >> (run.needle.words.len() - 1) & 1 == 1 {
                run.found = true;
                self.missing -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, form: Form, needles: &[&str], expect: bool) {
        let parsed: Vec<_> = needles.iter().map(|needle| Needle::parse(needle).unwrap()).collect();
        let mut matcher = Matcher::new(&parsed);
        scan::each(text.as_bytes(), form, &mut |token| matcher.take(token));
        assert_eq!(matcher.is_done(), expect, "{needles:?} in {text}");
    }

    #[test]
    fn words_and_phrases_are_found() {
        let text = "Cannot open src/main.rs: permission denied (os error 13)";
        for (needles, expect) in [
            (&["main.rs"][..], true),
            (&["MAIN", "denied"], true),
            (&["permission denied"], true),
            (&["denied permission"], false),
            (&["open main"], false),
            (&["perm*"], true),
            (&["perm"], false),
            (&["src/ma*"], true),
            (&["error", "14"], false),
            (&[], true),
        ] {
            check(text, Form::Plain, needles, expect);
        }
        check("a a a b", Form::Plain, &["a a b"], true);
    }

    #[test]
    fn either_reading_of_an_escape_is_found() {
        let text = r#"{"arguments":"{\"path\":\"a\\new line\"}"}"#;
        for (needle, expect) in [("a new line", true), ("a ew line", true), ("path a", true), ("n ew", false)]
        {
            check(text, Form::Json, &[needle], expect);
        }
    }

    #[test]
    fn a_phrase_does_not_go_on_across_a_gap() {
        let needles = [Needle::parse("a b").unwrap()];
        let mut matcher = Matcher::new(&needles);
        for token in [Token::Word(b"a"), Token::Gap, Token::Word(b"b")] {
            matcher.take(token);
        }
        assert!(!matcher.is_done());
    }

    #[test]
    fn what_has_no_words_is_told() {
        assert_eq!(Needle::parse(" -*- "), Err(NoNeedle::NoWord));
        assert_eq!(Needle::parse(&"a ".repeat(65)), Err(NoNeedle::TooLong));
        assert!(Needle::parse(&"a ".repeat(64)).is_ok());
        assert!(!Needle::parse("a *").unwrap().prefix);
    }
}
