//! Who may look: browser sessions, each under a host name of its own, and the limit on failed logins.
//!
//! # Why a session has a name of its own
//! Cookies know no ports (RFC 6265, section 8.5). A cookie for `127.0.0.1` goes to every web server on
//! that address that the browser visits, and whoever runs one, an agent's preview server or another
//! local user, could log in with it. So `127.0.0.1`, `localhost` and `[::1]` only take the login. It opens
//! a session under `gate-RANDOM.localhost`, and the cookie is set for that host alone, without a `Domain`,
//! and counts there alone. Chromium and Firefox take every name below `localhost` to the loopback
//! address without asking a resolver ("Let 'localhost' be localhost", RFC 6761 section 6.3), also
//! through `ssh -L`, whatever its port.
//!
//! A page of another server would have to send the browser to that very name on its own port. The name
//! holds 96 random bits and lives as long as the session. It is shown only to a browser that has logged
//! in, never in the answer to a request without a session, and nothing of it depends on the token. It
//! does not travel: pages have no foreign links and `Referrer-Policy: no-referrer`. The address that
//! `agentctl` prints does not hold it, because arguments of processes can be read by everyone on the host.
//!
//! A path that cannot be guessed would leak as little, but all ports of `127.0.0.1` are one site: pages of
//! other ports would pass `SameSite=Strict`, and could crowd our cookies out with theirs. Below
//! `localhost` each name is a site of its own, so they cannot (`localhost` counts as a public suffix).
//!
//! What stays: whoever reads the browser's history or screen while the session lasts knows the name,
//! and a browser that leaves these names to a resolver tells them to it.
//!
//! No HTTP here: `guard` reads headers and calls this.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    codes::LoginCodes,
    token::{Token, TokenError, random, random_hex, same},
};

/// How long a browser stays logged in: a working day.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// From the login to the first request under the session's name, which the browser makes at once.
const TICKET_LIFE: Duration = Duration::from_secs(60);
/// Sessions kept at once; the oldest makes room. Bounds memory, and the scan in `find`.
const MAX_SESSIONS: usize = 64;
/// Failed logins of all clients together that are answered one by one within `FAILURE_WINDOW`.
pub(super) const MAX_FAILURES: u32 = 10;
/// The window of `MAX_FAILURES`.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// What a session's name begins with.
const NAME_PREFIX: &str = "gate-";
/// Random bytes of a session's name: more cannot be found by trying while the session lasts.
const NAME_BYTES: usize = 12;

/// Whether `label` can be the first label of a session's host, lower case.
#[must_use]
pub(super) fn is_name(label: &str) -> bool {
    label.strip_prefix(NAME_PREFIX).is_some_and(|digits| {
        digits.len() == NAME_BYTES * 2 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// One logged-in browser.
#[derive(Clone)]
pub(super) struct Session {
    /// A count, for the audit log: names the session without being a secret.
    pub(super) number: u64,
    /// Goes into every form, and must come back.
    pub(super) csrf: String,
    /// When the browser must log in again.
    pub(super) expires: Instant,
    /// First label of the only host that it lives under.
    name: String,
    /// The cookie's value.
    id: String,
    /// What the browser must bring to the session's host to get the cookie, once.
    ticket: Option<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("number", &self.number).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Book {
    sessions: Vec<Session>,
    opened: u64,
    failures: u32,
    window: Option<Instant>,
}

/// What a browser gets for a login.
#[derive(Clone)]
pub(super) struct Entrance {
    /// First label of the session's host.
    pub(super) name: String,
    /// Opens the session there, once and soon.
    pub(super) ticket: String,
    pub(super) number: u64,
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The token, the codes, the sessions and the count of failed logins. In memory: a restart logs everyone out.
#[derive(Debug)]
pub(super) struct Door {
    token: Token,
    codes: LoginCodes,
    book: Mutex<Book>,
}

/// Why a login was refused. `failures` counts those of this minute, this one too.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Neither the token nor a good code.
    Wrong { failures: u32 },
    /// The same, and too many of those; ask again after `wait`.
    TooMany { failures: u32, wait: Duration },
    /// No randomness for a session.
    NoRandomness,
}

impl From<TokenError> for Refused {
    fn from(_: TokenError) -> Self {
        Self::NoRandomness
    }
}

impl Door {
    pub(super) fn new(token: Token, codes: LoginCodes) -> Self {
        Self { token, codes, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change below is complete on its own, so a panic elsewhere leaves nothing half done.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `presented` is the token. Failures count, and past the limit they are told so. The
    /// right token always passes: 256 bits are not guessed at any rate, and a limit that held back
    /// the owner would let any local user lock them out.
    pub(super) fn check(&self, presented: &str, now: Instant) -> Result<(), Refused> {
        if self.token.matches(presented) { Ok(()) } else { Err(self.failure(now)) }
    }

    fn failure(&self, now: Instant) -> Refused {
        let mut book = self.book();
        let window = match book.window {
            Some(start) if now.saturating_duration_since(start) < FAILURE_WINDOW => start,
            Some(_) | None => {
                book.window = Some(now);
                book.failures = 0;
                now
            }
        };
        book.failures = book.failures.saturating_add(1);
        let failures = book.failures;
        if failures > MAX_FAILURES {
            let wait = (window + FAILURE_WINDOW).saturating_duration_since(now);
            return Refused::TooMany { failures, wait };
        }
        Refused::Wrong { failures }
    }

    /// Makes a session for whoever presents the token.
    pub(super) fn login(&self, token: &str, now: Instant) -> Result<Entrance, Refused> {
        self.check(token, now)?;
        self.open(now)
    }

    /// Makes a session for whoever presents a one-time code, which is used up by that.
    pub(super) fn login_once(&self, code: &str, now: Instant) -> Result<Entrance, Refused> {
        if !self.codes.redeem(code, now) {
            return Err(self.failure(now));
        }
        self.open(now)
    }

    fn open(&self, now: Instant) -> Result<Entrance, Refused> {
        let name = format!("{NAME_PREFIX}{}", random::<NAME_BYTES>()?);
        let (id, csrf, ticket) = (random_hex()?, random_hex()?, random_hex()?);
        let mut book = self.book();
        book.sessions.retain(|s| s.expires > now);
        if book.sessions.len() >= MAX_SESSIONS {
            book.sessions.remove(0);
        }
        book.opened += 1;
        let number = book.opened;
        let expires = now + TICKET_LIFE;
        let session = Session { number, csrf, expires, name: name.clone(), id, ticket: Some(ticket.clone()) };
        book.sessions.push(session);
        Ok(Entrance { name, ticket, number })
    }

    /// The cookie's value, for the browser that brings its ticket to the session's host.
    pub(super) fn enter(&self, name: &str, ticket: &str, now: Instant) -> Option<String> {
        let mut book = self.book();
        let ours = |s: &&mut Session| {
            let ticketed = s.ticket.as_deref().is_some_and(|own| same(own, ticket));
            s.expires > now && same(&s.name, name) && ticketed
        };
        let session = book.sessions.iter_mut().find(ours)?;
        session.ticket = None;
        session.expires = now + SESSION_LIFE;
        Some(session.id.clone())
    }

    /// The session under this name with this cookie's value.
    pub(super) fn find(&self, name: &str, id: &str, now: Instant) -> Option<Session> {
        let book = self.book();
        book.sessions.iter().find(|s| s.expires > now && same(&s.name, name) && same(&s.id, id)).cloned()
    }

    /// Whether session `number` is still open: for a stream that outlives its request.
    pub(super) fn is_open(&self, number: u64, now: Instant) -> bool {
        self.book().sessions.iter().any(|s| s.number == number && s.expires > now)
    }

    /// Ends session `number`.
    pub(super) fn logout(&self, number: u64) {
        self.book().sessions.retain(|s| s.number != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        let dir = tempfile::tempdir().unwrap();
        Door::new(Token::load_or_create(&dir.path().join("token")).unwrap(), LoginCodes::default())
    }

    #[test]
    fn a_session_lives_under_its_name_until_it_expires_or_ends() {
        let door = door();
        let token = door.token.expose().to_owned();
        let now = Instant::now();
        let Entrance { name, ticket, number } = door.login(&token, now).unwrap();
        assert!(is_name(&name), "{name}");
        assert!(door.enter(&name, "", now).is_none());
        assert!(door.enter("gate-0", &ticket, now).is_none(), "under another name");
        assert!(door.enter(&name, &ticket, now + TICKET_LIFE).is_none(), "too late");
        let id = door.enter(&name, &ticket, now).unwrap();
        assert!(door.enter(&name, &ticket, now).is_none(), "twice");
        assert_eq!(door.find(&name, &id, now).map(|s| s.number), Some(number));
        assert!(door.find(&name, &id, now + SESSION_LIFE).is_none());
        assert!(door.find(&name, "", now).is_none());
        let other = door.login(&token, now).unwrap();
        assert!(other.name != name && door.find(&other.name, &id, now).is_none(), "another's name");
        assert!(door.is_open(number, now));
        door.logout(number);
        assert!(door.find(&name, &id, now).is_none());
        assert!(!door.is_open(number, now));
    }

    #[test]
    fn names() {
        let rows = [
            ("gate-0123456789abcdef01234567", true),
            ("gate-0123456789abcdef0123456", false),
            ("gate-0123456789abcdef012345678", false),
            ("gate-0123456789ABCDEF01234567", false),
            ("gate-0123456789abcdef0123456.", false),
            ("0123456789abcdef01234567", false),
            ("", false),
        ];
        for (label, expect) in rows {
            assert_eq!(is_name(label), expect, "{label:?}");
        }
    }

    #[test]
    fn sessions_are_bounded() {
        let door = door();
        let token = door.token.expose().to_owned();
        let now = Instant::now();
        let first = door.login(&token, now).unwrap();
        for _ in 0..MAX_SESSIONS {
            door.login(&token, now).unwrap();
        }
        assert!(door.enter(&first.name, &first.ticket, now).is_none());
        assert_eq!(door.book().sessions.len(), MAX_SESSIONS);
    }

    #[test]
    fn failures_are_limited_and_the_owner_is_not_locked_out() {
        let door = door();
        let token = door.token.expose().to_owned();
        let now = Instant::now();
        for failures in 1..=MAX_FAILURES {
            assert_eq!(door.check("wrong", now), Err(Refused::Wrong { failures }));
        }
        let failures = MAX_FAILURES + 1;
        assert_eq!(door.check("wrong", now), Err(Refused::TooMany { failures, wait: FAILURE_WINDOW }));
        assert!(door.login_once("wrong", now).is_err(), "codes count too");
        assert_eq!(door.check(&token, now), Ok(()));
        assert_eq!(door.check("wrong", now + FAILURE_WINDOW), Err(Refused::Wrong { failures: 1 }));
    }
}
