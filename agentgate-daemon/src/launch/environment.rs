//! The environment that makes runtimes trust the gate and go to it directly.
//!
//! Pure: takes the variables there are, returns what to change and what to say about it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
};

/// Variables that take the place of a client's own store: they name the whole bundle. The first four reach
/// every client measured but wget (which reads the system's bundle only); the others are for clients that
/// look at their own first and would otherwise keep a value of the user's, or have roots built in.
pub const BUNDLE_VARIABLES: [&str; 13] = [
    // OpenSSL and what is built on it, rustls-native-certs, Go, .NET, bun, Claude Code, opencode, Codex,
    // Python's ssl, httpx, uv, curl, Ruby, PHP, Perl.
    "SSL_CERT_FILE",
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
    // Codex prefers it to SSL_CERT_FILE.
    "CODEX_CA_CERTIFICATE",
    // gRPC in C++, Python, Ruby and PHP has roots of its own otherwise.
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    // Google's older Python clients, and gcloud.
    "HTTPLIB2_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    // Python's websocket-client.
    "WEBSOCKET_CLIENT_CA_BUNDLE",
    // What nix has built looks here first.
    "NIX_SSL_CERT_FILE",
];

/// Variables whose certificates a client adds to its own roots: they name what the gate adds, since node
/// takes 20 ms at each start to read a whole bundle.
pub const ADDED_VARIABLES: [&str; 2] = [
    // Node (all that runs on it, npm too), deno, bun.
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
];

/// Variables that name a whole bundle, too, for clients that need none: only where the user has set them
/// do they keep a client from trusting the gate.
pub const KEPT_VARIABLES: [&str; 7] = [
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
    "YARN_HTTPS_CA_FILE_PATH",
    "PERL_LWP_SSL_CA_FILE",
    "HTTPS_CA_FILE",
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
];

/// Options of every Java machine; each says on standard error that it has read them.
const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
/// The option that names a trust store.
const JAVA_STORE: &str = "-Djavax.net.ssl.trustStore=";

/// Variables that would send an agent to a proxy instead of to the origin; the gate needs none.
pub const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// What an agent is to trust.
#[derive(Clone, Copy, Debug)]
pub struct Roots<'a> {
    /// Everything, PEM.
    pub bundle: &'a Path,
    /// What the gate adds, PEM.
    pub added: &'a Path,
    /// Everything, as a Java key store; `None` where Java's own store holds it already.
    pub java: Option<&'a Path>,
}

/// What to change in an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Set.
    pub set: BTreeMap<&'static str, OsString>,
    /// Taken away.
    pub remove: Vec<&'static str>,
    /// Of `remove`, those that name what is hidden.
    pub hidden: Vec<&'static str>,
    /// The user's own trust store for Java is kept.
    pub java_kept: bool,
}

impl Changes {
    /// What a person should know, a line each; empty where nothing of theirs was changed.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
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

/// The changes to the environment `current` for an agent that is to trust `roots` and not to have
/// `unset`.
pub fn changes<'a>(
    current: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
    roots: Roots<'_>,
    keep_proxies: bool,
    unset: &[&'static str],
) -> Changes {
    let current: BTreeMap<&OsStr, &OsStr> = current.into_iter().collect();
    let of = |name: &str| current.get(OsStr::new(name)).filter(|value| !value.is_empty());
    let mut changes = Changes::default();
    let kept = KEPT_VARIABLES.into_iter().filter(|name| of(name).is_some());
    for name in BUNDLE_VARIABLES.into_iter().chain(kept) {
        changes.set.insert(name, roots.bundle.as_os_str().to_owned());
    }
    for name in ADDED_VARIABLES {
        changes.set.insert(name, roots.added.as_os_str().to_owned());
    }
    let options = of(JAVA_OPTIONS);
    changes.java_kept = options.is_some_and(|options| options.to_string_lossy().contains(JAVA_STORE));
    if let Some(store) = roots.java
        && !changes.java_kept
    {
        let mut text = options.map(|options| (*options).to_owned()).unwrap_or_default();
        if !text.is_empty() {
            text.push(" ");
        }
        text.push(JAVA_STORE);
        text.push(store);
        changes.set.insert(JAVA_OPTIONS, text);
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

    fn with(current: &[(&str, &str)], keep: bool, java: Option<&str>) -> Changes {
        let current = current.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value)));
        let roots = Roots {
            bundle: Path::new("/run/agentgate/ca-bundle.pem"),
            added: Path::new("/run/agentgate/ca.pem"),
            java: java.map(Path::new),
        };
        changes(current, roots, keep, &["SSH_AUTH_SOCK", "TMUX"])
    }

    fn run(current: &[(&str, &str)], keep: bool) -> Changes {
        with(current, keep, None)
    }

    #[test]
    fn every_runtime_is_pointed_at_what_it_needs() {
        let changes = run(&[("PATH", "/bin"), ("npm_config_cafile", "/x"), ("HTTPS_CA_FILE", "")], false);
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"] {
            assert_eq!(changes.set.get(name).unwrap(), "/run/agentgate/ca-bundle.pem");
        }
        assert_eq!(changes.set["NODE_EXTRA_CA_CERTS"], "/run/agentgate/ca.pem");
        // Of those that no client needs, the one that is set.
        assert_eq!(changes.set["npm_config_cafile"], "/run/agentgate/ca-bundle.pem");
        assert_eq!(changes.set.len(), BUNDLE_VARIABLES.len() + ADDED_VARIABLES.len() + 1);
        assert_eq!((changes.remove.len(), changes.notes().len()), (0, 0));
    }

    #[test]
    fn java_is_told_of_a_store_unless_it_has_one() {
        let set = |current: &[(&str, &str)], store| {
            let changes = with(current, false, store);
            (changes.set.get(JAVA_OPTIONS).map(|text| text.to_str().unwrap().to_owned()), changes.java_kept)
        };
        let ours = "-Djavax.net.ssl.trustStore=/run/j";
        assert_eq!(set(&[], None), (None, false));
        assert_eq!(set(&[], Some("/run/j")), (Some(ours.to_owned()), false));
        let heap = [(JAVA_OPTIONS, "-Xmx1g")];
        assert_eq!(set(&heap, Some("/run/j")), (Some(format!("-Xmx1g {ours}")), false));
        assert_eq!(set(&heap, None), (None, false));
        let own = [(JAVA_OPTIONS, "-Xmx1g -Djavax.net.ssl.trustStore=/corp")];
        assert_eq!(set(&own, Some("/run/j")), (None, true));
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
}
