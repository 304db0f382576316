//! One record as a row of the list; the live feed sends the same markup.

use maud::{Markup, html};

use crate::{
    dashboard::{
        filter::Params,
        show::{self, visible},
    },
    filter::{Sort, host_of, shorthand},
    model::{Action, Flow, Kind, Record, State, Timestamp},
};

/// Characters of a path or note in a row; CSS cuts further by width.
const MAX_WHAT: usize = 300;

/// Longest value that can be picked, in bytes.
const MAX_PICK: usize = 256;

/// Longest filter of a list whose values can be picked, in bytes: each link holds it, some hundred of them a
/// page.
const MAX_WITHIN: usize = 512;

/// The list that a row stands in. Its values are links there, that narrow it down to them.
#[derive(Clone, Copy, Debug)]
pub(in crate::dashboard) struct Within<'a>(Option<&'a Params>);

impl<'a> Within<'a> {
    #[must_use]
    pub(in crate::dashboard) fn list(params: &'a Params) -> Self {
        Self(Some(params).filter(|params| params.address(None).len() <= MAX_WITHIN))
    }

    /// `inner` as a link to what has this value there.
    #[must_use]
    pub(super) fn pick(self, field: &str, value: &str, inner: &Markup) -> Markup {
        let seen = visible(value);
        // What holds characters that nobody sees is looked for by hand.
        let plain = !value.is_empty() && value.len() <= MAX_PICK && seen == value && value.trim() == value;
        let Some(params) = self.0.filter(|_| plain) else { return html! { (inner) } };
        let condition = shorthand::exact(field, value);
        html! {
            a.pick href=(params.narrowed(&condition).href(None)) data-is=(condition) title=(format!("Only {condition}")) { (inner) }
        }
    }
}

/// The order of a list, and the list whose head can change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sorting<'a> {
    pub(super) params: &'a Params,
    pub(super) sort: Sort,
}

/// The head of a table of rows; without an order that can be changed none is.
#[must_use]
pub(super) fn head(sorting: Option<Sorting<'_>>) -> Markup {
    // The first choice of a column, and what a second one makes of it.
    let column = |class: &str, label: &Markup, first: Sort, second: Sort| {
        let Some(Sorting { params, sort }) = sorting else {
            return html! { th scope="col" .(class) { (label) } };
        };
        let to = if sort == first { second } else { first };
        let order = match sort {
            Sort::Oldest => "ascending",
            Sort::Newest | Sort::Duration | Sort::Bytes => "descending",
        };
        let here = sort == first || (first == Sort::Newest && sort == Sort::Oldest);
        let mark = if sort == Sort::Oldest { "↑" } else { "↓" };
        html! {
            th scope="col" .(class) aria-sort=[here.then_some(order)] {
                a href=(params.sorted(to).href(None)) title=(format!("Sort: {} first", first_of(to))) {
                    (label) @if here { span.order aria-hidden="true" { (mark) } }
                }
            }
        }
    };
    html! {
        thead { tr {
            (column("c-time", &html! { "Time " span.dim { "UTC" } }, Sort::Newest, Sort::Oldest))
            th scope="col" .c-verdict { "Verdict" }
            th scope="col" .c-host { "Host" }
            th scope="col" .c-what { "Request" }
            th scope="col" .c-status { "Status" }
            (column("c-size", &html! { "Up / down" }, Sort::Bytes, Sort::Newest))
            (column("c-took", &html! { "Took" }, Sort::Duration, Sort::Newest))
            th scope="col" .c-who { "Process" }
            th scope="col" .c-session { "Session" }
            th scope="col" .c-flags { "Flags" }
        } }
    }
}

fn first_of(sort: Sort) -> &'static str {
    match sort {
        Sort::Newest => "newest",
        Sort::Oldest => "oldest",
        Sort::Duration => "longest",
        Sort::Bytes => "largest",
    }
}

/// The row of `record`; `today` decides whether its date is shown.
#[must_use]
pub(in crate::dashboard) fn row(record: &Record, today: Timestamp, within: Within<'_>) -> Markup {
    let hostless = record.authority.is_none() && record.flow.is_none();
    html! {
        tr #(format!("r{}", record.id)) data-id=(record.id) .(format!("k-{}", record.kind.as_str()))
            .open[record.state == State::Open] {
            td.c-time {
                time datetime=(record.started) title=(show::moment(record.started)) { (show::clock(record.started, today)) }
            }
            td.c-verdict { (decided(record, within)) }
            @if !hostless { td.c-host { (host(record, within)) } }
            // Text takes the room of the columns that it leaves empty.
            td.c-what colspan=[room(record, hostless)] {
                a href=(format!("/records/{}", record.id)) title=[reason(record)] { (what(record)) }
            }
            @if !hostless || !matches!(record.kind, Kind::Guard | Kind::Control) { (outcome(record, within)) }
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
fn outcome(record: &Record, within: Within<'_>) -> Markup {
    html! {
        @if record.kind != Kind::Kernel {
            // A question has no size, and its code is a long word.
            td.c-status colspan=[(record.kind == Kind::Dns).then_some("2")] { (ended(record, within)) }
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
                // Who is not known is not found by a name.
                @let name = html! { (visible(program)) };
                @if record.subject.is_some() { (within.pick("agent", program, &name)) } @else { (name) }
                @if let Some(pid) = pid(record) { span.dim { " " (pid) } }
            }
        }
        td.c-session {
            @if let Some(subject) = &record.subject {
                @let name = show::session_name(&subject.session.0);
                (within.pick("session", name, &html! { (visible(name)) }))
            }
        }
        td.c-flags {
            @if let Some(more) = show::alike(record) { span.flag { "+" (more) " alike" } }
            // One fits; the worst is the one to see.
            @if let Some(flag) = record.flags.iter().max_by_key(|flag| flag.severity) {
                (within.pick("flag", &flag.code, &html! { span.flag.(flag.severity.as_str()) { (visible(&flag.code)) } }))
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

/// The chip, which picks what it says.
fn decided(record: &Record, within: Within<'_>) -> Markup {
    let chip = chip(record);
    match &record.verdict {
        Some(verdict) => within.pick("verdict", verdict.action.as_str(), &chip),
        None => within.pick("kind", record.kind.as_str(), &chip),
    }
}

/// How it ended, which picks what ended so.
fn ended(record: &Record, within: Within<'_>) -> Markup {
    let shown = status(record);
    let code = record.question.as_ref().map(|question| question.code.as_str());
    match (record.state, &record.response, code.filter(|code| !code.is_empty())) {
        (_, _, Some(code)) => within.pick("code", code, &shown),
        (State::Done | State::Refused, Some(response), None) => {
            within.pick("status", &response.status.to_string(), &shown)
        }
        (State::Done, None, None) => shown,
        (state, _, None) => within.pick("state", state.as_str(), &shown),
    }
}

/// Why it ended as it did: the row's tooltip, for its link covers the row.
fn reason(record: &Record) -> Option<String> {
    let failure = record.failure.as_ref().map(|f| f.detail.as_str());
    let reason = failure.or(record.verdict.as_ref().map(|v| v.reason.as_str()))?;
    Some(visible(reason).into_owned())
}

fn host(record: &Record, within: Within<'_>) -> Markup {
    let name = host_of(record).unwrap_or_default();
    let pick = |inner: &Markup| within.pick("host", &name, inner);
    match (&record.authority, &record.flow) {
        _ if show::asked(record).is_some() => pick(&html! { (visible(short(&name))) }),
        (Some(authority), _) => html! {
            (pick(&html! { (visible(authority.host.as_str())) }))
            @if record.kind == Kind::Kernel || !matches!(authority.port, 80 | 443) { span.dim { ":" (authority.port) } }
        },
        (None, Some(flow)) if is_nowhere(flow) => html! { span.dim { "no address" } },
        (None, Some(flow)) => pick(&html! { span.dim { (flow.original.0) } }),
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
