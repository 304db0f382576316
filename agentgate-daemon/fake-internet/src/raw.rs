//! An origin whose HTTP/1.1 answers are bytes by hand, for what a well-mannered server's library never
//! sends: early hints, mixed case, chunk extensions, an end by closing.

use std::{io, sync::Arc};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    journal::{Journal, Request},
    routes::digest,
};

/// Largest head that is read.
const HEAD: usize = 64 << 10;
/// Largest body.
const BODY: usize = 1 << 20;

/// Path and answer; one without a length ends by closing.
const ANSWERS: &[(&str, &[u8])] = &[
    (
        "/hints",
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n\
          HTTP/1.1 103 Early Hints\r\nlink: </script.js>; rel=preload\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nafter\n",
    ),
    (
        "/case",
        b"HTTP/1.1 299 Fine By Me!\r\nX-lOwEr: 1\r\nSet-Cookie: a=1\r\nX-Between:no space\r\n\
          set-cookie: b=2\r\nSERVER:  two spaces\r\nX-Empty:\r\nContent-Length: 3\r\n\r\nok\n",
    ),
    (
        "/chunks",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, x-More\r\n\r\n\
          3;name=value\r\nabc\r\n0A;q=\"x y\"\r\n0123456789\r\n0;last\r\nX-Sum: 13\r\nx-More: yes\r\n\r\n",
    ),
    ("/close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nuntil the end\n"),
    ("/old", b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nof another time\n"),
    ("/empty", b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n"),
    ("/unchanged", b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 700\r\n\r\n"),
    ("/wordless", b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nok\n"),
    ("/latin", b"HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nContent-Length: 3\r\n\r\nok\n"),
];

pub(crate) async fn serve(
    listener: TcpListener,
    site: &'static str,
    port: u16,
    tls: Arc<ServerConfig>,
    journal: Arc<Journal>,
) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, peer)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (tls, journal) = (Arc::clone(&tls), Arc::clone(&journal));
        connections.spawn(async move {
            let Ok(local) = tcp.local_addr() else { return };
            let id = journal.connection(site, port, peer, local);
            if let Err(error) = converse(tcp, tls, site, port, id, &journal).await {
                journal.update_connection(id, |c| c.error = Some(error.to_string()));
            }
        });
    }
}

async fn converse(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
    site: &'static str,
    port: u16,
    connection: u64,
    journal: &Journal,
) -> io::Result<()> {
    let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp).await?;
    let offered = begun.client_hello().alpn().into_iter().flatten();
    let offered: Vec<String> = offered.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let mut stream = begun.into_stream(tls).await?;
    let session = stream.get_ref().1;
    let alpn = session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
    let sni = session.server_name().map(str::to_owned);
    journal.update_connection(connection, |c| (c.sni, c.offered, c.alpn) = (sni, offered, alpn));
    let mut read = Vec::new();
    while let Some(request) = receive(&mut stream, &mut read, site, port, connection).await? {
        let path = request.target.clone();
        let id = journal.request(request);
        let known = ANSWERS.iter().find(|(known, _)| *known == path);
        let answer =
            known.map_or(&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], |(_, bytes)| bytes);
        let sent = stream.write_all(answer).await;
        let sent = if sent.is_ok() { stream.flush().await } else { sent };
        journal.update_request(id, |r| (r.answered, r.aborted) = (true, sent.is_err()));
        sent?;
        if ["/close", "/old"].contains(&path.as_str()) {
            break;
        }
    }
    stream.shutdown().await
}

/// The next request; `None` when the peer has no more.
async fn receive(
    stream: &mut TlsStream<TcpStream>,
    read: &mut Vec<u8>,
    site: &str,
    port: u16,
    connection: u64,
) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() > HEAD {
            return Err(io::Error::other("a head too large"));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = read.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0).min(BODY);
    while read.len() < length {
        if stream.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
    let body: Vec<u8> = read.drain(..length).collect();
    Ok(Some(Request {
        id: 0,
        connection,
        site: site.to_owned(),
        port,
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        version: words.next().unwrap_or_default(),
        headers,
        raw_head: head,
        body_len: body.len() as u64,
        body_sha256: digest(&body),
        body,
        trailers: Vec::new(),
        complete: true,
        answered: false,
        aborted: false,
    }))
}
