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

/// What sessions were told. Bounded; what has been pushed out has to be asked for again.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Sessions>);

#[derive(Debug, Default)]
struct Sessions {
    told: HashMap<SessionId, Told>,
    /// Rises with every answer.
    clock: u64,
}

#[derive(Debug, Default)]
struct Told {
    last: u64,
    names: HashMap<IpAddr, Arc<[Host]>>,
    /// Oldest first; an address stands here once.
    order: VecDeque<IpAddr>,
}

impl Answers {
    /// Keeps that `session` was told that `name` is at `addresses`.
    pub fn remember(&self, session: &SessionId, name: &Host, addresses: &[IpAddr]) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Sessions { told, clock } = &mut *sessions;
        *clock += 1;
        if !told.contains_key(session) && told.len() >= SESSIONS {
            let oldest = told.iter().min_by_key(|(_, told)| told.last).map(|(session, _)| session.clone());
            oldest.and_then(|oldest| told.remove(&oldest));
        }
        let told = told.entry(session.clone()).or_default();
        told.last = *clock;
        for address in addresses {
            told.add(address.to_canonical(), name);
        }
    }

    /// The names for which `session` was given `address`, `None` where it never was.
    #[must_use]
    pub fn given(&self, session: &SessionId, address: IpAddr) -> Option<Arc<[Host]>> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.told.get(session)?.names.get(&address.to_canonical()).cloned()
    }
}

impl Told {
    fn add(&mut self, address: IpAddr, name: &Host) {
        if let Some(names) = self.names.get_mut(&address) {
            if !names.contains(name) {
                let skip = (names.len() + 1).saturating_sub(NAMES);
                *names = names.iter().skip(skip).chain([name]).cloned().collect();
            }
            return;
        }
        if self.order.len() >= ADDRESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.order.push_back(address);
        self.names.insert(address, Arc::from([name.clone()]));
    }
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
    }
}
