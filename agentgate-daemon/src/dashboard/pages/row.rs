//! One record as a row of the list; the live feed sends the same markup.

use maud::{Markup, html};

use crate::{
    dashboard::show::{self, visible},
    model::{Action, Flow, Kind, Record, State, Timestamp},
};

/// Characters of a path or note in a row; CSS cuts further by width.
const MAX_WHAT: usize = 300;

/// The head of a table of rows.
#[must_use]
pub(super) fn head() -> Markup {
    html! {
        thead { tr {
            th scope="col" .c-time { "Time " span.dim { "UTC" } }
            th scope="col" .c-verdict { "Verdict" }
            th scope="col" .c-host { "Host" }
            th scope="col" .c-what { "Request" }
            th scope="col" .c-status { "Status" }
            th scope="col" .c-size { "Up / down" }
            th scope="col" .c-took { "Took" }
            th scope="col" .c-who { "Process" }
            th scope="col" .c-session { "Session" }
            th scope="col" .c-flags { "Flags" }
        } }
    }
}

/// The row of `record`; `today` decides whether its date is shown.
#[must_use]
pub(in crate::dashboard) fn row(record: &Record, today: Timestamp) -> Markup {
    let hostless = record.authority.is_none() && record.flow.is_none();
    html! {
        tr #(format!("r{}", record.id)) data-id=(record.id) .(format!("k-{}", record.kind.as_str()))
            .open[record.state == State::Open] {
            td.c-time {
                time datetime=(record.started) { (show::clock(record.started, today)) }
            }
            td.c-verdict { (chip(record)) }
            @if !hostless { td.c-host { (host(record)) } }
            // Text takes the room of the columns that it leaves empty.
            td.c-what colspan=[room(record, hostless)] {
                a href=(format!("/records/{}", record.id)) title=[reason(record)] { (what(record)) }
            }
            @if !hostless || !matches!(record.kind, Kind::Guard | Kind::Control) { (outcome(record)) }
        }
    }
}

/// Columns that the text takes, where it is more than its own.
fn room(record: &Record, hostless: bool) -> Option<u8> {
    match (record.kind, hostless) {
        (Kind::Guard | Kind::Control, true) => Some(8),
        (Kind::Kernel, _) => Some(4 + u8::from(hostless)),
        (Kind::Flow | Kind::Exchange | Kind::Dns, true) => Some(2),
        (Kind::Control | Kind::Guard | Kind::Dns | Kind::Flow | Kind::Exchange, false) => None,
    }
}

/// The columns from the status on; what the kernel refused has no status, size or duration.
fn outcome(record: &Record) -> Markup {
    html! {
        @if record.kind != Kind::Kernel {
            // A question has no size, and its code is a long word.
            td.c-status colspan=[(record.kind == Kind::Dns).then_some("2")] { (status(record)) }
            @if record.kind != Kind::Dns {
                td.c-size {
                    @if let Some((up, down)) = show::traffic(record) {
                        span.up { (show::size(up)) }
                        span.down { (show::size(down)) }
                    }
                }
            }
            td.c-took {
                @if let Some(question) = show::asked(record) { (show::duration(question.took_us)) }
                @if let (Some(finished), Kind::Flow | Kind::Exchange) = (record.finished, record.kind) {
                    (show::duration(finished.since(record.started)))
                }
            }
        }
        td.c-who {
            @if let Some(program) = show::program(record) {
                span { (visible(program)) }
                @if let Some(pid) = pid(record) { span.dim { " " (pid) } }
            }
        }
        td.c-session {
            @if let Some(subject) = &record.subject {
                span { (visible(show::session_name(&subject.session.0))) }
            }
        }
        td.c-flags {
            @if let Some(more) = show::alike(record) { span.flag { "+" (more) " alike" } }
            // One fits; the worst is the one to see.
            @if let Some(flag) = record.flags.iter().max_by_key(|flag| flag.severity) {
                span.flag.(flag.severity.as_str()) { (visible(&flag.code)) }
                @if record.flags.len() > 1 { span.flag { "+" (record.flags.len() - 1) } }
            }
        }
    }
}

/// The verdict as a chip; what was never judged says so with its kind.
#[must_use]
pub(super) fn chip(record: &Record) -> Markup {
    match &record.verdict {
        Some(verdict) => html! { span.chip.(verdict.action.as_str()) { (verdict.action.as_str()) } },
        None if record.kind == Kind::Kernel => html! { span.chip.deny { (Action::Deny.as_str()) } },
        None => html! { span.chip.none { (record.kind.as_str()) } },
    }
}

/// Why it ended as it did: the row's tooltip, for its link covers the row.
fn reason(record: &Record) -> Option<String> {
    let failure = record.failure.as_ref().map(|f| f.detail.as_str());
    let reason = failure.or(record.verdict.as_ref().map(|v| v.reason.as_str()))?;
    Some(visible(reason).into_owned())
}

fn host(record: &Record) -> Markup {
    if let Some(question) = show::asked(record) {
        return html! { (visible(short(&question.name))) };
    }
    match (&record.authority, &record.flow) {
        (Some(authority), _) => html! {
            (visible(authority.host.as_str()))
            @if record.kind == Kind::Kernel || !matches!(authority.port, 80 | 443) { span.dim { ":" (authority.port) } }
        },
        (None, Some(flow)) if is_nowhere(flow) => html! { span.dim { "no address" } },
        (None, Some(flow)) => html! { span.dim { (flow.original.0) } },
        (None, None) => html! {},
    }
}

/// What the record is about, in one line: method and path, protocol, or note.
fn what(record: &Record) -> Markup {
    if let Some(request) = &record.request {
        return html! {
            span.method { (visible(&request.method)) } " " span.path { (visible(short(&request.target))) }
        };
    }
    if let Some(question) = show::asked(record) {
        let first = question.addresses.first().map(ToString::to_string).or(question.answers.first().cloned());
        return html! {
            span.method { (visible(&question.kind)) }
            @if let Some(first) = first { " " span.path { (visible(short(&first))) } }
            @if question.addresses.len() > 1 { span.dim { " +" (question.addresses.len() - 1) } }
        };
    }
    if let (Kind::Kernel, Some(verdict)) = (record.kind, &record.verdict) {
        let (transport, reason) = (show::transport(record), short(&verdict.reason));
        let named = reason.starts_with(transport.as_ref());
        return html! { @if !named { span.method { (transport) } " " } (visible(reason)) };
    }
    if let Some(note) = &record.note {
        return html! {
            (visible(short(note)))
            @if record.kind == Kind::Control && record.state == State::Failed { " " span.state.bad { "failed" } }
        };
    }
    html! { span.dim { @if record.protocol.is_empty() { "connection" } @else { (visible(&record.protocol)) } } }
}

/// A socket that was refused before it had an address to go to.
#[must_use]
pub(super) fn is_nowhere(flow: &Flow) -> bool {
    flow.original.0.ip().is_unspecified() && flow.original.0.port() == 0
}

fn short(text: &str) -> &str {
    text.char_indices().nth(MAX_WHAT).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// How it ended: the response's status where there is one, else the state.
#[must_use]
pub(super) fn status(record: &Record) -> Markup {
    let code = record.response.as_ref().map(|r| r.status);
    if let Some(question) = record.question.as_ref().filter(|question| !question.code.is_empty()) {
        let class = match question.code.as_str() {
            "NOERROR" => "good",
            "SERVFAIL" => "bad",
            _ => "warn",
        };
        return html! { span.state.(class) { (visible(&question.code)) } };
    }
    html! {
        @match (record.state, code) {
            (State::Failed, _) => {
                span.state.bad { "failed" }
            }
            (State::Cancelled, _) => span.state.warn { "cancelled" },
            (State::Open, None) => span.state.busy { "open" },
            (State::Open, Some(code)) => span.state.busy { (code) },
            (State::Done | State::Refused, Some(code)) => span.state.(class(code)) { (code) },
            (State::Refused, None) => span.state.dim { "refused" },
            (State::Done, None) => {},
        }
    }
}

fn class(code: u16) -> &'static str {
    match code {
        0..=399 => "good",
        400..=499 => "warn",
        _ => "bad",
    }
}

fn pid(record: &Record) -> Option<u32> {
    record.subject.as_ref().map(|s| s.pid).or_else(|| record.flow.as_ref().map(|f| f.pid))
}
