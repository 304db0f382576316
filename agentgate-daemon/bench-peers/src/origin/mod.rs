//! The origin: hyper over rustls, HTTP/1.1 and HTTP/2 by ALPN.
//!
//! `/1k` is 1 KiB, `/bytes/N` is N bytes, `/sink` swallows a body and says how long it was, `/sse/N/MS` is N
//! events MS milliseconds apart, each with the time at which it was handed over.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{
    HandshakeKind, ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

use crate::{names, pki};

mod dns;
mod routes;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where HTTPS is served
    #[arg(long)]
    listen: SocketAddr,
    /// Where whoever connects is told the counters
    #[arg(long)]
    counters: SocketAddr,
    /// Where names are answered for, all with the address of `--listen`
    #[arg(long)]
    dns: SocketAddr,
    /// Directory of the certificates
    #[arg(long)]
    pki: PathBuf,
}

/// What arrived so far.
#[derive(Debug, Default, Serialize)]
struct Counters {
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
}

/// A leaf for every name but one.
#[derive(Debug)]
struct Leaves {
    trusted: Arc<CertifiedKey>,
    untrusted: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let untrusted = hello.server_name() == Some(names::UNTRUSTED);
        Some(Arc::clone(if untrusted { &self.untrusted } else { &self.trusted }))
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let load = |name: &str| certified(&arguments.pki, name, &provider);
    let leaves = Leaves { trusted: load("origin")?, untrusted: load("untrusted")? };
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(leaves));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    crate::runtime()?.block_on(async {
        let listener = listen(arguments.listen).await?;
        let counting = listen(arguments.counters).await?;
        let dns = UdpSocket::bind(arguments.dns).await.context("bind the name server")?;
        let counters = Arc::new(Counters::default());
        tokio::spawn(dns::serve(dns, arguments.listen.ip()));
        tokio::spawn(tell(counting, Arc::clone(&counters)));
        tokio::spawn(accept(listener, acceptor, counters));
        crate::serve_until_told().await
    })
}

fn certified(
    dir: &Path,
    name: &str,
    provider: &rustls::crypto::CryptoProvider,
) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = pki::certificates(&dir.join(format!("{name}.pem")))?;
    let key = pki::key(&dir.join(format!("{name}.key")))?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

async fn listen(at: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at).await.with_context(|| format!("bind {at}"))
}

/// Tells the counters, as one JSON object, to whoever connects.
async fn tell(listener: TcpListener, counters: Arc<Counters>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let text = serde_json::to_string(&*counters).unwrap_or_default();
        // Who hangs up before the answer does not want it.
        let _told = stream.write_all(text.as_bytes()).await;
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, counters: Arc<Counters>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, counters) = (acceptor.clone(), Arc::clone(&counters));
        tokio::spawn(async move {
            if serve(stream, acceptor, &counters).await.is_err() {
                counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// One connection. An error is one before the first request: how connections end is the peer's business.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, counters: &Counters) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let kind = match tls.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => &counters.resumed,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => &counters.full,
    };
    kind.fetch_add(1, Ordering::Relaxed);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
    server.http2().max_concurrent_streams(1_000);
    let service = hyper::service::service_fn(routes::answer);
    let _ended = server.serve_connection(TokioIo::new(tls), service).await;
    Ok(())
}
