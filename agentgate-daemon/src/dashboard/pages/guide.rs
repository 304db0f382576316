//! What goes with the filter: how to write one, and how to have what it finds elsewhere.

use std::net::SocketAddr;

use maud::{Markup, html};

use crate::{
    dashboard::{filter::Params, show::visible},
    filter::{HELP, Help, Sort, shorthand},
};

/// Whole filters, each with what it finds.
const EXAMPLES: [(&str, &str); 6] = [
    ("host:*.github.com -host:api.github.com", "a host, a pattern, and none of another"),
    ("verdict:deny,passthrough since:2h", "one of several values; a time span or a time"),
    ("status:5xx duration:>2s sort:duration", "numbers and comparisons; the longest first"),
    ("agent:claude (flag:* or state:failed)", "brackets, and one or the other"),
    ("path:/v1/* method:post bytes:>1MiB", "parts of requests, and their size"),
    ("tok* \"rate limit\"", "words in addresses, headers, notes and bodies; a beginning; words in a row"),
];

/// What can be typed. Each field is a link that adds it to the filter; the script puts it where the cursor is.
#[must_use]
pub(super) fn language(params: &Params) -> Markup {
    // To what cannot be read nothing can be added.
    let within =
        if params.query(crate::model::Timestamp::now()).is_ok() { params } else { &Params::default() };
    html! {
        dl.examples {
            @for (text, what) in EXAMPLES {
                dt { a href=(Params { q: text.to_owned(), ..Params::default() }.href(None)) { code { (text) } } }
                dd { (what) }
            }
        }
        ul.fields {
            @for Help { name, example, what, values } in HELP {
                // There is one order.
                @let chosen = if name == "sort" { within.sorted(Sort::Duration) } else { within.narrowed(example) };
                li {
                    a href=(chosen.href(None)) data-field=(name) data-values=(values.join(" ")) data-what=(what) title=(example) { code { (name) ":" } }
                    " " span.dim { (what) @if !values.is_empty() { ": " (values.join(", ")) } }
                }
            }
        }
        p.dim { "Conditions side by side must all hold; " code { "or" } ", brackets and " code { "-" } " before one as usual. Values in the list narrow it down by a click." }
    }
}

/// The same list by other ways.
#[must_use]
pub(super) fn commands(params: &Params, listen: SocketAddr) -> Markup {
    let filter = argument(&params.text());
    let whole = argument(&shorthand::unsorted(&params.text()));
    let query = Params { before: String::new(), ..params.clone() }.address(None);
    let mark = if query.is_empty() { "" } else { "?" };
    let ways = [
        ("On the command line", format!("agentctl logs{filter}")),
        (
            "All of it, as JSON lines (or csv, har, ocsf, parquet)",
            format!("agentctl audit export --format jsonl -o records.jsonl{whole}"),
        ),
        (
            "From a program, with the token in /var/lib/agentgate/dashboard.token",
            format!("curl -H \"Authorization: Bearer $TOKEN\" 'http://{listen}/api/records{mark}{query}'"),
        ),
    ];
    html! {
        dl.ways {
            @for (what, command) in ways {
                dt { (what) }
                dd { pre { (visible(&command)) } button.quiet.copy type="button" hidden { "Copy" } }
            }
        }
    }
}

/// A filter as the last argument of a command for a shell; nothing where it is empty.
fn argument(filter: &str) -> String {
    if filter.is_empty() {
        return String::new();
    }
    let dashes = if filter.starts_with('-') { " --" } else { "" };
    format!("{dashes} '{}'", filter.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_one_argument_of_a_shell() {
        let rows = [
            ("", ""),
            ("host:a since:2h", " 'host:a since:2h'"),
            ("-host:a", " -- '-host:a'"),
            ("it's $(id) `id`", r" 'it'\''s $(id) `id`'"),
        ];
        for (filter, expect) in rows {
            assert_eq!(argument(filter), expect);
        }
    }

    #[test]
    fn commands_name_what_is_shown() {
        let params =
            Params { q: "a sort:bytes".into(), since: "1h".into(), before: "7".into(), ..Params::default() };
        let page = commands(&params, "127.0.0.1:7878".parse().unwrap()).into_string();
        for part in [
            "agentctl logs 'a sort:bytes since:1h'",
            "-o records.jsonl 'a since:1h'",
            "'http://127.0.0.1:7878/api/records?q=a%20sort%3Abytes&amp;since=1h'",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn every_example_can_be_read() {
        for (text, _) in EXAMPLES {
            let params = Params { q: text.to_owned(), ..Params::default() };
            params.query(crate::model::Timestamp(0)).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }
}
