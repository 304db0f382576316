//! One-time login codes: what the address holds that `agentctl dashboard` prints.
//!
//! That address ends up in a terminal, in the arguments of whatever opens it, and in a browser's
//! history. A code there is worth nothing after its first use, or after two minutes.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::token::{random_hex, same};

/// How long a code is good for: time to copy it through a tunnel.
const CODE_LIFE: Duration = Duration::from_secs(120);
/// Codes that are good at once; the oldest makes room.
const MAX_CODES: usize = 16;

/// The codes that are good at the moment. Clones share them.
#[derive(Clone, Default)]
pub struct LoginCodes(Arc<Mutex<Vec<(String, Instant)>>>);

impl fmt::Debug for LoginCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginCodes(****)")
    }
}

impl LoginCodes {
    /// The address that logs in at the dashboard on `at`, once.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn url(&self, at: SocketAddr) -> io::Result<String> {
        let code = random_hex().map_err(io::Error::other)?;
        self.add(code.clone(), Instant::now());
        Ok(format!("http://{at}/login?code={code}"))
    }

    fn add(&self, code: String, now: Instant) {
        // A list is whole between any two operations, so a panic elsewhere leaves nothing half done.
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|(_, until)| *until > now);
        if codes.len() >= MAX_CODES {
            codes.remove(0);
        }
        codes.push((code, now + CODE_LIFE));
    }

    /// Whether `presented` is a good code; from then on it is none.
    pub(super) fn redeem(&self, presented: &str, now: Instant) -> bool {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = codes.iter().position(|(code, until)| *until > now && same(code, presented));
        found.is_some_and(|at| {
            codes.remove(at);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once_and_for_two_minutes() {
        let codes = LoginCodes::default();
        let now = Instant::now();
        codes.add("a".into(), now);
        codes.add("b".into(), now);
        assert!(!codes.redeem("", now) && !codes.redeem("c", now));
        assert!(codes.redeem("a", now));
        assert!(!codes.redeem("a", now), "used");
        assert!(!codes.redeem("b", now + CODE_LIFE), "old");
        assert!(codes.clone().redeem("b", now), "clones share");
    }

    #[test]
    fn codes_are_bounded() {
        let codes = LoginCodes::default();
        let now = Instant::now();
        for n in 0..=MAX_CODES {
            codes.add(n.to_string(), now);
        }
        assert!(!codes.redeem("0", now), "the oldest made room");
        assert!(codes.redeem("1", now));
    }

    #[test]
    fn each_address_has_a_code_of_its_own() {
        let codes = LoginCodes::default();
        let at = "127.0.0.1:7878".parse().unwrap();
        let (first, second) = (codes.url(at).unwrap(), codes.url(at).unwrap());
        assert_ne!(first, second);
        let code = first.strip_prefix("http://127.0.0.1:7878/login?code=").unwrap();
        assert!(code.len() == 64 && codes.redeem(code, Instant::now()));
        assert!(!format!("{codes:?}").contains(second.rsplit('=').next().unwrap()));
    }
}
