//! Which NAT64 prefixes the network has (RFC 7050): those at which a resolver with DNS64 puts the
//! addresses of `ipv4only.arpa`, which has none of its own in IPv6.
//!
//! The answer is not signed, so policy lets it make addresses worse and never better.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::Ipv6Net;
use tokio::time::timeout;

use crate::{
    forward::{ForwardError, Resolver},
    model::{Authority, Flag, Host, Refusal},
    policy::{embedded_in, permit::AddressRule},
};

/// RFC 7050 2.1.
const NAME: &str = "ipv4only.arpa";
/// RFC 7050 2.2.
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// RFC 6052 2.2.
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// A resolver that is silent for so long is asked again later.
const DEADLINE: Duration = Duration::from_secs(2);
/// Prefixes that are kept: networks have one, seldom two.
const MOST: usize = 8;

/// The network's prefixes; `None` where nobody could say.
pub(super) async fn discover(resolver: &Resolver) -> Option<Vec<Ipv6Net>> {
    let authority = Authority { host: Host::parse(NAME).ok()?, port: 0 };
    match timeout(DEADLINE, resolver.addresses(&authority, &Every)).await {
        Ok(Ok(found)) => Some(prefixes(found.iter().map(|address| address.ip()))),
        Ok(Err(ForwardError::NoSuchName(_))) => Some(Vec::new()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "NAT64 prefixes are not known");
            None
        }
        Err(_elapsed) => {
            tracing::debug!(deadline = ?DEADLINE, "NAT64 prefixes are not known: the resolver is silent");
            None
        }
    }
}

/// The prefixes of the addresses that hold one of the well-known ones. Where it stands at more than one
/// place all count: too many only make more addresses worse.
fn prefixes(found: impl Iterator<Item = IpAddr>) -> Vec<Ipv6Net> {
    let mut prefixes: Vec<Ipv6Net> = found.filter_map(v6).flat_map(prefixes_of).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.truncate(MOST);
    prefixes
}

fn v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}

fn prefixes_of(ip: Ipv6Addr) -> impl Iterator<Item = Ipv6Net> {
    LENGTHS.into_iter().filter_map(move |length| {
        let net = Ipv6Net::new(ip, length).ok()?.trunc();
        embedded_in(net, ip).filter(|v4| WELL_KNOWN.contains(v4)).map(|_| net)
    })
}

/// Nothing is dialled, so every address may be told.
#[derive(Debug)]
struct Every;

impl AddressRule for Every {
    fn admits(&self, _ip: IpAddr, _port: u16) -> Result<(), Refusal> {
        Ok(())
    }

    fn flags(&self, _ip: IpAddr, _port: u16) -> Vec<Flag> {
        Vec::new()
    }

    fn is_this_host(&self, _ip: IpAddr) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_found_at_every_length() {
        for (ips, expect) in [
            (&["192.0.0.170", "192.0.0.171"][..], &[][..]),
            (&["2001:db8::1"], &[]),
            (&["64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171"], &["64:ff9b::/96"]),
            (&["2001:db8:122:344::c000:aa"], &["2001:db8:122:344::/96"]),
            (&["2001:db8:122:344:c0:0:aa00::"], &["2001:db8:122:344::/64"]),
            (&["2001:db8:122:3c0:0:aa::"], &["2001:db8:122:300::/56"]),
            (&["2001:db8:122:c000:0:aa00::"], &["2001:db8:122::/48"]),
            (&["2001:db8:1c0:0:aa::"], &["2001:db8:100::/40"]),
            (&["2001:db8:c000:aa::"], &["2001:db8::/32"]),
            (&["2001:db8:c000:aa::", "64:ff9b::c000:ab"], &["64:ff9b::/96", "2001:db8::/32"]),
        ] {
            let found = prefixes(ips.iter().map(|ip| ip.parse().unwrap()));
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expect, "{ips:?}");
        }
        let many = (0..100_u16).map(|n| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0xc000, 0xaa)));
        assert_eq!(prefixes(many).len(), MOST);
    }
}
