//! Masks secrets in what people and files get to see. Pure; everything passes here before it enters a
//! record.
//!
//! Secrets are known by the name they come under (header, parameter, flag, variable) and by the shape
//! that their issuer gives them (`sk-…`, `ghp_…`). This is against accidents: an agent that wants to
//! hide a secret in a text finds a way. It errs on the side of masking.
//!
//! What is left of a secret is `****` and, of at least twelve characters, the last four.

mod vocabulary;

#[cfg(test)]
mod tests;

use crate::model::HeaderFields;
use vocabulary::{SHAPES, is_harmless_header, is_scheme, is_secret_name};

/// Shorter secrets keep nothing: four characters of eight would be half of it.
const TAIL_FROM: usize = 12;
const TAIL: usize = 4;

/// Headers whose value is a URL.
const URL_HEADERS: &[&str] = &[
    "location",
    "content-location",
    "referer",
    "refresh",
    "link",
    "destination",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-uri",
];

/// What a cookie's attributes are called (RFC 6265 4.1.1 and what browsers added); they are no secrets.
const COOKIE_ATTRIBUTES: &[&str] =
    &["path", "domain", "expires", "max-age", "secure", "httponly", "samesite", "partitioned", "priority"];

/// The headers in their order, secrets masked: `Bearer ****abcd`. Values that are not UTF-8 are shown
/// lossily.
#[must_use]
pub fn mask_fields<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> HeaderFields {
    let mut masked = HeaderFields::with_capacity(12, 512);
    for (name, value) in fields {
        let value = String::from_utf8_lossy(value);
        masked.push_with(name, |text| {
            // Nearly all headers of nearly all requests: they cost one look at each byte.
            if is_harmless_header(name) && !may_hold_secret(&value) {
                text.push_str(&value);
            } else {
                text.push_str(&mask_header(name, &value));
            }
        });
    }
    masked
}

fn mask_header(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "cookie" => mask_cookies(value, false),
        "set-cookie" => mask_cookies(value, true),
        name if is_secret_name(name) => mask_credentials(value),
        name if URL_HEADERS.contains(&name) => mask_target(value),
        _ => mask_shapes(&mask_userinfo(value)),
    }
}

/// A path with its query, or a whole URL, with the values of secret parameters masked, and what has
/// the shape of a secret in the others and in the path.
#[must_use]
pub fn mask_target(target: &str) -> String {
    if !target.contains(['?', '#']) && !may_hold_secret(target) {
        return target.to_owned();
    }
    let target = mask_userinfo(target);
    let Some(query) = target.find(['?', '#']) else {
        return mask_shapes(&target);
    };
    let (path, query) = target.split_at(query);
    let mut masked = mask_shapes(path);
    for pair in query.split_inclusive(['&', '#']) {
        let (pair, end) = match pair.char_indices().next_back() {
            Some((at, '&' | '#')) => pair.split_at(at),
            Some(_) | None => (pair, ""),
        };
        mask_pair(pair, &mut masked);
        masked.push_str(end);
    }
    masked
}

/// What stands between two `&`: one parameter, or several with `;` between them. A secret may have a
/// `;` in it, so it is taken to the end.
fn mask_pair(pair: &str, masked: &mut String) {
    let mut at = 0;
    for part in pair.split_inclusive([';', '?']) {
        let start = at;
        at += part.len();
        let Some((name, value)) = part.split_once('=') else {
            masked.push_str(&mask_encoded(part));
            continue;
        };
        let plain = percent_decoded(name);
        masked.push_str(&mask_shapes(name));
        masked.push('=');
        // Parameters called `code` carry OAuth's authorization code (RFC 6749 4.1.2).
        if is_secret_name(&plain) || plain.eq_ignore_ascii_case("code") {
            masked.push_str(&mask(pair.get(start + name.len() + 1..).unwrap_or_default()));
            return;
        }
        masked.push_str(&mask_encoded(value));
    }
}

/// Arguments of a process with secrets masked: values of flags and variables with telling names, also
/// inside a script given with `-c`, credentials in URLs, and what has the shape of a secret.
#[must_use]
pub fn mask_cmdline(arguments: &[String]) -> Vec<String> {
    let program = arguments.first().map_or("", |first| first.rsplit('/').next().unwrap_or(first));
    let mut masked = Vec::with_capacity(arguments.len());
    // What the argument before says of this one.
    let mut before = Before::Nothing;
    for argument in arguments {
        let text = match before {
            Before::Secret => mask(argument),
            Before::User if !argument.contains("://") => match argument.split_once(':') {
                Some((user, password)) => format!("{user}:{}", mask(password)),
                None => mask_shapes(argument),
            },
            Before::User | Before::Script | Before::Nothing => {
                mask_argument(program, argument, before == Before::Script)
            }
        };
        before = match before {
            // A value is no flag, even where it looks like one.
            Before::Secret => Before::Nothing,
            Before::User | Before::Script | Before::Nothing => announces(program, argument),
        };
        masked.push(text);
    }
    masked
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Secret,
    /// `name:password`.
    User,
    /// Shell text rather than one value.
    Script,
}

fn announces(program: &str, argument: &str) -> Before {
    match argument {
        "-c" | "-lc" | "-ic" | "-ec" | "-xc" => Before::Script,
        "-u" | "-U" | "--user" | "--proxy-user" => Before::User,
        "-p" if program == "sshpass" => Before::Secret,
        "-b" if program == "curl" => Before::Secret,
        flag if flag.starts_with('-') && !flag.contains(['=', ' ']) && is_secret_name(flag) => Before::Secret,
        _ => Before::Nothing,
    }
}

fn mask_argument(program: &str, argument: &str, script: bool) -> String {
    // Database clients take the password stuck to the flag.
    if let Some(password) = argument.strip_prefix("-p")
        && matches!(program, "mysql" | "mysqldump" | "mysqladmin" | "mariadb" | "mariadb-dump" | "sshpass")
        && !password.is_empty()
    {
        return format!("-p{}", mask(password));
    }
    if !script {
        // One value to its end, whatever characters it has.
        if let Some((name, value)) = argument.split_once('=')
            && is_plain_name(name)
            && is_secret_name(name)
        {
            return format!("{name}={}", mask(value));
        }
        if let Some((name, value)) = argument.split_once(':')
            && is_plain_name(name)
            && !value.starts_with("//")
        {
            return format!("{name}:{}", mask_spaced(value, |value| mask_header(name, value)));
        }
        if !argument.contains(char::is_whitespace) && argument.contains(['?', '&']) {
            return mask_text(&mask_target(argument));
        }
    }
    mask_text(&mask_userinfo(argument))
}

/// Masks free text: values after secret names (`name=value`, `name: value`, `"name": "value"`,
/// `--name value`), after authentication schemes, and secrets by shape.
fn mask_text(text: &str) -> String {
    if let Some((before, _)) = text.split_once("PRIVATE KEY-----") {
        return format!("{}PRIVATE KEY-----****", mask_text(before));
    }
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%');
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !is_word(first) {
            masked.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        masked.push_str(&mask_shapes(word));
        rest = after;
        if let Some(gap) = gap_to_value(word, after) {
            let (gap, after) = after.split_at(gap);
            masked.push_str(gap);
            let (value, after) = split_value(after, gap);
            masked.push_str(&mask_credentials(value));
            rest = after;
        }
    }
    masked
}

/// Where the secret begins that `word` announces, as an offset into what follows it.
fn gap_to_value(word: &str, after: &str) -> Option<usize> {
    let blank = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
    let spaces = after.len() - after.trim_start().len();
    // Of the schemes only this one: the others are words of every text.
    let scheme = word.eq_ignore_ascii_case("bearer");
    let secret = is_secret_name(word);
    if !scheme && !secret {
        return None;
    }
    let sign = after.trim_start_matches(blank);
    if secret && let Some(value) = sign.strip_prefix(['=', ':']) {
        let value = value.trim_start_matches(blank);
        return Some(after.len() - value.len());
    }
    ((scheme || word.starts_with('-')) && spaces > 0).then(|| {
        let value = after.trim_start_matches(blank);
        after.len() - value.len()
    })
}

/// The value at the start of `text`: to the closing quote where `gap` opened one, else one word of a
/// shell, or of two where the first is an authentication scheme.
fn split_value<'t>(text: &'t str, gap: &str) -> (&'t str, &'t str) {
    let end = match gap.chars().next_back() {
        Some(quote @ ('"' | '\'')) => text.find(quote),
        Some(_) | None => {
            let stop = |c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '&' | '|' | ';' | ')' | '<' | '>')
            };
            match text.find(stop) {
                Some(at) if text.get(..at).is_some_and(is_scheme) => {
                    let value = text.get(at..).unwrap_or_default().trim_start();
                    value.find(stop).map(|end| text.len() - value.len() + end)
                }
                end => end,
            }
        }
    };
    text.split_at(end.unwrap_or(text.len()))
}

/// `****` and the tail of a secret that is long enough. Nothing stays nothing.
fn mask(secret: &str) -> String {
    let count = secret.chars().count();
    // Nothing, or masked before.
    if count == 0 || (secret.starts_with("****") && count <= 4 + TAIL) {
        return secret.to_owned();
    }
    let tail = if count >= TAIL_FROM { count - TAIL } else { count };
    format!("****{}", secret.chars().skip(tail).collect::<String>())
}

/// A secret after an authentication scheme, if it has one that is known.
fn mask_credentials(value: &str) -> String {
    match value.split_once(char::is_whitespace) {
        // The tail of Basic is the end of the password (RFC 7617), which may be a short one.
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("basic") && !secret.is_empty() => {
            format!("{scheme} ****")
        }
        Some((scheme, secret)) if is_scheme(scheme) => format!("{scheme} {}", mask(secret.trim())),
        Some(_) | None => mask(value),
    }
}

/// Names stay, values go; attributes stay where a cookie is set.
fn mask_cookies(value: &str, set: bool) -> String {
    let cookies = value.split(';').enumerate().map(|(at, part)| {
        let part = part.trim();
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        if set && at > 0 && COOKIE_ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(name.trim())) {
            return mask_shapes(part);
        }
        match value {
            Some(value) => format!("{}={}", mask_shapes(name), mask(value)),
            None => mask(part),
        }
    });
    cookies.collect::<Vec<_>>().join("; ")
}

/// The password, or a long user name, before the `@` of each URL in `text`.
fn mask_userinfo(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        masked.push_str(before);
        masked.push_str("://");
        rest = after;
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '>'));
        let (authority, _) = after.split_at(end.unwrap_or(after.len()));
        if let Some((userinfo, _)) = authority.rsplit_once('@') {
            match userinfo.split_once(':') {
                Some((user, password)) => {
                    masked.push_str(&mask_shapes(user));
                    masked.push(':');
                    masked.push_str(&mask(password));
                }
                None if userinfo.chars().count() >= TAIL_FROM => masked.push_str(&mask(userinfo)),
                None => masked.push_str(userinfo),
            }
            rest = after.get(userinfo.len()..).unwrap_or_default();
        }
    }
    masked.push_str(rest);
    masked
}

/// `starts_with`, which looks at the second byte first: words begin with all the letters that shapes do.
fn begins_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(1) == prefix.get(1) && text.starts_with(prefix)
}

/// Whether there may be credentials of a URL in `text`, or what begins like a secret: where not, it is
/// left as it is by [`mask_userinfo`] and [`mask_shapes`].
fn may_hold_secret(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut boundary = true;
    bytes.iter().enumerate().any(|(at, &byte)| {
        let begins = boundary && vocabulary::BEGIN_SHAPES[usize::from(byte)];
        boundary = !byte.is_ascii_alphanumeric();
        let rest = || bytes.get(at..).unwrap_or_default();
        (byte == b':' && rest().starts_with(b"://"))
            || (begins && SHAPES.iter().any(|(prefix, _)| begins_with(rest(), prefix.as_bytes())))
    })
}

/// Secrets by shape; keeps the prefix, which names the issuer.
fn mask_shapes(text: &str) -> String {
    let is_body = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    // A shape begins where no letter or digit stands before it.
    let mut boundary = true;
    while let Some(first) = rest.chars().next() {
        let begins = boundary
            && rest.as_bytes().first().is_some_and(|byte| vocabulary::BEGIN_SHAPES[usize::from(*byte)]);
        if begins
            && let Some((prefix, least)) =
                SHAPES.iter().find(|(prefix, _)| begins_with(rest.as_bytes(), prefix.as_bytes()))
        {
            let body = rest.get(prefix.len()..).unwrap_or_default();
            let (body, after) = body.split_at(body.find(|c| !is_body(c)).unwrap_or(body.len()));
            if body.len() >= *least {
                masked.push_str(prefix);
                masked.push_str(&mask(body));
                rest = after;
                boundary = false;
                continue;
            }
        }
        masked.push(first);
        boundary = !first.is_ascii_alphanumeric();
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    masked
}

/// Like [`mask_shapes`], and all of a value that hides a shape behind percent-encoding.
fn mask_encoded(value: &str) -> String {
    let plain = percent_decoded(value);
    if plain != value && mask_shapes(&plain) != plain { mask(value) } else { mask_shapes(value) }
}

/// Keeps the blanks before a value as they are.
fn mask_spaced(value: &str, mask: impl Fn(&str) -> String) -> String {
    let trimmed = value.trim_start();
    let (blank, _) = value.split_at(value.len() - trimmed.len());
    format!("{blank}{}", mask(trimmed))
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Percent-decoding (RFC 3986 2.1), lossily; malformed escapes stay.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = match (byte, after) {
            (b'%', [high, low, ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(high).zip(digit(low)).map(|(high, low)| high * 16 + low)
            }
            _ => None,
        };
        bytes.push(escape.unwrap_or(byte));
        rest = match escape {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
