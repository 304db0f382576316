//! What secrets are called and what they look like.

/// Words of a name that make its value a secret, wherever they stand or end a longer word.
const SECRET_ENDS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "jwt",
    "signature",
];
/// Words that do so as a whole.
const SECRET_WORDS: &[&str] = &["pwd", "pass", "sig", "otp", "bearer", "assertion", "cookie2"];
/// Words that do so as the last.
const SECRET_LAST: &[&str] = &["key", "auth"];
/// Last words that say that the value is about a secret and not one.
const HARMLESS_LAST: &[&str] = &[
    "id",
    "name",
    "type",
    "file",
    "stdin",
    "path",
    "url",
    "uri",
    "endpoint",
    "count",
    "limit",
    "ttl",
    "expires",
    "remaining",
    "reset",
];
/// Keys that open nothing.
const HARMLESS_KEYS: &[&str] =
    &["idempotency", "websocket", "surrogate", "cache", "sort", "partition", "primary", "public", "host"];

/// Authentication schemes (IANA registry and what providers use): shown, because what follows is the
/// secret.
const SCHEMES: &[&str] = &[
    "basic",
    "bearer",
    "digest",
    "negotiate",
    "ntlm",
    "token",
    "apikey",
    "api-key",
    "key",
    "dpop",
    "hawk",
    "hoba",
    "mutual",
    "gnap",
    "oauth",
    "vapid",
    "aws4-hmac-sha256",
    "googlelogin",
    "sapisidhash",
    "scram-sha-1",
    "scram-sha-256",
    "privatetoken",
];

/// Shapes: prefix, and how many characters must follow for it to be a secret.
pub(super) const SHAPES: &[(&str, usize)] = &[
    ("sk-", 9),
    ("sk_live_", 8),
    ("sk_test_", 8),
    ("rk_live_", 8),
    ("rk_test_", 8),
    ("whsec_", 8),
    ("ghp_", 8),
    ("gho_", 8),
    ("ghu_", 8),
    ("ghs_", 8),
    ("ghr_", 8),
    ("github_pat_", 8),
    ("glpat-", 8),
    ("xoxb-", 8),
    ("xoxp-", 8),
    ("xoxa-", 8),
    ("xoxr-", 8),
    ("xoxs-", 8),
    ("xoxe-", 8),
    ("xoxe.", 8),
    ("xoxc-", 8),
    ("xoxd-", 8),
    ("xapp-", 8),
    ("AKIA", 12),
    ("ASIA", 12),
    ("AIza", 20),
    ("ya29.", 10),
    ("hf_", 16),
    ("npm_", 16),
    ("pypi-", 16),
    ("dop_v1_", 16),
    ("gsk_", 16),
    ("xai-", 16),
    ("pplx-", 16),
    ("r8_", 16),
    ("tvly-", 12),
    ("nvapi-", 16),
    ("shpat_", 16),
    ("SG.", 20),
    ("AGE-SECRET-KEY-", 8),
    ("eyJ", 20),
];

/// First bytes of [`SHAPES`].
pub(super) const BEGIN_SHAPES: [bool; 256] = {
    let mut begins = [false; 256];
    let mut at = 0;
    while at < SHAPES.len() {
        begins[SHAPES[at].0.as_bytes()[0] as usize] = true;
        at += 1;
    }
    begins
};

/// Headers whose names say nothing of secrets or URLs, in order: what the rules below say of them, at less
/// cost.
const HARMLESS_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "access-control-allow-origin",
    "age",
    "alt-svc",
    "anthropic-beta",
    "anthropic-version",
    "cache-control",
    "cf-cache-status",
    "cf-ray",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "expires",
    "host",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "last-modified",
    "openai-beta",
    "openai-version",
    "origin",
    "pragma",
    "priority",
    "range",
    "request-id",
    "server",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "x-content-type-options",
    "x-request-id",
];

/// Whether a header's name, in lower case, is one of those that are known to say nothing.
pub(super) fn is_harmless_header(name: &str) -> bool {
    HARMLESS_HEADERS.binary_search(&name).is_ok()
}

#[test]
fn harmless_headers_are_what_the_rules_say() {
    assert!(HARMLESS_HEADERS.is_sorted());
    for name in HARMLESS_HEADERS {
        assert!(!is_secret_name(name) && !super::URL_HEADERS.contains(name), "{name}");
        assert!(!["cookie", "set-cookie"].contains(name));
    }
}

/// Whether what is called `name` is a secret: `x-api-key`, `GITHUB_TOKEN`, `--clientSecret`.
pub(super) fn is_secret_name(name: &str) -> bool {
    let words = words(name);
    let Some((last, before)) = words.split_last() else {
        return false;
    };
    if !before.is_empty() && HARMLESS_LAST.contains(&last.as_str()) {
        return false;
    }
    if last == "key" && before.last().is_some_and(|word| HARMLESS_KEYS.contains(&word.as_str())) {
        return false;
    }
    SECRET_LAST.contains(&last.as_str())
        || words.iter().any(|word| {
            SECRET_WORDS.contains(&word.as_str()) || SECRET_ENDS.iter().any(|end| word.ends_with(end))
        })
        || words.windows(2).any(|pair| matches!(pair, [first, second] if first == "api" && second == "key"))
}

/// The words of a name, in lower case: parts between signs, and humps of camel case.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut lower = false;
    for c in name.chars() {
        let ends = !c.is_ascii_alphanumeric() || (lower && c.is_ascii_uppercase());
        if ends && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
        }
        lower = c.is_ascii_lowercase();
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether `word` is an authentication scheme.
pub(super) fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word))
}
