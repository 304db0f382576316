//! HAR 1.2 (the W3C draft that browsers and proxies write): HTTP exchanges for the tools that read them.
//!
//! Records of other kinds have no place in it, and are left out and counted by whoever asks. An exchange
//! that was refused has a response of status 0, as browsers write it, and says why in `comment`. Cookies
//! are masked in the log, so their lists are empty. A request's body that is not text is base64 and says
//! so in `_encoding`, which HAR has for responses only.

use serde_json::{Value, json};

use super::{FormatError, Row, opened::Content, row::json_line};
use crate::model::{HeaderFields, Kind};

/// An archive under way.
#[derive(Debug)]
pub struct Archive {
    bodies: bool,
    empty: bool,
}

impl Archive {
    /// One with bodies, or without.
    #[must_use]
    pub fn new(bodies: bool) -> Self {
        Self { bodies, empty: true }
    }

    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"{\"log\":{\"version\":\"1.2\",\"creator\":{\"name\":\"agentgate\",\"version\":\"",
        );
        out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
        out.extend_from_slice(b"\"},\"entries\":[\n");
    }

    /// Appends an exchange; false for what is none.
    pub(super) fn row(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool, FormatError> {
        if row.record.kind != Kind::Exchange || row.record.request.is_none() {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.empty, false) {
            out.push(b',');
        }
        json_line(row, &entry(row, self.bodies), out)?;
        Ok(true)
    }

    pub(super) fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}}\n");
    }
}

fn millis(us: u64) -> f64 {
    // Below 2^53, and so exact, for a few hundred years.
    us as f64 / 1000.0
}

fn entry(row: &Row, bodies: bool) -> Value {
    let record = &row.record;
    let whole = record.finished.map_or(0, |end| end.since(record.started));
    let wait = record.response.as_ref().map_or(whole, |head| head.first_byte_us).min(whole);
    let [asked, answered] = if bodies { row.contents() } else { [None, None] };
    let mut entry = json!({
        "startedDateTime": jiff::Timestamp::from_microsecond(record.started.0).unwrap_or_default().to_string(),
        "time": millis(whole),
        "request": request(row, asked),
        "response": response(row, answered),
        "cache": {},
        "timings": {
            "blocked": -1, "dns": -1, "connect": -1, "ssl": -1,
            "send": 0, "wait": millis(wait), "receive": millis(whole - wait),
        },
        "_record": record.id.0,
        "_session": record.subject.as_ref().map(|subject| subject.session.0.as_str()),
        "_process": row.agent(),
        "_pid": record.subject.as_ref().map(|subject| subject.pid),
        "_verdict": record.verdict.as_ref().map(|verdict| verdict.action.as_str()),
        "_rule": record.verdict.as_ref().map(|verdict| verdict.rule.as_str()),
        "_state": record.state.as_str(),
        "_flags": record.flags.iter().map(|flag| flag.code.as_str()).collect::<Vec<_>>(),
    });
    if let Some(parent) = record.parent {
        set(&mut entry, "connection", parent.0.to_string().into());
    }
    if let Some(comment) = why(row) {
        set(&mut entry, "comment", comment.into());
    }
    entry
}

/// What stood in the way.
fn why(row: &Row) -> Option<String> {
    let record = &row.record;
    if let Some(failure) = &record.failure {
        return Some(format!("{}: {}", failure.code, failure.detail));
    }
    let refused = record.verdict.as_ref().filter(|_| record.response.is_none());
    refused.map(|verdict| format!("{} ({})", verdict.reason, verdict.rule))
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

fn request(row: &Row, body: Option<Content>) -> Value {
    let Some(head) = &row.record.request else { return Value::Null };
    let mut request = json!({
        "method": head.method,
        "url": row.url().unwrap_or_else(|| head.target.clone()),
        "httpVersion": head.version,
        "cookies": [],
        "headers": headers(&head.headers),
        "queryString": query(&head.target),
        "headersSize": -1,
        "bodySize": head.body.total,
    });
    if let Some(content) = body {
        let (text, base64) = content.text();
        let mut data = json!({ "mimeType": mime(&head.headers), "params": [], "text": text });
        if base64 {
            set(&mut data, "_encoding", "base64".into());
        }
        cut(&mut data, &content);
        set(&mut request, "postData", data);
    }
    request
}

fn response(row: &Row, body: Option<Content>) -> Value {
    let Some(head) = &row.record.response else {
        return json!({
            "status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": [],
            "content": { "size": 0, "mimeType": "x-unknown" },
            "redirectURL": "", "headersSize": -1, "bodySize": -1,
        });
    };
    let mut content = json!({
        "size": body.as_ref().map_or(head.body.total, |content| content.bytes.len() as u64),
        "mimeType": mime(&head.headers),
    });
    if let Some(body) = body {
        let (text, base64) = body.text();
        set(&mut content, "text", text.into());
        if base64 {
            set(&mut content, "encoding", "base64".into());
        }
        cut(&mut content, &body);
    }
    json!({
        "status": head.status,
        "statusText": "",
        "httpVersion": head.version,
        "cookies": [],
        "headers": headers(&head.headers),
        "content": content,
        "redirectURL": head.headers.get("location").unwrap_or_default(),
        "headersSize": -1,
        "bodySize": head.body.total,
    })
}

/// Says where a body had more.
fn cut(object: &mut Value, content: &Content) {
    if content.truncated {
        set(object, "comment", "the body had more than this".into());
    }
}

fn mime(headers: &HeaderFields) -> &str {
    headers.get("content-type").unwrap_or("x-unknown")
}

fn headers(headers: &HeaderFields) -> Vec<Value> {
    headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// Names and values as they were sent.
fn query(target: &str) -> Vec<Value> {
    let Some((_, query)) = target.split_once('?') else { return Vec::new() };
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            json!({ "name": name, "value": value })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::samples;

    fn archive(rows: &[Row], bodies: bool) -> Value {
        let mut archive = Archive::new(bodies);
        let mut out = Vec::new();
        archive.begin(&mut out);
        for row in rows {
            assert_eq!(archive.row(row, &mut out).unwrap(), row.record.kind == Kind::Exchange);
        }
        archive.end(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    /// What the draft requires of an object, by its section.
    fn holds(object: &Value, required: &[&str]) {
        for name in required {
            assert!(object.get(name).is_some_and(|value| !value.is_null()), "{name} of {object}");
        }
    }

    #[test]
    fn every_exchange_has_what_the_draft_requires() {
        for bodies in [false, true] {
            let har = archive(&samples::all(), bodies);
            let log = &har["log"];
            holds(log, &["version", "creator", "entries"]);
            holds(&log["creator"], &["name", "version"]);
            let entries = log["entries"].as_array().unwrap();
            assert!(entries.len() >= 3);
            for entry in entries {
                holds(entry, &["startedDateTime", "time", "request", "response", "cache", "timings"]);
                assert!(entry["startedDateTime"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
                holds(
                    &entry["request"],
                    &[
                        "method",
                        "url",
                        "httpVersion",
                        "cookies",
                        "headers",
                        "queryString",
                        "headersSize",
                        "bodySize",
                    ],
                );
                holds(
                    &entry["response"],
                    &[
                        "status",
                        "statusText",
                        "httpVersion",
                        "cookies",
                        "headers",
                        "content",
                        "redirectURL",
                        "headersSize",
                        "bodySize",
                    ],
                );
                holds(&entry["response"]["content"], &["size", "mimeType"]);
                let timing = |name: &str| entry["timings"][name].as_f64().unwrap();
                let sum = timing("send") + timing("wait") + timing("receive");
                assert!(timing("wait") >= 0.0 && (sum - entry["time"].as_f64().unwrap()).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn bodies_are_decoded_and_say_what_they_are() {
        let har = archive(&[samples::exchange(), samples::binary()], true);
        let entry = |at: usize| &har["log"]["entries"][at];
        assert_eq!(entry(0)["request"]["postData"]["text"], "{\"model\":\"m\"}");
        assert_eq!(entry(0)["request"]["postData"]["mimeType"], "application/json");
        assert_eq!(entry(0)["response"]["content"]["text"], "data: hello\n\n");
        assert_eq!(entry(0)["response"]["content"]["size"], 13);
        assert_eq!(entry(0)["request"]["queryString"][0]["name"], "beta");
        assert_eq!(entry(1)["response"]["content"]["encoding"], "base64");
        assert_eq!(entry(1)["response"]["content"]["text"], "/wD+");
        assert_eq!(entry(1)["response"]["content"]["comment"], "the body had more than this");
        let without = archive(&[samples::exchange()], false);
        assert!(without["log"]["entries"][0]["response"]["content"].get("text").is_none());
    }

    #[test]
    fn an_archive_without_exchanges_is_one() {
        assert_eq!(archive(&[], false)["log"]["entries"], json!([]));
    }
}
