//! Ordinary and forbidden traffic of an agent: what the demo shows and the suite checks.

use fake_internet::world::{
    ABSENT, ANTHROPIC, DENIED, EXPIRED, OLD, OPEN, OUTSIDE_RESOLVER, PASSTHROUGH, REBOUND, SELF_SIGNED, SINK,
    UNLISTED, WRONG_NAME,
};

use super::{Scenario, scripts};
use crate::lab::{case::Case, log::Pattern};

/// A key that must never be seen in the log.
const SECRET: &str = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz";
const STREAM: &str = r#"{"model":"claude-opus-5-5","max_tokens":100,"stream":true,"tools":[{"name":"bash","input_schema":{"type":"object"}}],"messages":[{"role":"user","content":"What is here?"}]}"#;
const MESSAGE: &str = r#"{"model":"claude-opus-5-5","max_tokens":100,"tools":[{"name":"bash","input_schema":{"type":"object"}}],"messages":[{"role":"user","content":"What is here?"}]}"#;

const EXCHANGE: Pattern = Pattern {
    kind: Some("exchange"),
    state: None,
    host: None,
    action: None,
    rule: None,
    protocol: None,
    version: None,
    status: None,
    flag: None,
    blame: None,
    original: None,
};
const DONE: Pattern = Pattern { state: Some("done"), action: Some("allow"), status: Some(200), ..EXCHANGE };
const REFUSED: Pattern = Pattern { state: Some("refused"), action: Some("deny"), ..EXCHANGE };
const DONE_WITHOUT_STATUS: Pattern = Pattern { status: None, ..DONE };
const UNTOLD: Pattern = Pattern { kind: Some("dns"), ..REFUSED };
const IN_KERNEL: Pattern = Pattern { kind: Some("kernel"), state: Some("refused"), ..EXCHANGE };

fn curl(more: &[&'static str]) -> Vec<&'static str> {
    [&["curl", "-sS", "-w", "\n%{http_version} %{http_code}"], more].concat()
}

fn at(host: &'static str, pattern: Pattern) -> Pattern {
    Pattern { host: Some(host), ..pattern }
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut cases = allowed();
    cases.extend(refused());
    cases.extend(beyond_http());
    cases.into_iter().map(Scenario::case).collect()
}

fn allowed() -> Vec<Case> {
    vec![
        Case::inside("curl, HTTP/1.1", &curl(&["--http1.1", "https://open.example/"]))
            .says("This is open.example.")
            .says("1.1 200")
            .requests(OPEN, 1)
            .logs(at(OPEN, Pattern { version: Some("HTTP/1.1"), rule: Some("allow:"), ..DONE })),
        Case::inside("curl, HTTP/2", &curl(&["--http2", "-d", "hello", "https://open.example/echo"]))
            .says("2 200")
            .says("\"body\":\"hello\"")
            .requests(OPEN, 1)
            .version(OPEN, "HTTP/2.0")
            .logs(at(OPEN, Pattern { version: Some("HTTP/2"), ..DONE })),
        Case::inside("the certificate is the gate's", &["curl", "-sSv", "https://open.example/"])
            .says("issuer:")
            .shows("issuer:")
            .requests(OPEN, 1)
            .logs(at(OPEN, DONE))
            .look(|seen| {
                let told = seen.ended.stderr.contains("Fake Internet Root");
                if told { vec!["the origin's own certificate was shown".to_owned()] } else { vec![] }
            }),
        Case::outside("the same outside the cgroup", &["curl", "-sSv", "https://open.example/"])
            .says("CN=Fake Internet Root")
            .shows("issuer:")
            .requests(OPEN, 1),
        Case::inside("Python's urllib", &["python3", "-c", scripts::URLLIB])
            .says("200 This is open.example")
            .requests(OPEN, 1)
            .logs(at(OPEN, DONE)),
        Case::inside("an origin without HTTP/2", &curl(&["--http2", "https://old.example/"]))
            .says(" 200")
            .requests(OLD, 1)
            .version(OLD, "HTTP/1.1")
            .logs(at(OLD, DONE)),
        Case::inside(
            "a model's answer, streamed",
            &[
                "curl",
                "-sSN",
                "-H",
                "x-api-key: sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
                "-H",
                "anthropic-version: 2023-06-01",
                "-H",
                "content-type: application/json",
                "-d",
                STREAM,
                "-w",
                "\nfirst %{time_starttransfer} last %{time_total}",
                "https://api.anthropic.com/v1/messages",
            ],
        )
        .says("event: message_start")
        .says("input_json_delta")
        .says("event: message_stop")
        .requests(ANTHROPIC, 1)
        .logs(at(ANTHROPIC, DONE))
        .look(|seen| [streamed(&seen.ended.stdout), masked(seen.records)].concat()),
        Case::inside(
            "a model's answer, whole",
            &curl(&[
                "-H",
                "x-api-key: sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
                "-d",
                MESSAGE,
                "https://api.anthropic.com/v1/messages",
            ]),
        )
        .says("\"stop_reason\":\"tool_use\"")
        .requests(ANTHROPIC, 1)
        .logs(at(ANTHROPIC, DONE))
        .look(|seen| masked(seen.records)),
        Case::inside("a host in no list", &curl(&["https://unlisted.example/"]))
            .says(" 200")
            .requests(UNLISTED, 1)
            .logs(at(UNLISTED, Pattern { flag: Some("host_not_allowlisted"), rule: Some("mode:"), ..DONE })),
        Case::inside("plain HTTP", &curl(&["http://open.example/"]))
            .says("1.1 200")
            .requests(OPEN, 1)
            .logs(at(OPEN, DONE)),
        Case::inside(
            "plain HTTP on an odd port",
            &curl(&["http://open.example:8080/bytes/100000", "-o", "/dev/null"]),
        )
        .says("1.1 200")
        .requests(OPEN, 1)
        .logs(at(OPEN, DONE)),
        Case::inside("IPv6", &curl(&["-6", "https://open.example/"]))
            .says(" 200")
            .requests(OPEN, 1)
            .logs(at(OPEN, Pattern { original: Some("[2001:db8::10]:443"), ..DONE })),
        Case::inside("an IPv4-mapped address", &["python3", "-c", scripts::MAPPED])
            .says("HTTP/1.1 200 OK")
            .requests(OPEN, 1)
            .logs(at(OPEN, Pattern { original: Some("198.51.100.10:80"), ..DONE })),
        Case::inside("Multipath TCP", &["python3", "-c", scripts::MPTCP])
            .says("HTTP/1.1 200 OK")
            .requests(OPEN, 1)
            .logs(at(OPEN, Pattern { original: Some("198.51.100.10:80"), ..DONE })),
        Case::inside(
            "a passthrough host",
            &["curl", "-sSv", "--cacert", "{root}", "https://passthrough.example/"],
        )
        .says("CN=Fake Internet Root")
        .shows("issuer:")
        .says("This is passthrough.example.")
        .requests(PASSTHROUGH, 1)
        .logs(at(
            PASSTHROUGH,
            Pattern { kind: Some("flow"), action: Some("passthrough"), ..Pattern::default() },
        )),
    ]
}

fn refused() -> Vec<Case> {
    let bad = |name, url, site| {
        Case::inside(name, &curl(&[url]))
            .says(" 502")
            .requests(site, 0)
            .logs(at(site, Pattern { blame: Some("origin"), ..EXCHANGE }))
    };
    vec![
        Case::inside("a denied host", &curl(&["https://denied.example/"]))
            .fails()
            .says("Could not resolve host")
            .nothing_at(DENIED)
            .logs(at(DENIED, Pattern { rule: Some("deny:"), ..UNTOLD }))
            .look(|seen| {
                let n = seen.arrivals.queries_for(DENIED).count();
                if n == 0 { vec![] } else { vec![format!("its name left the host {n} times")] }
            }),
        Case::inside(
            "a denied host, its address known",
            &curl(&["--resolve", "denied.example:443:198.51.100.30", "https://denied.example/"]),
        )
        .says(" 403")
        .nothing_at(DENIED)
        .logs(at(DENIED, Pattern { rule: Some("deny:"), ..REFUSED })),
        Case::inside(
            "a denied host in plain HTTP, its address known",
            &curl(&["--resolve", "denied.example:80:198.51.100.30", "http://denied.example/"]),
        )
        .says(" 403")
        .nothing_at(DENIED)
        .logs(at(DENIED, Pattern { rule: Some("deny:"), ..REFUSED })),
        bad("an expired certificate", "https://expired.example/", EXPIRED),
        bad("a certificate for another name", "https://wrongname.example/", WRONG_NAME),
        bad("a self-signed certificate", "https://selfsigned.example/", SELF_SIGNED),
        bad("an origin that does not listen", "https://absent.example/", ABSENT),
        Case::inside("a public name at a private address", &curl(&["https://rebound.example/"]))
            .fails()
            .says("Could not resolve host")
            .nothing_at(REBOUND)
            .logs(at(REBOUND, Pattern { action: None, flag: Some("dns_rebinding"), ..UNTOLD })),
        Case::inside(
            "a public name at a private address, asked for at another",
            &curl(&["--resolve", "rebound.example:443:198.51.100.10", "https://rebound.example/"]),
        )
        .says(" 403")
        .nothing_at(REBOUND)
        .logs(at(REBOUND, REFUSED)),
        Case::inside(
            "a switch to a protocol that nobody knows",
            &curl(&[
                "--http1.1",
                "-H",
                "connection: upgrade",
                "-H",
                "upgrade: something-else",
                "https://open.example/",
            ]),
        )
        .says("1.1 426")
        .requests(OPEN, 0)
        .logs(at(OPEN, Pattern { state: Some("refused"), status: Some(426), ..EXCHANGE })),
        Case::inside(
            "one name in TLS, another in HTTP",
            &curl(&["-H", "host: unlisted.example", "https://open.example/"]),
        )
        .says(" 421")
        .nothing_at(UNLISTED)
        .logs(Pattern { rule: Some("invariant:destination_mismatch"), ..REFUSED })
        .look(|seen| {
            let n = seen.arrivals.requests_to(OPEN).count();
            if n == 0 { vec![] } else { vec![format!("{n} requests reached open.example")] }
        }),
    ]
}

fn beyond_http() -> Vec<Case> {
    vec![
        Case::inside("a raw socket", &["python3", "-c", scripts::RAW]).says("not permitted").logs(IN_KERNEL),
        Case::inside("UDP", &["python3", "-c", scripts::UDP])
            .says("not permitted")
            .nothing_at(SINK)
            .logs(IN_KERNEL),
        Case::inside("connected UDP over IPv6", &["python3", "-c", scripts::UDP_CONNECTED])
            .says("not permitted")
            .nothing_at(SINK)
            .logs(Pattern {
                protocol: Some("udp"),
                rule: Some("kernel:udp"),
                original: Some("[2001:db8::80]:9999"),
                ..IN_KERNEL
            }),
        Case::inside("a name's addresses, sorted", &["python3", "-c", scripts::LOOKUP])
            .says("2 addresses")
            .logs(Pattern { rule: Some("kernel:socket_type"), ..IN_KERNEL })
            .look(|seen| {
                // glibc connects UDP to each address, to learn which source address it would have.
                let n = seen.records.iter().filter(|record| record.kind == "kernel").count();
                if n == 1 {
                    vec![]
                } else {
                    vec![format!("{n} refusals in the kernel, not the last one alone")]
                }
            }),
        Case::inside("a protocol that is not HTTP", &["python3", "-c", scripts::OPAQUE])
            .nothing_at(SINK)
            .logs(Pattern {
                kind: Some("flow"),
                state: Some("refused"),
                rule: Some("invariant:opaque"),
                original: Some("203.0.113.80:9000"),
                ..Pattern::default()
            }),
        Case::inside("DNS through another resolver", &["python3", "-c", scripts::DNS])
            .says("8.8.8.8 says 198.51.100.10")
            .nothing_at(OUTSIDE_RESOLVER)
            .logs(at(OPEN, Pattern { kind: Some("dns"), ..DONE_WITHOUT_STATUS })),
        Case::inside("UDP-Lite", &["python3", "-c", scripts::UDP_LITE])
            .says("not permitted")
            .nothing_at(SINK)
            .logs(IN_KERNEL),
        Case::inside("a metadata address", &["curl", "-sS", "http://169.254.169.254/latest/meta-data/"])
            .fails()
            .logs(Pattern { kind: Some("flow"), rule: Some("invariant:metadata"), ..REFUSED }),
        Case::inside("a loopback service", &["curl", "-sS", "http://127.0.0.1:9/"]).fails().logs(IN_KERNEL),
        Case::inside("the dashboard", &["curl", "-sS", "http://127.0.0.1:{dashboard}/"])
            .fails()
            .logs(IN_KERNEL),
        Case::inside("the listener itself", &["curl", "-sS", "http://127.0.0.1:7879/"])
            .fails()
            .logs(IN_KERNEL),
    ]
}

/// The first byte must come well before the last: the events are 40 ms apart.
fn streamed(stdout: &str) -> Vec<String> {
    let times = stdout.lines().next_back().and_then(|line| {
        let mut words = line.split(' ');
        let first: f64 = words.nth(1)?.parse().ok()?;
        let last: f64 = words.nth(1)?.parse().ok()?;
        Some(last - first)
    });
    match times {
        Some(span) if span > 0.3 => vec![],
        Some(span) => vec![format!("the stream came within {span} s: something held it back")],
        None => vec!["curl told no times".to_owned()],
    }
}

fn masked(records: &[crate::lab::log::Record]) -> Vec<String> {
    let keys: Vec<&String> = records
        .iter()
        .filter_map(|record| record.request.as_ref())
        .flat_map(|request| &request.headers)
        .filter(|(name, _)| name == "x-api-key")
        .map(|(_, value)| value)
        .collect();
    let shown = keys.iter().any(|value| value.contains(&SECRET[8..SECRET.len() - 4]));
    match (keys.is_empty(), shown) {
        (true, _) => vec!["the log holds no x-api-key header".to_owned()],
        (false, true) => vec!["the log shows the API key".to_owned()],
        (false, false) => vec![],
    }
}
