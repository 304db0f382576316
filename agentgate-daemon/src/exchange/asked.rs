//! What the gate says to the agent in place of an origin.

use std::time::Instant;

use http::request::Parts;

use super::underway::Underway;
use crate::{
    forward::ForwardError,
    http::{
        head::version_str,
        refusal::{self, Answer, Message},
    },
    model::{Flag, Host, ResponseHead, Severity},
};

/// What is needed of a request to answer it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub version: http::Version,
    prefer_400: bool,
    clock: Instant,
}

impl Asked {
    /// Of a request whose head is just there.
    #[must_use]
    pub fn of(head: &Parts) -> Self {
        Self { version: head.version, prefer_400: refusal::retries_403(&head.headers), clock: Instant::now() }
    }

    /// Microseconds since the request's head was there.
    #[must_use]
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Our own words.
    pub(super) fn say(&self, host: Option<&Host>, message: &Message<'_>) -> Answer {
        refusal::answer(host, self.prefer_400, message)
    }

    /// The store does not take records: nothing may leave.
    pub(super) fn unrecorded(&self, host: Option<&Host>, error: &str) -> Answer {
        tracing::error!(error, "refused: the audit log cannot be written");
        self.say(
            host,
            &Message {
                status: 503,
                reason: "the audit log cannot be written, so nothing may leave",
                rule: "gate:audit_unavailable",
                remedy: "ask the host's administrator to look at `agentctl status`",
                retry: true,
                record: None,
            },
        )
    }
}

impl Underway {
    /// The origin could not be reached or understood: for the record, and for the agent.
    pub fn failed(&self, error: &ForwardError) -> Answer {
        let asked = self.asked();
        let (rule, remedy) = if let ForwardError::Address(refusal) = error {
            (refusal.verdict.rule.clone(), refusal.remedy.clone())
        } else {
            (format!("gate:{}", error.code()), String::new())
        };
        let reason = error.to_string();
        self.fail(error.failure());
        self.edit(|record| {
            if let ForwardError::Address(refusal) = error {
                record.verdict = Some(refusal.verdict.clone());
                record.flags.extend(refusal.flags.iter().cloned());
            }
            if let ForwardError::Certificate(_) = error {
                record.flags.push(Flag::new(error.code(), Severity::High, reason.clone()));
            }
            record.response = Some(ResponseHead {
                status: error.status(),
                version: version_str(asked.version).to_owned(),
                first_byte_us: asked.elapsed_us(),
                ..ResponseHead::default()
            });
        });
        asked.say(
            Some(self.host()),
            &Message {
                status: error.status(),
                reason: &reason,
                rule: &rule,
                remedy: &remedy,
                retry: error.is_passing(),
                record: self.id(),
            },
        )
    }
}
