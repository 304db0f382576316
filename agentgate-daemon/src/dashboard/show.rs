//! Values as people read them: sizes, durations, times, and text whose control characters are seen.

use std::{borrow::Cow, net::SocketAddr};

use crate::model::{Action, Host, Kind, Question, Record, Timestamp};

/// `text` with control and direction-changing characters as Rust writes them (`\n`, `\u{1b}`), so that a hostile name
/// cannot hide, reorder or forge what is around it. Line ends and tabs count as control characters.
#[must_use]
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    reveal(text, false)
}

/// As [`visible`], for text of many lines: line ends and tabs stay.
#[must_use]
pub(super) fn visible_lines(text: &str) -> Cow<'_, str> {
    reveal(text, true)
}

fn reveal(text: &str, lines: bool) -> Cow<'_, str> {
    let hidden = |c: char| {
        if lines && matches!(c, '\n' | '\t') { false } else { is_hidden(c) }
    };
    if !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !hidden(c) {
            out.push(c);
            continue;
        }
        out.extend(c.escape_default());
    }
    Cow::Owned(out)
}

/// Controls, and the format characters that are invisible or change direction (UAX #9, "Trojan Source").
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A size in bytes with binary prefixes: `0 B`, `1.5 KiB`, `12 MiB`.
#[must_use]
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    for unit in UNITS {
        if tenths < 1024 * 10 {
            return if tenths < 100 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", tenths / 10)
            };
        }
        tenths /= 1024;
    }
    format!("{bytes} B")
}

/// A duration in microseconds: `850 µs`, `42 ms`, `3.2 s`, `4 m 05 s`, `2 h 03 m`.
#[must_use]
pub(super) fn duration(us: u64) -> String {
    let (ms, s) = (us / 1000, us / 1_000_000);
    match s {
        0 if us < 1000 => format!("{us} µs"),
        0 => format!("{ms} ms"),
        1..=9 => format!("{s}.{} s", ms % 1000 / 100),
        10..=59 => format!("{s} s"),
        60..=3599 => format!("{} m {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} m", s / 3600, s % 3600 / 60),
    }
}

/// Time of day in UTC to the second, with the date in front where it is not the day of `today`.
#[must_use]
pub(super) fn clock(at: Timestamp, today: Timestamp) -> String {
    // RFC 3339: `2026-11-20T07:38:30.123Z`.
    let (text, now) = (at.to_string(), today.to_string());
    match (text.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((this_day, _))) => {
            let time = time.split('.').next().unwrap_or(time);
            if day == this_day {
                time.to_owned()
            } else {
                // The year and the seconds give way to the day; the record's page has all of it.
                format!("{} {}", day.get(5..).unwrap_or(day), time.get(..5).unwrap_or(time))
            }
        }
        (Some(_) | None, _) => text,
    }
}

/// How long ago, to one unit: `just now`, `42 s ago`, `3 min ago`, `5 h ago`, `2 days ago`.
#[must_use]
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at) / 1_000_000;
    match seconds {
        0..=1 => "just now".to_owned(),
        2..=59 => format!("{seconds} s ago"),
        60..=3599 => format!("{} min ago", seconds / 60),
        3600..=86_399 => format!("{} h ago", seconds / 3600),
        86_400..=172_799 => "a day ago".to_owned(),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// The last part of a path.
#[must_use]
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// A number in groups of three digits.
#[must_use]
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A session without the cgroup id that tells reused names apart.
#[must_use]
pub(super) fn session_name(session: &str) -> &str {
    crate::filter::session_name(session)
}

/// Name of the program behind a record.
#[must_use]
pub(super) fn program(record: &Record) -> Option<&str> {
    match &record.subject {
        Some(subject) => Some(subject.exe.as_deref().map_or(subject.comm.as_str(), file_name)),
        None => record.flow.as_ref().map(|flow| flow.comm.as_str()),
    }
}

/// Bytes from and to the agent: of the bodies for an exchange, of the connection for a flow.
#[must_use]
pub(super) fn traffic(record: &Record) -> Option<(u64, u64)> {
    match record.kind {
        Kind::Exchange => Some((
            record.request.as_ref().map_or(0, |r| r.body.total),
            record.response.as_ref().map_or(0, |r| r.body.total),
        )),
        Kind::Flow => Some((record.bytes_up, record.bytes_down)),
        Kind::Kernel | Kind::Dns | Kind::Guard | Kind::Control => None,
    }
}

/// The question of a record that has a name in it.
#[must_use]
pub(super) fn asked(record: &Record) -> Option<&Question> {
    record.question.as_ref().filter(|question| !question.name.is_empty())
}

/// What a person would do to have a refused record's destination allowed; `None` where nothing can
/// or nothing was refused. `in_document`: the pattern that denies it stands in `policy.toml`.
#[must_use]
pub(super) fn remedy(record: &Record, in_document: bool) -> Option<String> {
    let verdict = record.verdict.as_ref().filter(|v| v.action == Action::Deny)?;
    match verdict.rule.split_once(':')? {
        ("mode", _) => {
            let host = record.authority.as_ref().map(|a| a.host.as_str());
            let asked = asked(record).map(|q| q.name.as_str()).filter(|name| Host::parse(name).is_ok());
            asked.or(host).map(|host| format!("agentctl allow {host}"))
        }
        ("deny", pattern) if in_document => {
            Some(format!("take \"{pattern}\" out of `deny` under [hosts] in policy.toml"))
        }
        ("deny", pattern) => Some(format!("agentctl deny '{pattern}' --remove")),
        ("kernel", "loopback") => record.flow.as_ref().map(|flow| {
            let port = flow.original.0.port();
            format!("under [network] in policy.toml: loopback = {{ default = \"own\", ports = [{port}] }}")
        }),
        ("kernel", "udp") => record.flow.as_ref().map(|flow| flow.original.0).and_then(udp_entry),
        ("invariant", "missing_sni") => Some("connect by name instead of by address".to_owned()),
        ("invariant", "opaque") => record.flow.as_ref().map(|flow| {
            let to = flow.original.0;
            format!(
                "under [network] in policy.toml: cidrs = [{}]; by name: \
                 opaque_tcp = [{{ host = \"NAME\", port = {} }}]",
                entry(to),
                to.port()
            )
        }),
        ("invariant", "address_not_resolved") => record.flow.as_ref().map(|flow| {
            let entry = entry(flow.original.0);
            format!(
                "have the name looked up through the system's resolver, which the gate answers; or, under \
                 [network] in policy.toml: cidrs = [{entry}]"
            )
        }),
        _ => None,
    }
}

/// The entry of `cidrs` or `udp` for one address and port.
fn entry(to: SocketAddr) -> String {
    let (ip, port, bits) = (to.ip(), to.port(), if to.is_ipv4() { 32 } else { 128 });
    format!("{{ allow = \"{ip}/{bits}\", ports = [{port}] }}")
}

/// What opens UDP to an address; `None` where nothing does.
fn udp_entry(to: SocketAddr) -> Option<String> {
    let ip = to.ip().to_canonical();
    let never =
        ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || [0, 53, 853].contains(&to.port());
    let to = SocketAddr::new(ip, to.port());
    (!never).then(|| format!("under [network] in policy.toml: udp = [{}]", entry(to)))
}

/// What helps against a refusal by the kernel that no policy lifts.
#[must_use]
pub(super) fn advice(record: &Record) -> Option<&'static str> {
    let (stage, code) = record.verdict.as_ref()?.rule.split_once(':')?;
    if stage != "kernel" {
        return None;
    }
    Some(match code {
        "gate_port" => "No policy opens these ports. Use agentctl and the dashboard from outside the gate.",
        "udp" => "Nothing, where the client falls back to TCP, as QUIC clients do.",
        "no_resolver" => "Give the host a resolver of this address family, or ask over the other one.",
        "socket_type" => "Use TCP, or run the tool outside the gate: no policy opens other sockets.",
        "no_listener" => "Try again. If it lasts, see agentctl status: the daemon was starting or ending.",
        "no_flow" => "Try again. If it lasts, the agent holds more connections than the gate keeps.",
        "namespace" => "Run the agent without a network namespace of its own.",
        "device" => "Do not bind the socket to an interface, as curl --interface does.",
        "egress" => {
            "Use plain TCP: packets of other protocols, with IP options or in fragments, do not leave."
        }
        _ => return None,
    })
}

/// How many like this one the record stands for besides. Of a refusal of the kernel's its note says so after
/// the call, `connect4: …; 12 more like it …`.
#[must_use]
pub(super) fn alike(record: &Record) -> Option<u64> {
    if record.times > 1 {
        return Some(record.times - 1);
    }
    if record.kind != Kind::Kernel {
        return None;
    }
    let (_, more) = record.note.as_deref()?.split_once("; ")?;
    more.split(' ').next()?.parse().ok()
}

/// A moment in UTC as a person reads it: `2026-11-20 12:00:00.123 UTC`.
#[must_use]
pub(super) fn moment(at: Timestamp) -> String {
    at.to_string().replacen('T', " ", 1).replacen('Z', " UTC", 1)
}

/// What the kernel refused, in a word or two: `TCP`, `UDP`, `raw socket`.
#[must_use]
pub(super) fn transport(record: &Record) -> Cow<'_, str> {
    match record.protocol.as_str() {
        "tcp" => Cow::Borrowed("TCP"),
        "udp" => Cow::Borrowed("UDP"),
        "udp-lite" => Cow::Borrowed("UDP-Lite"),
        "raw" => Cow::Borrowed("raw socket"),
        "ping" => Cow::Borrowed("ping socket"),
        "" | "socket" => Cow::Borrowed("socket"),
        other => visible(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Authority, Verdict};

    #[test]
    fn hidden_characters_are_seen() {
        let rows = [
            ("plain", "plain"),
            ("a\0b", "a\\u{0}b"),
            ("a\r\nSet-Cookie: x", "a\\r\\nSet-Cookie: x"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{7f}\u{85}", "\\u{7f}\\u{85}"),
            ("exe\u{202e}gpj", "exe\\u{202e}gpj"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            ("ünï ✓", "ünï ✓"),
        ];
        for (text, expect) in rows {
            assert_eq!(visible(text), expect, "{text:?}");
        }
        assert_eq!(visible_lines("a\n\tb\r\0"), "a\n\tb\\r\\u{0}");
    }

    #[test]
    fn times_ago() {
        let rows = [
            (0, "just now"),
            (42, "42 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (7200, "2 h ago"),
            (90_000, "a day ago"),
            (172_800, "2 days ago"),
        ];
        let now = Timestamp(1_000_000_000_000);
        for (seconds, expect) in rows {
            assert_eq!(ago(Timestamp(now.0 - seconds * 1_000_000), now), expect);
        }
        assert_eq!(ago(Timestamp(now.0 + 1), now), "just now", "a clock that was put back");
    }

    #[test]
    fn sizes() {
        let rows = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_240, "10 KiB"),
            (1_048_575, "1023 KiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "15 EiB"),
        ];
        for (bytes, expect) in rows {
            assert_eq!(size(bytes), expect, "{bytes}");
        }
    }

    #[test]
    fn durations() {
        let rows = [
            (0, "0 µs"),
            (850, "850 µs"),
            (42_000, "42 ms"),
            (999_999, "999 ms"),
            (3_250_000, "3.2 s"),
            (59_900_000, "59 s"),
            (245_000_000, "4 m 05 s"),
            (7_380_000_000, "2 h 03 m"),
        ];
        for (us, expect) in rows {
            assert_eq!(duration(us), expect, "{us}");
        }
    }

    #[test]
    fn clock_names_the_day_only_when_it_is_another() {
        let noon = Timestamp(1_795_176_000_123_000);
        assert_eq!(noon.to_string(), "2026-11-20T12:00:00.123Z");
        assert_eq!(moment(noon), "2026-11-20 12:00:00.123 UTC");
        assert_eq!(clock(noon, Timestamp(noon.0 + 3_600_000_000)), "12:00:00");
        assert_eq!(clock(noon, Timestamp(noon.0 + 86_400_000_000)), "11-20 12:00");
    }

    #[test]
    fn remedies() {
        let mut record = Record::new(Kind::Exchange, Timestamp(0));
        record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
        let rows = [
            (Action::Deny, "mode:enforce", Some("agentctl allow api.example.com")),
            (Action::Deny, "deny:*.example.com", Some("agentctl deny '*.example.com' --remove")),
            (Action::Deny, "invariant:destination_mismatch", None),
            (Action::Deny, "invariant:missing_sni", Some("connect by name instead of by address")),
            (Action::Deny, "invariant:opaque", None),
            (Action::Allow, "mode:blocklist", None),
        ];
        for (action, rule, expect) in rows {
            record.verdict = Some(Verdict { action, rule: rule.to_owned(), reason: String::new() });
            assert_eq!(remedy(&record, false).as_deref(), expect, "{rule}");
        }
    }

    #[test]
    fn udp_that_policy_could_open() {
        for (to, expect) in [
            ("203.0.113.7:5000", Some("udp = [{ allow = \"203.0.113.7/32\", ports = [5000] }]")),
            ("[2001:db8::7]:5000", Some("udp = [{ allow = \"2001:db8::7/128\", ports = [5000] }]")),
            ("[::ffff:203.0.113.7]:5000", Some("allow = \"203.0.113.7/32\"")),
            ("203.0.113.7:53", None),
            ("203.0.113.7:853", None),
            ("127.0.0.1:5000", None),
            ("[::]:5000", None),
            ("224.0.0.251:5353", None),
        ] {
            let found = udp_entry(to.parse().unwrap());
            match expect {
                Some(part) => {
                    assert!(found.as_ref().is_some_and(|text| text.contains(part)), "{to}: {found:?}")
                }
                None => assert_eq!(found, None, "{to}"),
            }
        }
    }
}
