//! The list of records: filter form, kinds as tabs, the table, pages by cursor.

use maud::{Markup, html};

use super::{
    guide,
    row::{Sorting, Within, head, row},
};
use crate::{
    dashboard::{
        filter::{FilterError, Params},
        show,
    },
    filter::Sort,
    model::{Kind, Record, RecordId, Timestamp},
    store::Cursor,
};

/// What the page shows.
#[derive(Debug)]
pub(in crate::dashboard) struct List<'a> {
    pub(in crate::dashboard) params: &'a Params,
    pub(in crate::dashboard) error: Option<FilterError>,
    pub(in crate::dashboard) records: &'a [Record],
    /// Cursor of the next page, `None` on the last.
    pub(in crate::dashboard) next: Option<Cursor>,
    /// The search for text looked only this far and may find more on the next page.
    pub(in crate::dashboard) partial: bool,
    /// Records below this id are not in the list.
    pub(in crate::dashboard) unsearched: Option<RecordId>,
    /// How many match.
    pub(in crate::dashboard) count: Option<u64>,
    /// Entries up to the last checkpoint, and its time.
    pub(in crate::dashboard) signed: Option<(u64, Timestamp)>,
    pub(in crate::dashboard) sort: Sort,
    /// Where the API listens.
    pub(in crate::dashboard) listen: std::net::SocketAddr,
    pub(in crate::dashboard) now: Timestamp,
}

impl List<'_> {
    /// The page's content.
    #[must_use]
    pub(in crate::dashboard) fn render(&self) -> Markup {
        html! {
            h1.sr { "Traffic" }
            div.bar {
                (self.tabs())
                span.grow {}
                (self.state())
            }
            (self.form())
            @if let Some(error) = self.error.as_ref().filter(|error| error.parts.is_none()) {
                p.banner.bad role="alert" { strong { (error.field) } " should be " (show::visible(&error.message)) "." }
            } @else if self.error.is_none() {
                (self.table())
                (self.signed())
            }
        }
    }

    /// What comes is put on top of this list.
    fn is_live(&self) -> bool {
        self.sort == Sort::Newest
    }

    fn is_first(&self) -> bool {
        self.params.before.trim().is_empty()
    }

    fn tabs(&self) -> Markup {
        let tabs = [
            ("", "All"),
            ("exchange", "Exchanges"),
            ("flow", "Connections"),
            ("dns", "DNS"),
            ("kernel", "Kernel refusals"),
            ("guard", "Guard"),
            ("control", "Changes and logins"),
        ];
        html! {
            nav.tabs aria-label="Kinds of record" {
                @for (kind, label) in tabs {
                    @let to = Params { kind: kind.to_owned(), ..self.params.clone() };
                    @let here = self.params.kind.trim() == kind;
                    a href=(to.href(None)) aria-current=[here.then_some("page")] { (label) }
                }
            }
        }
    }

    /// How many there are, and whether the list goes on by itself.
    fn state(&self) -> Markup {
        html! {
            @if let Some(count) = self.count {
                span.dim #count title=(format!("counted at {}", show::moment(self.now))) {
                    (show::grouped(count)) @if count == 1 { " record" } @else { " records" }
                }
            }
            @if self.error.is_some() {
            } @else if !self.is_first() {
                a href=(self.params.href(None)) { @if self.is_live() { "Back to the newest, live" } @else { "Back to the first" } }
            } @else if self.is_live() {
                // Its room is kept, so that nothing moves when the script fills it.
                div.live #live data-src=(format!("/live?{}", self.params.address(None))) {
                    span.dot aria-hidden="true" {}
                    span #live-state role="status" { "connecting" }
                    button.quiet #live-toggle type="button" { "Pause" }
                }
                noscript { span.dim { "Reload the page for newer records." } }
            }
        }
    }

    fn form(&self) -> Markup {
        html! {
            form.filter method="get" action="/" role="search" {
                input type="hidden" name="kind" value=(self.params.kind);
                @if !self.params.text.trim().is_empty() { input type="hidden" name="text" value=(self.params.text); }
                (self.language())
                (self.shorthands())
            }
        }
    }

    /// The field that takes the whole language, with what is wrong in it.
    fn language(&self) -> Markup {
        let wrong = self.error.as_ref().and_then(|error| Some((error, error.parts.as_ref()?)));
        let describes = if wrong.is_some() { "q-fault" } else { "q-keys" };
        let start = wrong.map(|(_, [before, ..])| before.encode_utf16().count());
        let end = wrong.zip(start).map(|((_, [_, part, _]), start)| start + part.encode_utf16().count());
        html! {
            div.language {
                label.sr for="q" { "Filter" }
                div.field {
                    input #q type="search" name="q" value=(self.params.q.trim()) maxlength="4096" autocomplete="off" spellcheck="false" autocapitalize="off"
                        placeholder="host:*.github.com status:5xx since:2h, or words"
                        aria-invalid=[wrong.map(|_| "true")] aria-describedby=(describes) data-wrong-from=[start] data-wrong-to=[end];
                    kbd #q-keys aria-label="The key / leads here" title="The key / leads here" { "/" }
                    ul #q-offers role="listbox" aria-label="What can be typed" hidden {}
                }
                button.primary type="submit" { "Filter" }
                @if !self.params.is_all() { a.button.quiet href="/" { "Clear" } }
                @if let Some((error, [before, part, after])) = wrong {
                    div.banner.bad #q-fault role="alert" {
                        p { (show::visible(&error.message)) }
                        pre { (show::visible(before)) mark { @if part.is_empty() { " " } @else { (show::visible(part)) } } (show::visible(after)) }
                    }
                }
            }
        }
    }

    /// Fields for what is asked for most, and what explains and takes along.
    fn shorthands(&self) -> Markup {
        let p = self.params;
        let spans = [
            ("", "any time"),
            ("15m", "last 15 min"),
            ("1h", "last hour"),
            ("24h", "last day"),
            ("7d", "last week"),
        ];
        let verdicts = [("", "any"), ("allow", "allow"), ("deny", "deny"), ("passthrough", "passthrough")];
        html! {
            div.shorthands {
                label { span { "Verdict" }
                    select name="verdict" {
                        @for (value, label) in verdicts { option value=(value) selected[p.verdict.trim() == value] { (label) } }
                    }
                }
                label { span { "Since" }
                    select name="since" {
                        @for (value, label) in spans { option value=(value) selected[p.since.trim() == value] { (label) } }
                        @if !spans.iter().any(|(value, _)| *value == p.since.trim()) {
                            option value=(p.since) selected { (show::visible(&p.since)) }
                        }
                    }
                }
                label.long.set[!p.host.trim().is_empty()] { span { "Host" } input type="text" name="host" value=(p.host) placeholder="api.example.com" maxlength="256" autocomplete="off" spellcheck="false"; }
                label.long.set[!p.session.trim().is_empty()] { span { "Session" } input type="text" name="session" value=(p.session) placeholder="run-u2.service" maxlength="256" autocomplete="off" spellcheck="false"; }
                span.grow {}
                details.more name="more" open[self.error.is_some()] { summary { "How to filter" } div.pane { (guide::language(p)) } }
                @if self.error.is_none() {
                    details.more name="more" { summary { "Export" } div.pane { (guide::commands(p, self.listen)) } }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        let empty = self.records.is_empty();
        let welcome = self.is_welcome();
        let within = Within::list(self.params);
        html! {
            div.table hidden[empty] #table {
                table.records {
                    caption.sr { "Records" @if self.is_live() { ", newest first" } ", times in UTC" }
                    (head(Some(Sorting { params: self.params, sort: self.sort })))
                    tbody #records { @for record in self.records { (row(record, self.now, within)) } }
                }
            }
            div #empty hidden[!empty && !welcome] data-welcome[welcome] { (self.empty()) }
            nav.pager aria-label="Pages of records" {
                span.dim {
                    @if self.partial { "The search stopped after many records without a full page." }
                    @if let Some(below) = self.unsearched { "Records before number " (below) " were not looked at: narrow the filter down." }
                }
                @if let Some(next) = self.next { a.button rel="next" href=(self.params.href(Some(next))) { @if self.is_live() { "Older records" } @else { "More records" } } }
            }
        }
    }

    /// How far the log is signed, and who can tell whether it is whole.
    fn signed(&self) -> Markup {
        let Some((entries, time)) = self.signed else { return html! {} };
        html! {
            p.dim.small.signed {
                "The log is signed up to entry " (show::grouped(entries)) ", at "
                time datetime=(time) { (show::moment(time)) } ". "
                code { "agentctl audit verify" } " tells whether all of it is as it was written."
            }
        }
    }

    /// Nothing has passed the gate in all the log: what it holds is logins and changes.
    fn is_welcome(&self) -> bool {
        let none = self.records.iter().all(|record| record.kind == Kind::Control);
        none && self.next.is_none() && self.params.is_all() && self.is_first()
    }

    fn empty(&self) -> Markup {
        html! {
            div.empty {
                @if self.partial {
                    h2 { "Nothing found so far" }
                    p { "The search goes on with the older records." }
                } @else if self.params.is_all() && self.is_first() {
                    h2 { "Nothing has passed the gate yet" }
                    p { "Run something inside it, and each connection and request appears here as it happens:" }
                    pre { "agentctl run -- curl https://example.com/" }
                    p { "or guard an agent: " code { "agentctl run -- claude" } }
                } @else if !self.is_first() {
                    h2 { "No older records" }
                    p { a href=(self.params.href(None)) { "Back to the newest" } }
                } @else {
                    h2 { "Nothing matches" }
                    p { a href="/" { "Clear the filter" } " to see everything." }
                    @if self.params.kind.trim() == Kind::Control.as_str() {
                        p.dim { "Changes of lists, mode and policy, logins, and bodies that were shown are recorded here, with by whom." }
                    }
                }
            }
        }
    }
}
