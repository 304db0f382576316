//! What a policy is, in a few numbers, and a digest that says whether two are the same.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    address::AddressRules,
    decision::Lists,
    inspect::Inspection,
    matcher::{HostSet, Written},
    udp::UdpRange,
};
use crate::model::Mode;

/// A policy at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySummary {
    pub mode: Mode,
    /// Entries of the allow list, those of the document included.
    pub allow: usize,
    /// Entries of the deny list.
    pub deny: usize,
    /// Entries of the passthrough list.
    pub passthrough: usize,
    /// Entries of `cidrs`.
    pub cidrs: usize,
    /// Loopback ports that are open.
    pub loopback_ports: usize,
    /// Whether a session reaches the loopback ports that it listens on itself.
    #[serde(default)]
    pub loopback_own: bool,
    /// Ranges that UDP passes to.
    #[serde(default)]
    pub udp: usize,
    /// Entries of `opaque_tcp`.
    #[serde(default)]
    pub opaque_tcp: usize,
    /// Whether requests that cannot be inspected whole are refused, or flagged in `audit`.
    #[serde(default)]
    pub inspect_whole: bool,
    /// SHA-256 of what was compiled, in hexadecimal: comments and order do not change it.
    pub digest: String,
}

impl PolicySummary {
    /// What `[network]` opens, in the words of its keys:
    /// `loopback own and 2 ports, cidrs 1, udp 3 ranges, opaque_tcp 1`.
    #[must_use]
    pub fn network(&self) -> String {
        let own = if self.loopback_own { "own" } else { "deny" };
        let ports = match self.loopback_ports {
            0 => String::new(),
            1 => " and 1 port".to_owned(),
            many => format!(" and {many} ports"),
        };
        let udp = match self.udp {
            0 => "deny".to_owned(),
            1 => "1 range".to_owned(),
            many => format!("{many} ranges"),
        };
        format!("loopback {own}{ports}, cidrs {}, udp {udp}, opaque_tcp {}", self.cidrs, self.opaque_tcp)
    }
}

/// The part of `[network]` that the kernel judges.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    pub(super) loopback_own: bool,
    /// Sorted.
    pub(super) loopback_ports: Vec<u16>,
    /// As written, sorted, each range once.
    pub(super) udp: Vec<UdpRange>,
}

/// The summary of what is about to become a policy.
pub(super) fn of(
    mode: Mode,
    lists: &Lists,
    addresses: &AddressRules,
    network: &Network,
    inspection: Inspection,
) -> PolicySummary {
    // One line per setting in a fixed order; a pattern or range has no line break in it.
    let Network { loopback_own, loopback_ports, udp } = network;
    let private = addresses.private;
    let inspect_whole = inspection != Inspection::Any;
    let mut canonical =
        format!("mode {mode}\nprivate {private}\nloopback {loopback_own} {loopback_ports:?}\n");
    if inspect_whole {
        canonical.push_str("inspect truncated deny\n");
    }
    for range in udp {
        canonical.push_str(&format!("udp {} {:?}\n", range.net, range.ports));
    }
    for entry in &addresses.cidrs {
        canonical.push_str(&format!("cidr {} {:?}\n", entry.net, entry.ports));
    }
    list(&mut canonical, "allow", &lists.allow);
    list(&mut canonical, "deny", &addresses.deny);
    list(&mut canonical, "passthrough", &lists.passthrough);
    list(&mut canonical, "opaque", &lists.opaque);
    PolicySummary {
        mode,
        allow: lists.allow.len(),
        deny: addresses.deny.len(),
        passthrough: lists.passthrough.len(),
        cidrs: addresses.cidrs.len(),
        loopback_ports: loopback_ports.len(),
        loopback_own: *loopback_own,
        udp: udp.len(),
        opaque_tcp: lists.opaque.len(),
        inspect_whole,
        digest: hex(digest(&SHA256, canonical.as_bytes()).as_ref()),
    }
}

fn list(canonical: &mut String, name: &str, set: &HostSet) {
    for (pattern, written) in set.patterns() {
        let written = match written {
            Written::Document => "document",
            Written::List => "list",
        };
        canonical.push_str(&format!("{name} {written} {pattern}\n"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
