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

/// What is shorter holds no shape.
pub(super) const SHORTEST: usize = {
    let (mut shortest, mut at) = (usize::MAX, 0);
    while at < SHAPES.len() {
        let length = SHAPES[at].0.len() + SHAPES[at].1;
        if length < shortest {
            shortest = length;
        }
        at += 1;
    }
    shortest
};

/// In [`CLASSES`]: letters and digits.
pub(super) const WORD: u8 = 1;
/// In [`CLASSES`]: what [`SHAPES`] begin with.
pub(super) const BEGINS: u8 = 2;

/// What each byte is.
pub(super) const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            classes[byte] |= WORD;
        }
        byte += 1;
    }
    let mut at = 0;
    while at < SHAPES.len() {
        classes[SHAPES[at].0.as_bytes()[0] as usize] |= BEGINS;
        at += 1;
    }
    classes
};

/// By the first byte of a shape, which may be the second: words begin with all the letters that shapes do.
const SECONDS: [u128; 256] = {
    let mut seconds = [0; 256];
    let mut at = 0;
    while at < SHAPES.len() {
        let prefix = SHAPES[at].0.as_bytes();
        assert!(prefix[1].is_ascii());
        seconds[prefix[0] as usize] |= 1 << prefix[1];
        at += 1;
    }
    seconds
};

/// Whether `text` begins with the prefix of a shape.
pub(super) fn begins_shape(text: &[u8]) -> bool {
    let [first, second @ 0..0x80, ..] = *text else { return false };
    SECONDS[usize::from(first)] >> second & 1 == 1
        && SHAPES.iter().any(|(prefix, _)| text.starts_with(prefix.as_bytes()))
}

/// Headers whose names say nothing of secrets or URLs, by length: what the rules below say of them, at less
/// cost.
const HARMLESS_HEADERS: &[&str] = &[
    "te",
    "age",
    "via",
    "date",
    "etag",
    "host",
    "vary",
    "range",
    "accept",
    "cf-ray",
    "origin",
    "pragma",
    "server",
    "alt-svc",
    "expires",
    "trailer",
    "priority",
    "connection",
    "keep-alive",
    "request-id",
    "user-agent",
    "openai-beta",
    "content-type",
    "x-request-id",
    "accept-ranges",
    "cache-control",
    "if-none-match",
    "last-modified",
    "anthropic-beta",
    "content-length",
    "openai-version",
    "accept-encoding",
    "accept-language",
    "cf-cache-status",
    "content-encoding",
    "anthropic-version",
    "if-modified-since",
    "transfer-encoding",
    "x-content-type-options",
    "strict-transport-security",
    "access-control-allow-origin",
];
/// Length of the longest of them.
const LONGEST: usize = HARMLESS_HEADERS[HARMLESS_HEADERS.len() - 1].len();
/// Where those of each length begin, and end with those of the next.
const OF_LENGTH: [usize; LONGEST + 2] = {
    let mut starts = [0; LONGEST + 2];
    let (mut length, mut at) = (0, 0);
    while length < starts.len() {
        while at < HARMLESS_HEADERS.len() && HARMLESS_HEADERS[at].len() < length {
            at += 1;
        }
        starts[length] = at;
        length += 1;
    }
    starts
};

/// Whether a header's name is one of those that are known to say nothing.
pub(super) fn is_harmless_header(name: &str) -> bool {
    let Some(&[from, to]) = OF_LENGTH.get(name.len()..name.len() + 2).and_then(<[usize]>::first_chunk) else {
        return false;
    };
    let known = HARMLESS_HEADERS.get(from..to).unwrap_or_default();
    known.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[test]
fn harmless_headers_are_what_the_rules_say() {
    assert!(HARMLESS_HEADERS.is_sorted_by_key(|name| (name.len(), *name)));
    for name in HARMLESS_HEADERS {
        assert!(!is_secret_header(name) && !super::URL_HEADERS.contains(name), "{name}");
        assert!(!["cookie", "set-cookie"].contains(name));
        assert!(is_harmless_header(name) && is_harmless_header(&name.to_ascii_uppercase()), "{name}");
        assert!(!is_harmless_header(&name[1..]) && !is_harmless_header(&format!("{name}x")), "{name}");
    }
    for name in ["", "x", "Cookie", "authorization", "x-api-key", &"x".repeat(99)] {
        assert!(!is_harmless_header(name), "{name}");
    }
}

/// Whether what is called `name` is a secret: `x-api-key`, `GITHUB_TOKEN`, `--clientSecret`.
pub(super) fn is_secret_name(name: &str) -> bool {
    is_secret(words(name, true))
}

/// The same of a header, of which the case says nothing.
pub(super) fn is_secret_header(name: &str) -> bool {
    is_secret(words(name, false))
}

fn is_secret<'n>(words: impl Iterator<Item = &'n [u8]>) -> bool {
    let among =
        |list: &[&str], word: &[u8]| list.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(word));
    let is = |word: Option<&[u8]>, known: &str| word.is_some_and(|word| among(&[known], word));
    let ends = |word: &[u8], end: &str| {
        word.len()
            .checked_sub(end.len())
            .and_then(|at| word.get(at..))
            .is_some_and(|tail| is(Some(tail), end))
    };
    let (mut before, mut last, mut told) = (None, None, false);
    for word in words {
        told |= among(SECRET_WORDS, word)
            || SECRET_ENDS.iter().any(|end| ends(word, end))
            || is(last, "api") && is(Some(word), "key");
        (before, last) = (last, Some(word));
    }
    let Some(last) = last else { return false };
    if before.is_some() && among(HARMLESS_LAST, last) {
        return false;
    }
    if is(Some(last), "key") && before.is_some_and(|word| among(HARMLESS_KEYS, word)) {
        return false;
    }
    told || among(SECRET_LAST, last)
}

/// The words of a name: parts between signs, and with `humps` those of camel case.
fn words(name: &str, humps: bool) -> impl Iterator<Item = &[u8]> {
    let mut rest = name.as_bytes();
    std::iter::from_fn(move || {
        let start = rest.iter().position(u8::is_ascii_alphanumeric)?;
        let word = rest.get(start..)?;
        let ends = |pair: &[u8]| match *pair {
            [before, next] => {
                !next.is_ascii_alphanumeric()
                    || humps && before.is_ascii_lowercase() && next.is_ascii_uppercase()
            }
            _ => false,
        };
        let length = word.windows(2).position(ends).map_or(word.len(), |at| at + 1);
        let (word, after) = word.split_at(length);
        rest = after;
        Some(word)
    })
}

/// Whether `word` is an authentication scheme.
pub(super) fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word))
}
