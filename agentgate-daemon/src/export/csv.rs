//! CSV (RFC 4180), one record a line, for spreadsheets and for what loads tables.
//!
//! **Formulas.** A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a line end, and what
//! stands in a path, a header or a process name is an agent's or an origin's choice. Such text gets an
//! apostrophe in front, which spreadsheets do not show. Numbers and times are the gate's own and stay.

use super::{
    Row,
    columns::{COLUMNS, Cell},
};

/// A table under way.
#[derive(Debug)]
pub struct Table {
    bodies: bool,
}

/// Names of the columns that bodies add. The encoding is `text` or `base64`.
const BODIES: [&str; 4] =
    ["request_body", "request_body_encoding", "response_body", "response_body_encoding"];

impl Table {
    /// One with columns for bodies, or without.
    #[must_use]
    pub fn new(bodies: bool) -> Self {
        Self { bodies }
    }

    /// Appends the line with the names of the columns.
    pub(super) fn header(&self, out: &mut Vec<u8>) {
        let names = COLUMNS.iter().map(|column| column.name);
        let names = names.chain(BODIES.into_iter().filter(|_| self.bodies));
        line(names.map(|name| Cell::Text(name.into())), out);
    }

    /// Appends one record.
    pub(super) fn row(&self, row: &Row, out: &mut Vec<u8>) {
        let bodies = if self.bodies { row.contents() } else { [None, None] };
        let bodies = bodies.iter().flat_map(|content| match content {
            Some(content) => {
                let (text, base64) = content.text();
                let encoding = if base64 { "base64" } else { "text" };
                [Cell::Text(text.into()), Cell::Text(encoding.into())]
            }
            None => [Cell::Nothing, Cell::Nothing],
        });
        let cells = COLUMNS.iter().map(|column| (column.of)(row));
        line(cells.chain(bodies.filter(|_| self.bodies)), out);
    }
}

fn line<'r>(cells: impl Iterator<Item = Cell<'r>>, out: &mut Vec<u8>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match cell {
            Cell::Nothing => {}
            Cell::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Cell::Time(time) => match jiff::Timestamp::from_microsecond(time.0) {
                Ok(time) => out.extend_from_slice(format!("{time:.6}").as_bytes()),
                // Outside of what a calendar has.
                Err(_) => field(&time.to_string(), out),
            },
            Cell::Text(text) => field(&text, out),
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a spreadsheet would take this for more than text. The wide forms are those of Chinese and
/// Japanese keyboards, which some take for the same.
fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

fn field(text: &str, out: &mut Vec<u8>) {
    let guard = is_formula(text);
    let quoted =
        guard || text.contains([',', '"', '\r', '\n']) || text.starts_with(' ') || text.ends_with(' ');
    if quoted {
        out.push(b'"');
    }
    if guard {
        out.push(b'\'');
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\"\""),
            // Readers in C take it for the end of all text.
            0 => out.extend_from_slice("\u{fffd}".as_bytes()),
            _ => out.push(byte),
        }
    }
    if quoted {
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::samples;

    /// A reader by the grammar of RFC 4180, which fails where a file is not of it.
    fn read(text: &str) -> Vec<Vec<String>> {
        let mut records = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let mut fields = Vec::new();
            loop {
                let mut value = String::new();
                if let Some(quoted) = rest.strip_prefix('"') {
                    rest = quoted;
                    loop {
                        let (before, after) = rest.split_once('"').expect("a quoted field ends");
                        value.push_str(before);
                        rest = after;
                        match rest.strip_prefix('"') {
                            Some(after) => {
                                value.push('"');
                                rest = after;
                            }
                            None => break,
                        }
                    }
                } else {
                    let end = rest.find([',', '\r', '\n', '"']).expect("a field ends");
                    value.push_str(&rest[..end]);
                    rest = &rest[end..];
                }
                fields.push(value);
                match rest.strip_prefix(',') {
                    Some(after) => rest = after,
                    None => break,
                }
            }
            rest = rest.strip_prefix("\r\n").expect("records end with CR LF");
            records.push(fields);
        }
        records
    }

    fn table(rows: &[Row], bodies: bool) -> Vec<Vec<String>> {
        let table = Table::new(bodies);
        let mut out = Vec::new();
        table.header(&mut out);
        rows.iter().for_each(|row| table.row(row, &mut out));
        read(&String::from_utf8(out).unwrap())
    }

    fn cell<'t>(table: &'t [Vec<String>], row: usize, name: &str) -> &'t str {
        let at = table[0].iter().position(|found| found == name).unwrap();
        &table[row + 1][at]
    }

    #[test]
    fn every_kind_of_record_is_a_line_of_the_same_width() {
        for bodies in [false, true] {
            let found = table(&samples::all(), bodies);
            assert_eq!(found.len(), samples::all().len() + 1);
            assert!(found.iter().all(|line| line.len() == COLUMNS.len() + if bodies { 4 } else { 0 }));
        }
        let found = table(&samples::all(), true);
        assert_eq!(cell(&found, 0, "url"), "https://api.example.com/v1/messages?beta=true");
        assert_eq!(cell(&found, 0, "started"), "2026-11-20T08:00:00.000001Z");
        assert_eq!(cell(&found, 0, "duration_us"), "250000");
        assert_eq!(cell(&found, 0, "status"), "200");
        assert_eq!(cell(&found, 0, "request_body"), "{\"model\":\"m\"}");
        assert_eq!(cell(&found, 0, "response_body"), "data: hello\n\n", "the coding is undone");
        assert_eq!(cell(&found, 0, "response_body_encoding"), "text");
        assert_eq!(cell(&found, 0, "facts"), "", "there are none");
        let facts = r#"{"cost":[1.25],"model":["m-1"],"tokens":[1200],"tool":["search","fetch"]}"#;
        assert_eq!(cell(&found, 5, "facts"), facts);
    }

    #[test]
    fn nothing_an_agent_chose_is_a_formula() {
        let mut row = samples::exchange();
        let rows = [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-2+3", "'-2+3"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("\n=1", "'\n=1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("a=1", "a=1"),
            ("say \"hi\", x", "say \"hi\", x"),
            ("two\r\nlines", "two\r\nlines"),
            (" padded ", " padded "),
            ("nul\0", "nul\u{fffd}"),
        ];
        for (text, expect) in rows {
            row.record.note = Some(text.to_owned());
            let found = table(std::slice::from_ref(&row), false);
            assert_eq!(cell(&found, 0, "note"), expect, "{text:?}");
        }
    }
}
