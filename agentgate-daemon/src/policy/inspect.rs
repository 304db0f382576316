//! Requests that cannot be inspected whole: `[inspect]` of the document.

use http::{HeaderMap, header::CONTENT_LENGTH};

use super::{
    decision::Allowed,
    refusal::{refuse, would_block},
};
use crate::model::{Flag, Mode, Refusal, Severity};

/// What is known of a request's body before any of it is there, besides its head.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyFacts<'a> {
    /// Most bytes of it that are looked at.
    pub most: u64,
    /// Why its content coding cannot be undone, where it cannot.
    pub undecodable: Option<&'a str>,
}

/// What of a permitted request's body has to be inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inspection {
    /// What there is room for.
    #[default]
    Any,
    /// All of it: else that is flagged.
    Flagged,
    /// All of it: else the rest does not leave.
    Whole,
}

/// Why a request is not inspected whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uninspected<'a> {
    /// There is more of it than is looked at.
    Truncated,
    /// Its content coding cannot be undone, and why.
    Coding(&'a str),
}

impl Uninspected<'_> {
    /// The refusal.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (code, status, reason) = match self {
            Self::Truncated => {
                ("truncated", 413, "the request is larger than what is inspected of one".to_owned())
            }
            Self::Coding(why) => ("coding", 415, format!("the request cannot be inspected: {why}")),
        };
        let flag = Flag::new("not_inspected", Severity::Medium, reason.clone());
        let remedy = "write `truncated = \"allow\"` under `[inspect]` in policy.toml, or raise \
                      `[capture] request_bytes` in agentgate.toml";
        refuse(format!("inspect:{code}"), reason, status, remedy.to_owned(), flag)
    }

    /// What `audit` says instead.
    #[must_use]
    pub fn would_block(&self) -> Flag {
        would_block(&self.refusal())
    }
}

/// What has to be inspected in this mode, where `deny` says that what is not shall not pass.
pub(super) fn inspection(deny: bool, mode: Mode) -> Inspection {
    match (deny, mode) {
        (false, _) => Inspection::Any,
        (true, Mode::Audit) => Inspection::Flagged,
        (true, Mode::Enforce | Mode::Blocklist) => Inspection::Whole,
    }
}

/// Judges an allowed request by what its head says of its body.
pub(super) fn judge(
    inspection: Inspection,
    mut allowed: Allowed,
    headers: &HeaderMap,
    body: BodyFacts<'_>,
) -> Result<Allowed, Refusal> {
    // A length that is none was refused before, or is not believed: then the bytes are counted.
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let found = match (body.undecodable, declared) {
        (_, Some(0)) => None,
        (_, Some(length)) if length > body.most => Some(Uninspected::Truncated),
        (Some(why), _) => Some(Uninspected::Coding(why)),
        (None, _) => None,
    };
    match (inspection, found) {
        (Inspection::Any, _) | (_, None) => Ok(allowed),
        (Inspection::Flagged, Some(found)) => {
            allowed.flags.push(found.would_block());
            Ok(allowed)
        }
        (Inspection::Whole, Some(found)) => {
            let mut refusal = found.refusal();
            refusal.flags.extend(allowed.flags);
            Err(refusal)
        }
    }
}
