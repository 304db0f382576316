//! An exchange under way: what is known of it so far, held by whoever moves something of it. Its record is
//! written when the last lets go.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{
    OnConnection,
    asked::Asked,
    seen,
    talk::{self, Agreed},
    tap::Tap,
    whole::Wanted,
};
use crate::{
    audit::{AuditError, Entry, Keeping},
    http::{
        body::{End, Ended},
        gauge::{Budget, Held},
    },
    model::{
        Action, Captured, Failure, Flag, HeaderFields, Host, Record, RecordId, Refusal, ResponseHead, State,
    },
    parse::websocket::transcript::Seen,
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
    /// What of the request's body has to be seen.
    wanted: Wanted,
    /// Once it has become a WebSocket.
    switched: OnceLock<Agreed>,
    moving: Mutex<Moving>,
}

/// What is still moving of an exchange, and what has come to rest.
#[derive(Debug)]
struct Moving {
    entry: Option<Entry>,
    request: Option<Ended>,
    response: Option<Ended>,
    failure: Option<Failure>,
    /// Of a WebSocket, by side.
    talks: [Option<Seen>; 2],
    /// Why the rest of its request must not leave.
    stop: Option<Stop>,
    /// The session's place for this exchange.
    _share: Share,
    /// The connection is busy while this is held.
    _on: Arc<OnConnection>,
}

/// Why the rest of a request must not leave.
#[derive(Debug)]
pub(super) enum Stop {
    /// Policy wants it seen whole, and it cannot be.
    Refused(Refusal),
    /// What was captured of it cannot be made durable.
    Unrecorded(AuditError),
}

impl Underway {
    pub(super) fn new(
        entry: Entry,
        share: Share,
        on: Arc<OnConnection>,
        asked: Asked,
        host: Host,
        wanted: Wanted,
        (limits, budget): (super::Limits, Budget),
    ) -> Self {
        let moving = Moving {
            entry: Some(entry),
            request: None,
            response: None,
            failure: None,
            talks: [None, None],
            stop: None,
            _share: share,
            _on: on,
        };
        let limits = [limits.request_bytes, limits.response_bytes];
        let (switched, moving) = (OnceLock::new(), Mutex::new(moving));
        Self(Arc::new(Ending { asked, host, limits, budget, wanted, switched, moving }))
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
                edit(&mut entry.record());
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

    /// It speaks WebSocket from here on, with the extensions that were offered and chosen.
    pub fn switched<'a>(
        &self,
        offered: impl IntoIterator<Item = &'a [u8]>,
        chosen: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let (agreed, fault) = Agreed::on(offered, chosen);
        if self.0.switched.set(agreed).is_ok() {
            self.edit(|record| talk::begun(record, fault));
        }
    }

    /// What both ends agreed on, where it has become a WebSocket.
    pub(super) fn agreed(&self) -> Option<&Agreed> {
        self.0.switched.get()
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.0.wanted
    }

    /// Watches one of its bodies.
    #[must_use]
    pub fn tap(&self, side: Side) -> Tap {
        Tap::new(self.clone(), side, self.0.limits[side as usize], self.0.budget.open())
    }

    /// One of its bodies is over.
    pub(super) fn rested(&self, side: Side, ended: Ended, talk: Option<Seen>) {
        self.0.with(|moving| {
            match side {
                Side::Request => moving.request = Some(ended),
                Side::Response => moving.response = Some(ended),
            }
            moving.talks[side as usize] = talk;
        });
    }

    /// Puts on record what was captured of its request; `None` where nobody waits for that.
    pub(super) fn keep(&self, body: Captured) -> Option<Keeping> {
        self.0.with(|moving| moving.entry.as_mut()?.keep(body))
    }

    /// That is durable.
    pub(super) fn kept(&self) {
        self.0.with(|moving| {
            if let Some(entry) = moving.entry.as_mut() {
                entry.kept();
            }
        });
    }

    /// That cannot be made durable: the rest of its request must not leave.
    pub(super) fn unrecorded(&self, error: AuditError) {
        self.0.with(|moving| moving.stop = Some(Stop::Unrecorded(error)));
    }

    /// The rest of its request must not leave.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.0.with(|moving| moving.stop = Some(Stop::Refused(refusal)));
    }

    /// Why not, once.
    pub(super) fn stop(&self) -> Option<Stop> {
        self.0.with(|moving| moving.stop.take())
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
        let Some(entry) = moving.entry.take() else { return };
        let mut held = <[Held; 2]>::default();
        entry.finish_with(|record| moving.end(record, &mut held));
        // The memory is counted with the audit log from here on, and what is `held` gives it back.
        drop(held);
    }
}

impl Moving {
    /// Fills in how the exchange ended, and says in which state.
    fn end(&mut self, record: &mut Record, held: &mut [Held; 2]) -> State {
        let (request, response) = (self.request.take(), self.response.take());
        let broke = |blame: &str, code: &str, detail: String| {
            Some(Failure { blame: blame.to_owned(), code: code.to_owned(), detail })
        };
        let denied = record.verdict.as_ref().is_some_and(|verdict| verdict.action == Action::Deny);
        let (state, failure) = match (self.failure.take(), response.as_ref().map(|response| &response.end)) {
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
        let [of_request, of_response] = held;
        if let Some(Ended { captured, held, .. }) = request {
            *of_request = held;
            // What is on record of it may be more than what there was time to move.
            if let Some(head) = record.request.as_mut().filter(|head| captured.total >= head.body.total) {
                head.body = captured;
            }
        }
        if let Some(Ended { captured, held, .. }) = response {
            *of_response = held;
            if let Some(head) = record.response.as_mut() {
                head.body = captured;
            }
        }
        let [client, server] = std::mem::take(&mut self.talks);
        talk::conclude(record, client, server);
        seen::glance(record);
        state
    }
}

/// Code of the failure that says that the agent went away.
pub const GONE: &str = "agent_went_away";
