//! UDP that policy lets pass, by address and port: what people wrote, and what the kernel is told.
//!
//! The kernel asks the most specific range alone, while an entry of the language adds to those around it.
//! So each range is told with the ports of all entries that contain it, and a range that an entry does
//! not reach although it lies within (a metadata address, a translator's prefix) is told with fewer, or
//! none: a hole.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{address, facts::Facts};

/// Ranges of ports that one range of addresses may have: what the kernel has room for
/// (`agentgate_common::rules::UDP_PORTS`).
pub const MOST_UDP_PORTS: usize = 16;

/// One range of addresses and the ports at which UDP to it passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpRange {
    pub net: IpNet,
    /// First and last port of each range, sorted, apart from each other; none: a hole in a wider range.
    pub ports: Vec<(u16, u16)>,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(a: u16, b: u16, c: u16, e: u16, f: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, e, f, 0, 0), prefix))
}

/// What no entry opens, with why not: entries within are faults, and wider ones have a hole there.
pub(super) const CLOSED: [(IpNet, &str); 11] = [
    (v4(0, 0, 0, 0, 8), "is this host"),
    (v4(127, 0, 0, 0, 8), "is loopback, which `loopback` opens"),
    (v4(224, 0, 0, 0, 4), "is for groups of hosts"),
    (v4(255, 255, 255, 255, 32), "is for groups of hosts"),
    (v6(0xff00, 0, 0, 0, 0, 8), "is for groups of hosts"),
    // Of a range within which IPv4 addresses stand, the kernel cannot tell what those are.
    (v6(0, 0, 0, 0, 0, 96), "holds loopback and IPv4 addresses"),
    (v6(0, 0, 0, 0xffff, 0, 96), "holds IPv4 addresses"),
    (v6(0x64, 0xff9b, 0, 0, 0, 96), "holds IPv4 addresses"),
    (v6(0x64, 0xff9b, 1, 0, 0, 48), "holds IPv4 addresses"),
    (v6(0x2002, 0, 0, 0, 0, 16), "holds IPv4 addresses"),
    (v6(0x2001, 0, 0, 0, 0, 32), "holds IPv4 addresses"),
];

/// Sorts, and joins what touches.
pub(super) fn joined(mut ports: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ports.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ports.len());
    for (first, last) in ports {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            Some(_) | None => joined.push((first, last)),
        }
    }
    joined
}

/// The ports of all `entries` that contain `net` and lie within `bounds`.
fn ports_of(entries: &[UdpRange], net: &IpNet, bounds: Option<&IpNet>) -> Vec<(u16, u16)> {
    let counts = |entry: &&UdpRange| {
        entry.net.contains(net) && bounds.is_none_or(|bounds| bounds.contains(&entry.net))
    };
    joined(entries.iter().filter(counts).flat_map(|entry| entry.ports.iter().copied()).collect())
}

/// What the kernel is told of `entries` on this host. Sorted; a range stands in it once.
pub(super) fn effective(entries: &[UdpRange], host: &Facts) -> Vec<UdpRange> {
    let nat64 = || host.nat64().iter().copied().map(IpNet::V6);
    let opens = |net: &IpNet| !nat64().any(|closed| closed.contains(net));
    let entries: Vec<UdpRange> = entries.iter().filter(|entry| opens(&entry.net)).cloned().collect();

    let mut told: BTreeMap<IpNet, Vec<(u16, u16)>> = BTreeMap::new();
    for entry in &entries {
        told.insert(entry.net, ports_of(&entries, &entry.net, None));
    }
    let around = |net: &IpNet| entries.iter().any(|entry| entry.net.contains(net) && entry.net != *net);
    for closed in CLOSED.iter().map(|(net, _)| *net).chain(nat64()) {
        if around(&closed) {
            told.insert(closed, Vec::new());
        }
    }
    for (ip, bounds) in address::metadata() {
        let net = IpNet::from(ip);
        if around(&net) {
            told.insert(net, ports_of(&entries, &net, Some(&bounds)));
        }
    }
    // An IPv4 range is looked up as what it is mapped to, which is within ::/0 to ::/95.
    let mapped = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));
    let all_of_v4 = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
    if around(&mapped) {
        told.entry(all_of_v4).or_default();
    }
    told.into_iter().map(|(net, ports)| UdpRange { net, ports }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::HostFacts;

    fn entries(rows: &[(&str, &[(u16, u16)])]) -> Vec<UdpRange> {
        rows.iter()
            .map(|(net, ports)| UdpRange { net: net.parse().unwrap(), ports: ports.to_vec() })
            .collect()
    }

    fn shown(ranges: &[UdpRange]) -> Vec<String> {
        ranges
            .iter()
            .map(|range| {
                let ports: Vec<String> =
                    range.ports.iter().map(|(first, last)| format!("{first}-{last}")).collect();
                format!("{} {}", range.net, ports.join(","))
            })
            .collect()
    }

    #[test]
    fn ports_are_joined() {
        assert_eq!(joined(vec![(7, 9), (1, 2), (3, 3), (8, 20)]), [(1, 3), (7, 20)]);
        assert_eq!(joined(vec![(65535, 65535), (65000, 65535), (1, 1)]), [(1, 1), (65000, 65535)]);
    }

    /// The most specific range is the only one that the kernel asks, so it has what is around it.
    #[test]
    fn entries_add_up() {
        let entries = entries(&[
            ("10.0.0.0/8", &[(5000, 5000)]),
            ("10.1.0.0/16", &[(6000, 6010)]),
            ("2001:db8::/32", &[(1, 2)]),
        ]);
        assert_eq!(
            shown(&effective(&entries, &Facts::default())),
            ["10.0.0.0/8 5000-5000", "10.1.0.0/16 5000-5000,6000-6010", "2001:db8::/32 1-2"]
        );
    }

    #[test]
    fn metadata_needs_an_entry_within_its_range() {
        let told = |rows: &[(&str, &[(u16, u16)])], net: &str| {
            let net: IpNet = net.parse().unwrap();
            let ranges = effective(&entries(rows), &Facts::default());
            ranges.into_iter().find(|range| range.net == net).map(|range| range.ports)
        };
        let metadata = "169.254.169.254/32";
        assert_eq!(told(&[("0.0.0.0/0", &[(9, 9)])], metadata), Some(vec![]));
        assert_eq!(told(&[("0.0.0.0/0", &[(9, 9)])], "168.63.129.16/32"), Some(vec![]));
        assert_eq!(told(&[("169.254.0.0/16", &[(9, 9)])], metadata), Some(vec![(9, 9)]));
        assert_eq!(told(&[(metadata, &[(9, 9)])], metadata), Some(vec![(9, 9)]));
        let both: &[(&str, &[(u16, u16)])] = &[("0.0.0.0/0", &[(1, 1)]), (metadata, &[(9, 9)])];
        assert_eq!(told(both, metadata), Some(vec![(9, 9)]), "what is wider does not count for it");
        assert_eq!(told(&[("10.0.0.0/8", &[(9, 9)])], metadata), None, "nothing is around it");
        assert_eq!(told(&[("fd00::/8", &[(9, 9)])], "fd00:ec2::254/128"), Some(vec![]));
    }

    #[test]
    fn wide_entries_have_holes() {
        let facts = HostFacts { nat64: vec!["2001:db8:64::/96".parse().unwrap()], ..HostFacts::default() };
        let wide = entries(&[("::/0", &[(9, 9)])]);
        let told = effective(&wide, &Facts::of(&facts));
        for hole in [
            "::/96",
            "0.0.0.0/0",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2002::/16",
            "2001::/32",
            "ff00::/8",
            "::ffff:0:0:0/96",
            "2001:db8:64::/96",
            "fd00:ec2::254/128",
        ] {
            let net: IpNet = hole.parse().unwrap();
            let found = told.iter().find(|range| range.net == net);
            assert!(found.is_some_and(|range| range.ports.is_empty()), "{hole}: {found:?}");
        }
        // An entry for IPv4 is none of IPv6's holes, and has its own.
        let both = entries(&[("::/0", &[(9, 9)]), ("0.0.0.0/0", &[(7, 7)])]);
        let told = shown(&effective(&both, &Facts::default()));
        assert!(told.contains(&"0.0.0.0/0 7-7".to_owned()), "{told:?}");
        assert!(told.contains(&"127.0.0.0/8 ".to_owned()), "{told:?}");
        assert!(told.contains(&"224.0.0.0/4 ".to_owned()), "{told:?}");
    }

    #[test]
    fn within_a_translators_prefix_nothing_is_open() {
        let facts = HostFacts { nat64: vec!["2001:db8:64::/96".parse().unwrap()], ..HostFacts::default() };
        let within = entries(&[("2001:db8:64::a9fe:a9fe/128", &[(9, 9)])]);
        assert_eq!(effective(&within, &Facts::of(&facts)), []);
        assert_eq!(effective(&within, &Facts::default()).len(), 1);
    }
}
