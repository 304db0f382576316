//! What a parser found in an exchange.

use serde::{Deserialize, Serialize};

/// One finding: the model that was asked, the tool that was called, what it cost. Facts are found by their
/// names, so that a parser can add some of its own without a change of the log's schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Stable, in `snake_case`: `model`, `tool`, `pii`, `cost`. May come more than once in a record.
    pub name: String,
    pub value: FactValue,
}

/// What a fact says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactValue {
    /// A word, such as the name of a model.
    Text(String),
    /// A count, such as tokens.
    Integer(i64),
    /// An amount in millionths, such as micro-dollars.
    Micros(i64),
}

impl Fact {
    /// A fact that is a word.
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: FactValue::Text(value.into()) }
    }

    /// A fact that is a count.
    #[must_use]
    pub fn integer(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), value: FactValue::Integer(value) }
    }

    /// A fact that is an amount, in millionths.
    #[must_use]
    pub fn micros(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), value: FactValue::Micros(value) }
    }
}

impl FactValue {
    /// The number in millionths; `None` of a word.
    #[must_use]
    pub fn in_micros(&self) -> Option<i128> {
        match self {
            Self::Text(_) => None,
            Self::Integer(value) => Some(i128::from(*value) * 1_000_000),
            Self::Micros(value) => Some(i128::from(*value)),
        }
    }
}
