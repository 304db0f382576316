//! Each place against something real on loopback.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket, UnixDatagram},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::origin::Settings;

/// Only reached when something is wrong.
const LONG: Duration = Duration::from_secs(30);

/// A log of so many entries.
fn source(entries: &Arc<AtomicU64>) -> Source {
    let entries = entries.clone();
    Arc::new(move || {
        let entries = entries.load(Ordering::SeqCst);
        let line = format!("{{\"type\":\"checkpoint\",\"entries\":{entries}}}");
        Ok((entries > 0).then_some(Anchor { entries, line }))
    })
}

fn tls(root: Option<&Path>) -> OriginTls {
    OriginTls::load(&Settings { extra_roots: root.map(Path::to_owned), ..Settings::default() }).unwrap()
}

/// Somebody who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// And the file of its own, so that no test needs those of the host.
    fn new(dir: &Path) -> (Self, PathBuf) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let root = dir.join("root.pem");
        fs::write(&root, issuer.pem()).unwrap();
        (Self(issuer), root)
    }

    /// What a server of this name presents.
    fn presenting(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Arc::new(config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap())
    }
}

fn settings(text: &str) -> Checkpoints {
    let config = crate::config::Config::parse("test", &format!("[audit.checkpoints]\n{text}"));
    config.unwrap().audit.checkpoints
}

async fn sent(anchors: &mut Anchors) -> Vec<PlaceReport> {
    anchors.send(LONG).await;
    anchors.reports()()
}

#[tokio::test]
async fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let (_authority, root) = Authority::new(dir.path());
    let path = dir.path().join("sub/checkpoints.jsonl");
    let entries = Arc::new(AtomicU64::new(0));
    let settings = settings(&format!("file = {path:?}\n"));
    let mut anchors = Anchors::new(&settings, &tls(Some(&root)), source(&entries));
    assert_eq!(sent(&mut anchors).await[0], PlaceReport { place: "file".into(), ..PlaceReport::default() });
    entries.store(5, Ordering::SeqCst);
    let reports = sent(&mut anchors).await;
    assert!(reports[0].error.as_ref().unwrap().contains("No such file"), "{reports:?}");
    assert_eq!((reports[0].entries, reports[0].taken), (0, None));
    // It comes to be well by itself, and has what is newest.
    fs::create_dir(path.parent().unwrap()).unwrap();
    let reports = sent(&mut anchors).await;
    assert_eq!((reports[0].entries, &reports[0].error), (5, &None));
    assert!(reports[0].taken.is_some());
    let line = |entries: u64| format!("{{\"type\":\"checkpoint\",\"entries\":{entries}}}\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), line(5));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    // Nothing new, nothing sent.
    sent(&mut anchors).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), line(5));
    // A line that a crash tore is ended.
    fs::write(&path, "{\"torn").unwrap();
    entries.store(6, Ordering::SeqCst);
    sent(&mut anchors).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{{\"torn\n{}", line(6)));
    // What others may write to proves nothing.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    entries.store(7, Ordering::SeqCst);
    let reports = sent(&mut anchors).await;
    assert!(reports[0].error.as_ref().unwrap().contains("others may write"), "{reports:?}");
    assert_eq!(reports[0].entries, 6);
}

#[tokio::test]
async fn syslog_gets_datagrams() {
    let dir = tempfile::tempdir().unwrap();
    let (_authority, root) = Authority::new(dir.path());
    let path = dir.path().join("log");
    let local = UnixDatagram::bind(&path).unwrap();
    let remote = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let entries = Arc::new(AtomicU64::new(3));
    let places = [path.display().to_string(), format!("udp://{}", remote.local_addr().unwrap())];
    for (at, place) in places.iter().enumerate() {
        let settings = settings(&format!("syslog = {place:?}\n"));
        let mut anchors = Anchors::new(&settings, &tls(Some(&root)), source(&entries));
        assert_eq!(sent(&mut anchors).await[0].error, None);
        let mut buffer = [0; 4096];
        let heard =
            async { if at == 0 { local.recv(&mut buffer).await } else { remote.recv(&mut buffer).await } };
        let length = timeout(LONG, heard).await.unwrap().unwrap();
        let message = String::from_utf8_lossy(&buffer[..length]);
        assert!(
            message.starts_with("<109>1 ") && message.ends_with(" - {\"type\":\"checkpoint\",\"entries\":3}"),
            "{message}"
        );
    }
    drop(local);
    let settings = settings(&format!("syslog = {:?}\n", places[0]));
    let mut anchors = Anchors::new(&settings, &tls(Some(&root)), source(&entries));
    assert!(sent(&mut anchors).await[0].error.as_ref().unwrap().contains("refused"));
}

/// An HTTPS server that answers each request with `answer`, and tells what it was sent.
async fn receiver(authority: &Authority, name: &str, answer: &'static str) -> (u16, mpsc::Receiver<String>) {
    let acceptor = TlsAcceptor::from(authority.presenting(name));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, hear) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let (mut got, mut buffer) = (String::new(), [0; 4096]);
            while !got.ends_with("}\n") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(length) => got.push_str(&String::from_utf8_lossy(&buffer[..length])),
                }
            }
            tell.send(got).await.unwrap();
            if answer.is_empty() {
                // Hangs until the client has enough of it.
                drop(stream.read(&mut buffer).await);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream.shutdown().await);
        }
    });
    (port, hear)
}

#[tokio::test]
async fn a_webhook_is_posted_to() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, root) = Authority::new(dir.path());
    let entries = Arc::new(AtomicU64::new(9));
    let moved = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
    let rows = [
        ("localhost", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("localhost", moved, Some("302")),
        ("localhost", "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", Some("500")),
        ("localhost", "no HTTP at all\r\n\r\n", Some("invalid")),
        ("other.example", "HTTP/1.1 200 OK\r\n\r\n", Some("certificate")),
    ];
    for (name, answer, expect) in rows {
        let (port, mut heard) = receiver(&authority, name, answer).await;
        let settings = settings(&format!("webhook = \"https://localhost:{port}/log?x=1\"\n"));
        let mut anchors = Anchors::new(&settings, &tls(Some(&root)), source(&entries));
        let reports = sent(&mut anchors).await;
        let error = reports[0].error.as_deref();
        assert_eq!(error.is_some(), expect.is_some(), "{answer:?}: {error:?}");
        assert!(expect.is_none_or(|words| error.unwrap().contains(words)), "{answer:?}: {error:?}");
        if name == "localhost" {
            let got = timeout(LONG, heard.recv()).await.unwrap().unwrap();
            let head = format!(
                "POST /log?x=1 HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\n"
            );
            assert!(
                got.starts_with(&head) && got.ends_with("{\"type\":\"checkpoint\",\"entries\":9}\n"),
                "{got}"
            );
        }
        assert!(heard.try_recv().is_err(), "one request, and none where it was sent on to");
    }
}

/// Nothing is trusted but what is configured to be: a server of somebody else's root is refused.
#[tokio::test]
async fn a_webhook_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (_mine, root) = Authority::new(dir.path());
    let (theirs, _) = Authority::new(other.path());
    let (port, mut heard) = receiver(&theirs, "localhost", "HTTP/1.1 200 OK\r\n\r\n").await;
    let settings = settings(&format!("webhook = \"https://localhost:{port}\"\n"));
    let mut anchors = Anchors::new(&settings, &tls(Some(&root)), source(&Arc::new(AtomicU64::new(1))));
    assert!(sent(&mut anchors).await[0].error.as_ref().unwrap().contains("certificate"));
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn one_that_hangs_holds_nobody_up_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, root) = Authority::new(dir.path());
    let (port, _heard) = receiver(&authority, "localhost", "").await;
    let file = dir.path().join("checkpoints");
    let settings = settings(&format!("file = {file:?}\nwebhook = \"https://localhost:{port}\"\n"));
    let mut anchors = Anchors::new(&settings, &tls(Some(&root)), source(&Arc::new(AtomicU64::new(1))));
    let began = Instant::now();
    anchors.send(Duration::from_millis(300)).await;
    assert!(began.elapsed() < LONG);
    let reports = anchors.reports()();
    assert_eq!((reports[0].entries, &reports[0].error), (1, &None));
    assert!(reports[1].error.as_ref().unwrap().contains("no answer"), "{reports:?}");
}

#[tokio::test]
async fn it_sends_at_intervals_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (_authority, root) = Authority::new(dir.path());
    let path = dir.path().join("log");
    let log = UnixDatagram::bind(&path).unwrap();
    let entries = Arc::new(AtomicU64::new(1));
    let settings = settings(&format!("syslog = {path:?}\nevery = 1\n"));
    let anchors = Anchors::new(&settings, &tls(Some(&root)), source(&entries));
    let (drain, drained) = watch::channel(false);
    let keeping = tokio::spawn(anchors.keep(drained));
    let mut buffer = [0; 4096];
    for expect in [1, 2] {
        entries.store(expect, Ordering::SeqCst);
        let length = timeout(LONG, log.recv(&mut buffer)).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&buffer[..length]).ends_with(&format!("\"entries\":{expect}}}")));
    }
    drain.send(true).unwrap();
    let anchors = timeout(LONG, keeping).await.unwrap().unwrap();
    entries.store(3, Ordering::SeqCst);
    timeout(LONG, anchors.close()).await.unwrap();
    let length = timeout(LONG, log.recv(&mut buffer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&buffer[..length]).ends_with("\"entries\":3}"));
    assert!(log.try_recv(&mut buffer).is_err(), "and each once");
}

#[test]
fn settings_say_what_is_wrong() {
    let rows = [
        ("syslog = \"log.example:514\"", "udp://HOST:PORT"),
        ("syslog = \"udp://log.example\"", "udp://HOST:PORT"),
        ("syslog = \"udp://:514\"", "udp://HOST:PORT"),
        ("webhook = \"http://log.example/\"", "https://"),
        ("webhook = \"https://me:secret@log.example/\"", "user"),
        ("webhook = \"/path\"", "https://"),
        ("every = 0", "every"),
        ("file = \"relative\"", "absolute"),
        ("fiel = \"/x\"", "fiel"),
    ];
    for (text, expect) in rows {
        let errors =
            crate::config::Config::parse("test", &format!("[audit.checkpoints]\n{text}\n")).unwrap_err();
        assert!(errors.iter().any(|error| error.to_string().contains(expect)), "{text}: {errors:?}");
    }
    let good = settings("syslog = \"udp://[::1]:514\"\nwebhook = \"https://[2001:db8::1]/\"\n");
    assert_eq!(good.syslog, Some(Syslog::Udp("[::1]:514".into())));
    assert_eq!(good.webhook.as_ref().map(|to| (to.host.as_str(), to.port)), Some(("2001:db8::1", 443)));
}
