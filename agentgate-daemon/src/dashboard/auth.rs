//! Who may look: the token file, browser sessions, and the limit on failed logins.
//!
//! No HTTP here: `guard` reads headers and calls this.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use subtle::ConstantTimeEq as _;

/// Bytes of randomness behind the token, a session id and a CSRF token.
const SECRET_BYTES: usize = 32;
/// How long a browser stays logged in: a working day.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions kept at once; the oldest makes room. Bounds memory, and the scan in `find`.
const MAX_SESSIONS: usize = 64;
/// Failed logins of all clients together that are answered one by one within `FAILURE_WINDOW`.
const MAX_FAILURES: u32 = 10;
/// The window of `MAX_FAILURES`.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// What can go wrong with the token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The operating system gave no randomness.
    #[error("no randomness for the dashboard's token")]
    NoRandomness,
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read or write it, or another user owns it.
    #[error("{}: must be owned by the daemon's user with mode 0600 (is uid {uid}, mode {mode:04o}); delete it to have a new one made", path.display())]
    Exposed { path: PathBuf, uid: u32, mode: u32 },
    /// It does not hold 64 hex digits.
    #[error("{}: does not hold a token of 64 hex digits; delete it to have a new one made", path.display())]
    Malformed { path: PathBuf },
}

/// The secret that opens the dashboard: 256 random bits as 64 hex digits. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads the token at `path`, or makes one there with mode 0600.
    ///
    /// # Errors
    /// [`TokenError`]; a file that others can read is refused, because they may have read it.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let fail = |source| TokenError::Io { path: path.to_owned(), source };
        let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        match OpenOptions::new().read(true).custom_flags(nofollow).open(path) {
            Ok(file) => Self::read(file, path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(e) => Err(fail(e)),
        }
    }

    fn read(file: File, path: &Path) -> Result<Self, TokenError> {
        let fail = |source| TokenError::Io { path: path.to_owned(), source };
        let meta = file.metadata().map_err(fail)?;
        let mode = meta.mode() & 0o7777;
        if mode & 0o077 != 0 || meta.uid() != rustix::process::geteuid().as_raw() || !meta.is_file() {
            return Err(TokenError::Exposed { path: path.to_owned(), uid: meta.uid(), mode });
        }
        let mut text = String::new();
        // 64 digits and a line end; whatever is longer is not ours.
        file.take(80).read_to_string(&mut text).map_err(fail)?;
        let text = text.trim_end();
        if text.len() == SECRET_BYTES * 2 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Malformed { path: path.to_owned() })
        }
    }

    fn create(path: &Path) -> Result<Self, TokenError> {
        let fail = |source| TokenError::Io { path: path.to_owned(), source };
        let token = Self(random_hex()?);
        // Written beside and renamed, so that a crash in between leaves no half token.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(fail)?;
        file.write_all(token.0.as_bytes()).map_err(fail)?;
        file.write_all(b"\n").map_err(fail)?;
        file.sync_all().map_err(fail)?;
        fs::rename(&beside, path).map_err(fail)?;
        Ok(token)
    }

    /// Whether `presented` is this token, in time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        same(&self.0, presented)
    }

    /// The digits, for the one who printed or wrote the file.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(****)")
    }
}

/// Constant-time comparison of two secrets; only their lengths may show.
#[must_use]
pub(super) fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn random_hex() -> Result<String, TokenError> {
    let mut bytes = [0_u8; SECRET_BYTES];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes.iter().fold(String::with_capacity(SECRET_BYTES * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text
    }))
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
    id: String,
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

/// The token, the sessions and the count of failed logins. In memory: a restart logs everyone out.
#[derive(Debug)]
pub(super) struct Door {
    token: Token,
    book: Mutex<Book>,
}

/// Why a login was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not the token.
    Wrong,
    /// Not the token, and too many of those; ask again after this time.
    TooMany(Duration),
    /// No randomness for a session id.
    NoRandomness,
}

impl Door {
    pub(super) fn new(token: Token) -> Self {
        Self { token, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change below is complete on its own, so a panic elsewhere leaves nothing half done.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `presented` is the token. Failures count, and past the limit they are told so. The
    /// right token always passes: 256 bits are not guessed at any rate, and a limit that held back
    /// the owner would let any local user lock them out.
    pub(super) fn check(&self, presented: &str, now: Instant) -> Result<(), Refused> {
        if self.token.matches(presented) {
            return Ok(());
        }
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
        if book.failures > MAX_FAILURES {
            return Err(Refused::TooMany((window + FAILURE_WINDOW).saturating_duration_since(now)));
        }
        Err(Refused::Wrong)
    }

    /// Opens a session for whoever presents the token; gives the cookie's value.
    pub(super) fn login(&self, presented: &str, now: Instant) -> Result<(String, u64), Refused> {
        self.check(presented, now)?;
        let id = random_hex().map_err(|_| Refused::NoRandomness)?;
        let csrf = random_hex().map_err(|_| Refused::NoRandomness)?;
        let mut book = self.book();
        book.sessions.retain(|s| s.expires > now);
        if book.sessions.len() >= MAX_SESSIONS {
            book.sessions.remove(0);
        }
        book.opened += 1;
        let number = book.opened;
        book.sessions.push(Session { number, csrf, expires: now + SESSION_LIFE, id: id.clone() });
        Ok((id, number))
    }

    /// The session of a cookie's value.
    pub(super) fn find(&self, id: &str, now: Instant) -> Option<Session> {
        self.book().sessions.iter().find(|s| s.expires > now && same(&s.id, id)).cloned()
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn door() -> Door {
        let dir = tempfile::tempdir().unwrap();
        Door::new(Token::load_or_create(&dir.path().join("token")).unwrap())
    }

    #[test]
    fn token_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dashboard.token");
        let first = Token::load_or_create(&path).unwrap();
        assert_eq!(first.expose().len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(Token::load_or_create(&path).unwrap().matches(first.expose()));
        let other = Token::load_or_create(&dir.path().join("other")).unwrap();
        assert!(!first.matches(other.expose()));
        assert!(!first.matches(""));
        assert!(!format!("{first:?}").contains(first.expose()));
    }

    #[test]
    fn exposed_linked_or_malformed_token_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        Token::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Token::load_or_create(&path), Err(TokenError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Token::load_or_create(&link), Err(TokenError::Io { .. })));
        for text in ["", "abc", &"z".repeat(64), &"a".repeat(65)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Token::load_or_create(&path), Err(TokenError::Malformed { .. })), "{text:?}");
        }
    }

    #[test]
    fn sessions_expire_and_log_out() {
        let door = door();
        let token = door.token.expose().to_owned();
        let now = Instant::now();
        let (id, number) = door.login(&token, now).unwrap();
        assert_eq!(door.find(&id, now).map(|s| s.number), Some(number));
        assert!(door.find(&id, now + SESSION_LIFE).is_none());
        assert!(door.find("", now).is_none());
        assert!(door.is_open(number, now));
        door.logout(number);
        assert!(door.find(&id, now).is_none());
        assert!(!door.is_open(number, now));
    }

    #[test]
    fn sessions_are_bounded() {
        let door = door();
        let token = door.token.expose().to_owned();
        let now = Instant::now();
        let (first, _) = door.login(&token, now).unwrap();
        for _ in 0..MAX_SESSIONS {
            door.login(&token, now).unwrap();
        }
        assert!(door.find(&first, now).is_none());
        assert_eq!(door.book().sessions.len(), MAX_SESSIONS);
    }

    #[test]
    fn failures_are_limited_and_the_owner_is_not_locked_out() {
        let door = door();
        let token = door.token.expose().to_owned();
        let now = Instant::now();
        for _ in 0..MAX_FAILURES {
            assert_eq!(door.check("wrong", now), Err(Refused::Wrong));
        }
        assert_eq!(door.check("wrong", now), Err(Refused::TooMany(FAILURE_WINDOW)));
        assert_eq!(door.check(&token, now), Ok(()));
        assert_eq!(door.check("wrong", now + FAILURE_WINDOW), Err(Refused::Wrong));
    }
}
