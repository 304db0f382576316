//! A gate, an internet and agents, all on loopback.

#[path = "../shared/guard.rs"]
mod guard;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agentgate::{
    app::App,
    config::Config,
    kernel::fake::FakeKernel,
    model::{Flow, Host, Kind, OriginalDestination, Record, SessionId, State},
    store::Query,
};
use bytes::Bytes;
use fake_internet::FakeInternet;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running gate with its internet.
pub(crate) struct World {
    pub(crate) internet: FakeInternet,
    pub(crate) kernel: Arc<FakeKernel>,
    pub(crate) root: tempfile::TempDir,
    pub(crate) port: u16,
    ca: String,
    handles: agentgate::app::Handles,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    cookies: AtomicU64,
}

/// A policy for tests: everything lives on loopback, so loopback may be dialled.
pub(crate) const LOOPBACK: &str = "[network]\ncidrs = [{ allow = \"127.0.0.0/8\" }]\n";

/// The session of every agent here: its cgroup is none of this host's.
const SESSION: &str = "?@1";

impl World {
    /// A gate with this `policy.toml`.
    pub(crate) async fn new(policy: &str) -> Self {
        Self::with_config(policy, "").await
    }

    /// A gate with this `policy.toml` and more lines for `agentgate.toml`.
    pub(crate) async fn with_config(policy: &str, more: &str) -> Self {
        let internet = FakeInternet::start_on_loopback().await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/agentgate");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("policy.toml"), policy).unwrap();
        let roots = root.path().join("roots.pem");
        std::fs::write(&roots, internet.root_pem()).unwrap();
        let text = format!(
            "[gate]\nlisten_port = 0\n[dns]\nlisten_port = 0\nresolvers = [\"{}\"]\n[tls]\nextra_roots = {:?}\n[dashboard]\nenabled = false\n{more}",
            internet.name_server(),
            roots,
        );
        let file: PathBuf = root.path().join("agentgate.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file), root.path()).unwrap();
        let kernel = Arc::new(FakeKernel::default());
        let app = App::start(config, kernel.clone(), guard::over_nothing(root.path())).await.unwrap();
        let (port, ca, handles) = (app.port(), app.ca_pem().to_owned(), app.handles());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            app.run(async {
                let _asked = stopped.await;
            })
            .await;
        });
        Self {
            internet,
            kernel,
            root,
            port,
            ca,
            handles,
            stop: Some(stop),
            running: Some(running),
            cookies: AtomicU64::new(1),
        }
    }

    /// Where `name` listens at the port that the world of names gives it.
    pub(crate) fn origin(&self, name: &str, port: u16) -> SocketAddr {
        self.internet.addr(name, port).unwrap()
    }

    /// Connects as an agent that meant to reach `original`.
    pub(crate) async fn connect(&self, original: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        self.kernel.declare(socket.local_addr().unwrap(), self.flow(original));
        let stream = socket.connect((std::net::Ipv4Addr::LOCALHOST, self.port).into()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Declares that the agents of these tests were told by the gate's DNS server that `name` is at `ip`.
    /// Connections to 127.0.0.1 need no such answer: [`LOOPBACK`] names it.
    pub(crate) fn answered(&self, name: &str, ip: IpAddr) {
        self.remember(SESSION, name, ip);
    }

    /// The same of another session, whose answers are not theirs.
    pub(crate) fn answered_elsewhere(&self, name: &str, ip: IpAddr) {
        self.remember("another.scope@2", name, ip);
    }

    fn remember(&self, session: &str, name: &str, ip: IpAddr) {
        self.handles.answers.remember(&SessionId(session.to_owned()), &Host::parse(name).unwrap(), &[ip]);
    }

    fn flow(&self, original: SocketAddr) -> Flow {
        Flow {
            cookie: self.cookies.fetch_add(1, Ordering::Relaxed),
            original: OriginalDestination(original),
            pid: std::process::id(),
            uid: 0,
            gid: 0,
            comm: "test".into(),
            cgroup: 1,
            session: 0,
            netns: 0,
            connected_ns: u64::MAX,
        }
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// TLS as `name`, trusting the gate's CA only.
    pub(crate) async fn tls(
        &self,
        name: &str,
        original: SocketAddr,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls_trusting(self.ca_pem(), name, original, alpn).await
    }

    /// TLS as `name`, trusting `pem` only.
    pub(crate) async fn tls_trusting(
        &self,
        pem: &str,
        name: &str,
        original: SocketAddr,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = self.connect(original).await;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(client_config(pem, alpn))).connect(name, tcp).await
    }

    /// One request over HTTPS with a connection of its own.
    pub(crate) async fn https(&self, name: &str, request: http::Request<Full<Bytes>>, h2: bool) -> Answer {
        let original = self.origin(name, 443);
        let alpn: &[&[u8]] = if h2 { &[b"h2"] } else { &[b"http/1.1"] };
        let stream = self.tls(name, original, alpn).await.unwrap();
        Answer::of(send(stream, request, h2).await.unwrap()).await
    }

    /// The first record that `is` accepts and that has ended, waited for.
    pub(crate) async fn record(&self, is: impl Fn(&Record) -> bool) -> Record {
        let mut live = self.handles.audit.live();
        let stored = self.handles.store.query(&Query { limit: 10_000, ..Query::default() }).unwrap().records;
        if let Some(found) = stored.into_iter().find(|r| r.state != State::Open && is(r)) {
            return found;
        }
        tokio::time::timeout(PATIENCE, async {
            loop {
                let record = live.recv().await.unwrap();
                if record.state != State::Open && is(&record) {
                    return (*record).clone();
                }
            }
        })
        .await
        .expect("the record appears")
    }

    /// The ended exchange for `target`.
    pub(crate) async fn exchange(&self, target: &str) -> Record {
        self.record(|r| r.kind == Kind::Exchange && r.request.as_ref().is_some_and(|q| q.target == target))
            .await
    }

    /// The body stored with a record.
    pub(crate) fn body(&self, record: &Record, side: agentgate::store::Side) -> Bytes {
        self.handles.store.body(record.id, side).unwrap().unwrap_or_default()
    }

    pub(crate) fn handles(&self) -> &agentgate::app::Handles {
        &self.handles
    }

    /// Requests that reached the origin `name`.
    pub(crate) fn arrivals(&self, name: &str) -> usize {
        self.internet.journal().read(|seen| seen.requests_to(name).count())
    }

    /// Stops the gate and waits for it.
    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }
}

pub(crate) fn client_config(pem: &str, alpn: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

/// Sends one request over `stream`.
pub(crate) async fn send<S>(
    stream: S,
    request: http::Request<Full<Bytes>>,
    h2: bool,
) -> Result<http::Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    }
}

/// A GET for HTTP/1.1 (`h2` false) or HTTP/2.
pub(crate) fn get(host: &str, target: &str, h2: bool) -> http::Request<Full<Bytes>> {
    let builder = if h2 {
        http::Request::get(format!("https://{host}{target}")).version(http::Version::HTTP_2)
    } else {
        http::Request::get(target).header("host", host)
    };
    builder.body(Full::default()).unwrap()
}

/// A response read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }
}
