//! Filters made of what flags and form fields hold.

use std::fmt::Write as _;

use super::lex::{Character, Token, What, plain, position, tokens};

/// Puts conditions together: `parts` that are empty are left out, each other one keeps its meaning.
#[must_use]
pub fn joined<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let parts: Vec<&str> = parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [only] => (*only).to_owned(),
        parts => parts
            .iter()
            .map(|part| {
                // An OR in one of them must not take in the others.
                if has_or(part) { format!("({part})") } else { (*part).to_owned() }
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// The words outside of brackets, each with whether something before it negates it. None of what cannot be read.
fn outer(text: &str) -> Vec<(&str, bool)> {
    let (mut words, mut depth, mut negated) = (Vec::new(), 0_usize, false);
    for token in tokens(text).unwrap_or_default() {
        match &token.what {
            What::Open => depth += 1,
            What::Close => depth = depth.saturating_sub(1),
            What::Minus => {
                negated = true;
                continue;
            }
            What::Word(_) => {
                let word = text.get(token.at).unwrap_or_default();
                if depth == 0 {
                    words.push((word, negated));
                }
                negated = word.eq_ignore_ascii_case("not");
                continue;
            }
        }
        negated = false;
    }
    words
}

/// Whether an `or` stands outside of brackets.
fn has_or(text: &str) -> bool {
    outer(text).iter().any(|(word, _)| word.eq_ignore_ascii_case("or"))
}

/// A filter with one condition more, where it does not ask for that already.
#[must_use]
pub fn narrowed(text: &str, condition: &str) -> String {
    let there = !has_or(text) && outer(text).contains(&(condition, false));
    joined([text, if there { "" } else { condition }])
}

/// A filter without its `sort:`, and without the word that joins that to the rest. What cannot be read as a
/// filter stays as it is, and so does what would leave brackets empty.
#[must_use]
pub fn unsorted(text: &str) -> String {
    let Ok(mut tokens) = tokens(text) else { return text.to_owned() };
    let sorts = |token: &Token| matches!(&token.what, What::Word(word) if is_sort(word));
    let Some(index) = tokens.iter().position(sorts) else { return text.to_owned() };
    let joins = |token: &Token| {
        matches!(&token.what, What::Word(word) if word.iter().all(|c| !c.literal)
            && matches!(plain(word).to_ascii_lowercase().as_str(), "and" | "or"))
    };
    let before = index.checked_sub(1).filter(|at| tokens.get(*at).is_some_and(joins));
    let after = Some(index + 1).filter(|at| before.is_none() && tokens.get(*at).is_some_and(joins));
    let (first, last) = (before.unwrap_or(index), after.unwrap_or(index));
    let opens = first.checked_sub(1).and_then(|at| tokens.get(at)).is_some_and(|t| t.what == What::Open);
    if opens && tokens.get(last + 1).is_some_and(|token| token.what == What::Close) {
        return text.to_owned();
    }
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for gone in tokens.drain(first..=last) {
        out.push_str(text.get(from..gone.at.start).unwrap_or_default().trim_end());
        from = gone.at.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out.trim().to_owned()
}

fn is_sort(word: &[Character]) -> bool {
    let name = position(word, |c| c == ':').and_then(|colon| word.get(..colon));
    name.is_some_and(|name| name.iter().all(|c| !c.literal) && plain(name).eq_ignore_ascii_case("sort"))
}

/// `field:value`, the value exactly as it is.
#[must_use]
pub fn exact(field: &str, value: &str) -> String {
    let value = value.trim();
    if value.is_empty() { String::new() } else { format!("{field}:{}", quoted(value)) }
}

/// `field:value`: with `*` or `?` a pattern, else a part of the text.
#[must_use]
pub fn part(field: &str, value: &str) -> String {
    let value = value.trim();
    if value.is_empty() {
        return String::new();
    }
    if !value.contains(['*', '?']) {
        return format!("{field}:*{}*", quoted(value));
    }
    let mut out = format!("{field}:");
    let mut literal = String::new();
    for c in value.chars() {
        if matches!(c, '*' | '?') {
            if !literal.is_empty() {
                out.push_str(&quoted(&literal));
                literal.clear();
            }
            out.push(c);
        } else {
            literal.push(c);
        }
    }
    if !literal.is_empty() {
        out.push_str(&quoted(&literal));
    }
    out
}

/// A value that stands for itself.
#[must_use]
pub fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '@');
    // With two slashes it would be an address, which is looked for as text.
    if value.chars().all(plain) && !value.is_empty() && !value.starts_with("//") {
        return value.to_owned();
    }
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "{c}");
    }
    out.push('"');
    out
}
