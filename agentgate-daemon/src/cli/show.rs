//! `agentctl show`.

use super::{
    Failure, Session,
    logs::{size, took},
    terminal::{Colour, escape},
};
use crate::{
    control::wire::{Item, Payload, Request, from_hex},
    model::{Captured, Record, RecordId, Severity, Tls},
    store::Side,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of the record
    id: RecordId,
    /// Instead the captured body, as it was on the wire and with its secrets; the log keeps who asked
    #[arg(long, value_name = "request|response", value_parser = side, conflicts_with = "json")]
    body: Option<Side>,
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "request" => Ok(Side::Request),
        "response" => Ok(Side::Response),
        _ => Err("request or response".to_owned()),
    }
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    if let Some(side) = args.body {
        return body(session, args.id, side);
    }
    let Payload::Record(record) = session.ask(Request::Show { id: args.id })? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        return session.output.json(&record);
    }
    for line in lines(&record) {
        let text = match line {
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

fn body(session: &mut Session, id: RecordId, side: Side) -> Result<(), Failure> {
    let client = session.connect()?;
    // Put together first: a character may lie across two chunks.
    let mut whole = Vec::new();
    client.stream(Request::Body { id, side }, false, |item| match item {
        Item::Body { hex } => {
            whole.extend(from_hex(&hex).ok_or(Failure::Unexpected)?);
            Ok(())
        }
        Item::Record(_) | Item::Searched { .. } | Item::Listed | Item::Missed { .. } => {
            Err(Failure::Unexpected)
        }
    })?;
    session.output.bytes(&whole)
}

/// A line of the answer, not yet escaped.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Field(&'static str, String),
    Flag(Severity, String),
    Heading(String),
    Header(String, String),
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
    let flag = |f: &crate::model::Flag| {
        Line::Flag(f.severity, format!("{} ({}): {}", f.code, f.severity.as_str(), f.evidence))
    };
    lines.extend(record.flags.iter().map(flag));
    if let Some(head) = &record.request {
        lines.push(Line::Heading(format!("{} {} {}", head.method, head.target, head.version)));
        lines
            .extend(head.headers.iter().map(|(name, value)| Line::Header(name.to_owned(), value.to_owned())));
        lines.push(Line::Field("body", captured(&head.body)));
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
        lines.push(Line::Field("body", captured(&head.body)));
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

fn captured(body: &Captured) -> String {
    let kept = if body.truncated { ", beginning kept" } else { "" };
    format!("{} bytes{kept}", size(body.total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Flag, Kind, Question, RequestHead, Timestamp};

    #[test]
    fn a_question_is_shown_with_its_answer() {
        let mut record = Record::new(Kind::Dns, Timestamp(0));
        record.times = 2;
        record.question = Some(Question {
            name: "a.example".into(),
            kind: "HTTPS".into(),
            transport: "tcp".into(),
            code: "NOERROR".into(),
            addresses: vec!["203.0.113.7".parse().unwrap()],
            answers: vec!["left out 10.0.0.1: a private address".into()],
            took_us: 4_200,
        });
        let lines = lines(&record);
        for (label, value) in [
            ("question", "a.example HTTPS over tcp"),
            ("answer", "NOERROR, took 4ms"),
            ("given", "203.0.113.7"),
            ("answered", "left out 10.0.0.1: a private address"),
            ("times", "2"),
        ] {
            assert!(lines.contains(&Line::Field(label, value.into())), "{label}: {lines:?}");
        }
    }

    #[test]
    fn tls_is_shown_in_two_lines() {
        let mut record = Record::new(Kind::Flow, Timestamp(0));
        let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1".to_owned();
        let offered = vec!["h2".to_owned(), "http/1.1".to_owned()];
        record.tls = Some(Box::new(Tls { ja4: ja4.clone(), offered, ..Tls::default() }));
        assert!(lines(&record).contains(&Line::Field("tls", "unread, offered h2 http/1.1".into())));
        assert!(lines(&record).contains(&Line::Field("ja4", ja4)));
        record.tls = Some(Box::new(Tls {
            version: Some("TLS 1.3".into()),
            cipher: Some("TLS13_AES_128_GCM_SHA256".into()),
            alpn: Some("h2".into()),
            resumed: true,
            origin_version: Some("TLS 1.2".into()),
            origin_resumed: true,
            ..Tls::default()
        }));
        let line = "TLS 1.3, TLS13_AES_128_GCM_SHA256, h2, resumed, to the origin TLS 1.2 resumed";
        assert!(lines(&record).contains(&Line::Field("tls", line.into())), "{:?}", lines(&record));
    }

    #[test]
    fn shows_what_there_is_and_no_more() {
        let mut record = Record::new(Kind::Exchange, Timestamp(0));
        record.id = RecordId(3);
        let bare = lines(&record);
        assert_eq!(bare.len(), 2, "{bare:?}");
        assert_eq!(bare[0], Line::Field("record", "3 exchange (open)".into()));
        record.flags = vec![Flag::new("would_block", Severity::Medium, "x")];
        record.request = Some(RequestHead {
            method: "GET".into(),
            scheme: "https".into(),
            target: "/a".into(),
            version: "HTTP/1.1".into(),
            headers: vec![("authorization", "Bearer ****abcd")].into(),
            body: Captured { total: 5, truncated: true, ..Captured::default() },
        });
        let full = lines(&record);
        assert!(full.contains(&Line::Flag(Severity::Medium, "would_block (medium): x".into())));
        assert!(full.contains(&Line::Heading("GET /a HTTP/1.1".into())));
        assert!(full.contains(&Line::Header("authorization".into(), "Bearer ****abcd".into())));
        assert_eq!(full.last(), Some(&Line::Field("body", "5 bytes, beginning kept".into())));
    }
}
