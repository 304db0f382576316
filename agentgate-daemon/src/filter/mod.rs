//! The language that records are looked for in: `host:*.github.com verdict:deny since:2h`.
//!
//! The command line, the API, the dashboard, the live feed and exports all take it. Pure: a text becomes a
//! [`Filter`], which says of a record whether it matches. `store` finds the same records by its index.
//! `docs/queries.md` is the reference for people.
//!
//! ```text
//! filter = all (OR all)*        all = (['-'] one)*        one = '(' filter ')' | field ':' values | text
//! ```

mod error;
mod field;
mod help;
mod lex;
mod matches;
mod number;
mod parse;
mod pattern;
pub mod shorthand;
mod text;
mod time;

#[cfg(test)]
pub(crate) mod tests;

pub use error::FilterError;
pub use help::{HELP, Help};
pub use matches::{
    agents, amount, codes, duration, fact_field, fact_value, host_of, in_session, session_name,
};
pub use number::Bounds;
pub use pattern::Pattern;

use crate::{
    model::{Action, Kind, Record, State, Timestamp},
    words::Needle,
};

/// Longest filter, in bytes.
pub const LENGTH_CAP: usize = 4096;
/// Most conditions in a filter, each value of a list counted.
pub const TERMS_CAP: usize = 128;
/// Deepest nesting of brackets and negations.
pub const DEPTH_CAP: usize = 16;

/// What records to list, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What must hold of a record.
    pub expression: Expression,
    /// `sort:` of the text, where it has one.
    pub sort: Option<Sort>,
}

/// A condition, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Each of them; of none, everything.
    All(Vec<Expression>),
    /// One of them at least; of none, nothing.
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Is(Test),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// By [`host_of`].
    Host(Pattern),
    /// By its id or its name.
    Session(Pattern),
    /// By the name of the executable's file or the thread's name.
    Agent(Pattern),
    /// By the whole path of the executable.
    Exe(Pattern),
    Pid(Bounds),
    Verdict(Action),
    Flag(Pattern),
    /// By the response's status.
    Status(Bounds),
    Method(Pattern),
    Kind(Kind),
    State(State),
    Rule(Pattern),
    Protocol(Pattern),
    /// By the code of a failure or of a DNS answer.
    Code(Pattern),
    Id(Bounds),
    /// The flow that an exchange ran on.
    Parent(Bounds),
    /// By the time of the beginning, in microseconds since 1970.
    Started(Bounds),
    /// In microseconds; what is open has none.
    Duration(Bounds),
    /// Both ways.
    Bytes(Bounds),
    /// The request's target.
    Path(Pattern),
    /// Scheme, host and target.
    Url(Pattern),
    Fact(FactTest),
    /// Words, in heads and bodies.
    Text(Needle),
}

/// A condition on facts of one name: one of them must meet `text`, or lie within `number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactTest {
    pub name: String,
    pub text: Option<Pattern>,
    /// In millionths.
    pub number: Option<Bounds>,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Highest id first.
    #[default]
    Newest,
    /// Lowest id first.
    Oldest,
    /// Longest first.
    Duration,
    /// Most bytes first.
    Bytes,
}

impl Sort {
    /// The word of the language.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
        }
    }

    /// The order of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Newest, Self::Oldest, Self::Duration, Self::Bytes]
            .into_iter()
            .find(|sort| sort.as_str().eq_ignore_ascii_case(word))
    }
}

impl Default for Expression {
    /// Everything.
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl From<Test> for Expression {
    fn from(test: Test) -> Self {
        Self::Is(test)
    }
}

impl From<Expression> for Filter {
    fn from(expression: Expression) -> Self {
        Self { expression, sort: None }
    }
}

impl Filter {
    /// Reads a filter; spans of time count from `now`. An empty text matches everything.
    ///
    /// # Errors
    /// [`FilterError`], which says where in the text, and what is expected there.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, FilterError> {
        parse::parse(text, now)
    }

    /// Whether the record is one of those that are looked for. Of bodies, what the record itself carries is
    /// looked at.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        self.expression.matches(record, &|needle| text::carried(record, needle))
    }
}

impl Expression {
    /// This and another condition.
    #[must_use]
    pub fn and(self, other: impl Into<Self>) -> Self {
        let other = other.into();
        match self {
            Self::All(mut parts) => {
                parts.push(other);
                Self::All(parts)
            }
            Self::Any(_) | Self::Not(_) | Self::Is(_) => Self::All(vec![self, other]),
        }
    }

    /// Every word or row of words in it.
    pub fn needles<'e>(&'e self, into: &mut Vec<&'e Needle>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.needles(into)),
            Self::Not(part) => part.needles(into),
            Self::Is(Test::Text(needle)) => into.push(needle),
            Self::Is(_) => {}
        }
    }

    /// Whether it holds of the record; `in_text` answers for words, because bodies are elsewhere.
    pub fn matches(&self, record: &Record, in_text: &dyn Fn(&Needle) -> bool) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(record, in_text)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(record, in_text)),
            Self::Not(part) => !part.matches(record, in_text),
            Self::Is(Test::Text(needle)) => in_text(needle),
            Self::Is(test) => test.matches(record),
        }
    }
}
