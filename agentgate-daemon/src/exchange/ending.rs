//! The end of an exchange: written once, when nothing of it moves any more.

use std::sync::{Arc, Mutex, PoisonError};

use super::OnConnection;
use crate::{
    audit::Entry,
    http::body::{End, Ended},
    model::{Action, Failure, Record, RecordId, State},
    share::Share,
};

/// An exchange under way. Both bodies and the spine hold it; whoever lets go last writes the end of
/// the record, so an exchange ends once, and only when nothing of it is still moving.
#[derive(Debug)]
pub(super) struct Ending(Mutex<Moving>);

/// What is still moving of an exchange, and what has come to rest.
#[derive(Debug)]
pub(super) struct Moving {
    entry: Option<Entry>,
    pub(super) request: Option<Ended>,
    pub(super) response: Option<Ended>,
    pub(super) failure: Option<Failure>,
    /// The session's place for this exchange.
    _share: Share,
    /// The connection is busy while this is held.
    _on: Arc<OnConnection>,
}

impl Moving {
    /// The record's id.
    pub(super) fn id(&self) -> Option<RecordId> {
        self.entry.as_ref().map(Entry::id)
    }

    /// Changes the record that will be written.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut Record)) {
        if let Some(entry) = self.entry.as_mut() {
            edit(entry.record());
        }
    }
}

impl Ending {
    /// An exchange whose record is open.
    pub(super) fn new(entry: Entry, share: Share, on: Arc<OnConnection>) -> Arc<Self> {
        let moving = Moving {
            entry: Some(entry),
            request: None,
            response: None,
            failure: None,
            _share: share,
            _on: on,
        };
        Arc::new(Self(Mutex::new(moving)))
    }

    /// Reads or changes what is moving.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Moving) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let moving = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
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
            (Some(failure), _) => (State::Failed, Some(failure)),
            (None, Some(End::Complete)) => (State::Done, None),
            (None, Some(End::Failed(why))) => {
                (State::Failed, broke("origin", "origin_broke_off", why.clone()))
            }
            (None, Some(End::Dropped) | None) => (
                State::Cancelled,
                broke("agent", "agent_went_away", "the agent closed before the end".to_owned()),
            ),
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
