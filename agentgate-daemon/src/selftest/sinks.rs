//! Servers that nobody under guard may reach, and the allowed origin, which tells whom it was meant for.
//!
//! One set stands in the world, one on the host's own loopback and interface. All read what comes, up to
//! a cap and a deadline, note it, and answer so that an attempt can tell that it got through.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    evidence::{Evidence, tokens},
    orders::{ALLOWED, ALLOWED_V4, ALLOWED_V6, SINK},
    zone,
};

/// How long a client may take to say something.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much of it is read, in bytes.
const CAP: usize = 16 << 10;

/// Where a set of sinks stands.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Out in the world: the wire's capture has seen the packets; here it counts what they mean.
    World(Arc<ServerConfig>),
    /// On the host: a connection alone is too much.
    Host,
}

/// Serves TCP until the runtime ends.
pub(super) async fn stream(listener: TcpListener, place: Place, evidence: Evidence) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (place, evidence) = (place.clone(), evidence.clone());
        tokio::spawn(async move {
            // A client that breaks off has been seen all the same.
            let _ended = timeout(PATIENCE * 2, converse(stream, place, &evidence)).await;
        });
    }
}

async fn converse(stream: TcpStream, place: Place, evidence: &Evidence) -> io::Result<()> {
    let local = stream.local_addr()?;
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    match place {
        Place::Host => {
            evidence.see(format!("connection to {local} on the host"), None, b"", false);
            let said = exchange(stream).await?;
            evidence.see(format!("bytes to {local} on the host"), None, &said, false);
        }
        Place::World(tls) => {
            if local.port() == 53 {
                return names(stream).await;
            }
            let mut first = [0; 1];
            let peeked = timeout(PATIENCE, stream.peek(&mut first)).await??;
            // The first byte of a TLS record that holds a handshake (RFC 8446 5.1).
            let said = if peeked == 1 && first == [22] {
                exchange(TlsAcceptor::from(tls).accept(stream).await?).await?
            } else {
                exchange(stream).await?
            };
            judge(local.ip(), &said, evidence);
        }
    }
    Ok(())
}

/// At the allowed origin the name in the request decides; elsewhere everything is too much.
fn judge(at: IpAddr, said: &[u8], evidence: &Evidence) {
    let origin = [IpAddr::V4(ALLOWED_V4), ALLOWED_V6.into()].contains(&at);
    if origin && host_of(said).is_some_and(|host| host == ALLOWED) {
        return;
    }
    if !said.is_empty() && !tokens(said).is_empty() {
        let host = host_of(said).unwrap_or_else(|| "nobody".to_owned());
        evidence.see(format!("request at {at} that is meant for {host}"), Some(at), said, false);
    }
}

/// The host of an HTTP/1 request, without its port: of the target where that is absolute.
fn host_of(request: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let mut lines = text.lines();
    let target = lines.next()?.split(' ').nth(1)?;
    let absolute = target.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let header = lines.find_map(|line| line.strip_prefix("host:"));
    let host = absolute.or(header)?.trim();
    Some(host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned())
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while said.len() < CAP && !said.windows(4).any(|window| window == b"\r\n\r\n") {
        match timeout(PATIENCE, stream.read(&mut part)).await {
            Ok(Ok(length)) if length > 0 => said.extend(part.get(..length).unwrap_or_default()),
            Ok(_) | Err(_) => break,
        }
    }
    let body = format!(
        "HTTP/1.1 200 OK\r\nx-seen-by: {SINK}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{SINK}",
        SINK.len()
    );
    // Whether the answer arrives is not what is tested.
    let _gone = stream.write_all(body.as_bytes()).await;
    let _gone = stream.shutdown().await;
    Ok(said)
}

async fn names(mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = timeout(PATIENCE, stream.read_u16()).await??;
        let mut message = vec![0; usize::from(length)];
        timeout(PATIENCE, stream.read_exact(&mut message)).await??;
        let Some(reply) = zone::answer(&message) else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat()).await?;
    }
}

/// Answers DNS over UDP until the runtime ends.
pub(super) async fn name_server(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        if let Some(reply) = zone::answer(buffer.get(..length).unwrap_or_default()) {
            // A peer that is gone misses nothing.
            let _gone = socket.send_to(&reply, peer).await;
        }
    }
}

/// Notes datagrams on the host until the runtime ends.
pub(super) async fn datagrams(socket: UdpSocket, evidence: Evidence) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let local = socket.local_addr()?;
    loop {
        let (length, _) = socket.recv_from(&mut buffer).await?;
        let said = buffer.get(..length).unwrap_or_default();
        evidence.see(format!("datagram to {local} on the host"), None, said, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_request_is_meant_for() {
        let rows = [
            ("GET / HTTP/1.1\r\nHost: Allowed.example:443\r\n\r\n", Some("allowed.example")),
            ("GET http://a.example/ HTTP/1.1\r\nhost: b.example\r\n\r\n", Some("a.example")),
            ("GET / HTTP/1.1\r\naccept: *\r\n\r\n", None),
            ("", None),
        ];
        for (text, expect) in rows {
            assert_eq!(host_of(text.as_bytes()).as_deref(), expect, "{text:?}");
        }
    }

    #[test]
    fn the_allowed_origin_is_no_leak_and_another_name_at_it_is() {
        let evidence = Evidence::default();
        let token = "agst0123456789abcdef";
        let request = |host: &str| format!("GET /{token} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        judge(ALLOWED_V4.into(), request(ALLOWED).as_bytes(), &evidence);
        assert!(evidence.of(0, token).is_empty());
        judge(ALLOWED_V4.into(), request("evil.example").as_bytes(), &evidence);
        assert_eq!(evidence.of(0, token).len(), 1);
    }
}
