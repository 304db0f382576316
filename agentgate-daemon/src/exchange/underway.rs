//! An exchange under way: what is known of it so far, held by whoever moves something of it. Its record is
//! written when the last lets go.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;

use super::{OnConnection, asked::Asked};
use crate::{
    audit::Entry,
    http::{
        body::{End, Ended},
        gauge::{Budget, Held},
    },
    model::{Action, Captured, Failure, Flag, HeaderFields, Host, Record, RecordId, ResponseHead, State},
    share::Share,
};

/// One of the two bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// An exchange that was judged and is on record. Cheap to clone; whoever lets go last writes the end of
/// the record, so an exchange ends once, and only when nothing of it is still moving.
#[derive(Clone, Debug)]
pub struct Underway(Arc<Ending>);

/// The record of an exchange, written when dropped.
#[derive(Debug)]
struct Ending {
    asked: Asked,
    host: Host,
    limits: [usize; 2],
    budget: Budget,
    moving: Mutex<Moving>,
}

/// What is still moving of an exchange, and what has come to rest.
#[derive(Debug)]
struct Moving {
    entry: Option<Entry>,
    request: Option<Ended>,
    response: Option<Ended>,
    failure: Option<Failure>,
    /// The session's place for this exchange.
    _share: Share,
    /// The connection is busy while this is held.
    _on: Arc<OnConnection>,
}

impl Underway {
    pub(super) fn new(
        entry: Entry,
        share: Share,
        on: Arc<OnConnection>,
        asked: Asked,
        host: Host,
        limits: super::Limits,
        budget: Budget,
    ) -> Self {
        let moving = Moving {
            entry: Some(entry),
            request: None,
            response: None,
            failure: None,
            _share: share,
            _on: on,
        };
        let limits = [limits.request_bytes, limits.response_bytes];
        Self(Arc::new(Ending { asked, host, limits, budget, moving: Mutex::new(moving) }))
    }

    /// The record's id.
    #[must_use]
    pub fn id(&self) -> Option<RecordId> {
        self.0.with(|moving| moving.entry.as_ref().map(Entry::id))
    }

    /// Whom the request is for.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// When and how it was asked.
    #[must_use]
    pub fn asked(&self) -> &Asked {
        &self.0.asked
    }

    /// Changes the record that will be written.
    pub fn edit(&self, edit: impl FnOnce(&mut Record)) {
        self.0.with(|moving| {
            if let Some(entry) = moving.entry.as_mut() {
                edit(entry.record());
            }
        });
    }

    /// What was found on the way.
    pub fn flag(&self, flags: Vec<Flag>) {
        if !flags.is_empty() {
            self.edit(|record| record.flags.extend(flags));
        }
    }

    /// The head of the final response; `fields` are masked.
    pub fn answered(&self, status: u16, version: &'static str, fields: HeaderFields) {
        let first_byte_us = self.0.asked.elapsed_us();
        self.edit(|record| {
            record.response = Some(ResponseHead {
                status,
                version: version.to_owned(),
                headers: fields,
                body: Captured::default(),
                first_byte_us,
            });
        });
    }

    /// Why it did not come to a good end.
    pub fn fail(&self, failure: Failure) {
        self.0.with(|moving| moving.failure = Some(failure));
    }

    /// Watches one of its bodies.
    #[must_use]
    pub fn tap(&self, side: Side) -> Tap {
        let limit = self.0.limits[side as usize];
        Tap {
            of: self.clone(),
            side,
            prefix: BytesMut::new(),
            held: self.0.budget.open(),
            limit,
            total: 0,
            ended: false,
        }
    }
}

impl Ending {
    fn with<T>(&self, act: impl FnOnce(&mut Moving) -> T) -> T {
        act(&mut self.moving.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let moving = self.moving.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut entry) = moving.entry.take() else { return };
        let (request, response) = (moving.request.take(), moving.response.take());
        let record = entry.record();
        let broke = |blame: &str, code: &str, detail: String| {
            Some(Failure { blame: blame.to_owned(), code: code.to_owned(), detail })
        };
        let denied = record.verdict.as_ref().is_some_and(|verdict| verdict.action == Action::Deny);
        let (state, failure) = match (moving.failure.take(), response.as_ref().map(|response| &response.end))
        {
            (Some(failure), _) if denied => (State::Refused, Some(failure)),
            (Some(failure), _) if failure.code == GONE => (State::Cancelled, Some(failure)),
            (Some(failure), _) => (State::Failed, Some(failure)),
            (None, Some(End::Complete)) => (State::Done, None),
            (None, Some(End::Failed(why))) => {
                (State::Failed, broke("origin", "origin_broke_off", why.clone()))
            }
            (None, Some(End::Dropped) | None) => {
                (State::Cancelled, broke("agent", GONE, "the agent closed before the end".to_owned()))
            }
        };
        record.failure = failure;
        if let (Some(head), Some(ended)) = (record.request.as_mut(), &request) {
            head.body = ended.captured.clone();
        }
        if let (Some(head), Some(ended)) = (record.response.as_mut(), &response) {
            head.body = ended.captured.clone();
        }
        entry.finish(state);
        // The memory is counted with the audit log from here on; `request` and `response` give it back.
    }
}

/// Code of the failure that says that the agent went away.
pub const GONE: &str = "agent_went_away";

/// Watches a body go by: counts its bytes, and keeps a prefix, within the limit and the memory that there
/// is for all. Its end is told once; one that is dropped before tells of that.
pub struct Tap {
    of: Underway,
    side: Side,
    prefix: BytesMut,
    held: Held,
    limit: usize,
    total: u64,
    ended: bool,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("side", &self.side).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Tap {
    /// More of the body, without framing.
    pub fn data(&mut self, data: &[u8]) {
        self.total += data.len() as u64;
        let wanted = self.limit.saturating_sub(self.prefix.len()).min(data.len());
        if wanted > 0 {
            let got = self.held.take(wanted);
            self.prefix.extend_from_slice(data.get(..got).unwrap_or(data));
            if got < wanted {
                self.limit = 0; // a prefix has no holes
            }
        }
    }

    /// Bytes that passed.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The body is over.
    pub fn end(mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let bytes = std::mem::take(&mut self.prefix).freeze();
        let truncated = end != End::Complete || self.total > bytes.len() as u64;
        let captured = Captured { total: self.total, truncated, bytes };
        let held = std::mem::replace(&mut self.held, self.of.0.budget.open());
        let ended = Ended { end, captured, held: Some(held) };
        self.of.0.with(|moving| match self.side {
            Side::Request => moving.request = Some(ended),
            Side::Response => moving.response = Some(ended),
        });
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close(End::Dropped);
    }
}
