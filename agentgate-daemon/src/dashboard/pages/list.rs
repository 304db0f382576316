//! The list of records: filter form, kinds as tabs, the table, pages by cursor.

use maud::{Markup, html};

use super::row::{head, row};
use crate::{
    dashboard::{
        filter::{FilterError, Params},
        show,
    },
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
    /// The list is in the order in which records come.
    pub(in crate::dashboard) live: bool,
    pub(in crate::dashboard) now: Timestamp,
}

impl List<'_> {
    /// The page's content.
    #[must_use]
    pub(in crate::dashboard) fn render(&self) -> Markup {
        let newest = self.params.before.trim().is_empty();
        html! {
            h1.sr { "Traffic" }
            div.bar {
                (self.tabs())
                span.grow {}
                @if let Some(count) = self.count { span.dim #count { (show::grouped(count)) @if count == 1 { " record" } @else { " records" } } }
                @if newest && self.live && self.error.is_none() {
                    div.live #live data-src=(format!("/live?{}", self.params.address(None))) hidden {
                        span.dot aria-hidden="true" {}
                        span #live-state role="status" { "connecting" }
                        button.quiet #live-toggle type="button" { "Pause" }
                    }
                    noscript { span.dim { "Reload the page for newer records." } }
                } @else if !newest {
                    a href=(href(self.params, None)) { @if self.live { "Back to the newest, live" } @else { "Back to the first" } }
                }
            }
            (self.form())
            @if let Some(error) = self.error.as_ref().filter(|error| error.pointed.is_none()) {
                p.banner.bad role="alert" { strong { (error.field) } " should be " (show::visible(&error.message)) "." }
            } @else if self.error.is_none() {
                (self.table())
            }
        }
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
                    a href=(href(&to, None)) aria-current=[here.then_some("page")] { (label) }
                }
            }
        }
    }

    fn form(&self) -> Markup {
        let p = self.params;
        let spans = [
            ("", "any time"),
            ("15m", "last 15 min"),
            ("1h", "last hour"),
            ("24h", "last day"),
            ("7d", "last week"),
        ];
        html! {
                    form.filter method="get" action="/" role="search" {
                        input type="hidden" name="kind" value=(p.kind);
                        (self.language())
                        label { span { "Host" } input type="text" name="host" value=(p.host) placeholder="api.example.com" maxlength="256" autocomplete="off" spellcheck="false"; }
                        label { span { "Verdict" }
                            select name="verdict" {
                                @for (value, label) in [("", "any"), ("allow", "allow"), ("deny", "deny"), ("passthrough", "passthrough")] {
                                    option value=(value) selected[p.verdict.trim() == value] { (label) }
                                }
                            }
                        }
                        label { span { "Session" } input type="text" name="session" value=(p.session) placeholder="run-u2.service" maxlength="256" autocomplete="off" spellcheck="false"; }
                        label { span { "Since" }
                            select name="since" {
                                @for (value, label) in spans { option value=(value) selected[p.since.trim() == value] { (label) } }
                                @if !spans.iter().any(|(value, _)| *value == p.since.trim()) {
                                    option value=(p.since) selected { (show::visible(&p.since)) }
                                }
                            }
                        }
        @if !p.text.trim().is_empty() { input type="hidden" name="text" value=(p.text); }
                        div.actions {
                            button type="submit" { "Filter" }
                            @if !p.is_all() { a.button.quiet href="/" { "Clear" } }
                        }
                    }
                }
    }

    /// The field that takes the whole language, with what is wrong in it.
    fn language(&self) -> Markup {
        let pointed = self.error.as_ref().filter(|error| error.pointed.is_some());
        html! {
            div.language {
                label for="q" { "Filter" }
                input #q type="search" name="q" value=(self.params.q) maxlength="4096" autocomplete="off" spellcheck="false" autocapitalize="off" placeholder="host:*.github.com status:5xx since:2h, or words" aria-invalid=[pointed.map(|_| "true")] aria-describedby=[pointed.map(|_| "q-fault")];
                @if let Some(error) = pointed {
                    div.banner.bad #q-fault role="alert" {
                        (show::visible(&error.message))
                        pre { (error.pointed.as_deref().unwrap_or_default()) }
                    }
                }
                details {
                    summary { "How to filter" }
                    (examples())
                }
            }
        }
    }

    fn table(&self) -> Markup {
        let empty = self.records.is_empty();
        let welcome = self.is_welcome();
        html! {
            div.table hidden[empty] #table {
                table.records {
                    caption.sr { "Records" @if self.live { ", newest first" } ", times in UTC" }
                    (head())
                    tbody #records { @for record in self.records { (row(record, self.now)) } }
                }
            }
            div #empty hidden[!empty && !welcome] data-welcome[welcome] { (self.empty()) }
            nav.pager aria-label="Pages of records" {
                span.dim {
                    @if self.partial { "The search stopped after many records without a full page." }
                    @if let Some(below) = self.unsearched { "Records before number " (below) " were not looked at: narrow the filter down." }
                }
                @if let Some(next) = self.next { a.button rel="next" href=(href(self.params, Some(next))) { @if self.live { "Older records" } @else { "More records" } } }
            }
        }
    }

    /// Nothing has passed the gate in all the log: what it holds is logins and changes.
    fn is_welcome(&self) -> bool {
        let none = self.records.iter().all(|record| record.kind == Kind::Control);
        none && self.next.is_none() && self.params.is_all() && self.params.before.trim().is_empty()
    }

    fn empty(&self) -> Markup {
        html! {
            div.empty {
                @if self.partial {
                    h2 { "Nothing found so far" }
                    p { "The search goes on with the older records." }
                } @else if self.params.is_all() && self.params.before.trim().is_empty() {
                    h2 { "Nothing has passed the gate yet" }
                    p { "Run something inside it, and each connection and request appears here as it happens:" }
                    pre { "agentctl run -- curl https://example.com/" }
                    p { "or guard an agent: " code { "agentctl run -- claude" } }
                } @else if !self.params.before.trim().is_empty() {
                    h2 { "No older records" }
                    p { a href=(href(self.params, None)) { "Back to the newest" } }
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

/// What can be typed, each with what it finds.
fn examples() -> Markup {
    let rows = [
        ("host:*.github.com -host:api.github.com", "a host, a pattern, and none of another"),
        ("verdict:deny,passthrough since:2h", "one of several values; a time span or a time"),
        ("status:5xx duration:>2s sort:duration", "numbers and comparisons; the longest first"),
        ("agent:claude (flag:* or state:failed)", "brackets, and one or the other"),
        ("path:/v1/* method:post bytes:>1MiB", "parts of requests, and their size"),
        ("tok* \"rate limit\"", "words in addresses, headers, notes and bodies; a beginning; words in a row"),
    ];
    html! {
        dl {
            @for (text, what) in rows {
                dt { a href=(href(&Params { q: text.to_owned(), ..Params::default() }, None)) { code { (text) } } }
                dd { (what) }
            }
        }
        p.dim {
            "Fields: host session agent exe pid verdict flag status method kind state rule protocol code id parent since until duration bytes path url pii model tool cost fact.NAME text sort"
        }
    }
}

fn href(params: &Params, before: Option<Cursor>) -> String {
    match params.address(before) {
        query if query.is_empty() => "/".to_owned(),
        query => format!("/?{query}"),
    }
}
