//! Which addresses a session was given, and for which names: a connection to any other address did not
//! come from a name that was judged.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::{Host, SessionId};

/// Sessions that are remembered; the one that asked longest ago gives way.
const SESSIONS: usize = 1024;
/// Addresses of one session; the one that was given longest ago gives way.
const ADDRESSES: usize = 4096;
/// Names of one address; the one that was given longest ago gives way.
const NAMES: usize = 16;
/// Bytes of all of it: whoever runs a zone answers with as many addresses and as long names as they like.
/// The session that has most gives way, so that nobody pays for another.
const MEMORY: usize = 64 << 20;
/// What an address and a name take besides the name's letters.
const ADDRESS_BYTES: usize = 128;
const NAME_BYTES: usize = 48;

/// What sessions were told. Bounded; what has been pushed out has to be asked for again.
#[derive(Debug)]
pub struct Answers {
    sessions: Mutex<Sessions>,
    memory: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Self { sessions: Mutex::default(), memory: MEMORY }
    }
}

#[derive(Debug, Default)]
struct Sessions {
    told: HashMap<SessionId, Told>,
    /// Rises with every answer.
    clock: u64,
    /// Sum over all sessions.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Told {
    last: u64,
    bytes: usize,
    given: HashMap<IpAddr, Given>,
    /// Oldest first; an address that was given again stands here again, and its older place counts for
    /// nothing.
    order: VecDeque<(IpAddr, u64)>,
}

#[derive(Debug)]
struct Given {
    /// When last.
    at: u64,
    names: Arc<[Host]>,
}

impl Answers {
    /// Keeps that `session` was told that `name` is at `addresses`.
    pub fn remember(&self, session: &SessionId, name: &Host, addresses: &[IpAddr]) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let Sessions { told, clock, bytes } = &mut *sessions;
        *clock += 1;
        if !told.contains_key(session) && told.len() >= SESSIONS {
            let oldest = told.iter().min_by_key(|(_, told)| told.last).map(|(session, _)| session.clone());
            let gone = oldest.and_then(|oldest| told.remove(&oldest));
            *bytes -= gone.map_or(0, |gone| gone.bytes);
        }
        let own = told.entry(session.clone()).or_default();
        own.last = *clock;
        let before = own.bytes;
        for address in addresses {
            own.add(address.to_canonical(), name, *clock);
        }
        *bytes = *bytes + own.bytes - before;
        while *bytes > self.memory {
            let Some(most) = told.values_mut().max_by_key(|told| told.bytes) else { return };
            let before = most.bytes;
            most.forget_oldest();
            *bytes -= before - most.bytes;
        }
    }

    /// The names for which `session` was given `address`, `None` where it never was.
    #[must_use]
    pub fn given(&self, session: &SessionId, address: IpAddr) -> Option<Arc<[Host]>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.told.get(session)?.given.get(&address.to_canonical()).map(|given| given.names.clone())
    }
}

impl Told {
    fn add(&mut self, address: IpAddr, name: &Host, now: u64) {
        if self.order.len() >= 2 * ADDRESSES {
            let given = &self.given;
            self.order.retain(|(address, at)| given.get(address).is_some_and(|given| given.at == *at));
        }
        if let Some(given) = self.given.get_mut(&address) {
            if !given.names.contains(name) {
                let skip = (given.names.len() + 1).saturating_sub(NAMES);
                let before = size(&given.names);
                given.names = given.names.iter().skip(skip).chain([name]).cloned().collect();
                self.bytes = self.bytes + size(&given.names) - before;
            }
            if given.at != now {
                given.at = now;
                self.order.push_back((address, now));
            }
            return;
        }
        if self.given.len() >= ADDRESSES {
            self.forget_oldest();
        }
        let names = Arc::from([name.clone()]);
        self.bytes += size(&names);
        self.order.push_back((address, now));
        self.given.insert(address, Given { at: now, names });
    }

    fn forget_oldest(&mut self) {
        while let Some((address, at)) = self.order.pop_front() {
            if self.given.get(&address).is_some_and(|given| given.at == at) {
                let gone = self.given.remove(&address);
                self.bytes -= gone.map_or(0, |gone| size(&gone.names));
                return;
            }
        }
    }
}

/// Bytes of an address with its names.
fn size(names: &[Host]) -> usize {
    ADDRESS_BYTES + names.iter().map(|name| NAME_BYTES + name.as_str().len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_known_and_bounded() {
        let answers = Answers::default();
        let (one, other) = (SessionId("a@1".into()), SessionId("b@2".into()));
        let host = |name: &str| Host::parse(name).unwrap();
        let ip = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from(n));
        answers.remember(&one, &host("a.test"), &[ip(1), "::ffff:0.0.0.2".parse().unwrap()]);
        answers.remember(&one, &host("b.test"), &[ip(1)]);
        answers.remember(&one, &host("b.test"), &[ip(1)]);
        assert_eq!(answers.given(&one, ip(1)).as_deref(), Some(&[host("a.test"), host("b.test")][..]));
        assert!(answers.given(&one, ip(2)).is_some(), "mapped is the same address");
        assert_eq!(answers.given(&one, ip(3)), None);
        assert_eq!(answers.given(&other, ip(1)), None, "what another session was told is not this one's");
        for n in 0..100 {
            answers.remember(&one, &host(&format!("n{n}.test")), &[ip(1)]);
        }
        assert_eq!(answers.given(&one, ip(1)).unwrap().len(), NAMES);
        for n in 0..u32::try_from(ADDRESSES).unwrap() {
            answers.remember(&one, &host("c.test"), &[ip(100 + n)]);
        }
        assert_eq!(answers.given(&one, ip(1)), None);
        for n in 0..SESSIONS {
            answers.remember(&SessionId(format!("{n}")), &host("d.test"), &[ip(1)]);
        }
        assert_eq!(answers.given(&one, ip(200)), None);
        let sessions = answers.sessions.lock().unwrap();
        assert_eq!(sessions.bytes, sessions.told.values().map(|told| told.bytes).sum::<usize>());
    }

    /// A name that is asked for every minute was pushed out by what was asked for once.
    #[test]
    fn what_is_given_again_is_as_good_as_new() {
        let answers = Answers::default();
        let session = SessionId("a@1".into());
        let (often, once) = (Host::parse("often.test").unwrap(), Host::parse("once.test").unwrap());
        let ip = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from(n));
        for n in 1..u32::try_from(3 * ADDRESSES).unwrap() {
            answers.remember(&session, &once, &[ip(n)]);
            answers.remember(&session, &often, &[ip(0)]);
        }
        assert!(answers.given(&session, ip(0)).is_some());
        assert!(answers.given(&session, ip(1)).is_none());
        let sessions = answers.sessions.lock().unwrap();
        let told = &sessions.told[&session];
        assert!(told.given.len() == ADDRESSES && told.order.len() <= 2 * ADDRESSES);
    }

    /// Sixteen long names for each of 4096 addresses of 1024 sessions are some 17 GB.
    #[test]
    fn whoever_is_told_most_gives_way() {
        let answers = Answers { memory: 1 << 20, ..Answers::default() };
        let (small, greedy) = (SessionId("a@1".into()), SessionId("b@2".into()));
        let ip = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from(n));
        let few: Vec<IpAddr> = (0..100).map(ip).collect();
        answers.remember(&small, &Host::parse("small.test").unwrap(), &few);
        let many: Vec<IpAddr> = (0..u32::try_from(ADDRESSES).unwrap()).map(ip).collect();
        for n in 0..NAMES {
            let long = [&*"x".repeat(60), &"y".repeat(60), &"z".repeat(60), &format!("n{n}.test")].join(".");
            answers.remember(&greedy, &Host::parse(&long).unwrap(), &many);
        }
        let bytes = answers.sessions.lock().unwrap().bytes;
        assert!((1 << 19..=1 << 20).contains(&bytes), "{bytes}");
        assert!(few.iter().all(|ip| answers.given(&small, *ip).is_some()));
        assert!(answers.given(&greedy, many[ADDRESSES - 1]).is_some());
    }
}
