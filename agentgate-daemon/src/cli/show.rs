//! `agentctl show`.

use super::{
    Failure, Session,
    logs::{size, took},
    output::complain,
    terminal::{Colour, escape},
};
use crate::{
    control::wire::{Item, Payload, Request, from_hex},
    filter::{fact_field, fact_value},
    inspect::{self, Codings, Limits, Opened},
    model::{
        Captured, Inspected, Record, RecordId, Severity, Tls,
        websocket::{Closed, Passed, Sender, TranscriptLine},
    },
    store::Side,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of the record
    id: RecordId,
    /// Instead the captured body, decoded and with its secrets, or the messages of that side of a WebSocket;
    /// the log keeps who asked
    #[arg(long, value_name = "request|response", value_parser = side, conflicts_with = "json")]
    body: Option<Side>,
    /// The body as it was on the wire, in its content coding; of a WebSocket its transcript in JSON
    #[arg(long, requires = "body")]
    raw: bool,
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "request" => Ok(Side::Request),
        "response" => Ok(Side::Response),
        _ => Err("request or response".to_owned()),
    }
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let Payload::Record(record) = session.ask(Request::Show { id: args.id })? else {
        return Err(Failure::Unexpected);
    };
    if let Some(side) = args.body {
        let whole = body(session, args.id, side)?;
        if args.raw {
            return session.output.bytes(&whole);
        }
        let bytes = match readable(&record, side, &whole) {
            Some((bytes, note)) => {
                complain(&note);
                bytes
            }
            None => whole,
        };
        // A file or a program gets it as it was.
        let laid_out = if session.output.terminal { json(&bytes) } else { None };
        return session.output.bytes(laid_out.as_deref().map_or(bytes.as_slice(), str::as_bytes));
    }
    if session.output.json {
        return session.output.json(&record);
    }
    for line in lines(&record) {
        let text = match line {
            Line::Body(side, text) => {
                let how = format!("  (agentctl show {} --body {side})", record.id);
                format!("{:<11} {}{}", "body", escape(&text), session.output.paint(Colour::Dim, &how))
            }
            Line::Field(label, value) => format!("{label:<11} {}", escape(&value)),
            Line::Flag(severity, text) => {
                let text = escape(&text);
                let text = match severity {
                    Severity::High | Severity::Medium => session.output.paint(Colour::Red, &text),
                    Severity::Low => session.output.paint(Colour::Yellow, &text),
                    Severity::Info => text,
                };
                format!("{:<11} {text}", "flag")
            }
            Line::Heading(text) => format!("\n{}", escape(&text)),
            Line::Header(name, value) => format!("  {}: {}", escape(&name), escape(&value)),
        };
        session.output.line(&text)?;
    }
    Ok(())
}

/// Longest JSON that is laid out: what is deep becomes many times longer by that.
const MAX_LAID_OUT: usize = 1 << 20;
/// Most bytes that a body is decoded to.
const MAX_DECODED: u64 = 64 << 20;

/// A stored body as people read it, and what to say of that; `None` where it is as it was.
fn readable(record: &Record, side: Side, body: &[u8]) -> Option<(Vec<u8>, String)> {
    if let Some(websocket) = &record.websocket {
        let mut text = String::new();
        for line in TranscriptLine::of(body) {
            let TranscriptLine { number, at, kind, length, .. } = &line;
            let cut = if line.truncated { ", the beginning" } else { "" };
            let after = took(at.since(record.started));
            text.push_str(&format!("#{number} after {after}, {kind}, {length} bytes{cut}\n{}\n", line.text));
        }
        let note = format!("messages of a WebSocket; {} of both sides were not kept", websocket.left_out);
        return Some((text.into_bytes(), note));
    }
    let (headers, captured) = match side {
        Side::Request => record.request.as_ref().map(|head| (&head.headers, &head.body)),
        Side::Response => record.response.as_ref().map(|head| (&head.headers, &head.body)),
    }?;
    let codings = inspect::recorded(headers);
    if codings.as_ref().is_ok_and(Codings::is_identity) {
        return None;
    }
    let captured = Captured { bytes: body.to_vec().into(), ..captured.clone() };
    let Opened { bytes, inspected } = inspect::open(&captured, &codings, Limits::of(MAX_DECODED));
    let mut note = format!("{} undone: {} bytes", inspected.encoding, bytes.len());
    if let Some(fault) = &inspected.fault {
        note = format!("sent as {}: {fault}; {} bytes could be read", inspected.encoding, bytes.len());
    }
    if inspected.truncated {
        note.push_str(", not all of the body");
    }
    Some((bytes, note))
}

/// What is JSON, whole, and no longer than a person looks at, with line ends where people want them. All else
/// is shown as it is.
fn json(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_LAID_OUT)?;
    let structured = text.trim_start().starts_with(['{', '[']);
    let whole = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    (structured && whole()).then(|| inspect::indent(text))
}

fn body(session: &mut Session, id: RecordId, side: Side) -> Result<Vec<u8>, Failure> {
    let client = session.connect()?;
    // Put together first: a character may lie across two chunks.
    let mut whole = Vec::new();
    client.stream(Request::Body { id, side }, false, |item| {
        let Item::Body { hex } = item else { return Err(Failure::Unexpected) };
        whole.extend(from_hex(&hex).ok_or(Failure::Unexpected)?);
        Ok(())
    })?;
    Ok(whole)
}

/// A line of the answer, not yet escaped.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Field(&'static str, String),
    Flag(Severity, String),
    Heading(String),
    Header(String, String),
    /// What there is of a body of `request` or `response`.
    Body(&'static str, String),
}

fn lines(record: &Record) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut field = |label, value: Option<String>| lines.extend(value.map(|value| Line::Field(label, value)));
    let time = match record.finished {
        Some(end) => format!("{}, took {}", record.started, took(end.since(record.started))),
        None => record.started.to_string(),
    };
    field("record", Some(format!("{} {} ({})", record.id, record.kind.as_str(), record.state.as_str())));
    field("time", Some(time));
    field("flow", record.parent.map(|id| format!("record {id}")));
    field("note", record.note.clone());
    field("host", record.authority.as_ref().map(ToString::to_string));
    field("original", record.flow.as_ref().map(|flow| flow.original.0.to_string()));
    if let Some(question) = &record.question {
        let asked = format!("{} {} over {}", question.name, question.kind, question.transport);
        field("question", Some(asked));
        let took = took(question.took_us);
        field(
            "answer",
            Some(format!("{}, took {took}", question.code)).filter(|_| !question.code.is_empty()),
        );
        for address in &question.addresses {
            field("given", Some(address.to_string()));
        }
        for line in &question.answers {
            field("answered", Some(line.clone()));
        }
    }
    field("times", Some(record.times.to_string()).filter(|_| record.times > 1));
    field("protocol", Some(record.protocol.clone()).filter(|p| !p.is_empty()));
    if let Some(tls) = &record.tls {
        field("tls", Some(tls_line(tls)));
        field("ja4", Some(tls.ja4.clone()).filter(|ja4| !ja4.is_empty()));
    }
    field(
        "verdict",
        record.verdict.as_ref().map(|v| format!("{} by {}: {}", v.action.as_str(), v.rule, v.reason)),
    );
    field("failure", record.failure.as_ref().map(|f| format!("{} ({}): {}", f.code, f.blame, f.detail)));
    if let Some(subject) = &record.subject {
        field("session", Some(subject.session.to_string()));
        field(
            "process",
            Some(format!(
                "{} {} (uid {})",
                subject.pid,
                subject.exe.as_deref().unwrap_or(&subject.comm),
                subject.uid
            )),
        );
        field("command", Some(subject.cmdline.join(" ")).filter(|c| !c.is_empty()));
        for ancestor in &subject.ancestors {
            field("parent", Some(format!("{} {}", ancestor.pid, ancestor.exe)));
        }
        field("cgroup", Some(subject.cgroup.clone()));
        field("privileges", Some(subject.privileges.join(", ")).filter(|text| !text.is_empty()));
    }
    if record.request.is_none() && record.bytes_up + record.bytes_down > 0 {
        field("bytes", Some(format!("{} up, {} down", record.bytes_up, record.bytes_down)));
    }
    if let Some(websocket) = &record.websocket {
        for (label, passed) in [("from agent", &websocket.client), ("from origin", &websocket.server)] {
            field(label, Some(passed_line(passed)));
        }
        field("closed", Some(closed_line(websocket.closed.as_ref())));
        field(
            "left out",
            Some(format!("{} messages", websocket.left_out)).filter(|_| websocket.left_out > 0),
        );
    }
    lines.extend(
        record.facts.iter().map(|fact| {
            Line::Field("fact", format!("{}:{}", fact_field(&fact.name), fact_value(&fact.value)))
        }),
    );
    let flag = |f: &crate::model::Flag| {
        Line::Flag(f.severity, format!("{} ({}): {}", f.code, f.severity.as_str(), f.evidence))
    };
    lines.extend(record.flags.iter().map(flag));
    if let Some(head) = &record.request {
        lines.push(Line::Heading(format!("{} {} {}", head.method, head.target, head.version)));
        lines
            .extend(head.headers.iter().map(|(name, value)| Line::Header(name.to_owned(), value.to_owned())));
        lines.push(captured("request", &head.body, record.request_seen.as_deref()));
    }
    if let Some(head) = &record.response {
        lines.push(Line::Heading(format!(
            "{} {}, first byte after {}",
            head.version,
            head.status,
            took(head.first_byte_us)
        )));
        lines
            .extend(head.headers.iter().map(|(name, value)| Line::Header(name.to_owned(), value.to_owned())));
        lines.push(captured("response", &head.body, record.response_seen.as_deref()));
    }
    lines
}

/// Both sides' TLS in one line.
fn tls_line(tls: &Tls) -> String {
    let mut parts = Vec::new();
    parts.push(tls.version.clone().unwrap_or_else(|| "unread".to_owned()));
    parts.extend(tls.cipher.clone());
    parts.extend(tls.alpn.clone());
    if tls.resumed {
        parts.push("resumed".to_owned());
    }
    if !tls.offered.is_empty() {
        parts.push(format!("offered {}", tls.offered.join(" ")));
    }
    if tls.ech {
        parts.push("encrypted hello".to_owned());
    }
    if let Some(version) = &tls.origin_version {
        let resumed = if tls.origin_resumed { " resumed" } else { "" };
        parts.push(format!("to the origin {version}{resumed}"));
    }
    parts.join(", ")
}

/// What one side of a WebSocket sent.
fn passed_line(passed: &Passed) -> String {
    let Passed { messages, bytes, decoded, controls, unseen } = passed;
    let inflated = if decoded == bytes { String::new() } else { format!(", inflated {}", size(*decoded)) };
    let unseen = if *unseen == 0 { String::new() } else { format!(", {unseen} not read whole") };
    format!("{messages} messages, {} bytes{inflated}, {controls} control frames{unseen}", size(*bytes))
}

fn closed_line(closed: Option<&Closed>) -> String {
    let Some(Closed { by, code, reason }) = closed else { return "without a close frame".to_owned() };
    let by = match by {
        Sender::Client => "by the agent",
        Sender::Server => "by the origin",
    };
    let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("{by}{code}{colon}{reason}")
}

fn captured(side: &'static str, body: &Captured, seen: Option<&Inspected>) -> Line {
    let kept = if body.truncated { ", beginning kept" } else { "" };
    let mut line = format!("{} bytes{kept}", size(body.total));
    if let Some(seen) = seen.filter(|seen| seen.encoding != "identity") {
        line.push_str(", coding ");
        line.push_str(&seen.encoding);
    }
    if let Some(fault) = seen.and_then(|seen| seen.fault.as_ref()) {
        line.push_str(": ");
        line.push_str(fault);
    }
    if body.total == 0 { Line::Field("body", line) } else { Line::Body(side, line) }
}

#[cfg(test)]
mod tests;
