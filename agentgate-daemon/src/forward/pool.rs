//! Idle connections to origins, shared only within one session, one policy and one destination.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};

use crate::{
    http::body::Tee,
    model::{RecordId, SessionId},
    policy::{Destination, permit::AddressRule},
};

/// The body that goes to the origin.
pub(super) type OriginBody = Tee<Incoming>;

/// Idle HTTP/1.1 connections kept for one key.
const IDLE_PER_KEY: usize = 16;
/// Keys kept.
const KEYS: usize = 1024;
/// Idle longer than this and a connection is not used again; most servers close after 60 s or more.
const IDLE: Duration = Duration::from_secs(50);

/// Whose connection it is.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) session: SessionId,
    /// The agent's connection, where it speaks HTTP/2: its streams share flow control with nobody
    /// else's, so that one that is not read holds up only its own connection.
    pub(super) connection: Option<RecordId>,
    pub(super) destination: Destination,
    /// The agent speaks HTTP/2, so the origin may be spoken to in HTTP/2. An HTTP/1.1 request is
    /// never turned into HTTP/2: case and order of its fields would be lost.
    pub(super) http2: bool,
    /// The policy's address rule: compared by identity, so that a reload starts afresh.
    pub(super) rule: Arc<dyn AddressRule>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.session == other.session
            && self.connection == other.connection
            && self.destination == other.destination
            && self.http2 == other.http2
            && Arc::ptr_eq(&self.rule, &other.rule)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session.hash(state);
        self.connection.hash(state);
        self.destination.hash(state);
        self.http2.hash(state);
    }
}

/// A connection ready for a request.
#[derive(Debug)]
pub(super) enum Ready {
    Http1(http1::SendRequest<OriginBody>),
    Http2(http2::SendRequest<OriginBody>),
}

#[derive(Debug, Default)]
struct Kept {
    http1: Vec<(Instant, http1::SendRequest<OriginBody>)>,
    http2: Option<(Instant, http2::SendRequest<OriginBody>)>,
}

impl Kept {
    fn drop_stale(&mut self, now: Instant) {
        self.http1.retain(|(since, sender)| now.duration_since(*since) < IDLE && !sender.is_closed());
        if self
            .http2
            .as_ref()
            .is_some_and(|(since, sender)| now.duration_since(*since) >= IDLE || sender.is_closed())
        {
            self.http2 = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.http1.is_empty() && self.http2.is_none()
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    kept: Mutex<HashMap<Key, Kept>>,
}

impl Pool {
    /// An idle connection for `key`: the one used last, because it is the least likely to be stale.
    pub(super) fn take(&self, key: &Key) -> Option<Ready> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = kept.get_mut(key)?;
        let now = Instant::now();
        entry.drop_stale(now);
        if let Some((since, sender)) = entry.http2.as_mut() {
            *since = now;
            return Some(Ready::Http2(sender.clone()));
        }
        entry.http1.pop().map(|(_, sender)| Ready::Http1(sender))
    }

    /// Keeps a connection; the oldest of a full key is closed.
    pub(super) fn put(&self, key: Key, ready: Ready) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEYS && !kept.contains_key(&key) {
            kept.retain(|_, entry| {
                entry.drop_stale(now);
                !entry.is_empty()
            });
            if kept.len() >= KEYS {
                return; // dropped, so closed
            }
        }
        let entry = kept.entry(key).or_default();
        match ready {
            Ready::Http1(sender) => {
                if entry.http1.len() >= IDLE_PER_KEY {
                    entry.http1.remove(0);
                }
                entry.http1.push((now, sender));
            }
            Ready::Http2(sender) => entry.http2 = Some((now, sender)),
        }
    }

    /// Closes what has been idle too long; called every now and then.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, entry| {
            entry.drop_stale(now);
            !entry.is_empty()
        });
    }
}
