//! An HTTP origin: accepts, completes TLS, serves HTTP/1.1 or HTTP/2 as ALPN decided.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::LazyConfigAcceptor;

use crate::{
    heard::{Heard, Listening},
    journal::Journal,
    routes,
    wire::{Breaker, Wire},
};

/// Largest head an origin reads: far above what the gate lets through, so that the gate's own limit
/// is what a test sees.
const HEAD_LIMIT: usize = 4 << 20;
/// How long a peer may take over its handshake.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) site: &'static str,
    pub(crate) port: u16,
    /// `None`: in the clear.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) journal: Arc<Journal>,
    /// Where git's repositories are, once somebody has said so.
    pub(crate) repositories: Arc<OnceLock<PathBuf>>,
}

/// What a request handler knows of its connection.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) origin: Arc<Origin>,
    pub(crate) connection: u64,
    pub(crate) breaker: Breaker,
    pub(crate) heard: Heard,
}

pub(crate) async fn serve(listener: TcpListener, origin: Arc<Origin>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, peer)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(converse(tcp, peer, Arc::clone(&origin)));
    }
}

async fn converse(tcp: TcpStream, peer: SocketAddr, origin: Arc<Origin>) {
    let Ok(local) = tcp.local_addr() else { return };
    // Events of a stream leave one by one, so that a test of streaming sees the gate's delay only.
    let _unset = tcp.set_nodelay(true);
    let journal = Arc::clone(&origin.journal);
    let connection = journal.connection(origin.site, origin.port, peer, local);
    let (wire, breaker) = Wire::new(tcp);
    let arrival = Arrival { origin, connection, breaker, heard: Heard::default() };
    let ended = match &arrival.origin.tls {
        None => talk(wire, arrival.clone(), false).await,
        Some(config) => {
            let accepting = async {
                let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), wire).await?;
                let offered = begun.client_hello().alpn().into_iter().flatten();
                let offered = offered.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                journal.update_connection(connection, |c| c.offered = offered);
                begun.into_stream(Arc::clone(config)).await
            };
            match tokio::time::timeout(PATIENCE, accepting).await {
                Err(_) => Err("handshake not finished in time".to_owned()),
                Ok(Err(error)) => Err(format!("handshake: {error}")),
                Ok(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let alpn = session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
                    let sni = session.server_name().map(str::to_owned);
                    let h2 = alpn.as_deref() == Some("h2");
                    journal.update_connection(connection, |c| {
                        c.sni = sni;
                        c.alpn = alpn;
                    });
                    talk(stream, arrival.clone(), h2).await
                }
            }
        }
    };
    if let Err(error) = ended {
        journal.update_connection(connection, |c| c.error = Some(error));
    }
}

async fn talk<S>(stream: S, arrival: Arrival, h2: bool) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = arrival.heard.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let arrival = arrival.clone();
        async move { Ok::<_, Infallible>(routes::answer(arrival, request).await) }
    });
    let ended = if h2 {
        conn::http2::Builder::new(TokioExecutor::new())
            .enable_connect_protocol()
            .max_header_list_size(u32::try_from(HEAD_LIMIT).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(stream), service)
            .await
    } else {
        conn::http1::Builder::new()
            .max_buf_size(HEAD_LIMIT)
            .half_close(true)
            .serve_connection(TokioIo::new(Listening::new(stream, heard)), service)
            .with_upgrades()
            .await
    };
    ended.map_err(|error| format!("http: {error}"))
}
