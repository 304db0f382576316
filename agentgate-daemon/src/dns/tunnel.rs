//! Names that carry data: whoever runs a zone reads every name below it that is asked for, so a program
//! that may ask for anything below one allowed name can send what it likes, without a connection.
//!
//! What is measured is what such a zone is told: the bytes in front of the registered domain, of names
//! that it has not heard yet. That holds for any coding, and what a resolver's cache answers counts for
//! nothing. The bounds are far from what clients do: a page of a large site asks for some dozens of names
//! below one domain, of twenty bytes or so, once.
//!
//! Bounded: so many sessions, so many domains each, two KiB a domain. Names are hashed with a key that
//! nobody knows, so that none can be chosen to fall together.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::rr::{Name, RecordType};

use super::message::kind_word;
use crate::model::{Flag, Severity};

/// Sessions that are watched; the one that asked longest ago gives way.
const SESSIONS: usize = 256;
/// Domains of one session; the one that was asked for longest ago gives way, and the session's own
/// account goes on.
const DOMAINS: usize = 32;
/// Bits by which names are known to have been asked for before.
const BITS: usize = 16 * 1024;
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// One name with so much in front of its domain is no host's: the longest that clouds make (endpoints of
/// load balancers and private links) have some 80 bytes there, tunnels fill the 253 that there are.
const LONG: usize = 100;
/// From here on a name may be code: shorter ones are words, versions, places.
const CODED: usize = 24;
/// Bits a letter, from which letters are as mixed as in base32 or hexadecimal. Words have 3 to 3.5 over
/// such a length; so this alone says nothing, but fifty of them do.
const MIXED: f64 = 3.4;

/// What a domain may hear, and a session tell, before it is told of, and before it is refused.
struct Bounds {
    minute: Counts,
    hour: Counts,
}

/// Told of: four KiB a minute is a tunnel that types; a package index or a crawler stays below a tenth.
const FLAGGED: Bounds = Bounds {
    minute: Counts { bytes: 4 << 10, names: 300, coded: 50, odd: 30 },
    hour: Counts { bytes: 32 << 10, names: 3_000, coded: 400, odd: 300 },
};
/// Refused: no client that resolves hosts gets here.
const REFUSED: Bounds = Bounds {
    minute: Counts { bytes: 32 << 10, names: 2_000, coded: 1_000, odd: 500 },
    hour: Counts { bytes: 256 << 10, names: 20_000, coded: 4_000, odd: 3_000 },
};
/// A session may have many domains: a crawler does.
const OF_SESSION: u64 = 8;

/// Questions that a session may ask at once after a rest, and how many a second come back.
const BURST: f64 = 1_000.0;
const REFILL: f64 = 100.0;

/// What one party was told in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Of names that were not heard before, in front of the domain.
    bytes: u64,
    /// Names that were not heard before.
    names: u64,
    /// Of these, such as look like code.
    coded: u64,
    /// Of these, asked for with a type that carries any bytes back.
    odd: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.names += other.names;
        self.coded += other.coded;
        self.odd += other.odd;
    }

    fn exceeds(&self, bound: &Self, times: u64) -> bool {
        self.bytes >= bound.bytes * times
            || self.names >= bound.names * times
            || self.coded >= bound.coded * times
            || self.odd >= bound.odd * times
    }

    fn described(&self, span: &str, whom: &str) -> String {
        format!(
            "{} new names with {} bytes {whom} within {span}; {} look like code, {} are for types that carry any bytes",
            self.names, self.bytes, self.coded, self.odd
        )
    }
}

/// Two windows that follow each other.
#[derive(Clone, Copy, Debug)]
struct Account {
    minute: (Instant, Counts),
    hour: (Instant, Counts),
}

impl Account {
    fn new(now: Instant) -> Self {
        Self { minute: (now, Counts::default()), hour: (now, Counts::default()) }
    }

    /// Whether the hour is over, and all begins again.
    fn turn(&mut self, now: Instant) -> bool {
        if now.duration_since(self.minute.0) >= MINUTE {
            self.minute = (now, Counts::default());
        }
        let over = now.duration_since(self.hour.0) >= HOUR;
        if over {
            self.hour = (now, Counts::default());
        }
        over
    }

    fn add(&mut self, counts: Counts) {
        self.minute.1.add(counts);
        self.hour.1.add(counts);
    }

    /// What there is to say of an account that is beyond `bounds`.
    fn beyond(&self, bounds: &Bounds, times: u64, whom: &str) -> Option<String> {
        if self.minute.1.exceeds(&bounds.minute, times) {
            return Some(self.minute.1.described("a minute", whom));
        }
        self.hour.1.exceeds(&bounds.hour, times).then(|| self.hour.1.described("an hour", whom))
    }
}

#[derive(Debug)]
struct Domain {
    last: Instant,
    account: Account,
    heard: Box<[u64; BITS / 64]>,
}

#[derive(Debug)]
struct Session {
    last: Instant,
    /// Questions that may be asked at once.
    room: f64,
    account: Account,
    domains: HashMap<Box<[u8]>, Domain>,
}

/// What is to be said of a question.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub(super) flags: Vec<Flag>,
    /// It is beyond what any client asks: why it is refused.
    pub(super) refused: Option<String>,
}

/// Watches what sessions tell zones.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    hasher: RandomState,
    sessions: Mutex<HashMap<u64, Session>>,
}

impl Tunnels {
    /// Whether a session may ask anything more at this time.
    pub(super) fn has_room(&self, session: u64) -> bool {
        self.with(session, Instant::now(), |session, now| {
            let refilled = now.duration_since(session.last).as_secs_f64() * REFILL;
            session.last = now;
            session.room = (session.room + refilled).min(BURST);
            let room = session.room >= 1.0;
            if room {
                session.room -= 1.0;
            }
            room
        })
    }

    /// Looks at a question, and takes note of it.
    pub(super) fn look(&self, session: u64, name: &Name, kind: RecordType) -> Suspicion {
        self.look_at(session, name, kind, Instant::now())
    }

    fn look_at(&self, session: u64, name: &Name, kind: RecordType, now: Instant) -> Suspicion {
        let labels: Vec<&[u8]> = name.iter().collect();
        let (payload, domain) = labels.split_at(labels.len().saturating_sub(registered(&labels)));
        let bytes = payload.concat();
        let domain = domain.join(&b'.');
        let shown = String::from_utf8_lossy(&domain).into_owned();
        let mut suspicion = Suspicion::default();
        let mut flag = |severity, evidence| suspicion.flags.push(Flag::new("dns_tunnel", severity, evidence));
        if bytes.len() >= LONG {
            let bits = entropy(&bytes);
            flag(Severity::Medium, format!("{} bytes in front of {shown}, {bits:.1} bits each", bytes.len()));
        }
        if matches!(kind, RecordType::NULL | RecordType::Unknown(65_280..)) {
            flag(Severity::Medium, format!("{} is asked for by tunnels only", kind_word(kind)));
        }
        // Those of reverse names are hexadecimal by nature.
        let coded = bytes.len() >= CODED && entropy(&bytes) >= MIXED && labels.last() != Some(&&b"arpa"[..]);
        let counts = Counts {
            bytes: bytes.len() as u64,
            names: 1,
            coded: u64::from(coded),
            odd: u64::from(carries_any(kind)),
        };
        let hash = self.hasher.hash_one((&bytes, u16::from(kind)));
        let (flagged, refused) = self.with(session, now, |session, now| {
            session.account.turn(now);
            if session.domains.len() >= DOMAINS && !session.domains.contains_key(domain.as_slice()) {
                let oldest = session.domains.iter().min_by_key(|(_, domain)| domain.last);
                let oldest = oldest.map(|(domain, _)| domain.clone());
                oldest.and_then(|oldest| session.domains.remove(&oldest));
            }
            let heard = session.domains.entry(domain.into_boxed_slice()).or_insert_with(|| Domain {
                last: now,
                account: Account::new(now),
                heard: Box::new([0; BITS / 64]),
            });
            heard.last = now;
            if heard.account.turn(now) {
                heard.heard.fill(0);
            }
            if heard.hears(hash) {
                heard.account.add(counts);
                session.account.add(counts);
            }
            let beyond = |bounds: &Bounds| {
                heard
                    .account
                    .beyond(bounds, 1, &format!("below {shown}"))
                    .or_else(|| session.account.beyond(bounds, OF_SESSION, "in all"))
            };
            (beyond(&FLAGGED), beyond(&REFUSED))
        });
        if let Some(evidence) = flagged {
            flag(Severity::High, evidence);
        }
        suspicion.refused = refused;
        suspicion
    }

    /// The account of a session, made where there is none.
    fn with<T>(&self, session: u64, now: Instant, use_it: impl FnOnce(&mut Session, Instant) -> T) -> T {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS && !sessions.contains_key(&session) {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.last).map(|(number, _)| *number);
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        let session = sessions.entry(session).or_insert_with(|| Session {
            last: now,
            room: BURST,
            account: Account::new(now),
            domains: HashMap::new(),
        });
        use_it(session, now)
    }
}

impl Domain {
    /// Takes note of a name; whether it was new. Some that are new fall together with others: by a
    /// thousand names, three in a hundred.
    fn hears(&mut self, hash: u64) -> bool {
        let bit = usize::try_from(hash % BITS as u64).unwrap_or(0);
        let Some(word) = self.heard.get_mut(bit / 64) else { return true };
        let mask = 1 << (bit % 64);
        let new = *word & mask == 0;
        *word |= mask;
        new
    }
}

/// Labels of the registered domain: two, or three below a country that sells names below `co`, `com` and
/// the like. Without the list of public suffixes: where this is wrong, names of more parties are counted
/// together.
///
/// Reverse zones are those of whoever has the addresses, which anybody can have: some sixteen bits of IPv4,
/// 32 of IPv6, are what registries give out.
fn registered(labels: &[&[u8]]) -> usize {
    match labels {
        [.., b"in-addr", b"arpa"] => 4,
        [.., b"ip6", b"arpa"] => 10,
        [.., second, country] if country.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    }
}

/// Types whose answers hold any bytes. The others have a form that clients need hosts for.
fn carries_any(kind: RecordType) -> bool {
    use RecordType as T;
    matches!(kind, T::TXT | T::NULL | T::KEY | T::CERT | T::OPENPGPKEY | T::HINFO | T::Unknown(_))
}

/// Shannon's, in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    // A name has at most 255 bytes.
    let all = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / all)
        .map(|p| -p * p.log2())
        .sum()
}

#[cfg(test)]
mod tests;
