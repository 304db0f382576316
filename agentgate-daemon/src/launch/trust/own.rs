//! Certificates of the user's own, such as a company's: what the variables name that the gate takes over
//! goes into what it puts there instead.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use super::Files;
use crate::launch::{
    bundle::{self, BundleError},
    environment::{ADDED_VARIABLES, BUNDLE_VARIABLES, KEPT_VARIABLES},
};

/// Files of a directory that are read; distributions have 300.
const MOST: usize = 2048;

/// What the user's variables name besides what the gate's files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The bundle with it; `None` where there is nothing to add.
    pub bundle: Option<String>,
    /// What is added to a client's own roots, with it; likewise.
    pub added: Option<String>,
    /// Variables that name what was not there yet.
    pub variables: Vec<&'static str>,
    /// Variables whose file cannot be read, and why.
    pub unreadable: Vec<(&'static str, String)>,
}

impl Own {
    /// Reads what the variables of `environment` name. `files` are the gate's.
    ///
    /// # Errors
    /// [`BundleError`] of the gate's own files; what is wrong with the user's is in the answer.
    pub fn collect(environment: &[(OsString, OsString)], files: &Files) -> Result<Self, BundleError> {
        let mut own = Self::default();
        let ours = |path: &Path| -> Result<(String, HashSet<String>), BundleError> {
            let text = bundle::read(path).map_err(bundle::file(path))?;
            let known = bundle::certificates(&path.display().to_string(), &text)?;
            Ok((text, known.into_iter().collect()))
        };
        let replaced = BUNDLE_VARIABLES.into_iter().chain(KEPT_VARIABLES).map(|name| (name, false));
        let named: Vec<(&'static str, bool, PathBuf)> = replaced
            .chain(ADDED_VARIABLES.into_iter().map(|name| (name, true)))
            .filter_map(|(name, adds)| Some((name, adds, value(environment, name)?)))
            .filter(|(_, _, path)| *path != files.bundle && *path != files.added)
            .collect();
        if named.is_empty() {
            return Ok(own);
        }
        let (mut bundle_text, mut in_bundle) = ours(&files.bundle)?;
        let (mut added_text, mut in_added) = ours(&files.added)?;
        for (name, adds, path) in named {
            let found = match certificates(&path) {
                Ok(found) => found,
                Err(error) => {
                    own.unreadable.push((name, format!("{}: {error}", path.display())));
                    continue;
                }
            };
            for body in found {
                let text = bundle::pem(std::slice::from_ref(&body));
                if in_bundle.insert(body.clone()) {
                    bundle_text.push_str(&text);
                    own.bundle = Some(String::new());
                    own.variables.push(name);
                }
                if adds && in_added.insert(body) {
                    added_text.push_str(&text);
                    own.added = Some(String::new());
                }
            }
        }
        own.variables.dedup();
        own.bundle = own.bundle.map(|_| bundle_text);
        own.added = own.added.map(|_| added_text);
        Ok(own)
    }
}

fn value(environment: &[(OsString, OsString)], name: &str) -> Option<PathBuf> {
    let (_, value) = environment.iter().find(|(key, _)| key == OsStr::new(name))?;
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// The certificates at `path`, which some variables let be a directory of files.
fn certificates(path: &Path) -> io::Result<Vec<String>> {
    let parse = |path: &Path| {
        let text = bundle::read(path)?;
        bundle::certificates(&path.display().to_string(), &text).map_err(io::Error::other)
    };
    if !fs::metadata(path)?.is_dir() {
        return parse(path);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path)?.take(MOST) {
        let path = entry?.path();
        // A link whose target is gone, a directory, a key: none of the roots that clients find there.
        all.extend(parse(&path).unwrap_or_default());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        bundle::pem(&[format!("{body}\n")])
    }

    #[test]
    fn what_the_user_names_is_merged_and_what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = Files::beside(&at("ca-bundle.pem"));
        fs::write(&files.bundle, pem("GATE") + &pem("SYSTEM")).unwrap();
        fs::write(&files.added, pem("GATE")).unwrap();
        fs::write(at("corp.pem"), format!("a comment\n{}", pem("CORP"))).unwrap();
        fs::write(at("system.pem"), pem("SYSTEM")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        fs::write(at("directory/one.pem"), pem("ONE")).unwrap();
        fs::write(at("directory/notes"), "nothing").unwrap();
        let collect = |pairs: &[(&str, PathBuf)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, path)| ((*name).into(), path.clone().into_os_string())).collect();
            Own::collect(&pairs, &files).unwrap()
        };
        let nothing = [("SSL_CERT_FILE", files.bundle.clone()), ("NODE_EXTRA_CA_CERTS", PathBuf::new())];
        assert_eq!(collect(&nothing), Own::default());
        assert_eq!(collect(&[("SSL_CERT_FILE", at("system.pem"))]), Own::default());

        let own = collect(&[
            ("NODE_EXTRA_CA_CERTS", at("corp.pem")),
            ("REQUESTS_CA_BUNDLE", at("directory")),
            ("PIP_CERT", at("missing.pem")),
        ]);
        assert_eq!(own.bundle.unwrap(), [pem("GATE"), pem("SYSTEM"), pem("ONE"), pem("CORP")].concat());
        // Node needs no more than it had.
        assert_eq!(own.added.unwrap(), pem("GATE") + &pem("CORP"));
        assert_eq!(own.variables, ["REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]);
        assert!(own.unreadable.len() == 1 && own.unreadable[0].0 == "PIP_CERT", "{:?}", own.unreadable);
    }
}
