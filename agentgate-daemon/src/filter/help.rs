//! What can be typed, field by field: for the help of the command line and the dashboard, and for completion.

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Help {
    /// What stands before the colon; of facts in general the pattern of it.
    pub name: &'static str,
    /// A whole condition on it.
    pub example: &'static str,
    /// What it is in a record.
    pub what: &'static str,
    /// What can stand after the colon, or often does.
    pub values: &'static [&'static str],
}

const fn help(name: &'static str, example: &'static str, what: &'static str) -> Help {
    Help { name, example, what, values: &[] }
}

const fn one_of(
    name: &'static str,
    example: &'static str,
    what: &'static str,
    values: &'static [&'static str],
) -> Help {
    Help { name, example, what, values }
}

/// Every field, those first that are asked for most.
pub const HELP: [Help; 29] = [
    help("host", "host:*.github.com", "name or address it was for"),
    one_of("verdict", "verdict:deny", "what was decided", &["allow", "deny", "passthrough"]),
    one_of("since", "since:2h", "began at that time or later", &["15m", "1h", "24h", "7d"]),
    help("until", "until:2026-11-20T08:00:00Z", "began before it"),
    help("session", "session:run-u2.service", "one run of an agent"),
    help("agent", "agent:claude", "file name of the program"),
    one_of("status", "status:>=400", "of the response", &["2xx", "3xx", "4xx", "5xx"]),
    one_of("method", "method:post", "of the request", &["get", "post", "put", "patch", "delete"]),
    help("path", "path:/v1/*", "path and query of the request"),
    help("url", "url:https://*/login*", "scheme, host and path"),
    help("flag", "flag:*", "a finding; flag:*: any"),
    one_of("kind", "kind:exchange", "of record", &["exchange", "flow", "dns", "kernel", "guard", "control"]),
    one_of("state", "state:failed", "how it ended", &["open", "done", "refused", "failed", "cancelled"]),
    help("rule", "rule:mode:*", "what decided"),
    help("code", "code:origin_*", "of a failure or a DNS answer"),
    help("protocol", "protocol:http/2", "that was spoken"),
    help("duration", "duration:>2s", "from beginning to end"),
    help("bytes", "bytes:>1MiB", "both ways"),
    help("exe", "exe:*/node", "path of the program"),
    help("pid", "pid:4242", "the process"),
    help("id", "id:100..200", "number of the record"),
    help("parent", "parent:17", "its connection's record"),
    help("pii", "pii:email", "kind of personal data found"),
    help("model", "model:claude-*", "that was asked"),
    help("tool", "tool:bash", "that was called"),
    help("cost", "cost:>0.10", "in dollars"),
    help("fact.NAME", "fact.server:github", "any other fact"),
    help("text", "text:\"rate limit\"", "words, as without text:"),
    one_of("sort", "sort:duration", "the order of the list", &["newest", "oldest", "duration", "bytes"]),
];

/// A condition on the field of this name, or on another one where it goes by another name.
pub(super) fn example(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let name = if name.starts_with("fact.") { "fact.NAME" } else { &name };
    let named = HELP.iter().find(|help| help.name == name);
    named.map_or("host:example.com", |help| help.example)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        filter::{Filter, field},
        model::Timestamp,
    };

    #[test]
    fn every_field_is_explained_and_every_example_can_be_read() {
        let mut explained: Vec<&str> = HELP.iter().map(|help| help.name).collect();
        explained.retain(|name| *name != "fact.NAME");
        // Other words for fields that are there.
        explained.extend(["action", "size"]);
        explained.sort_unstable();
        let mut known: Vec<&str> = field::names().collect();
        known.sort_unstable();
        assert_eq!(explained, known);
        let reference = include_str!("../../../docs/queries.md");
        for help in HELP {
            let values = help.values.iter().map(|value| format!("{}:{value}", help.name));
            for text in values.chain([help.example.to_owned()]) {
                Filter::parse(&text, Timestamp(0)).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            let name = help.name.split('.').next().unwrap();
            assert!(help.example.starts_with(name), "{help:?}");
            assert!(reference.contains(&format!("`{}", help.name)), "docs/queries.md lacks {}", help.name);
        }
    }
}
