//! What happened in one scenario, as a row, and the rows as a table for people.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

/// What happened, as one row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What the agent did.
    pub(crate) did: String,
    /// What it saw.
    pub(crate) agent: String,
    /// What the origin saw.
    pub(crate) origin: String,
    /// What the log holds.
    pub(crate) log: String,
    /// What is not as expected; empty when all is well.
    pub(crate) differs: Vec<String>,
    /// More about a difference.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) details: String,
    #[serde(serialize_with = "as_millis", rename = "ms")]
    pub(crate) took: Duration,
}

fn as_millis<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

impl Row {
    /// A row that says nothing yet.
    pub(crate) fn new(name: &str, did: &str) -> Self {
        Self {
            name: name.to_owned(),
            did: did.to_owned(),
            agent: String::new(),
            origin: "-".to_owned(),
            log: "-".to_owned(),
            differs: Vec::new(),
            details: String::new(),
            took: Duration::ZERO,
        }
    }

    /// True when nothing differs.
    pub(crate) fn ok(&self) -> bool {
        self.differs.is_empty()
    }

    /// Notes a difference where `holds` is false.
    pub(crate) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.differs.push(otherwise());
        }
    }

    /// Adds to what the agent saw.
    pub(crate) fn saw(&mut self, what: &str) {
        if !self.agent.is_empty() {
            self.agent.push_str("; ");
        }
        self.agent.push_str(what);
    }
}

/// The text, or its beginning.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Width of the columns: name and command, agent, origin, log.
const WIDTHS: [usize; 4] = [34, 26, 22, 46];

/// The rows as a table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let rule = "-".repeat(WIDTHS.iter().sum::<usize>() + 3 * WIDTHS.len() + 7);
    let heads = ["what the agent did", "what the agent saw", "what the origin saw", "what the log holds"];
    line(&mut text, &heads.map(|head| wrap(head, 80)), "");
    text.push_str(&rule);
    text.push('\n');
    for row in rows {
        let first = format!("{}: {}", row.name, row.did);
        let cells = [&first, &row.agent, &row.origin, &row.log];
        let mut wrapped = [const { Vec::new() }; 4];
        for ((into, cell), width) in wrapped.iter_mut().zip(cells).zip(WIDTHS) {
            *into = wrap(cell, width);
        }
        line(&mut text, &wrapped, if row.ok() { "ok" } else { "DIFFERS" });
        for difference in &row.differs {
            // Writing to a String does not fail.
            let _ok = writeln!(text, "    DIFFERS: {difference}");
        }
        for detail in row.details.lines() {
            let _ok = writeln!(text, "      | {detail}");
        }
        text.push_str(&rule);
        text.push('\n');
    }
    text
}

fn line(text: &mut String, cells: &[Vec<String>; 4], verdict: &str) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for index in 0..height {
        for (cell, width) in cells.iter().zip(WIDTHS) {
            let part = cell.get(index).map_or("", String::as_str);
            let _ok = write!(text, "{part:width$} | ");
        }
        text.push_str(if index == 0 { verdict } else { "" });
        while text.ends_with(' ') {
            text.pop();
        }
        text.push('\n');
    }
}

/// Breaks at spaces where it can, within words where it must.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        let room = width.saturating_sub(current.chars().count() + 1);
        if !current.is_empty() && rest.len() > room {
            lines.push(std::mem::take(&mut current));
        }
        while rest.len() > width {
            lines.push(rest.drain(..width).collect());
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.extend(rest);
    }
    if !current.is_empty() || lines.is_empty() {
        lines.push(current);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_and_inside_long_words() {
        let rows: [(&str, usize, &[&str]); 5] = [
            ("", 5, &[""]),
            ("one two", 10, &["one two"]),
            ("one two three", 7, &["one two", "three"]),
            ("abcdefgh", 3, &["abc", "def", "gh"]),
            ("a abcdefgh", 3, &["a", "abc", "def", "gh"]),
        ];
        for (text, width, expect) in rows {
            assert_eq!(wrap(text, width), expect, "{text:?}");
        }
    }

    #[test]
    fn the_table_says_what_differs() {
        let mut row = Row::new("name", "curl https://open.example/");
        row.expect(true, || unreachable!());
        assert!(row.ok() && table(std::slice::from_ref(&row)).contains("| ok\n"));
        row.expect(false, || "everything".to_owned());
        let text = table(&[row]);
        assert!(text.contains("| DIFFERS\n") && text.contains("DIFFERS: everything"), "{text}");
    }
}
