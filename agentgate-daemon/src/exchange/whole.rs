//! Requests that have to be seen whole before all of them may leave, where policy says so.

use std::ops::ControlFlow;

use http::{HeaderMap, header::CONTENT_ENCODING};

use super::underway::{Stop, Underway};
use crate::{
    audit::AuditError,
    http::{
        head::version_str,
        refusal::{Answer, Message},
    },
    inspect::{Codings, Decoder, Ended, Limits, UnsupportedCoding},
    model::{Failure, Refusal, ResponseHead},
    policy::{Inspection, Uninspected},
};

/// What of a request's body has to be seen.
#[derive(Debug)]
pub(super) struct Wanted {
    inspection: Inspection,
    codings: Codings,
}

/// The content codings of a head's body.
pub(super) fn codings(headers: &HeaderMap) -> Result<Codings, UnsupportedCoding> {
    Codings::parse(headers.get_all(CONTENT_ENCODING).iter().map(http::HeaderValue::as_bytes))
}

/// Why a body is not seen whole.
#[derive(Debug)]
pub(super) enum Unseen {
    /// There is more of it, as it came or decoded, than is looked at.
    Truncated,
    /// Its coding cannot be undone.
    Coding(String),
}

impl Unseen {
    /// From how decoding came to an end before the body did.
    pub(super) fn of(ended: Ended) -> Self {
        match ended {
            Ended::Faulty(fault) => Self::Coding(fault.to_string()),
            Ended::Whole | Ended::Cut | Ended::Capped => Self::Truncated,
        }
    }
}

impl Wanted {
    pub(super) fn new(inspection: Inspection, codings: Codings) -> Self {
        Self { inspection, codings }
    }

    /// What decodes the body as it passes: only where it has to be seen whole, and is coded.
    pub(super) fn decoder(&self, limit: usize) -> Option<Box<Decoder>> {
        let wanted = self.inspection != Inspection::Any && !self.codings.is_identity();
        wanted.then(|| Box::new(Decoder::new(&self.codings, Limits::of(limit as u64))))
    }
}

impl Underway {
    /// Its request is not seen whole: `Break` where that may not be.
    pub(super) fn unseen(&self, unseen: &Unseen) -> ControlFlow<()> {
        let uninspected = match unseen {
            Unseen::Truncated => Uninspected::Truncated,
            Unseen::Coding(why) => Uninspected::Coding(why),
        };
        match self.wanted().inspection {
            Inspection::Any => ControlFlow::Continue(()),
            Inspection::Flagged => {
                self.flag(vec![uninspected.would_block()]);
                ControlFlow::Continue(())
            }
            Inspection::Whole => {
                self.refuse(uninspected.refusal());
                ControlFlow::Break(())
            }
        }
    }

    /// Its request was broken off because it cannot be seen whole, or not be recorded: for the record, and for
    /// the agent where it has no answer yet.
    pub(super) fn stopped(&self, answered: bool) -> Answer {
        let refusal = match self.stop() {
            Some(Stop::Refused(refusal)) => refusal,
            Some(Stop::Unrecorded(error)) => return self.broken_off(&error, answered),
            None => Uninspected::Truncated.refusal(),
        };
        let Refusal { verdict, flags, status, remedy } = refusal;
        self.fail(Failure {
            blame: "policy".to_owned(),
            code: "not_inspected".to_owned(),
            detail: verdict.reason.clone(),
        });
        self.edit(|record| {
            record.verdict = Some(verdict.clone());
            record.flags.extend(flags);
        });
        self.answer_ourselves(status, answered);
        let record = self.id();
        let (reason, rule) = (&verdict.reason, &verdict.rule);
        let message = Message { status, reason, rule, remedy: &remedy, retry: false, record };
        self.asked().say(Some(self.host()), &message)
    }

    /// The log does not take what was captured of its request.
    fn broken_off(&self, error: &AuditError, answered: bool) -> Answer {
        self.fail(Failure {
            blame: "gate".to_owned(),
            code: error.code().to_owned(),
            detail: format!("the rest of the request was held back: {error}"),
        });
        let answer = self.asked().unrecorded(Some(self.host()), &error.to_string());
        self.answer_ourselves(answer.status.as_u16(), answered);
        answer
    }

    /// Unless the origin has answered, we do.
    fn answer_ourselves(&self, status: u16, answered: bool) {
        if answered {
            return;
        }
        let asked = self.asked();
        self.edit(|record| {
            record.response = Some(ResponseHead {
                status,
                version: version_str(asked.version).to_owned(),
                first_byte_us: asked.elapsed_us(),
                ..ResponseHead::default()
            });
        });
    }
}
