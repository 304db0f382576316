//! What policy says.

use serde::{Deserialize, Serialize};

use super::Flag;

/// The kinds of verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
    Passthrough,
}

impl Action {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Passthrough => "passthrough",
        }
    }
}

/// A verdict with its ground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub action: Action,
    /// What decided: `invariant:<code>`, `deny:<pattern>`, `passthrough:<pattern>`,
    /// `allow:<pattern>`, `cidr:<net>`, `mode:<mode>`, later the id of a `[[rule]]`, or `gate:<code>`
    /// where the gate itself could not go on.
    pub rule: String,
    /// Why, in one sentence for a person.
    pub reason: String,
}

/// A refusal: the verdict, what to flag, and how to ask for access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Always [`Action::Deny`].
    pub verdict: Verdict,
    pub flags: Vec<Flag>,
    /// HTTP status where it can be said in HTTP: 403, or 421 where names do not agree.
    pub status: u16,
    /// What a person would do to allow it, such as `agentctl allow api.example.com`; empty where
    /// nothing can.
    pub remedy: String,
}
