//! Findings worth a look.

use serde::{Deserialize, Serialize};

/// How much a flag matters. Sorts from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
}

impl Severity {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One finding on a flow or exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// Stable snake_case code, such as `host_not_allowlisted`.
    pub code: String,
    pub severity: Severity,
    /// What was seen, in one line, without secrets.
    pub evidence: String,
}

impl Flag {
    /// A flag with its evidence.
    pub fn new(code: &str, severity: Severity, evidence: impl Into<String>) -> Self {
        Self { code: code.to_owned(), severity, evidence: evidence.into() }
    }
}
