//! The small internet against a client of its own: what is served, and what the journal says of it.

use std::{sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Incoming},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{FakeInternet, Snapshot, world};

const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn tls(
    internet: &FakeInternet,
    name: &str,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(internet.root_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let tcp = TcpStream::connect(internet.addr(name, 443).unwrap()).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

pub(crate) async fn ask(
    internet: &FakeInternet,
    name: &str,
    alpn: &str,
    request: Request<Full<Bytes>>,
) -> Response<Incoming> {
    let io = TokioIo::new(tls(internet, name, alpn).await.unwrap());
    if alpn == "h2" {
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        send.send_request(request).await.unwrap()
    } else {
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        send.send_request(request).await.unwrap()
    }
}

pub(crate) fn get(name: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://{name}{path}")).header("host", name).body(Full::default()).unwrap()
}

#[tokio::test]
async fn serves_both_versions_and_writes_them_down() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    for (alpn, version) in [("http/1.1", "HTTP/1.1"), ("h2", "HTTP/2.0")] {
        let response = ask(&internet, world::OPEN, alpn, get(world::OPEN, "/?q=1")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1024);
        let log = internet.journal().snapshot();
        let request = log.requests_to(world::OPEN).next_back().unwrap();
        assert_eq!((request.method.as_str(), request.version.as_str()), ("GET", version));
        assert!(request.target.ends_with("/?q=1") && request.complete);
        let connection = log.connections_to(world::OPEN).next_back().unwrap();
        assert_eq!((connection.sni.as_deref(), connection.alpn.as_deref()), (Some(world::OPEN), Some(alpn)));
    }
}

#[tokio::test]
async fn echoes_and_hashes_bodies() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let request = Request::post("https://open.example/echo")
        .header("host", world::OPEN)
        .header("x-one", "1")
        .body(Full::from("abc"))
        .unwrap();
    let response = ask(&internet, world::OPEN, "h2", request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["body"], "abc");
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(echo["body_sha256"], sha256);
    let log = internet.journal().snapshot();
    let request = log.requests_to(world::OPEN).next().unwrap();
    assert_eq!((request.header("X-One"), request.body_sha256.as_str()), (Some("1"), sha256));
}

#[tokio::test]
async fn bad_certificates_are_refused_by_a_verifying_client() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    for (name, expect) in [
        (world::EXPIRED, "Expired"),
        (world::WRONG_NAME, "NotValidForName"),
        (world::SELF_SIGNED, "UnknownIssuer"),
    ] {
        let error = tls(&internet, name, "h2").await.unwrap_err();
        assert!(format!("{error:?}").contains(expect), "{name}: {error:?}");
        let logged = |s: &Snapshot| s.connections_to(name).any(|c| c.error.is_some());
        assert!(internet.journal().wait_for(SOON, logged).await, "{name}");
    }
}

#[tokio::test]
async fn messages_stream_event_by_event() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let request = Request::post("https://api.anthropic.com/v1/messages")
        .header("host", world::ANTHROPIC)
        .header("x-api-key", "sk-ant-test")
        .body(Full::from(r#"{"model":"claude-opus-5-5","stream":true,"messages":[],"tools":[{"name":"bash","input_schema":{}}]}"#))
        .unwrap();
    let mut body = ask(&internet, world::ANTHROPIC, "http/1.1", request).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"event: message_start\n"));
    assert!(!body.is_end_stream(), "the first event came with the last");
    let rest = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(rest.contains("\"tool_use\"") && rest.contains("input_json_delta"));
    assert!(rest.ends_with("data: {\"type\":\"message_stop\"}\n\n"));
}

#[tokio::test]
async fn resets_and_truncations_break_the_body() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    for path in ["/reset", "/truncate"] {
        for alpn in ["http/1.1", "h2"] {
            let response = ask(&internet, world::OPEN, alpn, get(world::OPEN, path)).await;
            assert_eq!(response.status(), 200);
            assert!(response.into_body().collect().await.is_err(), "{path} over {alpn}");
        }
    }
    // On the wire a reset is a reset, not an orderly end.
    let mut tcp = TcpStream::connect(internet.addr(world::OPEN, 8080).unwrap()).await.unwrap();
    tcp.write_all(b"GET /reset HTTP/1.1\r\nhost: open.example\r\n\r\n").await.unwrap();
    let error = tcp.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn trailers_arrive() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let response = ask(&internet, world::OPEN, "h2", get(world::OPEN, "/trailers")).await;
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-checksum"], "abc123");
}

#[tokio::test]
async fn a_body_that_stops_is_incomplete() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let mut tcp = TcpStream::connect(internet.addr(world::OPEN, 80).unwrap()).await.unwrap();
    tcp.write_all(b"POST /echo HTTP/1.1\r\nhost: open.example\r\ncontent-length: 10\r\n\r\nabc")
        .await
        .unwrap();
    let came = |s: &Snapshot| s.requests_to(world::OPEN).any(|r| r.body_len == 3);
    assert!(internet.journal().wait_for(SOON, came).await);
    drop(tcp);
    let ended = |s: &Snapshot| s.requests_to(world::OPEN).any(|r| r.aborted);
    assert!(internet.journal().wait_for(SOON, ended).await);
    assert!(internet.journal().snapshot().requests_to(world::OPEN).all(|r| !r.complete));
}

#[tokio::test]
async fn sinks_count() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(b"hello", internet.addr(world::SINK, 9999).unwrap()).await.unwrap();
    let mut tcp = TcpStream::connect(internet.addr(world::SINK, 9000).unwrap()).await.unwrap();
    tcp.write_all(b"hello!").await.unwrap();
    let came = |s: &Snapshot| {
        s.datagrams_to(world::SINK).any(|d| d.len == 5)
            && s.connections_to(world::SINK).any(|c| c.received == 6)
    };
    assert!(internet.journal().wait_for(SOON, came).await);
}

async fn resolve(internet: &FakeInternet, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let bytes = message.to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&bytes, internet.name_server()).await.unwrap();
    let mut buffer = [0; 1024];
    let len = tokio::time::timeout(SOON, socket.recv(&mut buffer)).await.unwrap().unwrap();
    let mut tcp = TcpStream::connect(internet.name_server()).await.unwrap();
    tcp.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    tcp.write_all(&bytes).await.unwrap();
    let mut over_tcp = vec![0; usize::from(tcp.read_u16().await.unwrap())];
    tcp.read_exact(&mut over_tcp).await.unwrap();
    assert_eq!(over_tcp, buffer[..len]);
    Message::from_vec(&over_tcp).unwrap()
}

#[tokio::test]
async fn names_resolve_and_unknown_ones_do_not() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let known = resolve(&internet, "Open.Example.", RecordType::A).await;
    assert_eq!(known.answers.len(), 1);
    assert_eq!(known.answers[0].data.to_string(), "127.0.0.1");
    let unknown = resolve(&internet, "nowhere.example.", RecordType::A).await;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    let other = resolve(&internet, "open.example.", RecordType::TXT).await;
    assert_eq!((other.metadata.response_code, other.answers.len()), (ResponseCode::NoError, 0));
    let log = internet.journal().snapshot();
    assert_eq!(log.queries_for("open.example").filter(|q| q.transport == "udp").count(), 2);
}

#[tokio::test]
async fn snapshots_are_served_to_other_processes() {
    let mut internet = FakeInternet::start_on_loopback().await.unwrap();
    let dir = std::env::temp_dir().join(format!("fake-internet-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("snapshots.sock");
    internet.serve_snapshots(&path).unwrap();
    let _ = ask(&internet, world::OPEN, "h2", get(world::OPEN, "/")).await;
    let mut json = Vec::new();
    tokio::net::UnixStream::connect(&path).await.unwrap().read_to_end(&mut json).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let log: Snapshot = serde_json::from_slice(&json).unwrap();
    assert_eq!(log.requests_to(world::OPEN).count(), 1);
}
