//! What detectors saw, and whose doing it was.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::orders::{TOKEN_PREFIX, run_of};

/// One thing that arrived where nothing should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// What and where, in one line.
    pub(super) what: String,
    /// Where it was going.
    pub(super) to: Option<IpAddr>,
    /// Tokens in it.
    pub(super) tokens: Vec<String>,
    /// A question to the daemon's own resolver: allowed where policy allows the name.
    pub(super) question: bool,
    /// The run in whose time it came.
    pub(super) during: u16,
}

/// All that was seen; shared by the detectors.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Seen>,
    fence: Condvar,
}

/// The connection that a TCP segment is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Both addresses and both ports, as they are in the packet.
    pub(super) ends: Vec<u8>,
    /// A SYN without ACK, which begins one.
    pub(super) opens: bool,
}

#[derive(Debug, Default)]
struct Seen {
    sightings: Vec<Sighting>,
    /// The run that opened each connection: its last segments may come in the time of the next.
    opened: HashMap<Vec<u8>, u16>,
    /// The run that is under way.
    run: u16,
    /// Highest fence that came through.
    fence: u64,
}

/// No suite makes so many; a flood must not fill the memory.
const MOST: usize = 100_000;

impl Evidence {
    /// From this moment what bears no mark is this run's doing.
    pub(super) fn begin(&self, run: u16) {
        self.lock().run = run;
    }

    /// Notes something seen.
    pub(super) fn see(&self, what: String, to: Option<IpAddr>, payload: &[u8], question: bool) {
        self.see_segment(what, to, payload, question, None);
    }

    /// Notes something seen, which is the doing of the run that opened its connection.
    pub(super) fn see_segment(
        &self,
        what: String,
        to: Option<IpAddr>,
        payload: &[u8],
        question: bool,
        segment: Option<Segment>,
    ) {
        let tokens = tokens(payload);
        let mut seen = self.lock();
        if seen.sightings.len() < MOST {
            let run = seen.run;
            let during = match segment {
                Some(Segment { ends, opens: true }) => {
                    seen.opened.insert(ends, run);
                    run
                }
                Some(Segment { ends, opens: false }) => seen.opened.get(&ends).copied().unwrap_or(run),
                None => run,
            };
            seen.sightings.push(Sighting { what, to, tokens, question, during });
        }
    }

    /// Notes a fence.
    pub(super) fn pass(&self, number: u64) {
        let mut seen = self.lock();
        seen.fence = seen.fence.max(number);
        self.0.fence.notify_all();
    }

    /// Waits for a fence; false where it does not come in time.
    pub(super) fn wait(&self, number: u64, patience: Duration) -> bool {
        let seen = self.lock();
        let waited = self.0.fence.wait_timeout_while(seen, patience, |seen| seen.fence < number);
        waited.unwrap_or_else(PoisonError::into_inner).0.fence >= number
    }

    /// What one run did: by its token, else by its address, else by the time.
    pub(super) fn of(&self, run: u16, token: &str) -> Vec<Sighting> {
        let seen = self.lock();
        seen.sightings.iter().filter(|sighting| belongs(sighting, run, token)).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn belongs(sighting: &Sighting, run: u16, token: &str) -> bool {
    if !sighting.tokens.is_empty() {
        return sighting.tokens.iter().any(|found| found == token);
    }
    match sighting.to.and_then(run_of) {
        Some(number) => number == run,
        None => sighting.during == run,
    }
}

/// Every token in some bytes, whatever the case of its letters: resolvers change it.
pub(super) fn tokens(bytes: &[u8]) -> Vec<String> {
    let prefix = TOKEN_PREFIX.as_bytes();
    let whole = prefix.len() + 16;
    let mut found: Vec<String> = bytes
        .windows(whole)
        .filter(|window| {
            window.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
                && window.iter().skip(prefix.len()).all(u8::is_ascii_hexdigit)
        })
        .map(|window| String::from_utf8_lossy(window).to_ascii_lowercase())
        .collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_wherever_it_is() {
        let token = "agst0123456789abcdef";
        assert_eq!(tokens(b"\x14aGsT0123456789ABCDEF\x07example"), [token]);
        assert_eq!(tokens(format!("x{token}y{token}").as_bytes()), [token]);
        assert!(tokens(b"agst0123456789abcde").is_empty());
        assert!(tokens(b"").is_empty());
    }

    #[test]
    fn token_goes_before_address_and_address_before_time() {
        let evidence = Evidence::default();
        let mark = |number: u16| format!("agst{number:016x}");
        evidence.begin(7);
        let at = |number| Some(IpAddr::V4(super::super::orders::forbidden_v4(number)));
        evidence.see("by token".into(), at(3), mark(2).as_bytes(), false);
        evidence.see("by address".into(), at(3), b"", false);
        evidence.see("by time".into(), None, b"", false);
        let whats = |run| -> Vec<String> {
            evidence.of(run, &mark(run)).into_iter().map(|sighting| sighting.what).collect()
        };
        assert_eq!(whats(2), ["by token"]);
        assert_eq!(whats(3), ["by address"]);
        assert_eq!(whats(7), ["by time"]);
    }

    #[test]
    fn the_end_of_a_connection_is_its_openers_doing() {
        let evidence = Evidence::default();
        let segment = |opens| Some(Segment { ends: vec![1, 2, 3], opens });
        let see = |what: &str, opens| {
            evidence.see_segment(what.into(), None, b"", false, segment(opens));
        };
        evidence.begin(1);
        see("SYN", true);
        evidence.begin(2);
        see("late FIN", false);
        let whats = |run| -> Vec<String> {
            evidence.of(run, "agst0").into_iter().map(|sighting| sighting.what).collect()
        };
        assert_eq!((whats(1), whats(2)), (vec!["SYN".to_owned(), "late FIN".to_owned()], vec![]));
        see("SYN from the same port", true);
        see("its FIN", false);
        assert_eq!(whats(2), ["SYN from the same port", "its FIN"]);
    }

    #[test]
    fn a_fence_that_does_not_come_is_told() {
        let evidence = Evidence::default();
        evidence.pass(3);
        assert!(evidence.wait(2, Duration::ZERO) && evidence.wait(3, Duration::ZERO));
        assert!(!evidence.wait(4, Duration::from_millis(1)));
    }
}
