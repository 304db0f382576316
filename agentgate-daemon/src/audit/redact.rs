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

use std::borrow::Cow;

use crate::model::HeaderFields;
use vocabulary::{SHAPES, begins_shape, is_harmless_header, is_scheme, is_secret_header, is_secret_name};

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
                header_into(name, &value, text);
            }
        });
    }
    masked
}

/// What `put` writes.
fn text(put: impl FnOnce(&mut String)) -> String {
    let mut text = String::new();
    put(&mut text);
    text
}

fn mask_header(name: &str, value: &str) -> String {
    text(|masked| header_into(name, value, masked))
}

fn header_into(name: &str, value: &str, masked: &mut String) {
    let is = |known: &&str| name.eq_ignore_ascii_case(known);
    if is(&"cookie") || is(&"set-cookie") {
        cookies_into(value, is(&"set-cookie"), masked);
    } else if is_secret_header(name) {
        credentials_into(value, masked);
    } else if URL_HEADERS.iter().any(is) {
        target_into(value, masked);
    } else {
        shapes_into(&mask_userinfo(value), masked);
    }
}

/// A path with its query, or a whole URL, with the values of secret parameters masked, and what has
/// the shape of a secret in the others and in the path.
#[must_use]
pub fn mask_target(target: &str) -> String {
    let mut masked = String::with_capacity(target.len());
    target_into(target, &mut masked);
    masked
}

fn target_into(target: &str, masked: &mut String) {
    let target = mask_userinfo(target);
    let Some(query) = memchr::memchr2(b'?', b'#', target.as_bytes()) else {
        return shapes_into(&target, masked);
    };
    let (path, query) = target.split_at(query);
    shapes_into(path, masked);
    for pair in query.split_inclusive(['&', '#']) {
        let end = pair.len() - usize::from(pair.ends_with(['&', '#']));
        let (pair, end) = pair.split_at(end);
        mask_pair(pair, masked);
        masked.push_str(end);
    }
}

/// What stands between two `&`: one parameter, or several with `;` between them. A secret may have a
/// `;` in it, so it is taken to the end.
fn mask_pair(pair: &str, masked: &mut String) {
    let mut at = 0;
    for part in pair.split_inclusive([';', '?']) {
        let start = at;
        at += part.len();
        let Some((name, value)) = part.split_once('=') else {
            encoded_into(part, masked);
            continue;
        };
        let plain = percent_decoded(name);
        shapes_into(name, masked);
        masked.push('=');
        // Parameters called `code` carry OAuth's authorization code (RFC 6749 4.1.2).
        if is_secret_name(&plain) || plain.eq_ignore_ascii_case("code") {
            return mask_into(pair.get(start + name.len() + 1..).unwrap_or_default(), masked);
        }
        encoded_into(value, masked);
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

fn mask(secret: &str) -> String {
    text(|masked| mask_into(secret, masked))
}

/// `****` and the tail of a secret that is long enough. Nothing stays nothing.
fn mask_into(secret: &str, masked: &mut String) {
    let count = secret.chars().count();
    // Nothing, or masked before.
    if count == 0 || (secret.starts_with("****") && count <= 4 + TAIL) {
        return masked.push_str(secret);
    }
    masked.push_str("****");
    if count >= TAIL_FROM
        && let Some((tail, _)) = secret.char_indices().nth_back(TAIL - 1)
    {
        masked.push_str(secret.get(tail..).unwrap_or_default());
    }
}

fn mask_credentials(value: &str) -> String {
    text(|masked| credentials_into(value, masked))
}

/// A secret after an authentication scheme, if it has one that is known.
fn credentials_into(value: &str, masked: &mut String) {
    match value.split_once(char::is_whitespace) {
        // The tail of Basic is the end of the password (RFC 7617), which may be a short one.
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("basic") && !secret.is_empty() => {
            masked.push_str(scheme);
            masked.push_str(" ****");
        }
        Some((scheme, secret)) if is_scheme(scheme) => {
            masked.push_str(scheme);
            masked.push(' ');
            mask_into(secret.trim(), masked);
        }
        Some(_) | None => mask_into(value, masked),
    }
}

/// Names stay, values go; attributes stay where a cookie is set.
fn cookies_into(value: &str, set: bool, masked: &mut String) {
    for (at, part) in value.split(';').enumerate() {
        if at > 0 {
            masked.push_str("; ");
        }
        let part = part.trim();
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        if set && at > 0 && COOKIE_ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(name.trim())) {
            shapes_into(part, masked);
        } else if let Some(value) = value {
            shapes_into(name, masked);
            masked.push('=');
            mask_into(value, masked);
        } else {
            mask_into(part, masked);
        }
    }
}

/// The password, or a long user name, before the `@` of each URL in `text`.
fn mask_userinfo(text: &str) -> Cow<'_, str> {
    if !may_hold_url(text) {
        return Cow::Borrowed(text);
    }
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
                    shapes_into(user, &mut masked);
                    masked.push(':');
                    mask_into(password, &mut masked);
                }
                None if userinfo.chars().count() >= TAIL_FROM => mask_into(userinfo, &mut masked),
                None => masked.push_str(userinfo),
            }
            rest = after.get(userinfo.len()..).unwrap_or_default();
        }
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

/// Whether there may be credentials of a URL in `text`, or what begins like a secret: where not, it is
/// left as it is by [`mask_userinfo`] and [`shapes_into`].
fn may_hold_secret(text: &str) -> bool {
    may_hold_url(text) || may_hold_shape(text)
}

fn may_hold_url(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b':', bytes).any(|at| bytes.get(at + 1..at + 3) == Some(b"//"))
}

/// One look at each byte.
fn may_hold_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut boundary = bytes.len() >= vocabulary::SHORTEST;
    if !boundary {
        return false;
    }
    for (at, &byte) in bytes.iter().enumerate() {
        let class = vocabulary::CLASSES[usize::from(byte)];
        if boundary && class & vocabulary::BEGINS != 0 && begins_shape(bytes.get(at..).unwrap_or_default()) {
            return true;
        }
        boundary = class & vocabulary::WORD == 0;
    }
    false
}

fn mask_shapes(secret: &str) -> String {
    text(|masked| shapes_into(secret, masked))
}

/// Secrets by shape; keeps the prefix, which names the issuer.
fn shapes_into(text: &str, masked: &mut String) {
    if !may_hold_shape(text) {
        return masked.push_str(text);
    }
    let is_body = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut rest = text;
    // A shape begins where no letter or digit stands before it.
    let mut boundary = true;
    while let Some(first) = rest.chars().next() {
        if boundary
            && begins_shape(rest.as_bytes())
            && let Some((prefix, least)) = SHAPES.iter().find(|(prefix, _)| rest.starts_with(prefix))
        {
            let body = rest.get(prefix.len()..).unwrap_or_default();
            let (body, after) = body.split_at(body.find(|c| !is_body(c)).unwrap_or(body.len()));
            if body.len() >= *least {
                masked.push_str(prefix);
                mask_into(body, masked);
                rest = after;
                boundary = false;
                continue;
            }
        }
        masked.push(first);
        boundary = !first.is_ascii_alphanumeric();
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
}

/// Like [`shapes_into`], and all of a value that hides a shape behind percent-encoding.
fn encoded_into(value: &str, masked: &mut String) {
    match percent_decoded(value) {
        Cow::Owned(plain) if plain != value && mask_shapes(&plain) != plain => mask_into(value, masked),
        Cow::Owned(_) | Cow::Borrowed(_) => shapes_into(value, masked),
    }
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
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
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
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}
