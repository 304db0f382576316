//! Clients that do not accept the gate's certificate, told apart from those that only open connections
//! they do not use.
//!
//! An alert about the certificate says it. A close without a request does not: clients open spare
//! connections, several at a time, and drop them. So it counts only when it happens again and again,
//! each time after the one before was over, to a session and a host of which no request ever came.

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    io,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rustls::AlertDescription as Alert;

use crate::model::{Flag, Host, SessionId, Severity};

/// Closes without a request, one after the other, that are no accident.
const LEAVES: u32 = 3;
/// Sessions that are remembered, and hosts of each.
const SESSIONS: usize = 128;
const HOSTS: usize = 128;

/// How a connection showed whether its client accepts the gate's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A request came over it.
    Request,
    /// The client sent an alert about the certificate; see [`refusal`].
    Refusal(Alert),
    /// The client was sent the certificate and closed, in the handshake or after it, without a byte of a
    /// request. The connection began at `since`.
    Leave { since: Instant },
}

/// The alert about a certificate behind `error`, if there is one. With TLS 1.3 it may come with the first
/// read after the handshake.
#[must_use]
pub fn refusal(error: &(dyn Error + 'static)) -> Option<Alert> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref()
            && is_about_certificates(*alert)
        {
            return Some(*alert);
        }
        // An I/O error gives what it wraps apart from its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn is_about_certificates(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

/// The words of RFC 8446 6.
#[expect(clippy::wildcard_enum_match_arm, reason = "only alerts about certificates come here")]
fn name(alert: Alert) -> &'static str {
    match alert {
        Alert::BadCertificate => "bad_certificate",
        Alert::UnsupportedCertificate => "unsupported_certificate",
        Alert::CertificateRevoked => "certificate_revoked",
        Alert::CertificateExpired => "certificate_expired",
        Alert::CertificateUnknown => "certificate_unknown",
        Alert::UnknownCA => "unknown_ca",
        Alert::AccessDenied => "access_denied",
        _ => "another alert",
    }
}

/// What is known of a session and a host.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// Requests come: its clients accept the certificate.
    Accepted,
    /// Closes without a request, one after the other, and when the last was.
    Left { times: u32, last: Instant },
}

/// First in, first out: what has no room makes the oldest go.
#[derive(Debug)]
struct Bounded<K, V> {
    kept: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + std::hash::Hash, V> Bounded<K, V> {
    fn new(most: usize) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), most }
    }

    fn get_or(&mut self, key: &K, value: impl FnOnce() -> V) -> &mut V {
        if !self.kept.contains_key(key) {
            if self.order.len() >= self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.kept.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.kept.entry(key.clone()).or_insert_with(value)
    }
}

/// Remembers, within bounds, who has accepted the certificate and who keeps leaving.
#[derive(Debug)]
pub struct Watch(Mutex<Bounded<SessionId, Bounded<Host, Known>>>);

impl Default for Watch {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(SESSIONS)))
    }
}

impl Watch {
    /// Takes note of what was `seen` `now` of a connection of `session` to `host`, and gives the flag for
    /// its record where that shows a client that does not accept the gate's certificate.
    pub fn see(&self, session: &SessionId, host: &Host, seen: Seen, now: Instant) -> Option<Flag> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = sessions.get_or(session, || Bounded::new(HOSTS));
        let known = hosts.get_or(host, || Known::Left { times: 0, last: now });
        match (seen, *known) {
            (Seen::Request, _) => {
                *known = Known::Accepted;
                None
            }
            (Seen::Refusal(alert), _) => {
                let said =
                    format!("the client answered the gate's certificate with the alert {}", name(alert));
                Some(flag(host, &said))
            }
            (Seen::Leave { .. }, Known::Accepted) => None,
            (Seen::Leave { since }, Known::Left { times, last }) => {
                // Those that overlap are spare connections, dropped together.
                let times = if times == 0 || since >= last { times + 1 } else { times };
                *known = Known::Left { times, last: now };
                (times >= LEAVES).then(|| {
                    flag(host, &format!("{times} connections, one after the other, were closed once they had the gate's certificate, and none ever sent a request"))
                })
            }
        }
    }
}

fn flag(host: &Host, said: &str) -> Flag {
    let evidence = format!(
        "{said}: it trusts another set of roots (agentctl doctor) or pins its own; \
         to let it pass unread: agentctl passthrough {host}"
    );
    Flag::new("pinned_client", Severity::Medium, evidence)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    fn session(name: &str) -> SessionId {
        SessionId(name.to_owned())
    }

    /// Seconds after the start of the test.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Instant {
            self.0 + Duration::from_secs(seconds)
        }
    }

    #[test]
    fn alerts_are_found_wherever_they_are() {
        let tls = |alert| rustls::Error::AlertReceived(alert);
        let io = |alert| io::Error::new(io::ErrorKind::InvalidData, tls(alert));
        #[derive(Debug, thiserror::Error)]
        #[error("wrapped")]
        struct Wrapped(#[source] io::Error);
        assert_eq!(refusal(&tls(Alert::UnknownCA)), Some(Alert::UnknownCA));
        assert_eq!(refusal(&io(Alert::BadCertificate)), Some(Alert::BadCertificate));
        assert_eq!(refusal(&Wrapped(io(Alert::CertificateUnknown))), Some(Alert::CertificateUnknown));
        let deep = Wrapped(io::Error::other(Wrapped(io(Alert::AccessDenied))));
        assert_eq!(refusal(&deep), Some(Alert::AccessDenied));
        for other in
            [Alert::CloseNotify, Alert::UserCanceled, Alert::HandshakeFailure, Alert::NoApplicationProtocol]
        {
            assert_eq!(refusal(&io(other)), None, "{other:?}");
        }
        assert_eq!(refusal(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
    }

    #[test]
    fn an_alert_says_it_at_once() {
        let (watch, clock) = (Watch::default(), Clock(Instant::now()));
        let (me, api) = (session("a@1"), host("api.example"));
        assert_eq!(watch.see(&me, &api, Seen::Request, clock.at(0)), None);
        // Another program of the same session may pin where the first does not.
        let flag = watch.see(&me, &api, Seen::Refusal(Alert::UnknownCA), clock.at(1)).unwrap();
        assert_eq!(flag.code, "pinned_client");
        assert!(flag.evidence.contains("unknown_ca"), "{}", flag.evidence);
        assert!(flag.evidence.ends_with("agentctl passthrough api.example"), "{}", flag.evidence);
    }

    #[test]
    fn leaving_says_it_when_it_is_all_that_ever_happens() {
        let (watch, clock) = (Watch::default(), Clock(Instant::now()));
        let (me, api) = (session("a@1"), host("api.example"));
        let leave =
            |since, until| watch.see(&me, &api, Seen::Leave { since: clock.at(since) }, clock.at(until));
        assert_eq!(leave(0, 1), None);
        assert_eq!(leave(2, 3), None);
        assert!(leave(4, 5).unwrap().evidence.starts_with("3 connections, one after the other, "));
        assert!(leave(6, 7).unwrap().evidence.starts_with("4 connections, "));
        // It was something else after all.
        watch.see(&me, &api, Seen::Request, clock.at(8));
        for since in [9, 11, 13, 15] {
            assert_eq!(leave(since, since + 1), None);
        }
    }

    #[test]
    fn spare_connections_are_no_sign() {
        let (watch, clock) = (Watch::default(), Clock(Instant::now()));
        let (me, api) = (session("a@1"), host("api.example"));
        // A dozen opened together, dropped one by one; and once more, before anything is asked.
        for (since, until) in (0..12).map(|n| (0, 5 + n)).chain((0..12).map(|n| (20, 21 + n))) {
            let seen = Seen::Leave { since: clock.at(since) };
            assert_eq!(watch.see(&me, &api, seen, clock.at(until)), None, "{since} to {until}");
        }
    }

    #[test]
    fn sessions_and_hosts_are_apart_and_bounded() {
        let (watch, clock) = (Watch::default(), Clock(Instant::now()));
        let leave = |who: &str, whom: &str, since| {
            let seen = Seen::Leave { since: clock.at(since) };
            watch.see(&session(who), &host(whom), seen, clock.at(since + 1))
        };
        for (who, whom) in [("a@1", "x.example"), ("a@1", "y.example"), ("b@2", "x.example")] {
            assert_eq!((leave(who, whom, 0), leave(who, whom, 2)), (None, None));
        }
        for n in 0..SESSIONS * 3 {
            for m in 0..HOSTS * 3 / (1 + n) {
                assert_eq!(leave(&format!("{n}@3"), &format!("h{m}.example"), 4), None);
            }
        }
        let sessions = watch.0.lock().unwrap();
        assert_eq!((sessions.kept.len(), sessions.order.len()), (SESSIONS, SESSIONS));
        assert!(
            sessions
                .kept
                .values()
                .all(|hosts| hosts.kept.len() <= HOSTS && hosts.kept.len() == hosts.order.len())
        );
    }
}
