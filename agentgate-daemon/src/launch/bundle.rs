//! What an agent must trust: the system's roots and the gate's own, in one file.
//!
//! Merged, never the gate's alone: `SSL_CERT_FILE` replaces the store of most clients, and hosts in the
//! passthrough list still show their own certificates.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::environment::{ADDED_VARIABLES, BUNDLE_VARIABLES};

/// Where distributions keep all roots in one PEM file; the first that exists is used.
pub const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];

/// Largest bundle that is read, in bytes; Debian's is 220 kB.
const CAP: u64 = 16 << 20;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The gate's own certificate is not PEM.
    #[error("the certificate of the gate's authority is not PEM")]
    NoAuthority,
    /// A PEM block without an end.
    #[error("{origin}: a certificate without an end")]
    Unfinished {
        /// Where it was read.
        origin: String,
    },
    /// A file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::File { path, source }
}

/// Every root that an agent is to trust. A certificate is kept as the lines of its PEM, without the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The system's file that went in; `None` where the host has none, so that only hosts whose
    /// connections are intercepted will be trusted.
    pub system: Option<PathBuf>,
    /// All of them, each once; the authority's own first.
    pub all: Vec<String>,
    /// Of them, what the gate adds: its authority's own, and what the settings name.
    pub added: Vec<String>,
}

/// The system's roots (of the first of `candidates` that exists), those of the files of `extra`, and the
/// authority's own certificate.
///
/// # Errors
/// [`BundleError`].
pub fn gather(candidates: &[&str], extra: &[PathBuf], authority: &str) -> Result<Roots, BundleError> {
    let mut added = certificates("authority", authority)?;
    if added.is_empty() {
        return Err(BundleError::NoAuthority);
    }
    for path in extra {
        added.extend(certificates(&path.display().to_string(), &read(path).map_err(file(path))?)?);
    }
    let mut system = None;
    let mut all = added.clone();
    for candidate in candidates.iter().map(Path::new) {
        match read(candidate) {
            Ok(text) => {
                all.extend(certificates(&candidate.display().to_string(), &text)?);
                system = Some(candidate.to_owned());
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(file(candidate)(e)),
        }
    }
    once(&mut added);
    once(&mut all);
    Ok(Roots { system, all, added })
}

/// Leaves the first of each.
pub(super) fn once(certificates: &mut Vec<String>) {
    let mut seen = HashSet::new();
    certificates.retain(|body| seen.insert(body.clone()));
}

/// The text of a regular file of at most [`CAP`] bytes.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // A pipe would be waited for.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.take(CAP + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CAP {
        return Err(io::Error::other(format!("more than {CAP} bytes")));
    }
    // Comments between certificates may be in any encoding; PEM itself is ASCII.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `certificates` in PEM, without comments.
#[must_use]
pub fn pem(certificates: &[String]) -> String {
    certificates.iter().map(|body| format!("{BEGIN}\n{body}{END}\n")).collect()
}

/// The bodies of the certificates in `text`, with `\n` line ends. Other blocks, such as keys, are left
/// out.
pub(super) fn certificates(origin: &str, text: &str) -> Result<Vec<String>, BundleError> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match &mut open {
            None if line == BEGIN => open = Some(String::new()),
            None => {}
            Some(_) if line == END => found.extend(open.take()),
            Some(_) if line.starts_with("-----") => {
                return Err(BundleError::Unfinished { origin: origin.to_owned() });
            }
            Some(body) if !line.is_empty() => {
                body.push_str(line);
                body.push('\n');
            }
            Some(_) => {}
        }
    }
    if open.is_some() { Err(BundleError::Unfinished { origin: origin.to_owned() }) } else { Ok(found) }
}

/// Writes the `EnvironmentFile=` (systemd.exec(5)) for agents that run as units, 0644, atomically.
///
/// # Errors
/// [`BundleError::File`].
pub fn write_environment_file(target: &Path, bundle: &Path, added: &Path) -> Result<(), BundleError> {
    let text = environment_file(bundle, added);
    replace(target, text.as_bytes(), 0o644).map_err(file(target))
}

/// The text of that file.
#[must_use]
pub fn environment_file(bundle: &Path, added: &Path) -> String {
    let mut text = String::from("# Written by agentgated: what clients read to find the trust bundle.\n");
    for (names, path) in [(&BUNDLE_VARIABLES[..], bundle), (&ADDED_VARIABLES[..], added)] {
        let value = quoted(path);
        for name in names {
            text.push_str(&format!("{name}={value}\n"));
        }
    }
    text
}

fn quoted(path: &Path) -> String {
    let mut value = String::from("\"");
    for c in path.to_string_lossy().chars() {
        // Characters that keep a meaning inside double quotes (systemd.exec(5), EnvironmentFile=).
        if matches!(c, '"' | '\\' | '$' | '`') {
            value.push('\\');
        }
        value.push(c);
    }
    value.push('"');
    value
}

/// Replaces `target` by `bytes` so that a reader sees the old or the whole new file.
pub(super) fn replace(target: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".partial");
    let partial = target.with_file_name(name);
    match fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    // Set on the descriptor, since the mode given to open(2) is cut by the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&partial, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    #[test]
    fn gathers_each_certificate_once_without_comments() {
        let dir = tempfile::tempdir().unwrap();
        let (roots, extra) = (dir.path().join("roots.pem"), dir.path().join("extra.pem"));
        let text = format!("# Root A\n{}\n\r\n{}garbage\n", pem("AAAA").replace('\n', "\r\n"), pem("BBBB"));
        fs::write(&roots, text).unwrap();
        let key = "-----BEGIN PRIVATE KEY-----\nKKKK\n-----END PRIVATE KEY-----\n";
        fs::write(&extra, format!("{key}{}{}", pem("BBBB"), pem("GATE"))).unwrap();
        let candidates = ["/nonexistent/roots.pem", roots.to_str().unwrap(), "/nonexistent/other.pem"];
        let gathered = gather(&candidates, std::slice::from_ref(&extra), &pem("GATE")).unwrap();
        assert_eq!(gathered.system, Some(roots));
        assert_eq!(super::pem(&gathered.all), [pem("GATE"), pem("BBBB"), pem("AAAA")].concat());
        assert_eq!(super::pem(&gathered.added), [pem("GATE"), pem("BBBB")].concat());
    }

    #[test]
    fn refuses_what_would_break_clients() {
        let half = format!("{BEGIN}\nAAAA\n");
        assert!(matches!(gather(&[], &[], "no pem"), Err(BundleError::NoAuthority)));
        for text in [half.clone(), format!("{half}{}", pem("BBBB"))] {
            assert!(matches!(certificates("o", &text), Err(BundleError::Unfinished { .. })));
        }
    }

    #[test]
    fn without_system_roots_it_says_so_and_a_missing_extra_file_is_an_error() {
        let gathered = gather(&["/nonexistent"], &[], &pem("GATE")).unwrap();
        assert_eq!((gathered.system, gathered.all.len()), (None, 1));
        assert!(gather(&[], &["/nonexistent/extra.pem".into()], &pem("NEW")).is_err());
        assert!(gather(&["/dev/zero"], &[], &pem("NEW")).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_and_is_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("ca-bundle.pem");
        fs::write(dir.path().join("ca-bundle.pem.partial"), "left by a crash").unwrap();
        replace(&target, b"new", 0o644).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(!dir.path().join("ca-bundle.pem.partial").exists());
    }

    #[test]
    fn the_environment_file_quotes_for_systemd() {
        let text = environment_file(Path::new("/run/a \"b\"$c/ca.pem"), Path::new("/run/added.pem"));
        assert!(text.contains("\nSSL_CERT_FILE=\"/run/a \\\"b\\\"\\$c/ca.pem\"\n"), "{text}");
        assert!(text.contains("\nNODE_EXTRA_CA_CERTS=\"/run/added.pem\"\n"), "{text}");
        assert_eq!(text.lines().count(), 1 + BUNDLE_VARIABLES.len() + ADDED_VARIABLES.len());
    }
}
