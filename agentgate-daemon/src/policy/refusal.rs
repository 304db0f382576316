//! Refusals in words: each says what decided, why, and what a person would do to allow it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    address::{self, AddressClass},
    matcher::{Hit, Written},
};
use crate::model::{Action, Authority, Flag, Host, Mode, Refusal, Severity, Verdict};

/// A refusal with one flag.
fn refuse(rule: String, reason: String, status: u16, remedy: String, flag: Flag) -> Refusal {
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

/// An address that may not be dialled.
pub(super) fn address(ip: IpAddr, port: u16, class: AddressClass) -> Refusal {
    let ip = ip.to_canonical();
    let reason = format!("{ip} is {}, and no entry of cidrs allows it at port {port}", class.described());
    let remedy = if address::can_be_lifted(ip) { cidrs_entry(ip, port) } else { String::new() };
    let severity = if class.is_invariant() { Severity::High } else { Severity::Medium };
    let flag = Flag::new(&format!("{}_address", class.code()), severity, format!("{ip}:{port}"));
    refuse(format!("invariant:{}", class.code()), reason, 403, remedy, flag)
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

/// A connection that is neither TLS nor HTTP.
pub(super) fn opaque(original: SocketAddr, silent: bool) -> Refusal {
    let what = if silent {
        "the agent waited for the server to speak first"
    } else {
        "what the agent sent is neither TLS nor HTTP"
    };
    refuse(
        "invariant:opaque".to_owned(),
        format!("{what}, so the connection to {original} cannot be judged by name"),
        403,
        cidrs_entry(original.ip(), original.port()),
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

/// What `audit` says instead of refusing.
pub(super) fn would_block(refusal: &Refusal) -> Flag {
    let Verdict { rule, reason, .. } = &refusal.verdict;
    Flag::new("would_block", Severity::Medium, format!("{rule}: {reason}"))
}
