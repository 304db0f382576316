//! From texts to a [`Policy`]: everything is checked, and all faults are reported at once.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use toml::Spanned;

use super::{
    Policy, PolicyError,
    address::{AddressRules, CidrEntry},
    decision::Lists,
    document::{Document, LoopbackDefault, OpaqueTcp, PortRange, Private, Truncated, UdpEntry},
    facts::Facts,
    inspect,
    matcher::{HostSet, Written},
    pattern::{HostPattern, NamePattern, list_entry},
    summary::{self, Network},
    udp::{self, MOST_UDP_PORTS, UdpRange},
};
use crate::model::{Mode, TextError};

/// Most faults that are reported; the rest is a number, so that a binary file given as a list does
/// not fill the log.
const MOST_ERRORS: usize = 50;
/// Most entries of `cidrs`: they are looked through one by one.
const MOST_CIDRS: usize = 1024;
/// Most loopback ports: what the kernel's settings have room for
/// (`agentgate_common::settings::LOOPBACK_PORTS`).
pub const MOST_LOOPBACK_PORTS: usize = 32;
/// Most entries of `udp`: with the holes in them they fit into the kernel's map.
const MOST_UDP: usize = 256;
/// Ports that UDP is never sent to but by the gate itself: DNS, and DNS over QUIC (RFC 9250).
const DNS_PORTS: [u16; 2] = [53, 853];

/// One file's name and contents.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// As it stands in messages.
    pub file: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// Everything a policy is made of.
#[derive(Clone, Debug, Default)]
pub struct Texts<'a> {
    /// `policy.toml`; without it: `enforce` and the lists alone.
    pub policy: Option<Text<'a>>,
    /// `lists/allow.txt`.
    pub allow: Vec<Text<'a>>,
    /// `lists/deny.txt`.
    pub deny: Vec<Text<'a>>,
    /// `lists/passthrough.txt`.
    pub passthrough: Vec<Text<'a>>,
    /// The override file `mode`: one word that takes the place of the document's mode.
    pub mode: Option<Text<'a>>,
}

/// Compiles `texts`, or says all that is wrong with them.
pub(super) fn compile(texts: &Texts<'_>) -> Result<Policy, Vec<PolicyError>> {
    let mut errors = Errors::default();
    let mut lists = Lists::default();
    let mut addresses = AddressRules::default();
    let mut network = Network::default();
    let mut mode = Mode::default();
    let mut whole = false;

    if let Some(text) = &texts.policy {
        match Document::parse(text) {
            Ok(document) => {
                mode = document.mode;
                whole = document.inspect.truncated == Truncated::Deny;
                let hosts = &document.hosts;
                document_patterns(text, &hosts.allow, &mut lists.allow, &mut errors);
                document_patterns(text, &hosts.deny, &mut addresses.deny, &mut errors);
                document_patterns(text, &hosts.passthrough, &mut lists.passthrough, &mut errors);
                addresses.private = document.network.private == Private::Allow;
                addresses.cidrs = cidrs(text, &document, &mut errors);
                network.loopback_own = document.network.loopback.default == LoopbackDefault::Own;
                network.loopback_ports = loopback(text, &document.network.loopback.ports, &mut errors);
                network.udp = udp(text, &document.network.udp.0, &mut errors);
                opaque(text, &document.network.opaque_tcp, &mut lists.opaque, &mut errors);
            }
            Err(error) => errors.add(error),
        }
    }
    for (files, set) in [
        (&texts.allow, &mut lists.allow),
        (&texts.deny, &mut addresses.deny),
        (&texts.passthrough, &mut lists.passthrough),
    ] {
        for file in files {
            list_patterns(file, set, &mut errors);
        }
    }
    if let Some(text) = &texts.mode {
        match mode_override(text) {
            Ok(word) => mode = word,
            Err(error) => errors.add(error),
        }
    }
    errors.into_result()?;

    addresses.mode = mode;
    let inspection = inspect::inspection(whole, mode);
    let summary = summary::of(mode, &lists, &addresses, &network, inspection);
    let udp = udp::effective(&network.udp, &addresses.host);
    Ok(Policy { mode, lists, addresses: Arc::new(addresses), network, inspection, udp, summary })
}

/// Faults as they are found, up to a number.
#[derive(Debug, Default)]
struct Errors {
    kept: Vec<PolicyError>,
    more: usize,
}

impl Errors {
    fn add(&mut self, error: PolicyError) {
        if self.kept.len() < MOST_ERRORS {
            self.kept.push(error);
        } else {
            self.more += 1;
        }
    }

    fn into_result(mut self) -> Result<(), Vec<PolicyError>> {
        if self.kept.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            let file = self.kept.last().map(|error| error.file.clone()).unwrap_or_default();
            self.kept.push(TextError::whole(&file, format!("and {} more faults", self.more), ""));
        }
        Err(self.kept)
    }
}

fn document_patterns(text: &Text<'_>, patterns: &[Spanned<String>], set: &mut HostSet, errors: &mut Errors) {
    for pattern in patterns {
        match HostPattern::parse(pattern.get_ref()) {
            Ok(parsed) => set.insert(parsed, Written::Document),
            Err(e) => {
                errors.add(TextError::at(text.file, text.text, pattern.span().start, e.message, e.hint));
            }
        }
    }
}

fn list_patterns(file: &Text<'_>, set: &mut HostSet, errors: &mut Errors) {
    // Some editors begin UTF-8 files with a byte order mark.
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(file.text);
    for (number, line) in text.lines().enumerate() {
        let Some(entry) = list_entry(line) else { continue };
        match HostPattern::parse(entry) {
            Ok(pattern) => set.insert(pattern, Written::List),
            Err(e) => errors.add(PolicyError {
                file: file.file.to_owned(),
                line: number + 1,
                column: line.chars().take_while(|c| c.is_whitespace()).count() + 1,
                message: e.message,
                hint: e.hint,
            }),
        }
    }
}

fn mode_override(text: &Text<'_>) -> Result<Mode, PolicyError> {
    let word = text.text.trim();
    word.parse().map_err(|_| {
        let shown: String = word.chars().take(40).collect();
        TextError::at(
            text.file,
            text.text,
            0,
            format!("{shown:?} is not a mode"),
            "write enforce, blocklist or audit, or remove the file",
        )
    })
}

fn cidrs(text: &Text<'_>, document: &Document, errors: &mut Errors) -> Vec<CidrEntry> {
    let entries = &document.network.cidrs;
    if entries.len() > MOST_CIDRS {
        let message = format!("cidrs has {} entries", entries.len());
        errors.add(TextError::whole(text.file, message, format!("at most {MOST_CIDRS}: write wider ranges")));
        return Vec::new();
    }
    let mut compiled = Vec::with_capacity(entries.len());
    for entry in entries {
        let ports = match &entry.ports {
            None => Vec::new(),
            Some(ports) if ports.is_empty() => {
                errors.add(TextError::at(
                    text.file,
                    text.text,
                    entry.allow.span().start,
                    "an empty list of ports allows nothing",
                    "leave `ports` out to allow every port",
                ));
                continue;
            }
            Some(listed) => ports(text, listed, errors),
        };
        match range(entry.allow.get_ref()) {
            Ok(net) => compiled.push(CidrEntry { net, ports }),
            Err((message, hint)) => {
                errors.add(TextError::at(text.file, text.text, entry.allow.span().start, message, hint));
            }
        }
    }
    compiled
}

/// A range, or an address for a range of one. IPv4-mapped ranges become IPv4 ranges.
fn range(text: &str) -> Result<IpNet, (String, String)> {
    let net = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(net), _) => net,
        (Err(_), Ok(ip)) => IpNet::from(ip),
        (Err(_), Err(_)) => {
            let shown: String = text.chars().take(80).collect();
            return Err((
                format!("{shown:?} is not an address range"),
                "write an address and a prefix length, as in 10.1.2.0/24".to_owned(),
            ));
        }
    };
    if net.addr() != net.network() {
        return Err((format!("{net} has bits set after its prefix"), format!("write {}", net.trunc())));
    }
    let mapped = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96))
        }
        IpNet::V4(_) | IpNet::V6(_) => None,
    };
    match mapped {
        Some((v4, prefix)) => IpNet::new(IpAddr::V4(v4), prefix)
            .map_err(|_| (format!("{net} is not an address range"), "write it as IPv4".to_owned())),
        None => Ok(net),
    }
}

fn loopback(text: &Text<'_>, listed: &[Spanned<u64>], errors: &mut Errors) -> Vec<u16> {
    let ports = ports(text, listed, errors);
    if ports.len() > MOST_LOOPBACK_PORTS {
        let offset = listed.first().map_or(0, |port| port.span().start);
        let message = format!("{} loopback ports", ports.len());
        let hint = format!("the kernel's settings have room for {MOST_LOOPBACK_PORTS}");
        errors.add(TextError::at(text.file, text.text, offset, message, hint));
    }
    ports
}

fn udp(text: &Text<'_>, entries: &[UdpEntry], errors: &mut Errors) -> Vec<UdpRange> {
    if entries.len() > MOST_UDP {
        let message = format!("udp has {} entries", entries.len());
        errors.add(TextError::whole(text.file, message, format!("at most {MOST_UDP}: write wider ranges")));
        return Vec::new();
    }
    let mut compiled: Vec<UdpRange> = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = entry.allow.span().start;
        let mut fault = |message: String, hint: &str| {
            errors.add(TextError::at(text.file, text.text, at, message, hint));
        };
        let net = match range(entry.allow.get_ref()) {
            Ok(net) => net,
            Err((message, hint)) => {
                fault(message, &hint);
                continue;
            }
        };
        if let Some((_, why)) = udp::CLOSED.iter().find(|(closed, _)| closed.contains(&net)) {
            fault(format!("{net} {why}"), "UDP to it cannot be opened");
            continue;
        }
        if entry.ports.is_empty() {
            fault(
                "an empty list of ports allows nothing".to_owned(),
                "write the ports, as in [5000, \"6000-6010\"]",
            );
            continue;
        }
        let ports = entry.ports.iter().filter_map(|port| port_range(text, port, errors)).collect();
        match compiled.iter_mut().find(|known| known.net == net) {
            Some(known) => known.ports.extend::<Vec<_>>(ports),
            None => compiled.push(UdpRange { net, ports }),
        }
    }
    compiled.sort_by_key(|range| range.net);
    for range in &mut compiled {
        range.ports = udp::joined(std::mem::take(&mut range.ports));
    }
    // A range has the ports of those around it as well.
    for range in udp::effective(&compiled, &Facts::default()) {
        if range.ports.len() > MOST_UDP_PORTS {
            let message = format!("udp has {} ranges of ports for {}", range.ports.len(), range.net);
            let hint = format!(
                "at most {MOST_UDP_PORTS}, those of wider ranges counted: write wider ranges of ports"
            );
            errors.add(TextError::whole(text.file, message, hint));
        }
    }
    compiled
}

/// `5000`, or `"6000-6010"`.
fn port_range(text: &Text<'_>, written: &Spanned<PortRange>, errors: &mut Errors) -> Option<(u16, u16)> {
    let mut fault = |message: String, hint: &str| {
        errors.add(TextError::at(text.file, text.text, written.span().start, message, hint));
        None
    };
    let (first, last) = match written.get_ref() {
        PortRange::One(port) => (u16::try_from(*port).ok(), u16::try_from(*port).ok()),
        PortRange::Text(range) => {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.trim().parse().ok(), last.trim().parse().ok())
        }
    };
    let shown = || match written.get_ref() {
        PortRange::One(port) => port.to_string(),
        PortRange::Text(range) => format!("{:?}", range.chars().take(40).collect::<String>()),
    };
    let (Some(first), Some(last)) = (first.filter(|port| *port != 0), last) else {
        return fault(
            format!("{} is not a port", shown()),
            "ports are 1 to 65535, ranges of them as in \"6000-6010\"",
        );
    };
    if last < first {
        return fault(format!("{} ends before it begins", shown()), "write the lower port first");
    }
    if let Some(dns) = DNS_PORTS.iter().find(|port| (first..=last).contains(port)) {
        return fault(
            format!("{} has port {dns}", shown()),
            "ports 53 and 853 are DNS, which the gate answers itself: leave them out",
        );
    }
    Some((first, last))
}

fn opaque(text: &Text<'_>, entries: &[OpaqueTcp], set: &mut HostSet, errors: &mut Errors) {
    for entry in entries {
        let mut fault = |at: usize, message: String, hint: String| {
            errors.add(TextError::at(text.file, text.text, at, message, hint));
        };
        let (host, port) = (entry.host.get_ref(), *entry.port.get_ref());
        let at = entry.host.span().start;
        let Some(port) = u16::try_from(port).ok().filter(|port| *port != 0) else {
            fault(
                entry.port.span().start,
                format!("{port} is not a port"),
                "ports are 1 to 65535".to_owned(),
            );
            continue;
        };
        match HostPattern::parse(host) {
            Ok(HostPattern { port: Some(other), .. }) => {
                fault(
                    at,
                    format!("{host:?} has a port of its own"),
                    format!("write `port = {other}` beside the host"),
                );
            }
            Ok(HostPattern { name: NamePattern::Exact(name), .. }) if name.as_ip().is_some() => {
                let hint = format!("write `cidrs = [{{ allow = \"{name}\", ports = [{port}] }}]`");
                fault(at, format!("{name} is an address, and opaque_tcp judges by name"), hint);
            }
            Ok(HostPattern { name, port: None }) => {
                set.insert(HostPattern { name, port: Some(port) }, Written::Document);
            }
            Err(e) => fault(at, e.message, e.hint),
        }
    }
}

/// Ports, sorted, each once.
fn ports(text: &Text<'_>, listed: &[Spanned<u64>], errors: &mut Errors) -> Vec<u16> {
    let mut ports = BTreeSet::new();
    for port in listed {
        match u16::try_from(*port.get_ref()) {
            Ok(number) if number != 0 => {
                ports.insert(number);
            }
            Ok(_) | Err(_) => errors.add(TextError::at(
                text.file,
                text.text,
                port.span().start,
                format!("{} is not a port", port.get_ref()),
                "ports are 1 to 65535",
            )),
        }
    }
    ports.into_iter().collect()
}

#[cfg(test)]
mod tests;
