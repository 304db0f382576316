//! The fields, and what their values may be.

use super::{
    Bounds, FactTest, Pattern, Sort, Test,
    error::nearest,
    lex::{Character, plain},
    number, time,
};
use crate::model::{Action, Kind, State, Timestamp};

/// What stands before the colon.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Texts(fn(Pattern) -> Test),
    /// What is expected; how one value is read.
    Numbers(fn(Bounds) -> Test, &'static str, fn(&str) -> Option<Bounds>),
    Verdict,
    Kind,
    State,
    Since,
    Until,
    Fact(String),
    Words,
    Sort,
}

/// Facts that go by their own name.
pub(super) const FACTS: [&str; 4] = ["pii", "model", "tool", "cost"];

/// Names and fields.
const FIELDS: [(&str, Field); 26] = [
    ("host", Field::Texts(Test::Host)),
    ("session", Field::Texts(Test::Session)),
    ("agent", Field::Texts(Test::Agent)),
    ("exe", Field::Texts(Test::Exe)),
    ("pid", Field::Numbers(Test::Pid, "a number such as 4242, or >1000", counts)),
    ("verdict", Field::Verdict),
    ("flag", Field::Texts(Test::Flag)),
    (
        "status",
        Field::Numbers(Test::Status, "a status such as 500, 5xx, >=400 or 400..499", number::statuses),
    ),
    ("method", Field::Texts(Test::Method)),
    ("kind", Field::Kind),
    ("state", Field::State),
    ("rule", Field::Texts(Test::Rule)),
    ("protocol", Field::Texts(Test::Protocol)),
    ("code", Field::Texts(Test::Code)),
    ("id", Field::Numbers(Test::Id, "the number of a record, or a range such as 100..200", counts)),
    ("parent", Field::Numbers(Test::Parent, "the number of a connection's record", counts)),
    ("since", Field::Since),
    ("until", Field::Until),
    ("duration", Field::Numbers(Test::Duration, "a length of time such as >2s or <500ms", durations)),
    ("bytes", Field::Numbers(Test::Bytes, "an amount such as >10k or >1MiB", amounts)),
    ("path", Field::Texts(Test::Path)),
    ("url", Field::Texts(Test::Url)),
    ("text", Field::Words),
    ("sort", Field::Sort),
    // As more people say.
    ("action", Field::Verdict),
    ("size", Field::Numbers(Test::Bytes, "an amount such as >10k or >1MiB", amounts)),
];

fn counts(text: &str) -> Option<Bounds> {
    Bounds::parse(text, number::count)
}

fn durations(text: &str) -> Option<Bounds> {
    Bounds::parse(text, number::duration)
}

fn amounts(text: &str) -> Option<Bounds> {
    Bounds::parse(text, number::bytes)
}

/// Every name of a field, but those of facts that have none of their own.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(name, _)| *name).chain(FACTS)
}

/// What is wrong with a value, and what would be right.
pub(super) type Wrong = (String, String);

impl Field {
    /// The field of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if let Some(fact) = name.strip_prefix("fact.").or(FACTS.contains(&name.as_str()).then_some(&name)) {
            return Some(Self::Fact(fact.to_owned())).filter(|_| !fact.is_empty());
        }
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone())
    }

    /// What to say of a name that is none.
    pub(super) fn hint(name: &str) -> String {
        match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}:`?"),
            None => format!(
                "fields are {} and fact.NAME; to look for the text itself, put it in quotes",
                names().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// The condition that one value is; `None` of what is none ([`Field::Sort`], [`Field::Words`]).
    pub(super) fn test(&self, value: &[Character], now: Timestamp) -> Result<Option<Test>, Wrong> {
        let text = plain(value);
        let expected =
            |what: &str| (format!("`{text}` is not what can stand here"), format!("expected {what}"));
        Ok(Some(match self {
            Self::Texts(test) => test(Pattern::of(value.iter().copied())),
            Self::Numbers(test, what, read) => test(read(&text).ok_or_else(|| expected(what))?),
            Self::Verdict => Test::Verdict(one_of(
                &text,
                [Action::Allow, Action::Deny, Action::Passthrough],
                Action::as_str,
            )?),
            Self::Kind => Test::Kind(one_of(
                &text,
                [Kind::Exchange, Kind::Flow, Kind::Dns, Kind::Kernel, Kind::Guard, Kind::Control],
                Kind::as_str,
            )?),
            Self::State => Test::State(one_of(
                &text,
                [State::Open, State::Done, State::Refused, State::Failed, State::Cancelled],
                State::as_str,
            )?),
            Self::Since | Self::Until => {
                let time = time::parse(&text, now).ok_or_else(|| expected(time::EXPECTED))?;
                Test::Started(if matches!(self, Self::Since) {
                    Bounds::from(time.0)
                } else {
                    Bounds::below(time.0)
                })
            }
            Self::Fact(name) => Test::Fact(
                fact(name, value, &text)
                    .ok_or_else(|| expected("a text, or a comparison such as >0.5 with up to 6 decimals"))?,
            ),
            Self::Words | Self::Sort => return Ok(None),
        }))
    }
}

/// A number is compared, anything else is a pattern; what is both is either.
fn fact(name: &str, value: &[Character], text: &str) -> Option<FactTest> {
    let compares = value.first().is_some_and(|first| !first.literal && matches!(first.is, '<' | '>' | '='));
    let number = Bounds::parse(text, |text| if text.is_empty() { None } else { number::micros(text) });
    let pattern = (!compares).then(|| Pattern::of(value.iter().copied()));
    let number = match &pattern {
        // Whatever it says, it is there.
        Some(pattern) if pattern.is_any() => Some(Bounds { low: i128::MIN, high: i128::MAX }),
        Some(_) | None => number,
    };
    (pattern.is_some() || number.is_some()).then(|| FactTest { name: name.to_owned(), text: pattern, number })
}

/// The order of a `sort:`.
pub(super) fn sort(word: &str) -> Result<Sort, Wrong> {
    one_of(word, [Sort::Newest, Sort::Oldest, Sort::Duration, Sort::Bytes], Sort::as_str)
}

fn one_of<T: Copy, const N: usize>(text: &str, all: [T; N], name: fn(T) -> &'static str) -> Result<T, Wrong> {
    if let Some(found) = all.into_iter().find(|one| name(*one).eq_ignore_ascii_case(text)) {
        return Ok(found);
    }
    let words = all.map(name);
    let hint = match nearest(text, words) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected {}", words.join(", ")),
    };
    Err((format!("`{text}` is not what can stand here"), hint))
}
