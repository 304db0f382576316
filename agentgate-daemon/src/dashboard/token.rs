//! Secrets at rest: the token file, and randomness for everything that must not be guessed.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq as _;

/// Bytes of randomness behind the token, a session id, a CSRF token and a login code.
const SECRET_BYTES: usize = 32;

/// What can go wrong with the token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The operating system gave no randomness.
    #[error("the system gives no randomness for the dashboard's secrets")]
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

/// 256 random bits as 64 hex digits.
pub(super) fn random_hex() -> Result<String, TokenError> {
    random::<SECRET_BYTES>()
}

/// `N` random bytes as hex digits.
pub(super) fn random<const N: usize>() -> Result<String, TokenError> {
    let mut bytes = [0_u8; N];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes.iter().fold(String::with_capacity(N * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

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
}
