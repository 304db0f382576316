//! Answers questions for addresses: one address for every name below `example`, none elsewhere.

use std::net::IpAddr;

use tokio::net::UdpSocket;

const HEADER: usize = 12;
const A: u16 = 1;
const NXDOMAIN: u8 = 3;
/// A minute, as many names have it: how often a peer asks is its own affair.
const TTL: [u8; 4] = [0, 0, 0, 60];

pub(super) async fn serve(socket: UdpSocket, address: IpAddr) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = buffer.get(..length).and_then(|question| answer(question, address)) {
            // Who asked may be gone.
            let _sent = socket.send_to(&answer, peer).await;
        }
    }
}

/// The answer to one question, `None` where there is no question to be read.
fn answer(message: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let header = message.get(..HEADER)?;
    let mut at = HEADER;
    let mut labels: Vec<&[u8]> = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(message.get(at..at + length)?);
        at += length;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    let end = at + 4;
    let known = labels.last().is_some_and(|label| label.eq_ignore_ascii_case(b"example"));
    let v4 = match address {
        IpAddr::V4(v4) if known && kind == A => Some(v4),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let mut out = Vec::with_capacity(end + 16);
    out.extend_from_slice(header.get(..2)?);
    // A response, authoritative, with recursion as it was wished for.
    out.push(0x84 | (header.get(2)? & 1));
    out.push(0x80 | if known { 0 } else { NXDOMAIN });
    out.extend_from_slice(&[0, 1, 0, u8::from(v4.is_some()), 0, 0, 0, 0]);
    out.extend_from_slice(message.get(HEADER..end)?);
    if let Some(v4) = v4 {
        // The name of the question, class IN.
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        out.extend_from_slice(&TTL);
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&v4.octets());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.extend_from_slice(&[0, 0, kind as u8, 0, 1]);
        message
    }

    #[test]
    fn knows_one_address_below_example() {
        let address = IpAddr::from([192, 0, 2, 10]);
        let told = answer(&question("a.bench.example", 1), address).unwrap();
        assert_eq!(told[..4], [7, 9, 0x85, 0x80]);
        assert!(told.ends_with(&[0, 4, 192, 0, 2, 10]));
        let none = answer(&question("bench.example", 28), address).unwrap();
        assert_eq!((none[3], none[7]), (0x80, 0), "no IPv6 address");
        assert_eq!(answer(&question("ipv4only.arpa", 1), address).unwrap()[3], 0x83);
        assert_eq!(answer(&[0; 5], address), None);
    }
}
