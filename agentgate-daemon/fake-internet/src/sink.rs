//! Sinks: they take whatever comes, count it and answer nothing.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::journal::{Datagram, Journal};

pub(crate) async fn count_datagrams(socket: UdpSocket, site: &'static str, port: u16, journal: Arc<Journal>) {
    let mut buffer = vec![0; 65_536];
    // A receive error on an unconnected UDP socket concerns one datagram, not the socket.
    loop {
        if let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
            journal.datagram(Datagram { site: site.to_owned(), port, peer, len });
        }
    }
}

pub(crate) async fn swallow_streams(
    listener: TcpListener,
    site: &'static str,
    port: u16,
    journal: Arc<Journal>,
) {
    let mut streams = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        while streams.try_join_next().is_some() {}
        let Ok(local) = stream.local_addr() else { continue };
        let id = journal.connection(site, port, peer, local);
        streams.spawn(swallow(stream, id, Arc::clone(&journal)));
    }
}

async fn swallow(mut stream: TcpStream, id: u64, journal: Arc<Journal>) {
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return,
            Ok(len) => journal.update_connection(id, |c| c.received += len as u64),
            Err(error) => {
                journal.update_connection(id, |c| c.error = Some(error.to_string()));
                return;
            }
        }
    }
}

/// What a server that speaks first says.
pub const GREETING: &str = "SSH-2.0-fake-internet";

pub(crate) async fn greet(listener: TcpListener, site: &'static str, port: u16, journal: Arc<Journal>) {
    let mut streams = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        while streams.try_join_next().is_some() {}
        let Ok(local) = stream.local_addr() else { continue };
        let id = journal.connection(site, port, peer, local);
        let journal = Arc::clone(&journal);
        streams.spawn(async move {
            let ended = match greeted(stream).await {
                Ok(received) => (received, None),
                Err(error) => (0, Some(error.to_string())),
            };
            journal.update_connection(id, |c| (c.received, c.error) = ended);
        });
    }
}

/// How many bytes the peer said.
async fn greeted(mut stream: TcpStream) -> std::io::Result<u64> {
    stream.write_all(format!("{GREETING}\r\n").as_bytes()).await?;
    let mut buffer = vec![0; 65_536];
    let mut received = 0;
    for _ in 0..2 {
        received += stream.read(&mut buffer).await? as u64;
    }
    Ok(received)
}
