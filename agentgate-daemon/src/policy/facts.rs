//! What the host says of itself, and what policy makes of it: its own addresses are loopback under
//! another name, and its NAT64 prefixes lead to the IPv4 addresses within.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv6Net;

/// Facts of the host, found by `host` and handed to every policy that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Addresses of the host's own interfaces, loopback's or not, link-local ones without their scope.
    pub addresses: Vec<IpAddr>,
    /// Its NAT64 prefixes besides 64:ff9b::/96; a length that RFC 6052 2.2 does not have counts for
    /// nothing.
    pub nat64: Vec<Ipv6Net>,
}

/// The same as it is looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    own: BTreeSet<IpAddr>,
    nat64: Vec<Ipv6Net>,
}

/// The prefix of local use (RFC 8215): what lies there is only where a translator takes it.
pub(super) const LOCAL_NAT64: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48);

impl Facts {
    pub(super) fn of(facts: &HostFacts) -> Self {
        let known = |net: &&Ipv6Net| embedded_in(**net, net.network()).is_some();
        Self {
            own: facts.addresses.iter().map(IpAddr::to_canonical).collect(),
            nat64: facts.nat64.iter().filter(known).map(Ipv6Net::trunc).collect(),
        }
    }

    /// Whether this is an address of the host's own.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip)
    }

    /// The IPv4 addresses that the host's translators would read out of `ip`: one for each prefix.
    pub(super) fn translated(&self, ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
        self.nat64.iter().filter_map(move |net| embedded_in(*net, ip))
    }

    /// The host's NAT64 prefixes.
    pub(super) fn nat64(&self) -> &[Ipv6Net] {
        &self.nat64
    }
}

/// The IPv4 address in `ip` by the format of RFC 6052 2.2: it follows the prefix, and skips the octet
/// of bits 64 to 71. What stands in that octet and after the address is not looked at, because
/// translators differ in whether they do.
///
/// `None` where `ip` is not below the prefix, or the prefix has none of the six lengths.
#[must_use]
pub fn embedded_in(prefix: Ipv6Net, ip: Ipv6Addr) -> Option<Ipv4Addr> {
    if !prefix.contains(&ip) {
        return None;
    }
    let o = ip.octets();
    let at = |[a, b, c, d]: [usize; 4]| Some(Ipv4Addr::new(*o.get(a)?, *o.get(b)?, *o.get(c)?, *o.get(d)?));
    match prefix.prefix_len() {
        32 => at([4, 5, 6, 7]),
        40 => at([5, 6, 7, 9]),
        48 => at([6, 7, 9, 10]),
        56 => at([7, 9, 10, 11]),
        64 => at([9, 10, 11, 12]),
        96 => at([12, 13, 14, 15]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 6052 2.4, and what skips the octet.
    #[test]
    fn addresses_are_read_at_every_length() {
        for (prefix, ip, expect) in [
            ("2001:db8::/32", "2001:db8:c000:221::", Some("192.0.2.33")),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::", Some("192.0.2.33")),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::", Some("192.0.2.33")),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::", Some("192.0.2.33")),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::", Some("192.0.2.33")),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33", Some("192.0.2.33")),
            ("64:ff9b:1::/48", "64:ff9b:1:7f00:0:100::", Some("127.0.0.1")),
            // Translators differ in whether they mind the octet and the suffix.
            ("2001:db8:122:344::/64", "2001:db8:122:344:ffc0:2:21ff:ffff", Some("192.0.2.33")),
            ("2001:db8:122:344::/64", "2001:db8:122:345:c0:2:2100::", None),
            ("2001:db8::/33", "2001:db8:c000:221::", None),
            ("2001:db8::/128", "2001:db8::", None),
            ("::/0", "2001:db8::", None),
        ] {
            let found = embedded_in(prefix.parse().unwrap(), ip.parse().unwrap());
            assert_eq!(found.map(|ip| ip.to_string()).as_deref(), expect, "{prefix} {ip}");
        }
    }

    #[test]
    fn prefixes_of_other_lengths_are_left_out() {
        let nat64 = ["2001:db8:1::/96", "2001:db8:2::/97", "::/0"].map(|net| net.parse().unwrap()).to_vec();
        let facts = Facts::of(&HostFacts { nat64, ..HostFacts::default() });
        assert_eq!(facts.nat64().iter().map(ToString::to_string).collect::<Vec<_>>(), ["2001:db8:1::/96"]);
    }
}
