//! What agent command lines make up anew in every run, and how it is taken out of what is compared: by its
//! form, so that a value of another form is still a difference.

use fake_internet::journal::Request;

/// A body without what is random, decoded where it came compressed.
pub(super) fn body(request: &Request) -> String {
    message(&request.text())
}

/// The same of a message; a line for each member of JSON, so that a difference shows where it is.
pub(super) fn message(whole: &str) -> String {
    text(whole).replace(",\"", ",\n\"")
}

/// What is counted and timed: a batch of it is never like another.
pub(super) fn telemetry(request: &Request) -> bool {
    let path = request.target.split_once(&request.site).map_or(request.target.as_str(), |(_, path)| path);
    TELEMETRY.iter().any(|(site, prefix)| request.site == *site && path.starts_with(prefix))
}

const TELEMETRY: [(&str, &str); 4] = [
    ("api.anthropic.com", "/api/event_logging/"),
    ("chatgpt.com", "/backend-api/codex/analytics-events/"),
    ("ab.chatgpt.com", "/otlp/"),
    ("play.googleapis.com", "/log"),
];

/// Text without what is random: UUIDs, points of time, long numbers and long hexadecimal words.
pub(super) fn text(text: &str) -> String {
    let mut calm = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.get(..rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())).unwrap_or_default();
        // At its end they are punctuation.
        let len = word.trim_end_matches(['-', ':', '.', '+']).len().max(first.len_utf8());
        let (taken, more) = rest.split_at(len);
        calm.push_str(form(taken).unwrap_or(taken));
        rest = more;
    }
    calm
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '+')
}

/// What stands for a word of a random form.
fn form(word: &str) -> Option<&'static str> {
    let hexadecimal =
        |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split('-').collect();
    if let [a, b, c, d, e] = parts[..]
        && [(a, 8), (b, 4), (c, 4), (d, 4), (e, 12)].into_iter().all(|(part, len)| hexadecimal(part, len))
    {
        return Some("<uuid>");
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if word.len() >= 19 && word.as_bytes().get(10) == Some(&b'T') && digits(word.get(..4)?) {
        return Some("<time>");
    }
    if digits(word) && word.len() >= 10 {
        return Some("<number>");
    }
    // Short ones are words, too: «deadbeef», «decade».
    let whole = word.len() >= 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
    whole.then_some("<hex>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_known_and_the_rest_stays() {
        let rows = [
            ("id 210ddd14-678c-41ca-8e0f-2d3c727e60a2.", "id <uuid>."),
            ("{\"id\":\"210ddd14-678c-41ca-8e0f-2d3c727e60a2\"}", "{\"id\":\"<uuid>\"}"),
            ("at_210ddd14-678c-41ca-8e0f-2d3c727e60a2", "at_<uuid>"),
            ("\"2026-11-20T14:03:33.794Z\", 1763647413794", "\"<time>\", <number>"),
            ("9c232c0da316213a512ecde9 deadbeef", "<hex> deadbeef"),
            ("the answer is 42, of 2026-11-20", "the answer is 42, of 2026-11-20"),
            ("„über“ 100 %", "„über“ 100 %"),
        ];
        for (from, to) in rows {
            assert_eq!(text(from), to);
        }
    }
}
