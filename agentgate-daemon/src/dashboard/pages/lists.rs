//! The three host lists as seen from one host: where it stands, and buttons to change that.

use maud::{Markup, html};

use crate::{
    dashboard::show::visible,
    model::{Host, RecordId},
};

/// One list and what it says of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dashboard) struct Standing {
    /// `allow`, `deny` or `passthrough`.
    pub(in crate::dashboard) list: &'static str,
    /// The pattern that covers the host, if one does.
    pub(in crate::dashboard) pattern: Option<String>,
    /// That pattern stands in the list's file, so a button can take it out; else in `policy.toml`.
    pub(in crate::dashboard) in_file: bool,
}

/// The button's word and what the list does.
fn effect(list: &str) -> (&'static str, &'static str) {
    match list {
        "allow" => ("Allow", "Read, recorded and forwarded."),
        "deny" => ("Deny", "Refused. Wins over the other lists."),
        _ => ("Pass through", "Tunnelled unread: only the connection is recorded."),
    }
}

/// The card with a row per list. `record` is where the browser returns to; `beyond` says that no
/// list changes its verdict.
#[must_use]
pub(super) fn card(
    host: &Host,
    standings: &[Standing],
    record: RecordId,
    csrf: &str,
    beyond: bool,
) -> Markup {
    html! {
        section.card aria-labelledby="lists-title" {
            h2 #lists-title { "Lists for " code { (visible(host.as_str())) } }
            table.lists {
                tbody {
                    @for standing in standings { (line(host, standing, record, csrf)) }
                }
            }
            @if beyond { p.note { "Listing this host does not lift this refusal: its rule comes before the lists." } }
            p.dim.small { "A change holds from the next request on and is recorded under Changes and logins." }
        }
    }
}

fn line(host: &Host, standing: &Standing, record: RecordId, csrf: &str) -> Markup {
    let (name, effect) = effect(standing.list);
    let pattern = standing.pattern.as_deref();
    html! {
        tr data-list=(standing.list) data-member=(pattern.is_some()) {
            th scope="row" { span.chip.(standing.list).off[pattern.is_none()] { (standing.list) } }
            td {
                @if let Some(pattern) = pattern {
                    strong { @if pattern == host.as_str() { "Listed" } @else { "Covered by " code { (visible(pattern)) } } }
                    @if standing.in_file { ". " } @else { " in " code { "policy.toml" } ". " }
                }
                span.dim { (effect) }
            }
            td.act {
                @if pattern.is_none() || standing.in_file {
                    form method="post" action="/host" {
                        input type="hidden" name="csrf" value=(csrf);
                        input type="hidden" name="record" value=(record);
                        input type="hidden" name="list" value=(standing.list);
                        input type="hidden" name="host" value=(pattern.unwrap_or(host.as_str()));
                        @if let Some(pattern) = pattern {
                            input type="hidden" name="remove" value="true";
                            button type="submit" aria-label=(format!("Remove {pattern} from the {} list", standing.list)) { "Remove" }
                        } @else {
                            button.(standing.list) type="submit" aria-label=(format!("Add {host} to the {} list", standing.list)) { (name) }
                        }
                    }
                }
            }
        }
    }
}
