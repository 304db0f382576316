//! Filters made of what flags and form fields hold.

use std::fmt::Write as _;

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
                let mut words = part.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
                let alone = words.any(|word| word.eq_ignore_ascii_case("or"));
                if alone { format!("({part})") } else { (*part).to_owned() }
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
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
    if value.chars().all(plain) && !value.is_empty() {
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
