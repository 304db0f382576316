//! What the fields of the language are in a record.

use std::borrow::Cow;

use super::{FactTest, Pattern, Test, field};
use crate::{
    model::{FactValue, Record, State},
    words::contains,
};

/// The host a record is found under: the name that was asked for, or whom it was for, else the address the
/// agent meant.
#[must_use]
pub fn host_of(record: &Record) -> Option<Cow<'_, str>> {
    if let Some(question) = record.question.as_ref().filter(|question| !question.name.is_empty()) {
        return Some(Cow::Borrowed(&question.name));
    }
    match (&record.authority, &record.flow) {
        (Some(authority), _) => Some(Cow::Borrowed(authority.host.as_str())),
        (None, Some(flow)) => Some(Cow::Owned(flow.original.0.ip().to_canonical().to_string())),
        (None, None) => None,
    }
}

/// The name of a session without the id of its cgroup: `run-u2.service` of `run-u2.service@1234`.
#[must_use]
pub fn session_name(session: &str) -> &str {
    session.rsplit_once('@').map_or(session, |(name, _)| name)
}

/// Whether a session is meant: by its id or by its name.
#[must_use]
pub fn in_session(pattern: &Pattern, session: &str) -> bool {
    pattern.matches(session) || pattern.matches(session_name(session))
}

/// What the process is called: the file name of its executable, and its thread's name. Either may be empty.
#[must_use]
pub fn agents<'r>(exe: &'r str, comm: &'r str) -> [&'r str; 2] {
    [exe.rsplit('/').next().unwrap_or(exe), comm]
}

/// Microseconds from beginning to end; `None` of what is open.
#[must_use]
pub fn duration(record: &Record) -> Option<u64> {
    record.finished.filter(|_| record.state != State::Open).map(|end| end.since(record.started))
}

/// Bytes both ways: of the bodies where there are heads, else of the connection.
#[must_use]
pub fn amount(record: &Record) -> u64 {
    match (&record.request, &record.response) {
        (None, None) => record.bytes_up.saturating_add(record.bytes_down),
        (request, response) => {
            let request = request.as_ref().map_or(0, |head| head.body.total);
            request.saturating_add(response.as_ref().map_or(0, |head| head.body.total))
        }
    }
}

/// The field that finds facts of this name: `model`, `fact.server`.
#[must_use]
pub fn fact_field(name: &str) -> Cow<'_, str> {
    if field::FACTS.contains(&name) { Cow::Borrowed(name) } else { Cow::Owned(format!("fact.{name}")) }
}

/// A fact's value as the language has it: `claude-4`, `812`, `0.0125`.
#[must_use]
pub fn fact_value(value: &FactValue) -> Cow<'_, str> {
    match value {
        FactValue::Text(text) => Cow::Borrowed(text),
        FactValue::Integer(number) => Cow::Owned(number.to_string()),
        FactValue::Micros(micros) => {
            let (whole, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
            let sign = if *micros < 0 { "-" } else { "" };
            let text = format!("{sign}{whole}.{part:06}");
            Cow::Owned(text.trim_end_matches('0').trim_end_matches('.').to_owned())
        }
    }
}

/// Codes of how it ended: of the failure, and of the DNS answer.
pub fn codes(record: &Record) -> impl Iterator<Item = &str> {
    let failure = record.failure.as_ref().map(|failure| failure.code.as_str());
    let answer = record.question.as_ref().map(|question| question.code.as_str());
    failure.into_iter().chain(answer).filter(|code| !code.is_empty())
}

impl Test {
    /// Whether it holds of the record. Of [`Test::Text`] only what is no body is looked at.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let subject = record.subject.as_ref();
        match self {
            Self::Host(pattern) => host_of(record).is_some_and(|host| pattern.matches(&host)),
            Self::Session(pattern) => subject.is_some_and(|subject| in_session(pattern, &subject.session.0)),
            Self::Agent(pattern) => subject.is_some_and(|subject| {
                let names = agents(subject.exe.as_deref().unwrap_or_default(), &subject.comm);
                names.iter().any(|name| !name.is_empty() && pattern.matches(name))
            }),
            Self::Exe(pattern) => {
                subject.and_then(|subject| subject.exe.as_deref()).is_some_and(|exe| is(pattern, exe))
            }
            Self::Pid(bounds) => subject.is_some_and(|subject| bounds.holds(subject.pid)),
            Self::Verdict(action) => record.verdict.as_ref().is_some_and(|verdict| verdict.action == *action),
            Self::Flag(pattern) => record.flags.iter().any(|flag| is(pattern, &flag.code)),
            Self::Status(bounds) => record.response.as_ref().is_some_and(|head| bounds.holds(head.status)),
            Self::Method(pattern) => record.request.as_ref().is_some_and(|head| is(pattern, &head.method)),
            Self::Kind(kind) => record.kind == *kind,
            Self::State(state) => record.state == *state,
            Self::Rule(pattern) => record.verdict.as_ref().is_some_and(|verdict| is(pattern, &verdict.rule)),
            Self::Protocol(pattern) => is(pattern, &record.protocol),
            Self::Code(pattern) => codes(record).any(|code| pattern.matches(code)),
            Self::Id(bounds) => bounds.holds(record.id.0),
            Self::Parent(bounds) => record.parent.is_some_and(|parent| bounds.holds(parent.0)),
            Self::Started(bounds) => bounds.holds(record.started.0),
            Self::Duration(bounds) => duration(record).is_some_and(|duration| bounds.holds(duration)),
            Self::Bytes(bounds) => bounds.holds(amount(record)),
            Self::Path(pattern) => record.request.as_ref().is_some_and(|head| pattern.matches(&head.target)),
            Self::Url(pattern) => is(pattern, &url(record)),
            Self::Fact(test) => record
                .facts
                .iter()
                .any(|fact| fact.name.eq_ignore_ascii_case(&test.name) && test.matches(&fact.value)),
            Self::Text(needle) => contains(record, [None, None], std::slice::from_ref(needle)),
        }
    }
}

impl FactTest {
    /// Whether a fact of this name says what is looked for.
    #[must_use]
    pub fn matches(&self, value: &FactValue) -> bool {
        match value {
            FactValue::Text(text) => self.text.as_ref().is_some_and(|pattern| pattern.matches(text)),
            FactValue::Integer(_) | FactValue::Micros(_) => {
                value.in_micros().zip(self.number).is_some_and(|(number, bounds)| bounds.holds(number))
            }
        }
    }
}

/// Scheme, host, port where it is not the scheme's, and target; the host alone where there is no request.
fn url(record: &Record) -> String {
    let host = host_of(record).unwrap_or_default();
    let Some(head) = &record.request else { return host.into_owned() };
    let usual = if head.scheme == "http" { 80 } else { 443 };
    let port = record.authority.as_ref().map(|authority| authority.port).filter(|port| *port != usual);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", head.scheme, head.target)
}

/// What is empty is not there.
fn is(pattern: &Pattern, text: &str) -> bool {
    !text.is_empty() && pattern.matches(text)
}
