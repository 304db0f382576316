//! The world's name server: enough of RFC 1035 to answer the daemon, and to answer names that lie.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::orders::{ALLOWED, ALLOWED_V4, ALLOWED_V6, FORBIDDEN, TUNNEL, forbidden_v4, forbidden_v6};

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;
/// Response flags: an answer, authoritative, recursion asked for and available.
const ANSWER: u16 = 0x8580;
/// The response code NXDOMAIN.
const NO_SUCH_NAME: u16 = 3;

/// Names below [`TUNNEL`], which policy allows, that lead where nobody may go.
const REBINDING: [(&str, IpAddr); 4] = [
    ("loopback", IpAddr::V4(Ipv4Addr::LOCALHOST)),
    ("metadata", IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))),
    ("host", IpAddr::V4(super::orders::HOST_V4)),
    ("mapped", IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xa9fe, 0xa9fe))),
];

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// In lower case, without the last dot.
    pub(super) name: String,
    pub(super) kind: u16,
}

/// A question message: one question, recursion desired.
pub(super) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes().get(..63).unwrap_or(label.as_bytes());
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label);
    }
    message.push(0);
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    message
}

/// Reads the question of a message; gives it with its length in the message.
pub(super) fn read(message: &[u8]) -> Option<(Asked, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // A compressed name in a question, or one without an end, is none of ours.
        if length > 63 || labels.len() > 127 {
            return None;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    Some((Asked { name: labels.join("."), kind }, at + 4 - 12))
}

/// The answer to a message; `None` where it deserves none.
pub(super) fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let (asked, length) = read(message)?;
    let found = lookup(&asked.name);
    let data: Vec<(u16, Vec<u8>)> = match (&found, asked.kind) {
        (Some(ips), A | AAAA) => ips.iter().filter_map(|ip| address(*ip, asked.kind)).collect(),
        (Some(_), TXT) => vec![(TXT, b"\x06answer".to_vec())],
        (Some(_) | None, _) => Vec::new(),
    };
    let flags = if found.is_some() { ANSWER } else { ANSWER | NO_SUCH_NAME };
    let count = u16::try_from(data.len()).ok()?;
    let mut reply = message.get(..2)?.to_vec();
    reply.extend([flags, 1, count, 0, 0].map(u16::to_be_bytes).concat());
    reply.extend(message.get(12..12 + length)?);
    for (kind, bytes) in data {
        // A pointer to the question's name, class IN, one second to live.
        reply.extend([0xc00c, kind, 1, 0, 1].map(u16::to_be_bytes).concat());
        reply.extend(u16::try_from(bytes.len()).ok()?.to_be_bytes());
        reply.extend(bytes);
    }
    Some(reply)
}

fn address(ip: IpAddr, wanted: u16) -> Option<(u16, Vec<u8>)> {
    match ip {
        IpAddr::V4(v4) => (wanted == A).then(|| (A, v4.octets().to_vec())),
        IpAddr::V6(v6) => (wanted == AAAA).then(|| (AAAA, v6.octets().to_vec())),
    }
}

fn lookup(name: &str) -> Option<Vec<IpAddr>> {
    if name == ALLOWED {
        return Some(vec![ALLOWED_V4.into(), ALLOWED_V6.into()]);
    }
    if name == FORBIDDEN || name.strip_suffix(FORBIDDEN).is_some_and(|rest| rest.ends_with('.')) {
        return Some(vec![forbidden_v4(0).into(), forbidden_v6(0).into()]);
    }
    if name == "metadata.google.internal" {
        return Some(vec![Ipv4Addr::new(169, 254, 169, 254).into()]);
    }
    let below = name.strip_suffix(TUNNEL)?.strip_suffix('.')?;
    let rebound =
        REBINDING.iter().find(|(label, _)| below == *label || below.ends_with(&format!(".{label}")));
    Some(rebound.map_or_else(|| vec![ALLOWED_V4.into()], |(_, ip)| vec![*ip]))
}

/// The addresses in a reply, for an attempt that asked.
pub(super) fn addresses(reply: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let Some((_, length)) = read(reply) else { return found };
    let count = reply.get(6..8).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
    let mut at = 12 + length;
    for _ in 0..count {
        let Some(next) = record(reply, at, &mut found) else { break };
        at = next;
    }
    found
}

fn record(reply: &[u8], at: usize, found: &mut Vec<IpAddr>) -> Option<usize> {
    let mut at = at;
    loop {
        let length = usize::from(*reply.get(at)?);
        if length >= 0xc0 {
            at += 2;
            break;
        }
        at += 1 + length;
        if length == 0 {
            break;
        }
    }
    let size = usize::from(u16::from_be_bytes(reply.get(at + 8..at + 10)?.try_into().ok()?));
    let data = reply.get(at + 10..at + 10 + size)?;
    if let Ok(v4) = <[u8; 4]>::try_from(data) {
        found.push(Ipv4Addr::from(v4).into());
    } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
        found.push(Ipv6Addr::from(v6).into());
    }
    Some(at + 10 + size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16) -> (u8, Vec<IpAddr>) {
        let reply = answer(&question(7, name, kind)).unwrap();
        assert_eq!(&reply[..2], [0, 7]);
        (reply[3] & 15, addresses(&reply))
    }

    #[test]
    fn names_lead_where_they_should() {
        assert_eq!(ask("allowed.example", A), (0, vec![ALLOWED_V4.into()]));
        assert_eq!(ask("Allowed.Example.", AAAA), (0, vec![ALLOWED_V6.into()]));
        assert_eq!(ask("x.y.forbidden.example", A).0, 0);
        assert_eq!(ask("agst.metadata.tunnel.example", A), (0, vec!["169.254.169.254".parse().unwrap()]));
        assert_eq!(ask("anything.tunnel.example", A), (0, vec![ALLOWED_V4.into()]));
        assert_eq!(ask("elsewhere.example", A), (3, vec![]));
        assert_eq!(ask("allowed.example", TXT).0, 0);
    }

    #[test]
    fn hostile_messages_have_no_answer() {
        let whole = question(1, "allowed.example", A);
        for cut in 0..whole.len() - 4 {
            assert_eq!(answer(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(answer(&[0xff; 64]), None);
        assert!(addresses(&[0xff; 64]).is_empty());
    }
}
