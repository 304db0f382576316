//! The three modes of policy.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What happens to a host that no rule and no list names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refused. Also what an empty or broken policy means.
    #[default]
    Enforce,
    /// Allowed and flagged.
    Blocklist,
    /// Nothing is refused; what would have been is flagged.
    Audit,
}

impl Mode {
    /// The word people write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Blocklist => "blocklist",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "blocklist" => Ok(Self::Blocklist),
            "audit" => Ok(Self::Audit),
            other => Err(format!("{other:?} is not a mode: enforce, blocklist or audit")),
        }
    }
}
