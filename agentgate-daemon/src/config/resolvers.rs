//! Addresses of resolvers: from the settings, or from `/etc/resolv.conf`.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Where DNS is served unless a port is written.
const DNS_PORT: u16 = 53;
/// Most resolvers that are asked: glibc's own limit is 3.
pub(super) const MOST: usize = 8;
/// Largest resolv.conf that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// `address` or `address:port`, IPv6 in brackets where a port follows.
fn parse(text: &str) -> Option<SocketAddr> {
    let address = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => SocketAddr::new(ip, DNS_PORT),
        (Err(_), Ok(address)) => address,
        (Err(_), Err(_)) => return None,
    };
    let usable = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
    usable.then_some(address)
}

/// The nameservers of a resolv.conf; lines that are none are passed over, as libc does.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten()
        })
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .map(|ip| SocketAddr::new(ip, DNS_PORT))
        .take(MOST)
        .collect()
}

/// The resolvers of this host, at least one, or why there is none.
pub(super) fn of_host(path: &Path) -> Result<Vec<SocketAddr>, String> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|e| format!("no resolver is set, and {}: {e}", path.display()))?;
    let found = nameservers(&text);
    if found.is_empty() {
        return Err(format!("no resolver is set, and {} names none", path.display()));
    }
    Ok(found)
}

/// Resolvers as strings in the settings.
pub(super) mod written {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::config) fn serialize<S: Serializer>(
        resolvers: &[SocketAddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        resolvers.serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SocketAddr>, D::Error> {
        let texts: Vec<String> = Vec::deserialize(deserializer)?;
        if texts.len() > super::MOST {
            return Err(D::Error::custom(format!("at most {} resolvers are asked", super::MOST)));
        }
        texts
            .iter()
            .map(|text| {
                super::parse(text).ok_or_else(|| {
                    let shown: String = text.chars().take(80).collect();
                    D::Error::custom(format!(
                        "{shown:?} is not a resolver: write an address, or [address]:port for IPv6"
                    ))
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_resolvers() {
        for (text, expect) in [
            ("198.51.100.53", Some("198.51.100.53:53")),
            ("198.51.100.53:5353", Some("198.51.100.53:5353")),
            ("2001:db8::53", Some("[2001:db8::53]:53")),
            ("[2001:db8::53]:5353", Some("[2001:db8::53]:5353")),
            ("127.0.0.53", Some("127.0.0.53:53")),
            ("198.51.100.53:0", None),
            ("0.0.0.0", None),
            ("::", None),
            ("224.0.0.251", None),
            ("dns.example", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(|a| a.to_string()).as_deref(), expect, "{text:?}");
        }
    }

    #[test]
    fn host_resolvers() {
        let text = "# made by hand\nsearch example.com\nnameserver 198.51.100.53\n nameserver\t2001:db8::53 # x\n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver 0.0.0.0\nnameservers 192.0.2.1\n";
        let found: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["198.51.100.53:53", "[2001:db8::53]:53"]);
        assert_eq!(nameservers(&"nameserver 192.0.2.1\n".repeat(100)).len(), MOST);

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        assert!(of_host(&file).unwrap_err().contains("no resolver is set"));
        std::fs::write(&file, "options rotate\n").unwrap();
        assert!(of_host(&file).unwrap_err().contains("names none"));
        std::fs::write(&file, text).unwrap();
        assert_eq!(of_host(&file).unwrap().len(), 2);
    }
}
