//! Idle HTTP/1.1 connections to origins that their agents' connections have left behind, shared only
//! within one session, one policy, one destination and one offer.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Origin;
use crate::{
    model::SessionId,
    policy::{Destination, permit::AddressRule},
    tls::Offer,
};

/// Idle connections kept for one key.
const IDLE_PER_KEY: usize = 16;
/// Idle connections kept for one session: an agent may ask for ever more names.
const IDLE_PER_SESSION: usize = 256;
/// Keys kept.
const KEYS: usize = 1024;
/// Idle longer than this and a connection is not used again; most servers close after 60 s or more.
const IDLE: Duration = Duration::from_secs(50);

/// Whose connection it is.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) session: SessionId,
    pub(super) destination: Destination,
    /// What was offered by ALPN: an origin may treat clients by it.
    pub(super) offer: Offer,
    /// The policy's address rule: compared by identity, so that a reload starts afresh.
    pub(super) rule: Arc<dyn AddressRule>,
}

impl Key {
    /// Whether it is made of these.
    pub(super) fn is(
        &self,
        session: &SessionId,
        destination: &Destination,
        offer: Offer,
        rule: &Arc<dyn AddressRule>,
    ) -> bool {
        self.offer == offer
            && self.session == *session
            && self.destination == *destination
            && Arc::ptr_eq(&self.rule, rule)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.session, &other.destination, other.offer, &other.rule)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session.hash(state);
        self.destination.hash(state);
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    kept: Mutex<HashMap<Key, Vec<Origin>>>,
}

impl Pool {
    /// The connection for `key` that was used last, because it is the least likely to be stale, if it
    /// has been idle for less than `rested`.
    pub(super) fn take(&self, key: &Key, rested: Duration) -> Option<Origin> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = kept.get_mut(key)?;
        while let Some(mut origin) = idle.pop() {
            if origin.since.elapsed() >= rested.min(IDLE) {
                idle.push(origin);
                return None; // those before it have been idle for longer
            }
            if origin.wire.is_quiet() {
                return Some(origin);
            }
        }
        None
    }

    /// Keeps a connection; the oldest of a full key is closed.
    pub(super) fn put(&self, mut origin: Origin) {
        if !origin.wire.is_quiet() {
            return; // dropped, so closed
        }
        origin.since = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEYS && !kept.contains_key(&origin.key) {
            kept.retain(|_, idle| still_idle(idle));
            if kept.len() >= KEYS {
                return;
            }
        }
        let of_session = kept.iter().filter(|(key, _)| key.session == origin.key.session);
        if of_session.map(|(_, idle)| idle.len()).sum::<usize>() >= IDLE_PER_SESSION {
            return;
        }
        let idle = kept.entry(origin.key.clone()).or_default();
        if idle.len() >= IDLE_PER_KEY {
            idle.remove(0);
        }
        idle.push(origin);
    }

    /// Closes what has been idle too long; called every now and then.
    pub(super) fn sweep(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, idle| still_idle(idle));
    }
}

fn still_idle(idle: &mut Vec<Origin>) -> bool {
    idle.retain_mut(|origin| origin.since.elapsed() < IDLE && origin.wire.is_quiet());
    !idle.is_empty()
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        forward::OriginStream,
        http::h1::Wire,
        model::{Authority, Host},
        policy::{Policy, Scheme},
    };

    #[tokio::test]
    async fn a_session_has_its_share_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (pool, rule) = (Pool::default(), Policy::closed().addresses());
        let mut ends = Vec::new();
        let key = |session: &str, name: usize| Key {
            session: SessionId(session.to_owned()),
            destination: Destination {
                scheme: Scheme::Http,
                authority: Authority { host: Host::parse(&format!("n{name}.example")).unwrap(), port: 80 },
            },
            offer: Offer::None,
            rule: rule.clone(),
        };
        for (session, name) in (0..300).map(|name| ("greedy", name)).chain([("other", 0)]) {
            let (near, far) = tokio::join!(TcpStream::connect(at), listener.accept());
            ends.push(far.unwrap());
            let wire = Wire::new(OriginStream::Tcp(near.unwrap()));
            let key = key(session, name);
            pool.put(Origin { wire, key, since: Instant::now(), used: true, flags: Vec::new() });
        }
        let kept = (0..300).filter(|name| pool.take(&key("greedy", *name), IDLE).is_some()).count();
        assert_eq!(kept, IDLE_PER_SESSION);
        assert!(pool.take(&key("other", 0), IDLE).is_some(), "another has its own");
    }
}
