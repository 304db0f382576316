//! What the gate says to the agent in place of an origin.

use std::time::Instant;

use http::Response;
use http_body_util::Either;

use super::ending::Ending;
use crate::{
    forward::ForwardError,
    http::{
        AgentBody,
        head::version_str,
        refusal::{self, Message},
    },
    model::{Flag, Host, ResponseHead, Severity},
};

/// What is needed of a request to answer it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: http::Version,
    pub(super) prefer_400: bool,
    pub(super) clock: Instant,
}

impl Asked {
    /// Microseconds since the request's head was there.
    pub(super) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Our own words.
    pub(super) fn say(&self, host: Option<&Host>, message: &Message<'_>) -> Response<AgentBody> {
        refusal::response(host, self.prefer_400, message).map(Either::Left)
    }

    /// The store does not take records: nothing may leave.
    pub(super) fn unrecorded(&self, host: Option<&Host>, error: &str) -> Response<AgentBody> {
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

    /// The origin could not be reached or refused to be understood.
    pub(super) fn failed(&self, host: &Host, ending: &Ending, error: &ForwardError) -> Response<AgentBody> {
        let (rule, remedy) = if let ForwardError::Address(refusal) = error {
            (refusal.verdict.rule.clone(), refusal.remedy.clone())
        } else {
            (format!("gate:{}", error.code()), String::new())
        };
        let reason = error.to_string();
        let record = ending.with(|parts| {
            parts.failure = Some(error.failure());
            parts.edit(|record| {
                if let ForwardError::Address(refusal) = error {
                    record.verdict = Some(refusal.verdict.clone());
                    record.flags.extend(refusal.flags.iter().cloned());
                }
                if let ForwardError::Certificate(_) = error {
                    record.flags.push(Flag::new(error.code(), Severity::High, reason.clone()));
                }
                record.response = Some(ResponseHead {
                    status: error.status(),
                    version: version_str(self.version).to_owned(),
                    first_byte_us: self.elapsed_us(),
                    ..ResponseHead::default()
                });
            });
            parts.id()
        });
        self.say(
            Some(host),
            &Message {
                status: error.status(),
                reason: &reason,
                rule: &rule,
                remedy: &remedy,
                retry: error.is_passing(),
                record,
            },
        )
    }
}
