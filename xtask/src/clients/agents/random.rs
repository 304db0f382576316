//! What agent command lines make up anew in every run, and how it is taken out of what is compared: by its
//! form or by what stands before it, so that a value of another form, or in another place, still differs.

use fake_internet::journal::Request;
use serde_json::Value;

/// A body without what is random, decoded where it came compressed.
pub(super) fn body(request: &Request) -> String {
    lines(&request.text())
}

/// The same of a message.
pub(super) fn lines(whole: &str) -> String {
    // A line for each member of JSON, so that a difference shows where it is.
    text(whole).replace(",\"", ",\n\"")
}

/// A body of a client that writes the members of objects in any order.
pub(super) fn sorted_body(request: &Request) -> String {
    sorted(&request.text())
}

/// The same of a message.
pub(super) fn sorted(whole: &str) -> String {
    // serde_json sorts members when it reads them.
    serde_json::from_str::<Value>(whole).map_or_else(|_| lines(whole), |value| lines(&value.to_string()))
}

/// What is counted and timed: a batch of it is never like another.
pub(super) fn telemetry(request: &Request) -> bool {
    at(request, &TELEMETRY)
}

/// What Codex asks for again if it is early, or leaves out if it is late.
pub(super) fn codex_at_start(request: &Request) -> bool {
    let places =
        ["/backend-api/codex/models", "/backend-api/ps/", "/backend-api/plugins/", "/backend-api/wham/"];
    at(request, &places.map(|path| ("chatgpt.com", path)))
        || ["github.com", "api.github.com"].contains(&request.site.as_str())
}

const TELEMETRY: [(&str, &str); 4] = [
    ("api.anthropic.com", "/api/event_logging/"),
    ("chatgpt.com", "/backend-api/codex/analytics-events/"),
    ("ab.chatgpt.com", "/otlp/"),
    ("play.googleapis.com", "/log"),
];

fn at(request: &Request, places: &[(&str, &str)]) -> bool {
    // HTTP/2 has the whole URI.
    let path = request.target.split_once(&request.site).map_or(request.target.as_str(), |(_, path)| path);
    places.iter().any(|(site, start)| request.site == *site && path.starts_with(start))
}

/// After these stands a number that is different in every run: a check sum of Claude Code's, process ids, and
/// how long a tool took.
const BEFORE: [&str; 5] = ["cch=", "Process Group PGID: ", "Wall time ", "Bash=", "duration_ms\":"];

/// Text without what is random: UUIDs, points of time, long numbers, long hexadecimal words and words that
/// mix everything, and what stands after one of [`BEFORE`].
pub(super) fn text(text: &str) -> String {
    let mut calm = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(start) = BEFORE.iter().find(|start| rest.starts_with(**start)) {
            calm.push_str(start);
            calm.push('*');
            rest = rest
                .split_at(start.len())
                .1
                .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
            continue;
        }
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
        let (taken, more) = rest.split_at(word.len().max(first.len_utf8()));
        rest = more;
        let Some(form) = whole_form(word) else {
            let parts = taken.split('-').map(|part| form(part).unwrap_or(part));
            calm.push_str(&parts.collect::<Vec<_>>().join("-"));
            if taken.len() >= LONG_NUMBER && is_digits(taken) {
                rest = without_fraction(rest);
            }
            continue;
        };
        calm.push_str(form);
        if form == TIME {
            rest = rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ':' | '.'))
                .trim_start_matches('Z');
        }
    }
    calm
}

const TIME: &str = "<time>";
/// Seconds since 1970 have ten digits.
const LONG_NUMBER: usize = 10;

fn is_digits(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

fn is_hexadecimal(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_hexdigit())
}

fn without_fraction(rest: &str) -> &str {
    match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    }
}

/// What stands for words joined by hyphens.
fn whole_form(word: &str) -> Option<&'static str> {
    let parts: Vec<&str> = word.split('-').collect();
    match parts[..] {
        [a, b, c, d, e] => {
            let lens = [a, b, c, d, e].map(str::len) == [8, 4, 4, 4, 12];
            (lens && parts.iter().all(|part| is_hexadecimal(part))).then_some("<uuid>")
        }
        // A date with the hour; what follows is not of the word.
        [year, month, day] => {
            let (day, hour) = day.split_once('T')?;
            let lens = [year, month, day, hour].map(str::len) == [4, 2, 2, 2];
            (lens && [year, month, day, hour].into_iter().all(is_digits)).then_some(TIME)
        }
        _ => None,
    }
}

/// What stands for a word.
fn form(word: &str) -> Option<&'static str> {
    if word.len() >= LONG_NUMBER && is_digits(word) {
        return Some("<number>");
    }
    // Short ones are words, too: «deadbeef», «decade».
    if word.len() >= 16 && is_hexadecimal(word) {
        return Some("<hex>");
    }
    let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
    let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    // So long are opencode's; longer ones are encoded texts, which must not change.
    (mixed && word.len() == 26).then_some("<mixed>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_known_and_the_rest_stays() {
        let rows = [
            ("id 210ddd14-678c-41ca-8e0f-2d3c727e60a2.", "id <uuid>."),
            ("at_210ddd14-678c-41ca-8e0f-2d3c727e60a2:0", "at_<uuid>:0"),
            ("\"2026-11-20T14:03:33.794Z\", 1763647413794", "\"<time>\", <number>"),
            ("2026-11-20T14:03:33+00:00", "<time>+00:00"),
            ("1795184298.4778523}", "<number>}"),
            ("9c232c0da316213a512ecde9 deadbeef", "<hex> deadbeef"),
            ("74f76fa0fdbd891b61479a91bde29aa6-71c9c3bf3d56b85d-1", "<hex>-<hex>-1"),
            ("ses_e06abfa0dffeDsvY6B7wSMZJhi", "ses_<mixed>"),
            (
                "cch=14cfa; Process Group PGID: 31; Wall time 0.1 seconds",
                "cch=*; Process Group PGID: *; Wall time * seconds",
            ),
            ("the answer is 42, of 2026-11-20", "the answer is 42, of 2026-11-20"),
            ("gpt-6.1-sol, claude-sonnet-5-5, x86_64", "gpt-6.1-sol, claude-sonnet-5-5, x86_64"),
            ("„über“ 100 %", "„über“ 100 %"),
        ];
        for (from, to) in rows {
            assert_eq!(text(from), to);
        }
        assert_eq!(sorted(r#"{"b":1,"a":[2,1]}"#), "{\"a\":[2,1],\n\"b\":1}");
    }
}
