//! OCSF 1.5.0 (schema.ocsf.io), one event a line, for SIEMs and data lakes.
//!
//! | record | class | activity |
//! | --- | --- | --- |
//! | exchange | HTTP Activity (4002) | by its method; Other (99) for one that OCSF has no number for |
//! | flow, kernel | Network Activity (4001) | Open while open, Close, Fail, Refuse, Reset for one cancelled |
//! | dns | DNS Activity (4003) | Traffic (6): question and answer |
//! | control, guard | API Activity (6003) | Other (99) |
//!
//! Profiles: `host` (who acted) and `security_control` (what policy said). `type_uid` is class times 100
//! and activity. What OCSF has no attribute for is in `unmapped`, under the record's own names.

use serde_json::{Map, Value, json};

use super::{FormatError, Row, row::json_line};
use crate::model::{Action, Flow, HeaderFields, Kind, Question, Severity, State, Subject, Timestamp};

/// Version of the schema that events are of.
pub const VERSION: &str = "1.5.0";

/// An object whose empty attributes are left out.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

/// Appends the event of a record.
pub(super) fn event(row: &Row, bodies: bool, out: &mut Vec<u8>) -> Result<(), FormatError> {
    json_line(row, &value(row, bodies), out)
}

/// Milliseconds since 1970, as OCSF counts.
fn millis(time: Timestamp) -> i64 {
    time.0.div_euclid(1000)
}

fn value(row: &Row, bodies: bool) -> Value {
    let record = &row.record;
    let (category, class) = match record.kind {
        Kind::Exchange => ((4, "Network Activity"), (4002, "HTTP Activity")),
        Kind::Flow | Kind::Kernel => ((4, "Network Activity"), (4001, "Network Activity")),
        Kind::Dns => ((4, "Network Activity"), (4003, "DNS Activity")),
        Kind::Control | Kind::Guard => ((6, "Application Activity"), (6003, "API Activity")),
    };
    let activity = activity(row);
    let (status, status_name) = match record.state {
        State::Open => (0, "Unknown"),
        State::Done => (1, "Success"),
        State::Refused | State::Failed | State::Cancelled => (2, "Failure"),
    };
    let (severity, severity_name) = match row.severity() {
        None | Some(Severity::Info) => (1, "Informational"),
        Some(Severity::Low) => (2, "Low"),
        Some(Severity::Medium) => (3, "Medium"),
        Some(Severity::High) => (4, "High"),
    };
    let event = Object::default()
        .with("activity_id", activity.0)
        .with("activity_name", activity.1)
        .with("category_uid", category.0)
        .with("category_name", category.1)
        .with("class_uid", class.0)
        .with("class_name", class.1)
        .with("type_uid", class.0 * 100 + activity.0)
        .with("type_name", format!("{}: {}", class.1, activity.1))
        .with("severity_id", severity)
        .with("severity", severity_name)
        .with("status_id", status)
        .with("status", status_name)
        .with("status_code", status_code(row))
        .with("status_detail", status_detail(row))
        .with("message", message(row))
        .with("time", millis(record.started))
        .with("start_time", millis(record.started))
        .with("end_time", record.finished.map(millis))
        .with("duration", record.finished.map(|end| end.since(record.started) / 1000))
        .with("timezone_offset", 0)
        .with("count", record.times)
        .with("metadata", metadata(row))
        .with("actor", record.subject.as_deref().map(actor))
        .with("unmapped", unmapped(row, bodies));
    let event = verdict(row, event);
    match record.kind {
        Kind::Exchange => http(row, network(row, event)),
        Kind::Flow | Kind::Kernel => network(row, event),
        Kind::Dns => dns(row, network(row, event)),
        Kind::Control | Kind::Guard => api(row, event),
    }
    .into()
}

fn activity(row: &Row) -> (u32, &'static str) {
    let record = &row.record;
    match record.kind {
        Kind::Exchange => match record.request.as_ref().map(|head| head.method.as_str()) {
            Some("CONNECT") => (1, "Connect"),
            Some("DELETE") => (2, "Delete"),
            Some("GET") => (3, "Get"),
            Some("HEAD") => (4, "Head"),
            Some("OPTIONS") => (5, "Options"),
            Some("POST") => (6, "Post"),
            Some("PUT") => (7, "Put"),
            Some("TRACE") => (8, "Trace"),
            Some(_) => (99, "Other"),
            None => (0, "Unknown"),
        },
        Kind::Flow | Kind::Kernel => match record.state {
            State::Open => (1, "Open"),
            State::Done => (2, "Close"),
            State::Cancelled => (3, "Reset"),
            State::Failed => (4, "Fail"),
            State::Refused => (5, "Refuse"),
        },
        Kind::Dns => (6, "Traffic"),
        Kind::Control | Kind::Guard => (99, "Other"),
    }
}

fn status_code(row: &Row) -> Option<String> {
    let record = &row.record;
    match (&record.failure, &record.response, &record.question) {
        (Some(failure), ..) => Some(failure.code.clone()),
        (None, Some(response), _) => Some(response.status.to_string()),
        (None, None, Some(question)) => Some(question.code.clone()),
        (None, None, None) => None,
    }
}

fn status_detail(row: &Row) -> Option<&str> {
    let record = &row.record;
    match (&record.failure, &record.verdict) {
        (Some(failure), _) => Some(&failure.detail),
        (None, Some(verdict)) => Some(&verdict.reason),
        (None, None) => None,
    }
}

fn message(row: &Row) -> Option<String> {
    let record = &row.record;
    if let Some(request) = &record.request {
        return Some(format!("{} {}", request.method, row.url().unwrap_or_else(|| request.target.clone())));
    }
    if let Some(question) = &record.question {
        return Some(format!("{} {}", question.kind, question.name));
    }
    record.note.clone().or_else(|| row.host())
}

fn metadata(row: &Row) -> Object {
    let product = Object::default()
        .with("name", "agentgate")
        .with("vendor_name", "agentgate")
        .with("version", env!("CARGO_PKG_VERSION"));
    let record = &row.record;
    Object::default()
        .with("version", VERSION)
        .with("product", product)
        .with("profiles", json!(["host", "security_control"]))
        .with("uid", record.id.to_string())
        .with("correlation_uid", record.parent.map(|id| id.to_string()))
        .with("log_name", "audit")
        .with("event_code", record.kind.as_str())
        .with("original_time", record.started.to_string())
}

fn actor(subject: &Subject) -> Object {
    let parents = subject.ancestors.iter().rev().fold(None::<Object>, |above, parent| {
        let process = Object::default().with("pid", parent.pid).with("name", name_of(&parent.exe));
        let process = process.with("file", file(&parent.exe));
        Some(process.with("parent_process", above))
    });
    let user = Object::default().with("uid", subject.uid.to_string());
    let exe = subject.exe.as_deref().unwrap_or_default();
    let name = if exe.is_empty() { subject.comm.as_str() } else { name_of(exe) };
    let process = Object::default()
        .with("pid", subject.pid)
        .with("name", name)
        .with("cmd_line", subject.cmdline.join(" "))
        .with("file", file(exe))
        .with("parent_process", parents)
        .with("user", Object::default().with("uid", subject.uid.to_string()));
    Object::default()
        .with("process", process)
        .with("user", user)
        .with("session", Object::default().with("uid", subject.session.0.as_str()))
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn file(path: &str) -> Object {
    if path.is_empty() {
        return Object::default();
    }
    // Type 1: a regular file.
    Object::default().with("name", name_of(path)).with("path", path).with("type_id", 1)
}

fn verdict(row: &Row, event: Object) -> Object {
    let Some(verdict) = &row.record.verdict else {
        return event.with("action_id", 0).with("disposition_id", 0);
    };
    let (action, disposition) = match verdict.action {
        Action::Allow => ((1, "Allowed"), (1, "Allowed")),
        Action::Deny => ((2, "Denied"), (2, "Blocked")),
        // Passed on unread.
        Action::Passthrough => ((1, "Allowed"), (10, "Exonerated")),
    };
    event
        .with("action_id", action.0)
        .with("action", action.1)
        .with("disposition_id", disposition.0)
        .with("disposition", disposition.1)
        .with("is_alert", matches!(verdict.action, Action::Deny))
        .with(
            "firewall_rule",
            Object::default().with("name", verdict.rule.as_str()).with("desc", verdict.reason.as_str()),
        )
}

fn network(row: &Row, event: Object) -> Object {
    let record = &row.record;
    let flow = record.flow.as_deref();
    let address = |flow: &Flow| flow.original.0.ip().to_canonical();
    let host = record.authority.as_ref().map(|authority| authority.host.as_str());
    let port = record.authority.as_ref().map(|authority| authority.port);
    let destination = Object::default()
        .with("hostname", host)
        .with("ip", flow.map(|flow| address(flow).to_string()))
        .with("port", port.or_else(|| flow.map(|flow| flow.original.0.port())));
    let source = Object::default()
        .with("name", row.agent().unwrap_or("unknown"))
        .with("uid", record.subject.as_ref().map(|subject| subject.session.0.as_str()));
    let udp =
        record.protocol == "udp" || record.question.as_ref().is_some_and(|asked| asked.transport == "udp");
    let (protocol, name) = if udp { (17, "udp") } else { (6, "tcp") };
    let connection = Object::default()
        .with("direction_id", 2)
        .with("direction", "Outbound")
        .with("protocol_num", protocol)
        .with("protocol_name", name)
        .with("protocol_ver_id", flow.map(|flow| if address(flow).is_ipv4() { 4 } else { 6 }))
        .with("uid", flow.map(|flow| flow.cookie.to_string()));
    let (up, down) = match (&record.request, &record.response) {
        (None, None) => (record.bytes_up, record.bytes_down),
        (request, response) => (
            request.as_ref().map_or(0, |head| head.body.total),
            response.as_ref().map_or(0, |head| head.body.total),
        ),
    };
    let traffic =
        Object::default().with("bytes_out", up).with("bytes_in", down).with("bytes", up.saturating_add(down));
    event
        .with("dst_endpoint", destination)
        .with("src_endpoint", source)
        .with("connection_info", connection)
        .with("traffic", traffic)
        .with("app_name", record.protocol.as_str())
        .with("tls", tls(row))
        .with("ja4_fingerprint_list", ja4(row))
}

fn tls(row: &Row) -> Option<Object> {
    let tls = row.record.tls.as_deref()?;
    // OCSF has no TLS without a version.
    let version = tls.version.as_deref()?;
    Some(
        Object::default()
            .with("version", version)
            .with("cipher", tls.cipher.as_deref())
            .with("sni", tls.sni.as_deref()),
    )
}

fn ja4(row: &Row) -> Option<Value> {
    let ja4 = row.record.tls.as_deref().map(|tls| tls.ja4.as_str()).filter(|ja4| !ja4.is_empty())?;
    Some(json!([{ "type_id": 1, "type": "JA4", "value": ja4 }]))
}

fn headers(headers: &HeaderFields) -> Vec<Value> {
    headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

fn http(row: &Row, event: Object) -> Object {
    let record = &row.record;
    let request = record.request.as_ref().map(|head| {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let url = Object::default()
            .with("url_string", row.url())
            .with("scheme", head.scheme.as_str())
            .with("hostname", record.authority.as_ref().map(|authority| authority.host.as_str()))
            .with("port", record.authority.as_ref().map(|authority| authority.port))
            .with("path", path)
            .with("query_string", query);
        Object::default()
            .with("http_method", head.method.as_str())
            .with("url", url)
            .with("version", head.version.as_str())
            .with("user_agent", head.headers.get("user-agent"))
            .with("referrer", head.headers.get("referer"))
            .with("http_headers", headers(&head.headers))
            .with("length", head.body.total)
    });
    let response = record.response.as_ref().map(|head| {
        Object::default()
            .with("code", head.status)
            .with("http_headers", headers(&head.headers))
            .with("content_type", head.headers.get("content-type"))
            .with("latency", head.first_byte_us / 1000)
            .with("length", head.body.total)
    });
    event
        .with("http_request", request.unwrap_or_default())
        .with("http_status", record.response.as_ref().map(|head| head.status))
        .with("http_response", response)
}

fn dns(row: &Row, event: Object) -> Object {
    let Some(asked) = &row.record.question else { return event };
    let (code, name) = rcode(asked);
    let class = "IN";
    let query = Object::default()
        .with("hostname", asked.name.as_str())
        .with("type", asked.kind.as_str())
        .with("class", class)
        .with("opcode_id", 0);
    let given = asked.addresses.iter().map(|address| {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        json!({ "type": kind, "class": class, "rdata": address.to_string() })
    });
    // Other answers are kept as in a zone file, with what was left out.
    let others = asked.answers.iter().map(|answer| json!({ "class": class, "rdata": answer }));
    let end = Timestamp(row.record.started.0.saturating_add_unsigned(asked.took_us));
    event
        .with("query", query)
        .with("query_time", millis(row.record.started))
        .with("response_time", millis(end))
        .with("rcode_id", code)
        .with("rcode", name)
        .with("answers", given.chain(others).collect::<Vec<_>>())
}

/// As OCSF numbers and names the codes of RFC 6895.
fn rcode(asked: &Question) -> (u32, &str) {
    match asked.code.as_str() {
        "NOERROR" => (0, "NoError"),
        "FORMERR" => (1, "FormError"),
        "SERVFAIL" => (2, "ServError"),
        "NXDOMAIN" => (3, "NXDomain"),
        "NOTIMP" => (4, "NotImp"),
        "REFUSED" => (5, "Refused"),
        other => (99, other),
    }
}

fn api(row: &Row, event: Object) -> Object {
    let record = &row.record;
    let operation = record.note.as_deref().filter(|note| !note.is_empty()).unwrap_or(record.kind.as_str());
    let source = Object::default()
        .with("name", row.agent().unwrap_or("agentgated"))
        .with("uid", record.subject.as_ref().map(|subject| subject.session.0.as_str()));
    let event =
        event.with("api", Object::default().with("operation", operation)).with("src_endpoint", source);
    // Required here, also of what the gate did by itself.
    if record.subject.is_some() { event } else { event.with("actor", json!({ "app_name": "agentgated" })) }
}

fn unmapped(row: &Row, bodies: bool) -> Object {
    let record = &row.record;
    let mut object = Object::default()
        .with("entry", row.n)
        .with("state", record.state.as_str())
        .with("flags", serde_json::to_value(&record.flags).unwrap_or_default())
        .with("facts", row.facts())
        .with(
            "note",
            record.note.as_deref().filter(|_| record.request.is_some() || record.question.is_some()),
        )
        .with("cgroup", record.subject.as_ref().map(|subject| subject.cgroup.as_str()))
        .with(
            "privileges",
            record.subject.as_ref().map(|subject| subject.privileges.clone()).unwrap_or_default(),
        )
        .with("failure_blame", record.failure.as_ref().map(|failure| failure.blame.as_str()))
        .with(
            "websocket",
            record.websocket.as_ref().map(|seen| serde_json::to_value(seen).unwrap_or_default()),
        )
        .with("loss", record.loss.as_ref().map(|loss| serde_json::to_value(loss).unwrap_or_default()));
    if bodies {
        let [request, response] = row.contents();
        for (name, content) in [("request_body", request), ("response_body", response)] {
            if let Some(content) = content {
                let (text, base64) = content.text();
                object = object.with(name, text);
                if base64 {
                    object = object.with(&format!("{name}_encoding"), "base64");
                }
            }
        }
    }
    object
}

#[cfg(test)]
mod tests;
