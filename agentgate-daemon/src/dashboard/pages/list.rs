//! The list of records: filter form, kinds as tabs, the table, pages by cursor.

use maud::{Markup, html};

use super::row::{head, row};
use crate::{
    dashboard::{
        filter::{FilterError, Params},
        show,
    },
    model::{Kind, Record, RecordId, Timestamp},
};

/// What the page shows.
#[derive(Debug)]
pub(in crate::dashboard) struct List<'a> {
    pub(in crate::dashboard) params: &'a Params,
    pub(in crate::dashboard) error: Option<FilterError>,
    pub(in crate::dashboard) records: &'a [Record],
    /// Cursor of the next page, `None` on the last.
    pub(in crate::dashboard) next: Option<RecordId>,
    /// The search for text looked only this far and may find more on the next page.
    pub(in crate::dashboard) partial: bool,
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
                @if newest && self.error.is_none() {
                    div.live #live data-src=(format!("/live?{}", self.params.query(None))) hidden {
                        span.dot aria-hidden="true" {}
                        span #live-state role="status" { "connecting" }
                        button.quiet #live-toggle type="button" { "Pause" }
                    }
                    noscript { span.dim { "Reload the page for newer records." } }
                } @else if !newest {
                    a href=(href(self.params, None)) { "Back to the newest, live" }
                }
            }
            (self.form())
            @if let Some(error) = &self.error {
                p.banner.bad role="alert" { strong { (error.field) } " should be " (show::visible(&error.message)) "." }
            } @else {
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
                label.wide { span { "Text" } input type="search" name="text" value=(p.text) placeholder="path, program, rule, flag" maxlength="256" autocomplete="off" spellcheck="false"; }
                div.actions {
                    button type="submit" { "Filter" }
                    @if !p.is_all() { a.button.quiet href="/" { "Clear" } }
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
                    caption.sr { "Records, newest first, times in UTC" }
                    (head())
                    tbody #records { @for record in self.records { (row(record, self.now)) } }
                }
            }
            div #empty hidden[!empty && !welcome] data-welcome[welcome] { (self.empty()) }
            nav.pager aria-label="Pages of records" {
                span.dim {
                    @if self.partial { "The search stopped after many records without a full page." }
                }
                @if let Some(next) = self.next { a.button rel="next" href=(href(self.params, Some(next))) { "Older records" } }
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

fn href(params: &Params, before: Option<RecordId>) -> String {
    match params.query(before) {
        query if query.is_empty() => "/".to_owned(),
        query => format!("/?{query}"),
    }
}
