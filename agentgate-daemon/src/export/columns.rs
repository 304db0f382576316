//! A record as one row of a table: what CSV and parquet have in common.

use std::{borrow::Cow, fmt::Write as _};

use super::Row;
use crate::model::{HeaderFields, Timestamp};

/// What is in a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'r> {
    Nothing,
    Text(Cow<'r, str>),
    Number(u64),
    Time(Timestamp),
}

impl<'r> From<Option<&'r str>> for Cell<'r> {
    fn from(text: Option<&'r str>) -> Self {
        text.map_or(Self::Nothing, |text| Self::Text(text.into()))
    }
}

impl From<Option<String>> for Cell<'_> {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Nothing, |text| Self::Text(text.into()))
    }
}

fn numbered<'r>(number: Option<impl Into<u64>>) -> Cell<'r> {
    number.map_or(Cell::Nothing, |number| Cell::Number(number.into()))
}

/// What all cells of a column are, where they are not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Number,
    Time,
}

/// One column.
#[derive(Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: Type,
    pub of: for<'r> fn(&'r Row) -> Cell<'r>,
}

impl std::fmt::Debug for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Column").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

const fn text(name: &'static str, of: for<'r> fn(&'r Row) -> Cell<'r>) -> Column {
    Column { name, kind: Type::Text, of }
}

const fn number(name: &'static str, of: for<'r> fn(&'r Row) -> Cell<'r>) -> Column {
    Column { name, kind: Type::Number, of }
}

const fn time(name: &'static str, of: for<'r> fn(&'r Row) -> Cell<'r>) -> Column {
    Column { name, kind: Type::Time, of }
}

/// The columns, in their order. Later versions add at the end; bodies follow them.
pub const COLUMNS: &[Column] = &[
    number("entry", |row| Cell::Number(row.n)),
    number("id", |row| Cell::Number(row.record.id.0)),
    number("parent", |row| numbered(row.record.parent.map(|id| id.0))),
    text("kind", |row| Some(row.record.kind.as_str()).into()),
    text("state", |row| Some(row.record.state.as_str()).into()),
    time("started", |row| Cell::Time(row.record.started)),
    time("finished", |row| row.record.finished.map_or(Cell::Nothing, Cell::Time)),
    number("duration_us", |row| numbered(row.record.finished.map(|end| end.since(row.record.started)))),
    text("session", |row| row.record.subject.as_ref().map(|subject| subject.session.0.as_str()).into()),
    text("agent", |row| row.agent().into()),
    text("exe", |row| row.record.subject.as_ref().and_then(|subject| subject.exe.as_deref()).into()),
    number("pid", |row| numbered(row.record.subject.as_ref().map(|subject| subject.pid))),
    number("uid", |row| numbered(row.record.subject.as_ref().map(|subject| subject.uid))),
    text("command", |row| {
        let subject = row.record.subject.as_ref().filter(|subject| !subject.cmdline.is_empty());
        subject.map(|subject| subject.cmdline.join(" ")).into()
    }),
    text("cgroup", |row| row.record.subject.as_ref().map(|subject| subject.cgroup.as_str()).into()),
    text("host", |row| row.host().into()),
    number("port", |row| numbered(row.record.authority.as_ref().map(|authority| authority.port))),
    text("address", |row| {
        row.record.flow.as_ref().map(|flow| flow.original.0.ip().to_canonical().to_string()).into()
    }),
    number("address_port", |row| numbered(row.record.flow.as_ref().map(|flow| flow.original.0.port()))),
    text("protocol", |row| Some(row.record.protocol.as_str()).filter(|text| !text.is_empty()).into()),
    text("method", |row| row.record.request.as_ref().map(|head| head.method.as_str()).into()),
    text("url", |row| row.url().into()),
    number("status", |row| numbered(row.record.response.as_ref().map(|head| head.status))),
    text("verdict", |row| row.record.verdict.as_ref().map(|verdict| verdict.action.as_str()).into()),
    text("rule", |row| row.record.verdict.as_ref().map(|verdict| verdict.rule.as_str()).into()),
    text("reason", |row| row.record.verdict.as_ref().map(|verdict| verdict.reason.as_str()).into()),
    text("flags", |row| {
        let codes: Vec<&str> = row.record.flags.iter().map(|flag| flag.code.as_str()).collect();
        Some(codes.join(" ")).filter(|codes| !codes.is_empty()).into()
    }),
    text("severity", |row| row.severity().map(|severity| severity.as_str()).into()),
    number("request_bytes", |row| numbered(row.record.request.as_ref().map(|head| head.body.total))),
    number("response_bytes", |row| numbered(row.record.response.as_ref().map(|head| head.body.total))),
    number("bytes_up", |row| Cell::Number(row.record.bytes_up)),
    number("bytes_down", |row| Cell::Number(row.record.bytes_down)),
    number("first_byte_us", |row| numbered(row.record.response.as_ref().map(|head| head.first_byte_us))),
    text("failure_blame", |row| row.record.failure.as_ref().map(|failure| failure.blame.as_str()).into()),
    text("failure", |row| row.record.failure.as_ref().map(|failure| failure.code.as_str()).into()),
    text("failure_detail", |row| row.record.failure.as_ref().map(|failure| failure.detail.as_str()).into()),
    text("question_type", |row| row.record.question.as_ref().map(|question| question.kind.as_str()).into()),
    text("answer_code", |row| row.record.question.as_ref().map(|question| question.code.as_str()).into()),
    text("addresses", |row| {
        let addresses = row.record.question.iter().flat_map(|question| &question.addresses);
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        Some(addresses.join(" ")).filter(|addresses| !addresses.is_empty()).into()
    }),
    text("server_name", |row| row.record.tls.as_ref().and_then(|tls| tls.sni.as_deref()).into()),
    text("tls_version", |row| row.record.tls.as_ref().and_then(|tls| tls.version.as_deref()).into()),
    text("ja4", |row| {
        row.record.tls.as_ref().map(|tls| tls.ja4.as_str()).filter(|text| !text.is_empty()).into()
    }),
    text("request_headers", |row| row.record.request.as_ref().map(|head| lines(&head.headers)).into()),
    text("response_headers", |row| row.record.response.as_ref().map(|head| lines(&head.headers)).into()),
    number("times", |row| Cell::Number(row.record.times)),
    text("note", |row| row.record.note.as_deref().into()),
    text("facts", |row| {
        let facts = row.facts();
        Some(facts.to_string()).filter(|_| !row.record.facts.is_empty()).into()
    }),
];

/// One field a line, as in HTTP/1.
fn lines(headers: &HeaderFields) -> String {
    let mut text = String::new();
    for (name, value) in headers.iter() {
        let end = if text.is_empty() { "" } else { "\n" };
        // Writing to a String does not fail.
        let _infallible = write!(text, "{end}{name}: {value}");
    }
    text
}
