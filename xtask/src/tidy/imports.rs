//! The import table: which module of the daemon may name which.

/// Module, and the paths below `crate::` it may name. `model` is open to all, and a module to itself.
const TABLE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("parse", &[]),
    ("inspect", &["parse::deflate"]),
    ("words", &["inspect"]),
    ("filter", &["words"]),
    ("policy", &[]),
    ("kernel", &[]),
    ("listen", &["kernel", "handover"]),
    ("session", &["kernel"]),
    ("sniff", &[]),
    ("tls", &["policy::HostPattern", "policy::InvalidPattern", "policy::NamePattern"]),
    // Where a head is made for an origin, from the destination that a permit holds.
    ("http", &["policy::Destination"]),
    // Hashes, statements and lines: as pure as the model.
    ("chain", &[]),
    ("store", &["chain", "words", "filter"]),
    ("config", &[]),
    ("drain", &[]),
    ("share", &[]),
    ("socket", &[]),
    // A spine of its own: it asks the kernel who asks, judges, asks upstream, records.
    (
        "dns",
        &[
            "policy",
            "kernel",
            "listen::not_accepted",
            "handover",
            "session",
            "reload",
            "forward::Resolver",
            "audit",
            "store",
        ],
    ),
    // The permit, and what it is made of.
    (
        "forward",
        &[
            "policy::Permit",
            "policy::ReachPermit",
            "policy::TunnelPermit",
            "policy::TunnelTo",
            "policy::Destination",
            "policy::Scheme",
            "policy::permit",
            "http",
            "tls",
        ],
    ),
    // Tells policy and kernel; asks for NAT64 prefixes as the gate resolves everything.
    ("host", &["kernel", "policy", "reload", "forward::Resolver", "forward::ForwardError"]),
    ("gate", &["parse", "policy"]),
    ("audit", &["store"]),
    ("anchors", &["config", "tls"]),
    // The log in other forms: over its store, or over what the control socket gives of it.
    ("export", &["store", "chain", "filter", "inspect", "audit::redact"]),
    ("reload", &["policy"]),
    (
        "exchange",
        &[
            "http",
            "parse",
            "inspect",
            "policy",
            "gate",
            "forward",
            "audit",
            "reload",
            "tls::Offer",
            "tls::Alpn",
        ],
    ),
    (
        "conn",
        &[
            "listen",
            "session",
            "sniff",
            "tls",
            "http",
            "policy",
            "forward",
            "audit",
            "exchange",
            "kernel",
            "reload",
            "config",
            "dns::Answers",
        ],
    ),
    (
        "control",
        &[
            "anchors",
            "kernel",
            "policy",
            "reload",
            "store",
            "audit",
            "reconcile",
            "export",
            "filter",
            "chain",
        ],
    ),
    ("dashboard", &["policy", "reload", "store", "audit", "inspect", "filter"]),
    ("launch", &["control", "kernel", "policy", "config"]),
    ("denials", &["kernel", "session", "audit"]),
    ("namespaces", &["kernel", "session", "audit"]),
    ("sentry", &["kernel", "session", "audit", "control"]),
    ("doctor", &["control::wire", "control::client", "config", "kernel", "launch", "reload", "store"]),
    ("privileges", &[]),
    ("reconcile", &["kernel", "session", "audit", "store"]),
    ("handover", &["kernel"]),
    ("detach", &["kernel", "store", "config"]),
    (
        "cli",
        &[
            "control::wire",
            "control::client",
            "policy",
            "config",
            "doctor",
            "detach",
            "launch",
            "reload",
            "selftest",
            "store",
            "chain",
            "inspect",
            "export",
            "filter",
        ],
    ),
    // It starts a daemon of its own, and reads what that one records.
    ("selftest", &["control::client", "control::wire", "kernel", "config"]),
    ("metrics", &[]),
    ("signal", &["reload"]),
    ("telemetry", &["config"]),
];
/// Modules that may name anything.
const EVERYTHING: [&str; 2] = ["app", "lib"];
/// Modules that anybody may name: plain data, the word that it is time to end, what one party may take,
/// and how a connection ends.
const OPEN: [&str; 4] = ["model", "drain", "share", "socket"];

/// The daemon's module that a file belongs to; `None` for files outside its library.
pub(super) fn module(name: &str) -> Option<String> {
    let below = name.strip_prefix("agentgate-daemon/src/")?;
    let first = below.split('/').next()?;
    (first != "bin").then(|| first.trim_end_matches(".rs").to_owned())
}

/// Whether `super::` in this file means the crate's root.
pub(super) fn is_top(name: &str) -> bool {
    let below = name.trim_start_matches("agentgate-daemon/src/");
    !below.contains('/') || below.matches('/').count() == 1 && below.ends_with("/mod.rs")
}

/// What a module names but may not.
pub(super) fn breaches(module: &str, paths: &[String]) -> Vec<String> {
    if EVERYTHING.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("module {module} is not in the import table: give it a row and say why")];
    };
    let mut found: Vec<String> = paths
        .iter()
        .filter(|path| {
            let first = path.split("::").next().unwrap_or_default();
            let open = first == module || OPEN.contains(&first);
            !open && !allowed.iter().any(|entry| covers(entry, path))
        })
        .map(|path| format!("{module} may not import crate::{path}; it may: model {}", allowed.join(" ")))
        .collect();
    found.dedup();
    found
}

fn covers(entry: &str, path: &str) -> bool {
    path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path below `crate::` that the code names, `use` trees unfolded. Where `top` is set, `super::`
/// means the same.
pub(super) fn of(code: &str, top: bool) -> Vec<String> {
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        if root == "super::" && !top {
            continue;
        }
        for (at, _) in code.match_indices(root) {
            let before = code.get(..at).and_then(|text| text.chars().next_back());
            let part_of_longer = before.is_some_and(|c| c.is_alphanumeric() || "_:$".contains(c));
            if !part_of_longer {
                unfold(code.get(at + root.len()..).unwrap_or_default(), "", &mut found);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Reads one path or `use` tree at the beginning of `text`; gives what follows it.
fn unfold<'a>(text: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = unfold(rest, prefix, found).trim_start();
            // `name as other`: what it is called here does not matter.
            if let Some(renamed) = rest.strip_prefix("as ") {
                rest = renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                rest = rest.trim_start();
            }
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                Some(more) => return more.trim_start().strip_prefix('}').unwrap_or(more),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = match (prefix, name) {
        ("", name) => name.to_owned(),
        (prefix, "" | "self") => prefix.to_owned(),
        (prefix, name) => format!("{prefix}::{name}"),
    };
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => unfold(rest, &path, found),
        Some(_) | None => {
            if !path.is_empty() {
                found.push(path);
            }
            // A glob is the module itself.
            rest.strip_prefix('*').unwrap_or(rest)
        }
    }
}
