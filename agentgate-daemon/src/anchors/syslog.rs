//! Checkpoints as syslog messages (RFC 5424), one datagram each.

use std::io;

use tokio::net::{UdpSocket, UnixDatagram, lookup_host};

use crate::{config::Syslog, model::Timestamp};

/// Facility log audit (13), severity notice (5).
const PRIORITY: u8 = 13 * 8 + 5;
/// What every receiver takes whole (RFC 5424, 6.1; RFC 5426, 3.2).
const LONGEST: usize = 2048;

/// Sends one message. That somebody heard it is not known, as with all of syslog over datagrams.
pub(super) async fn send(to: &Syslog, line: &str) -> io::Result<()> {
    let message = message(line, Timestamp::now(), std::process::id());
    if message.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "longer than a syslog message may be"));
    }
    let sent = match to {
        Syslog::Local(path) => UnixDatagram::unbound()?.send_to(message.as_bytes(), path).await?,
        Syslog::Udp(place) => {
            let to = lookup_host(place).await?.next();
            let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"))?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            // Connected, so that an answer that nobody listens is heard by the next one at least.
            socket.connect(to).await?;
            socket.send(message.as_bytes()).await?
        }
    };
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn message(line: &str, time: Timestamp, pid: u32) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A name of printable ASCII without spaces, or the sign for none.
    let host = if host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()) { "-" } else { &host };
    let time =
        jiff::Timestamp::from_microsecond(time.0).map_or_else(|_| "-".to_owned(), |t| format!("{t:.6}"));
    format!("<{PRIORITY}>1 {time} {host} agentgated {pid} checkpoint - {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_fields_of_rfc_5424() {
        let message = message("{\"a\":1}", Timestamp(1_795_192_800_123_456), 7);
        let fields: Vec<&str> = message.splitn(8, ' ').collect();
        assert_eq!((fields[0], fields[1]), ("<109>1", "2026-11-20T16:40:00.123456Z"));
        assert_eq!(fields[3..], ["agentgated", "7", "checkpoint", "-", "{\"a\":1}"]);
    }
}
