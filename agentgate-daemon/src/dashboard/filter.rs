//! The filter of the list, the live feed and the API: parameters in, a store query and a predicate out.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    dashboard::show::{self, session_name},
    model::{Action, Kind, Record, RecordId, Timestamp},
    store::HostPattern,
};

/// Longest value of one parameter, in bytes.
const MAX_VALUE: usize = 256;

/// The parameters as they come, all optional; an empty one is the same as none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Params {
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
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) host: Option<String>,
    pub(super) verdict: Option<Action>,
    pub(super) session: Option<String>,
    pub(super) kind: Option<Kind>,
    pub(super) since: Option<Timestamp>,
    /// Lower case.
    pub(super) text: Option<String>,
    pub(super) before: Option<RecordId>,
    pub(super) limit: usize,
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
    pub(super) fn filter(&self, now: Timestamp) -> Result<Filter, FilterError> {
        for (field, value) in self.fields() {
            if value.len() > MAX_VALUE {
                return Err(FilterError { field, message: format!("longer than {MAX_VALUE} bytes") });
            }
        }
        let fail = |field, message: &str| FilterError { field, message: message.to_owned() };
        Ok(Filter {
            host: given(&self.host).map(str::to_ascii_lowercase),
            verdict: match given(&self.verdict) {
                None => None,
                Some("allow") => Some(Action::Allow),
                Some("deny") => Some(Action::Deny),
                Some("passthrough") => Some(Action::Passthrough),
                Some(_) => return Err(fail("verdict", "allow, deny or passthrough")),
            },
            session: given(&self.session).map(str::to_owned),
            kind: match given(&self.kind) {
                None => None,
                Some("flow") => Some(Kind::Flow),
                Some("exchange") => Some(Kind::Exchange),
                Some("kernel") => Some(Kind::Kernel),
                Some("dns") => Some(Kind::Dns),
                Some("guard") => Some(Kind::Guard),
                Some("control") => Some(Kind::Control),
                Some(_) => return Err(fail("kind", "flow, exchange, kernel, dns, guard or control")),
            },
            since: match given(&self.since) {
                None => None,
                Some(text) => Some(since(text, now).ok_or_else(|| {
                    fail(
                        "since",
                        "a time span such as 15m, 24h or 7d, or a time such as 2026-11-20T08:00:00Z",
                    )
                })?),
            },
            text: given(&self.text).map(str::to_lowercase),
            before: match given(&self.before) {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| fail("before", "the number of a record"))?),
            },
            limit: match given(&self.limit) {
                None => PAGE,
                Some(text) => match text.parse() {
                    Ok(limit @ 1..=MAX_PAGE) => limit,
                    Ok(_) | Err(_) => return Err(fail("limit", "a number from 1 to 1000")),
                },
            },
        })
    }

    fn fields(&self) -> [(&'static str, &str); 8] {
        [
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

    /// As a query string without `?`, with `before` replaced; empty parameters are left out.
    pub(super) fn query(&self, before: Option<RecordId>) -> String {
        let before = before.map(|id| id.to_string()).unwrap_or_default();
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

fn since(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at.as_microsecond()));
    }
    let unit_at = text.len().checked_sub(1)?;
    let (count, unit) = (text.get(..unit_at)?, text.get(unit_at..)?);
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    if !count.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let back = count.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)?;
    Some(Timestamp(now.0.checked_sub(back)?))
}

impl Filter {
    /// Whether `record` belongs to the list, whatever the page.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let asked = show::asked(record);
        let host = || match (&record.authority, &record.flow) {
            _ if asked.is_some() => asked.map(|question| question.name.clone()).unwrap_or_default(),
            (Some(authority), _) => authority.host.to_string(),
            (None, Some(flow)) => flow.original.0.ip().to_string(),
            (None, None) => String::new(),
        };
        self.verdict.is_none_or(|action| record.verdict.as_ref().is_some_and(|v| v.action == action))
            && self.kind.is_none_or(|kind| record.kind == kind)
            && self.since.is_none_or(|since| record.started >= since)
            && self.host.as_deref().is_none_or(|pattern| HostPattern::new(pattern).matches(&host()))
            && self.rest(record)
    }

    /// The part of the filter that the store does not know: free text, and a session by its name or
    /// whole id.
    pub(super) fn rest(&self, record: &Record) -> bool {
        self.session.as_deref().is_none_or(|wanted| {
            record
                .subject
                .as_ref()
                .is_some_and(|s| s.session.0 == wanted || session_name(&s.session.0) == wanted)
        }) && self.text_in(record)
    }

    /// Whether the free text is in the record: method, target, host, program, command line, session,
    /// rule, reason, flags, failure and note, without regard to case. True where none is asked for.
    fn text_in(&self, record: &Record) -> bool {
        let Some(text) = &self.text else { return true };
        let has = |value: &str| value.to_lowercase().contains(text.as_str());
        record.request.as_ref().is_some_and(|r| has(&r.method) || has(&r.target))
            || record.response.as_ref().is_some_and(|r| r.status.to_string() == *text)
            || record.authority.as_ref().is_some_and(|a| has(&a.to_string()))
            || record.flow.as_ref().is_some_and(|f| has(&f.original.0.to_string()) || has(&f.comm))
            || record.subject.as_ref().is_some_and(|s| {
                has(&s.session.0) || s.exe.as_deref().is_some_and(has) || s.cmdline.iter().any(|a| has(a))
            })
            || record.verdict.as_ref().is_some_and(|v| has(&v.rule) || has(&v.reason))
            || record.flags.iter().any(|f| has(&f.code) || has(&f.evidence))
            || record.failure.as_ref().is_some_and(|f| has(&f.code) || has(&f.detail))
            || record.question.as_ref().is_some_and(|q| {
                has(&q.name)
                    || has(&q.kind)
                    || has(&q.code)
                    || q.answers.iter().any(|line| has(line))
                    || q.addresses.iter().any(|ip| has(&ip.to_string()))
            })
            || record.note.as_deref().is_some_and(has)
            || has(&record.protocol)
            || has(record.state.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Authority, Host};

    fn params(field: &str, value: &str) -> Params {
        serde_json::from_value(serde_json::json!({ field: value })).unwrap()
    }

    #[test]
    fn parameters_are_read_or_refused() {
        let now = Timestamp(1_000_000_000_000);
        let good = [
            ("verdict", "deny", Filter { verdict: Some(Action::Deny), ..Filter::default() }),
            ("verdict", "", Filter::default()),
            ("kind", " flow ", Filter { kind: Some(Kind::Flow), ..Filter::default() }),
            ("host", "API.example", Filter { host: Some("api.example".into()), ..Filter::default() }),
            ("since", "15m", Filter { since: Some(Timestamp(now.0 - 900_000_000)), ..Filter::default() }),
            (
                "since",
                "1970-01-01T00:00:01Z",
                Filter { since: Some(Timestamp(1_000_000)), ..Filter::default() },
            ),
            ("before", "17", Filter { before: Some(RecordId(17)), ..Filter::default() }),
        ];
        for (field, value, expect) in good {
            let expect = Filter { limit: PAGE, ..expect };
            assert_eq!(params(field, value).filter(now), Ok(expect), "{field}={value}");
        }
        let long = "x".repeat(MAX_VALUE + 1);
        let bad = [
            ("verdict", "maybe"),
            ("kind", "Flow"),
            ("since", "yesterday"),
            ("since", "-5m"),
            ("since", "5é"),
            ("since", "m"),
            ("since", "9223372036854775807d"),
            ("before", "-1"),
            ("limit", "0"),
            ("limit", "1001"),
            ("text", &long),
        ];
        for (field, value) in bad {
            assert_eq!(params(field, value).filter(now).map_err(|e| e.field), Err(field), "{field}={value}");
        }
    }

    #[test]
    fn query_strings_are_encoded() {
        let params =
            Params { host: "a&b=c".into(), text: "<x> ü".into(), before: "9".into(), ..Params::default() };
        assert_eq!(params.query(Some(RecordId(5))), "host=a%26b%3Dc&text=%3Cx%3E%20%C3%BC&before=5");
        assert_eq!(params.query(None), "host=a%26b%3Dc&text=%3Cx%3E%20%C3%BC");
    }

    #[test]
    fn text_is_looked_for_without_regard_to_case() {
        let mut record = Record::new(Kind::Exchange, Timestamp(0));
        record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
        record.note = Some("List Changed".into());
        for (text, expect) in [("", true), ("EXAMPLE.com:443", true), ("list ch", true), ("absent", false)] {
            let filter = params("text", text).filter(Timestamp(0)).unwrap();
            assert_eq!(filter.text_in(&record), expect, "{text:?}");
        }
    }
}
