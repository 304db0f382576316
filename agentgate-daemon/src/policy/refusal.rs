//! Refusals in words: each says what decided, why, and what a person would do to allow it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::{
    address::AddressClass,
    matcher::{Hit, Written},
};
use crate::model::{Action, Authority, Flag, Host, Mode, Refusal, Severity, Verdict};

/// A refusal with one flag.
pub(super) fn refuse(rule: String, reason: String, status: u16, remedy: String, flag: Flag) -> Refusal {
    let verdict = Verdict { action: Action::Deny, rule, reason };
    Refusal { verdict, flags: vec![flag], status, remedy }
}

/// An invariant that the bytes of a request or connection broke; nothing in policy can lift it.
pub(super) fn invariant(code: &str, severity: Severity, status: u16, reason: impl Into<String>) -> Refusal {
    let reason = reason.into();
    let flag = Flag::new(code, severity, reason.clone());
    refuse(format!("invariant:{code}"), reason, status, String::new(), flag)
}

/// A host on the deny list.
pub(super) fn denied(hit: &Hit) -> Refusal {
    let pattern = &hit.pattern;
    let remedy = match hit.written {
        Written::List => format!("agentctl deny '{pattern}' --remove"),
        Written::Document => format!("take \"{pattern}\" out of `[hosts] deny` in policy.toml"),
    };
    refuse(
        format!("deny:{pattern}"),
        format!("the deny list has {pattern}"),
        403,
        remedy,
        Flag::new("host_denylisted", Severity::Medium, format!("matches {pattern} of the deny list")),
    )
}

/// A host that nothing allows, in `enforce`.
pub(super) fn unlisted(authority: &Authority) -> Refusal {
    let host = &authority.host;
    refuse(
        format!("mode:{}", Mode::Enforce),
        format!("{host} is not on the allow list, and the mode is enforce"),
        403,
        format!("agentctl allow {host}"),
        not_allowlisted(authority),
    )
}

/// The flag of a host that no list names.
pub(super) fn not_allowlisted(authority: &Authority) -> Flag {
    Flag::new("host_not_allowlisted", Severity::Low, format!("{authority} is on no list"))
}

/// An address that may not be dialled; `liftable`: an entry of `cidrs` could change that.
pub(super) fn address(ip: IpAddr, port: u16, class: AddressClass, liftable: bool) -> Refusal {
    let ip = ip.to_canonical();
    let reason = format!("{ip} is {}, and no entry of cidrs allows it at port {port}", class.described());
    let remedy = if liftable { cidrs_entry(ip, port) } else { String::new() };
    let severity = if class.is_invariant() { Severity::High } else { Severity::Medium };
    let flag = Flag::new(&format!("{}_address", class.code()), severity, format!("{ip}:{port}"));
    refuse(format!("invariant:{}", class.code()), reason, 403, remedy, flag)
}

/// An address in a DNS answer that could not be reached at any port.
pub(super) fn answer(host: &Host, ip: IpAddr, class: AddressClass) -> Refusal {
    let reason =
        format!("{host} is said to be at {ip}, {}, which no entry of cidrs allows", class.described());
    let severity = if class.is_invariant() { Severity::High } else { Severity::Medium };
    let flag = Flag::new(&format!("{}_address", class.code()), severity, format!("{host} at {ip}"));
    refuse(format!("invariant:{}", class.code()), reason, 403, String::new(), flag)
}

/// A name that means loopback, at an address that is not.
pub(super) fn localhost_elsewhere(host: &Host, ip: IpAddr) -> Refusal {
    let reason = format!("{host} means this host (RFC 6761), and {ip} is not loopback");
    let flag = Flag::new("loopback_address", Severity::High, format!("{host} at {ip}"));
    refuse("invariant:loopback".to_owned(), reason, 403, String::new(), flag)
}

/// A name that means loopback, whatever it resolves to, and that no entry of `cidrs` opens.
pub(super) fn localhost(host: &Host, port: u16) -> Refusal {
    let reason =
        format!("{host} means this host (RFC 6761), and no entry of cidrs allows 127.0.0.1 at port {port}");
    let remedy = cidrs_entry(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let flag = Flag::new("loopback_address", Severity::High, format!("{host}:{port}"));
    refuse("invariant:loopback".to_owned(), reason, 403, remedy, flag)
}

/// The gate's own name.
pub(super) fn own_name(host: &Host) -> Refusal {
    let verdict = Verdict {
        action: Action::Deny,
        rule: "gate:own_name".to_owned(),
        reason: format!("{host} is the gate itself, at which runtimes are tried for trust in it"),
    };
    Refusal { verdict, flags: Vec::new(), status: 403, remedy: String::new() }
}

/// An address that no answer of the gate's DNS server gave, in `enforce`.
pub(super) fn unresolved(original: SocketAddr) -> Refusal {
    refuse(
        format!("invariant:{ADDRESS_NOT_RESOLVED}"),
        format!(
            "no answer of the gate's DNS server gave {} to this session, and nothing names it",
            original.ip()
        ),
        403,
        format!(
            "resolve the name through the system's resolver, which the gate answers; or {}",
            cidrs_entry(original.ip(), original.port())
        ),
        address_not_resolved(original),
    )
}

/// The code of what follows.
const ADDRESS_NOT_RESOLVED: &str = "address_not_resolved";

/// The flag of an address that no answer of the gate's DNS server gave.
pub(super) fn address_not_resolved(original: SocketAddr) -> Flag {
    Flag::new(
        ADDRESS_NOT_RESOLVED,
        Severity::Medium,
        format!("{original} was not in any DNS answer to this session"),
    )
}

/// The flag of a name that is not one of those for which its address was given.
pub(super) fn given_for_another(named: &Host, original: SocketAddr, given: &[Host]) -> Flag {
    const SHOWN: usize = 4;
    let names = given.iter().take(SHOWN).map(Host::as_str).collect::<Vec<_>>().join(", ");
    let more = if given.len() > SHOWN { ", …" } else { "" };
    Flag::new(
        "destination_mismatch",
        Severity::Medium,
        format!("for {named} at {original}, which was given for {names}{more}"),
    )
}

/// TLS without a name.
pub(super) fn missing_sni(original: SocketAddr, ech: bool) -> Refusal {
    let hidden = if ech { "only an encrypted server name" } else { "no server name" };
    refuse(
        "invariant:missing_sni".to_owned(),
        format!("the TLS handshake to {original} has {hidden}, and enforce judges by name"),
        403,
        "connect by name instead of by address".to_owned(),
        Flag::new("missing_sni", Severity::Medium, format!("TLS to {original} with {hidden}")),
    )
}

/// A tunnel for TLS whose hello has an encrypted one inside. What only looks like one (GREASE, RFC 9849 6.2)
/// cannot be told from it, and is meant not to be.
pub(super) fn encrypted_hello(outer: &Host) -> Refusal {
    refuse(
        "invariant:encrypted_hello".to_owned(),
        format!(
            "the hello to {outer} may have another name encrypted inside, to which an unread tunnel would lead"
        ),
        403,
        format!(
            "switch Encrypted ClientHello off in the client, or take {outer} out of the passthrough list"
        ),
        Flag::new(
            "encrypted_hello",
            Severity::Medium,
            format!("Encrypted ClientHello to {outer} in a tunnel"),
        ),
    )
}

/// A connection that is neither TLS nor HTTP; `given`: for which names its address was.
pub(super) fn opaque(original: SocketAddr, silent: bool, given: &[Host]) -> Refusal {
    let what = if silent {
        "the agent waited for the server to speak first"
    } else {
        "what the agent sent is neither TLS nor HTTP"
    };
    refuse(
        "invariant:opaque".to_owned(),
        format!("{what}, so the connection to {original} cannot be judged by name"),
        403,
        match given.last() {
            Some(host) => opaque_entry(host, original.port()),
            None => cidrs_entry(original.ip(), original.port()),
        },
        Flag::new("opaque_traffic", Severity::Medium, format!("{original}: {what}")),
    )
}

/// Names that do not agree.
pub(super) fn mismatch(named: &Host, other: &str) -> Refusal {
    invariant(
        "destination_mismatch",
        Severity::High,
        421,
        format!("the request is for {named}, the connection for {other}"),
    )
}

/// What to write to allow one address and port.
fn cidrs_entry(ip: IpAddr, port: u16) -> String {
    let net = IpNet::from(ip.to_canonical());
    format!(
        "add `cidrs = [{{ allow = \"{net}\", ports = [{port}] }}]` under `[network]` in policy.toml, \
         then `agentctl policy reload`"
    )
}

/// What to write to allow what is not HTTP by name.
fn opaque_entry(host: &Host, port: u16) -> String {
    format!(
        "add `opaque_tcp = [{{ host = \"{host}\", port = {port} }}]` under `[network]` in policy.toml, \
         then `agentctl policy reload`"
    )
}

/// What `audit` says instead of refusing.
pub(super) fn would_block(refusal: &Refusal) -> Flag {
    let Verdict { rule, reason, .. } = &refusal.verdict;
    Flag::new("would_block", Severity::Medium, format!("{rule}: {reason}"))
}
