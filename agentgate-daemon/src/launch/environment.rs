//! The environment that makes runtimes trust the gate and go to it directly.
//!
//! Pure: takes the variables there are, returns what to change and what to say about it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
};

/// Variables that name a trust bundle. The first five reach every client but wget (which reads the
/// system's bundle only); the others are for clients that look at their own first and would otherwise
/// keep a value of the user's.
pub const BUNDLE_VARIABLES: [&str; 10] = [
    // OpenSSL, rustls-native-certs, bun, Claude Code, opencode, Codex, Python's ssl, httpx, uv, curl.
    "SSL_CERT_FILE",
    // Node (all that runs on it, npm too), deno, bun. Added to node's own roots.
    "NODE_EXTRA_CA_CERTS",
    // requests, and pip and boto3 where they have no variable of their own.
    "REQUESTS_CA_BUNDLE",
    // boto3, aws-cli.
    "AWS_CA_BUNDLE",
    // git.
    "GIT_SSL_CAINFO",
    // curl, and requests where REQUESTS_CA_BUNDLE is not set.
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    // Codex prefers it to SSL_CERT_FILE.
    "CODEX_CA_CERTIFICATE",
];

/// Variables that would send an agent to a proxy instead of to the origin; the gate needs none.
pub const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// What to change in an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Set to the bundle.
    pub set: BTreeMap<&'static str, OsString>,
    /// Taken away.
    pub remove: Vec<&'static str>,
    /// Of `remove`, those that name what is hidden.
    pub hidden: Vec<&'static str>,
    /// Of `set`, those that had another value of the user's.
    pub replaced: Vec<&'static str>,
}

impl Changes {
    /// What a person should know, a line each; empty where nothing of theirs was changed.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.replaced.is_empty() {
            notes.push(format!("{} now name the gate's bundle instead of yours", self.replaced.join(", ")));
        }
        let of = |hidden: bool| -> Vec<&str> {
            self.remove.iter().copied().filter(|name| self.hidden.contains(name) == hidden).collect()
        };
        let (proxies, hidden) = (of(false), of(true));
        if !proxies.is_empty() {
            notes.push(format!("{} removed (--keep-proxy-env keeps them)", proxies.join(", ")));
        }
        if !hidden.is_empty() {
            notes.push(format!("{} removed, with what they name (--expose shows it)", hidden.join(", ")));
        }
        notes
    }
}

/// The changes to the environment `current` for an agent that is to trust `bundle` and not to have
/// `unset`.
pub fn changes<'a>(
    current: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
    bundle: &Path,
    keep_proxies: bool,
    unset: &[&'static str],
) -> Changes {
    let current: BTreeMap<&OsStr, &OsStr> = current.into_iter().collect();
    let mut changes = Changes::default();
    for name in BUNDLE_VARIABLES {
        let before = current.get(OsStr::new(name));
        if before.is_some_and(|value| !value.is_empty() && *value != bundle.as_os_str()) {
            changes.replaced.push(name);
        }
        changes.set.insert(name, bundle.as_os_str().to_owned());
    }
    if !keep_proxies {
        changes.remove =
            PROXY_VARIABLES.into_iter().filter(|name| current.contains_key(OsStr::new(name))).collect();
    }
    changes.hidden = unset.iter().copied().filter(|name| current.contains_key(OsStr::new(name))).collect();
    changes.remove.extend(&changes.hidden);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(current: &[(&str, &str)], keep: bool) -> Changes {
        let current = current.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value)));
        changes(current, Path::new("/run/agentgate/ca-bundle.pem"), keep, &["SSH_AUTH_SOCK", "TMUX"])
    }

    #[test]
    fn every_runtime_is_pointed_at_the_bundle() {
        let changes = run(&[("PATH", "/bin")], false);
        let five =
            ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"];
        for name in five {
            assert_eq!(changes.set.get(name).unwrap(), "/run/agentgate/ca-bundle.pem");
        }
        assert_eq!(changes.set.len(), BUNDLE_VARIABLES.len());
        assert_eq!((changes.remove.len(), changes.replaced.len(), changes.notes().len()), (0, 0, 0));
    }

    #[test]
    fn proxies_go_unless_they_are_to_stay() {
        let current = [("HTTPS_PROXY", "http://p:1"), ("all_proxy", ""), ("NO_PROXY", "x")];
        let changes = run(&current, false);
        assert_eq!(changes.remove, ["HTTPS_PROXY", "all_proxy"]);
        assert!(changes.notes()[0].contains("--keep-proxy-env"));
        assert_eq!(run(&current, true).remove, [""; 0]);
    }

    #[test]
    fn names_of_what_is_hidden_go_and_are_told() {
        let current = [("HTTPS_PROXY", "http://p:1"), ("SSH_AUTH_SOCK", "/run/a")];
        let changes = run(&current, false);
        assert_eq!(changes.remove, ["HTTPS_PROXY", "SSH_AUTH_SOCK"]);
        let notes = changes.notes();
        assert!(notes[0].starts_with("HTTPS_PROXY removed") && notes[1].starts_with("SSH_AUTH_SOCK removed"));
        assert_eq!(run(&current, true).notes().len(), 1);
    }

    #[test]
    fn a_bundle_of_the_users_is_replaced_and_named() {
        let current = [
            ("SSL_CERT_FILE", "/home/me/corp.pem"),
            ("PIP_CERT", ""),
            ("AWS_CA_BUNDLE", "/run/agentgate/ca-bundle.pem"),
        ];
        let changes = run(&current, false);
        assert_eq!(changes.replaced, ["SSL_CERT_FILE"]);
        assert_eq!(changes.notes().len(), 1);
        assert!(changes.notes()[0].starts_with("SSL_CERT_FILE "));
    }
}
