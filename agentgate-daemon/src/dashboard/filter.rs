//! The filter of the list, the live feed and the API: parameters in, a query of the store out.
//!
//! All that is chosen becomes one filter in the language of [`crate::filter`]: `q` is such a text, the other
//! parameters are shorthands for parts of one.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    filter::{Filter, FilterError as Fault, LENGTH_CAP, Sort, shorthand},
    model::Timestamp,
    store::{Cursor, Query},
};

/// Longest value of a shorthand, in bytes.
const MAX_VALUE: usize = 256;

/// The parameters as they come, all optional; an empty one is the same as none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Params {
    pub(super) q: String,
    pub(super) host: String,
    pub(super) verdict: String,
    pub(super) session: String,
    pub(super) kind: String,
    pub(super) since: String,
    pub(super) text: String,
    pub(super) before: String,
    pub(super) limit: String,
}

/// A parameter that says nothing this program knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub(super) struct FilterError {
    pub(super) field: &'static str,
    pub(super) message: String,
    /// Of `q`: what is before the wrong part, that part, and what is after it.
    pub(super) parts: Option<[String; 3]>,
}

/// Records on one page of the dashboard, and of the API where it names no limit.
pub(super) const PAGE: usize = 100;
/// Most records in one answer of the API.
pub(super) const MAX_PAGE: usize = 1000;

impl Params {
    /// Reads the parameters as of `now`.
    ///
    /// # Errors
    /// The first parameter that cannot be read.
    pub(super) fn query(&self, now: Timestamp) -> Result<Query, FilterError> {
        for (field, value) in self.fields() {
            let cap = if field == "q" { LENGTH_CAP } else { MAX_VALUE };
            if value.len() > cap {
                return Err(wrong(field, format!("no longer than {cap} bytes")));
            }
        }
        let typed = self.q.trim();
        // Each alone, so that a fault is told where it was made.
        Filter::parse(typed, now).map_err(|fault| {
            let (before, part, after) = fault.parts(typed);
            let parts = Some([before, part, after].map(ToOwned::to_owned));
            FilterError { parts, ..wrong("q", fault.to_string()) }
        })?;
        for (field, part) in self.shorthands() {
            Filter::parse(&part, now).map_err(|fault| wrong(field, expected(&fault)))?;
        }
        let filter = Filter::parse(&self.text(), now).map_err(|fault| wrong("q", fault.to_string()))?;
        let before: Option<Cursor> = match given(&self.before) {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| wrong("before", "the `next` of the page before".to_owned()))?)
            }
        };
        let limit = match given(&self.limit) {
            None => PAGE,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MAX_PAGE) => limit,
                Ok(_) | Err(_) => return Err(wrong("limit", "a number from 1 to 1000".to_owned())),
            },
        };
        Ok(Query { before, ..Query::of(filter, limit) })
    }

    /// All that is chosen, as one filter.
    pub(super) fn text(&self) -> String {
        let shorthands = self.shorthands();
        let parts = shorthands.iter().map(|(_, part)| part.as_str());
        shorthand::joined(std::iter::once(self.q.as_str()).chain(parts))
    }

    /// The same with one condition more, from its first page.
    pub(super) fn narrowed(&self, condition: &str) -> Self {
        Self { q: shorthand::narrowed(&self.q, condition), before: String::new(), ..self.clone() }
    }

    /// The same in another order, from its first page.
    pub(super) fn sorted(&self, sort: Sort) -> Self {
        let order = if sort == Sort::default() { String::new() } else { format!("sort:{}", sort.as_str()) };
        let rest = shorthand::unsorted(&self.q);
        Self { q: shorthand::joined([rest.as_str(), &order]), before: String::new(), ..self.clone() }
    }

    /// What each parameter but `q` is short for.
    fn shorthands(&self) -> [(&'static str, String); 6] {
        let text = self.text.trim();
        let words = if text.is_empty() { String::new() } else { format!("text:{}*", always_quoted(text)) };
        [
            ("host", shorthand::part("host", &self.host)),
            ("verdict", shorthand::exact("verdict", &self.verdict)),
            ("session", shorthand::exact("session", &self.session)),
            ("kind", shorthand::exact("kind", &self.kind)),
            ("since", shorthand::exact("since", &self.since)),
            ("text", words),
        ]
    }

    fn fields(&self) -> [(&'static str, &str); 9] {
        [
            ("q", &self.q),
            ("host", &self.host),
            ("verdict", &self.verdict),
            ("session", &self.session),
            ("kind", &self.kind),
            ("since", &self.since),
            ("text", &self.text),
            ("before", &self.before),
            ("limit", &self.limit),
        ]
    }

    /// Whether nothing but the page is chosen.
    pub(super) fn is_all(&self) -> bool {
        self.fields()
            .iter()
            .all(|(field, value)| matches!(*field, "before" | "limit") || value.trim().is_empty())
    }

    /// The address of the list, of its page from `before` on.
    pub(super) fn href(&self, before: Option<Cursor>) -> String {
        match self.address(before) {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }

    /// As a query string without `?`, with `before` replaced; empty parameters are left out.
    pub(super) fn address(&self, before: Option<Cursor>) -> String {
        let before = before.map(|cursor| cursor.to_string()).unwrap_or_default();
        let mut out = String::new();
        for (field, value) in self.fields() {
            let value = if field == "before" { before.as_str() } else { value.trim() };
            if value.is_empty() {
                continue;
            }
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(field);
            out.push('=');
            encode(&mut out, value);
        }
        out
    }
}

/// Whether what comes belongs at the top of this list.
pub(super) fn is_live(query: &Query) -> bool {
    query.sort() == Sort::Newest
}

fn wrong(field: &'static str, message: String) -> FilterError {
    FilterError { field, message, parts: None }
}

/// What would have been right, without where: people see the field.
fn expected(fault: &Fault) -> String {
    let hint = fault.hint.strip_prefix("expected ").unwrap_or(&fault.hint);
    if hint.is_empty() { fault.message.clone() } else { hint.to_owned() }
}

fn always_quoted(text: &str) -> String {
    let quoted = shorthand::quoted(text);
    if quoted.starts_with('"') { quoted } else { format!("\"{quoted}\"") }
}

fn given(value: &str) -> Option<&str> {
    Some(value.trim()).filter(|v| !v.is_empty())
}

/// Percent-encodes a value for a query string (RFC 3986 unreserved characters stay).
fn encode(out: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Authority, Host, Kind, Record, RecordId, SessionId, Subject};

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn params(field: &str, value: &str) -> Params {
        serde_json::from_value(serde_json::json!({ field: value })).unwrap()
    }

    #[test]
    fn parameters_are_a_filter() {
        let mut record = Record::new(Kind::Exchange, Timestamp(NOW.0 - 60_000_000));
        record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
        record.note = Some("List Changed".into());
        record.subject = Some(Subject::unknown(SessionId("run-u2.service@12".into()), 1, 1).into());
        let rows = [
            ("q", "", true),
            ("q", "host:*.example.com -verdict:deny", true),
            ("q", "host:example.com", false),
            ("q", "list changed", true),
            ("kind", " exchange ", true),
            ("kind", "Flow", false),
            ("host", "API.example", true),
            ("host", "*.example.org", false),
            ("verdict", "deny", false),
            ("session", "run-u2.service", true),
            ("session", "run-u2.service@12", true),
            ("session", "run-*", false),
            ("since", "15m", true),
            ("since", "30s", false),
            ("text", "EXAMPLE.com", true),
            ("text", "list ch", true),
            ("text", "absent", false),
        ];
        for (field, value, expect) in rows {
            assert_eq!(params(field, value).query(NOW).unwrap().matches(&record), expect, "{field}={value}");
        }
        let both = Params { q: "a or list".into(), kind: "flow".into(), ..Params::default() };
        assert!(!both.query(NOW).unwrap().matches(&record), "an OR does not take in the rest");
        let query = Params { q: "sort:duration".into(), before: "5.17".into(), limit: "3".into(), ..both };
        let query = query.query(NOW).unwrap();
        assert_eq!(
            (query.before.unwrap().to_string().as_str(), query.limit, is_live(&query)),
            ("5.17", 3, false)
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_at_its_field() {
        let long = "x".repeat(MAX_VALUE + 1);
        let bad = [
            ("verdict", "maybe", "allow, deny, passthrough"),
            ("kind", "flows", "did you mean `flow`?"),
            (
                "since",
                "yesterday",
                "a time span such as 15m, 2h or 7d, or a time such as 2026-11-20 or 2026-11-20T08:00:00Z",
            ),
            ("before", "-1", "the `next` of the page before"),
            ("limit", "0", "a number from 1 to 1000"),
            ("limit", "1001", "a number from 1 to 1000"),
            ("host", &long, "no longer than 256 bytes"),
            ("text", "...", "words are letters and digits"),
            ("q", "a hots:b", "column 3: `hots` is no field; did you mean `host:`?"),
        ];
        for (field, value, expect) in bad {
            let error = params(field, value).query(NOW).unwrap_err();
            assert_eq!((error.field, error.message.as_str()), (field, expect), "{field}={value}");
        }
        let error = params("q", "a hots:b").query(NOW).unwrap_err();
        assert_eq!(error.parts, Some(["a ", "hots", ":b"].map(str::to_owned)));
    }

    #[test]
    fn a_list_is_narrowed_down_and_sorted() {
        let list = Params {
            q: "a or b sort:bytes".into(),
            kind: "flow".into(),
            before: "9".into(),
            ..Params::default()
        };
        let narrow = list.narrowed("host:a.example");
        assert_eq!(narrow.href(None), "/?q=%28a%20or%20b%20sort%3Abytes%29%20host%3Aa.example&kind=flow");
        assert_eq!(narrow.text(), "(a or b sort:bytes) host:a.example kind:flow");
        assert_eq!(narrow.narrowed("host:a.example"), narrow, "it is there already");
        assert_eq!(narrow.sorted(Sort::Duration).q, "(a or b) host:a.example sort:duration");
        assert_eq!(list.sorted(Sort::Newest).q, "a or b");
        for params in [&narrow, &narrow.sorted(Sort::Duration), &list.sorted(Sort::Oldest)] {
            params.query(NOW).unwrap_or_else(|_| panic!("{params:?}"));
        }
    }

    #[test]
    fn query_strings_are_encoded() {
        let params =
            Params { host: "a&b=c".into(), text: "<x> ü".into(), before: "9".into(), ..Params::default() };
        assert_eq!(params.address(Some(RecordId(5).into())), "host=a%26b%3Dc&text=%3Cx%3E%20%C3%BC&before=5");
        assert_eq!(params.address(None), "host=a%26b%3Dc&text=%3Cx%3E%20%C3%BC");
    }
}
