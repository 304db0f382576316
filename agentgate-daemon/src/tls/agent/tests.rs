//! Real clients: rustls in this process, openssl and curl beside it.

use std::{io, path::Path, process::Stdio};

use rustls::{HandshakeKind, ProtocolVersion, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::{Alpn, Ca, Offer};

const LONG: Duration = Duration::from_secs(60);

/// The side, the file of its authority, and a place for clients' files.
fn side() -> (AgentTls, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::load_or_create(&dir.path().join("ca.crt"), &dir.path().join("ca.key")).unwrap();
    (AgentTls::new(Arc::new(Leaves::new(Arc::new(ca)).unwrap()), LONG).unwrap(), dir)
}

/// Accepts one connection as `host`, answers one request, and says how the handshake went.
async fn serve(
    tls: &AgentTls,
    listener: &TcpListener,
    host: &str,
    alpn: AgentAlpn,
) -> (HandshakeKind, ProtocolVersion) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = tls.accept(&Host::parse(host).unwrap(), alpn, stream).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    stream.shutdown().await.unwrap();
    let session = stream.get_ref().1;
    (session.handshake_kind().unwrap(), session.protocol_version().unwrap())
}

fn client(
    dir: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> TlsConnector {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
    let mut config =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config).into()
}

/// One request, and the protocol that was chosen.
async fn ask(client: &TlsConnector, to: &TcpListener, host: &str) -> io::Result<Option<Vec<u8>>> {
    let tcp = TcpStream::connect(to.local_addr().unwrap()).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut stream = client.connect(name, tcp).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert!(answer.ends_with(b"ok"));
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn resumes_with_rustls() {
    let (tls, dir) = side();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (versions, version) in [
        (&[&rustls::version::TLS12], ProtocolVersion::TLSv1_2),
        (&[&rustls::version::TLS13], ProtocolVersion::TLSv1_3),
    ] {
        let client = client(dir.path(), versions, &[]);
        for host in ["a.example", "127.0.0.1"] {
            for expect in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
                let (served, asked) = tokio::join!(
                    serve(&tls, &listener, host, AgentAlpn::Unsaid),
                    ask(&client, &listener, host)
                );
                asked.unwrap();
                assert_eq!(served, (expect, version), "{host}");
            }
        }
    }
}

#[tokio::test]
async fn resumes_with_openssl() {
    let (tls, dir) = side();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let (ca, session) = (dir.path().join("ca.crt"), dir.path().join("session"));
    for (flag, version) in [("-tls1_2", ProtocolVersion::TLSv1_2), ("-tls1_3", ProtocolVersion::TLSv1_3)] {
        for (option, expect) in [("-sess_out", HandshakeKind::Full), ("-sess_in", HandshakeKind::Resumed)] {
            let mut child = Command::new("openssl")
                .args(["s_client", "-quiet", "-verify_return_error", flag, "-servername", "a.example"])
                .args(["-connect", &to, "-CAfile"])
                .args([ca.as_os_str(), option.as_ref(), session.as_os_str()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            let asking = async {
                input.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
                let answer = child.wait_with_output().await.unwrap();
                assert!(answer.stdout.ends_with(b"ok"), "{flag} {option}");
            };
            let (served, ()) = tokio::join!(serve(&tls, &listener, "a.example", AgentAlpn::Unsaid), asking);
            assert_eq!(served, (expect, version), "{flag} {option}");
        }
    }
}

#[tokio::test]
async fn resumes_with_curl() {
    let (tls, dir) = side();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (most, version) in [("1.2", ProtocolVersion::TLSv1_2), ("1.3", ProtocolVersion::TLSv1_3)] {
        let url = format!("https://a.example:{port}/");
        let asking = Command::new("curl")
            .args(["-sS", "--tls-max", most, "--resolve", &format!("a.example:{port}:127.0.0.1"), "--cacert"])
            .arg(dir.path().join("ca.crt"))
            .args([&url, &url])
            .kill_on_drop(true)
            .output();
        let serving = async {
            let alpn = AgentAlpn::Only(Alpn::Http1);
            [serve(&tls, &listener, "a.example", alpn).await, serve(&tls, &listener, "a.example", alpn).await]
        };
        let (served, answer) = tokio::join!(serving, asking);
        let answer = answer.unwrap();
        assert_eq!(answer.stdout, b"okok", "{}", String::from_utf8_lossy(&answer.stderr));
        assert_eq!(served, [(HandshakeKind::Full, version), (HandshakeKind::Resumed, version)], "{most}");
    }
}

#[tokio::test]
async fn alpn_is_what_the_caller_says_or_the_handshake_fails() {
    let (tls, dir) = side();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    type Row = (&'static [&'static [u8]], AgentAlpn, Result<Option<&'static [u8]>, ()>);
    let rows: [Row; 9] = [
        (both, AgentAlpn::Only(Alpn::Http1), Ok(Some(b"http/1.1"))),
        (both, AgentAlpn::Only(Alpn::Http2), Ok(Some(b"h2"))),
        (both, AgentAlpn::Unsaid, Ok(None)),
        (both, AgentAlpn::AsAsked(Offer::Both), Ok(Some(b"h2"))),
        (&[b"http/1.1", b"h2"], AgentAlpn::AsAsked(Offer::Http1First), Ok(Some(b"http/1.1"))),
        (&[], AgentAlpn::AsAsked(Offer::None), Ok(None)),
        (&[], AgentAlpn::Only(Alpn::Http2), Ok(None)),
        (&[b"http/1.1"], AgentAlpn::Only(Alpn::Http2), Err(())),
        (&[b"imap"], AgentAlpn::AsAsked(Offer::None), Err(())),
    ];
    for (offered, alpn, expect) in rows {
        let client = client(dir.path(), rustls::ALL_VERSIONS, offered);
        let host = Host::parse("a.example").unwrap();
        let Ok(chosen) = expect else {
            let serving = async {
                let (stream, _) = listener.accept().await.unwrap();
                assert!(tls.accept(&host, alpn, stream).await.is_err());
            };
            let ((), asked) = tokio::join!(serving, ask(&client, &listener, "a.example"));
            let error = asked.unwrap_err().to_string();
            assert!(error.contains("NoApplicationProtocol"), "{error}");
            continue;
        };
        let (_, asked) =
            tokio::join!(serve(&tls, &listener, "a.example", alpn), ask(&client, &listener, "a.example"));
        assert_eq!(asked.unwrap().as_deref(), chosen, "{offered:?} {alpn:?}");
    }
}
