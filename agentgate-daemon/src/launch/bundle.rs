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

fn file(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::File { path, source }
}

/// A bundle that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The system's file that went in; `None` where the host has none, so that only hosts whose
    /// connections are intercepted will be trusted.
    pub system: Option<PathBuf>,
    /// Certificates in all.
    pub certificates: usize,
}

/// Merges the system's roots, the files of `extra`, and the authority's own certificate into `target`
/// (0644, replaced atomically).
///
/// # Errors
/// [`BundleError`]; `target` is then as it was.
pub fn write(
    target: &Path,
    candidates: &[&str],
    extra: &[PathBuf],
    authority: &str,
) -> Result<Written, BundleError> {
    let mut texts = Vec::new();
    let mut system = None;
    for candidate in candidates.iter().map(Path::new) {
        match read(candidate) {
            Ok(text) => {
                texts.push((candidate.display().to_string(), text));
                system = Some(candidate.to_owned());
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(file(candidate)(e)),
        }
    }
    for path in extra {
        texts.push((path.display().to_string(), read(path).map_err(file(path))?));
    }
    let (merged, certificates) = merge(&texts, authority)?;
    replace(target, merged.as_bytes(), 0o644).map_err(file(target))?;
    Ok(Written { system, certificates })
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(CAP + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CAP {
        return Err(io::Error::other(format!("more than {CAP} bytes")));
    }
    // Comments between certificates may be in any encoding; PEM itself is ASCII.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The certificates of `texts` (each with its origin) and of `authority`, each once, the authority's
/// first, without comments; and how many.
///
/// # Errors
/// [`BundleError::NoAuthority`], [`BundleError::Unfinished`].
pub fn merge(texts: &[(String, String)], authority: &str) -> Result<(String, usize), BundleError> {
    let own = certificates("authority", authority)?;
    if own.is_empty() {
        return Err(BundleError::NoAuthority);
    }
    let mut all = own;
    for (origin, text) in texts {
        all.extend(certificates(origin, text)?);
    }
    let mut seen = HashSet::new();
    all.retain(|body| seen.insert(body.clone()));
    let merged: String = all.iter().map(|body| format!("{BEGIN}\n{body}{END}\n")).collect();
    Ok((merged, all.len()))
}

/// The bodies of the certificates in `text`, with `\n` line ends. Other blocks, such as keys, are left
/// out.
fn certificates(origin: &str, text: &str) -> Result<Vec<String>, BundleError> {
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
pub fn write_environment_file(target: &Path, bundle: &Path) -> Result<(), BundleError> {
    let text = environment_file(bundle);
    replace(target, text.as_bytes(), 0o644).map_err(file(target))
}

/// The text of that file.
#[must_use]
pub fn environment_file(bundle: &Path) -> String {
    let mut value = String::from("\"");
    for c in bundle.to_string_lossy().chars() {
        // Characters that keep a meaning inside double quotes (systemd.exec(5), EnvironmentFile=).
        if matches!(c, '"' | '\\' | '$' | '`') {
            value.push('\\');
        }
        value.push(c);
    }
    value.push('"');
    let mut text = String::from("# Written by agentgated: what clients read to find the trust bundle.\n");
    for name in super::environment::BUNDLE_VARIABLES {
        text.push_str(&format!("{name}={value}\n"));
    }
    text
}

/// Replaces `target` by `bytes` so that a reader sees the old or the whole new file.
fn replace(target: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
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
    fn merges_each_certificate_once_without_comments() {
        let system = format!("# Root A\n{}\n\r\n{}garbage\n", pem("AAAA").replace('\n', "\r\n"), pem("BBBB"));
        let extra = format!("-----BEGIN PRIVATE KEY-----\nKKKK\n-----END PRIVATE KEY-----\n{}", pem("BBBB"));
        let (merged, count) =
            merge(&[("system".into(), system), ("extra".into(), extra)], &pem("GATE")).unwrap();
        assert_eq!(merged, format!("{}{}{}", pem("GATE"), pem("AAAA"), pem("BBBB")));
        assert_eq!(count, 3);
    }

    #[test]
    fn refuses_what_would_break_clients() {
        let half = format!("{BEGIN}\nAAAA\n");
        assert!(matches!(merge(&[], "no pem"), Err(BundleError::NoAuthority)));
        let origin = |text: &str| merge(&[("o".into(), text.to_owned())], &pem("GATE"));
        assert!(matches!(origin(&half), Err(BundleError::Unfinished { .. })));
        assert!(matches!(origin(&format!("{half}{}", pem("BBBB"))), Err(BundleError::Unfinished { .. })));
    }

    #[test]
    fn writes_a_world_readable_file_from_the_first_bundle_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let (roots, target) = (dir.path().join("roots.pem"), dir.path().join("ca-bundle.pem"));
        fs::write(&roots, pem("AAAA")).unwrap();
        fs::write(dir.path().join("ca-bundle.pem.partial"), "left by a crash").unwrap();
        let candidates = ["/nonexistent/roots.pem", roots.to_str().unwrap(), "/nonexistent/other.pem"];
        let written = write(&target, &candidates, &[], &pem("GATE")).unwrap();
        assert_eq!(written, Written { system: Some(roots), certificates: 2 });
        assert_eq!(fs::read_to_string(&target).unwrap(), format!("{}{}", pem("GATE"), pem("AAAA")));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(!dir.path().join("ca-bundle.pem.partial").exists());
    }

    #[test]
    fn without_system_roots_the_bundle_says_so_and_a_missing_extra_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("ca-bundle.pem");
        let written = write(&target, &["/nonexistent"], &[], &pem("GATE")).unwrap();
        assert_eq!(written, Written { system: None, certificates: 1 });
        let before = fs::read(&target).unwrap();
        assert!(write(&target, &[], &["/nonexistent/extra.pem".into()], &pem("NEW")).is_err());
        assert_eq!(fs::read(&target).unwrap(), before);
    }

    #[test]
    fn the_environment_file_quotes_for_systemd() {
        let text = environment_file(Path::new("/run/a \"b\"$c/ca.pem"));
        assert!(text.contains("\nSSL_CERT_FILE=\"/run/a \\\"b\\\"\\$c/ca.pem\"\n"), "{text}");
        assert_eq!(text.lines().count(), 1 + super::super::environment::BUNDLE_VARIABLES.len());
    }
}
