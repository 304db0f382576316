//! Hostile and broken input: each has an outcome, a record, and never a panic.

use std::time::Duration;

use agentgate::model::{Kind, State};
use fake_internet::world::OPEN;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::setup::{LOOPBACK, PATIENCE, World, get, send};

fn open_policy() -> String {
    format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")
}

/// Reads to the end, whatever kind of end.
async fn until_closed(stream: &mut tokio::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _reset_or_end =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the gate closes");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_hello_is_reset_and_recorded() {
    let world = World::new(&open_policy()).await;
    let mut stream = world.connect(world.origin(OPEN, 443)).await;
    stream.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0xff]).await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.state, State::Refused);
    assert_eq!(flow.failure.unwrap().code, "bad_client_hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_hello_then_silence_ends_at_the_deadline() {
    let world =
        World::with_config(&open_policy(), "[limits]\nsniff_timeout_ms = 300\nsilence_ms = 100\n").await;
    let mut stream = world.connect(world.origin(OPEN, 443)).await;
    stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.state, State::Refused);
    assert_eq!(flow.failure.unwrap().code, "stalled");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_not_a_way_through() {
    let policy = "version = 1\nmode = \"blocklist\"\n";
    let world = World::with_config(policy, "[limits]\nsniff_timeout_ms = 300\nsilence_ms = 100\n").await;
    let mut stream = world.connect("198.51.100.10:22".parse().unwrap()).await;
    assert!(until_closed(&mut stream).await.is_empty());
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!((flow.state, flow.protocol.as_str()), (State::Refused, "silent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_flow_is_reset_and_recorded() {
    let world = World::new(&open_policy()).await;
    // The reset may be there before connect(2) has returned.
    if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", world.port)).await {
        let _sent = stream.write_all(b"GET / HTTP/1.1\r\nhost: open.example\r\n\r\n").await;
        assert!(until_closed(&mut stream).await.is_empty());
    }
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.state, State::Refused);
    assert_eq!(flow.verdict.unwrap().rule, "invariant:unknown_flow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_header_is_refused_and_recorded() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(OPEN, 8080);
    let mut stream = world.connect(original).await;
    let head = format!("GET / HTTP/1.1\r\nhost: {OPEN}:{}\r\nx-big: ", original.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let flood = tokio::spawn(async move {
        let chunk = vec![b'a'; 64 * 1024];
        for _ in 0..16 {
            if write.write_all(&chunk).await.is_err() {
                break;
            }
        }
        write
    });
    let mut answer = Vec::new();
    let _reset_or_end =
        tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("the gate closes");
    drop(flood.await.unwrap());
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!((flow.state, flow.failure.unwrap().code.as_str()), (State::Refused, "bad_http"));
    assert_eq!(world.arrivals(OPEN), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_lengths_are_refused() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(OPEN, 8080);
    let mut stream = world.connect(original).await;
    let text = format!(
        "POST /smuggle HTTP/1.1\r\nhost: {OPEN}:{}\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        original.port()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(world.arrivals(OPEN), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_in_the_middle_is_recorded() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(OPEN, 8080);
    let mut stream = world.connect(original).await;
    let head = format!(
        "POST /echo?half HTTP/1.1\r\nhost: {OPEN}:{}\r\ncontent-length: 100000\r\n\r\n",
        original.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 1000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let record = world.exchange("/echo?half").await;
    assert!(matches!(record.state, State::Failed | State::Cancelled), "{record:?}");
    assert_eq!(record.failure.unwrap().blame, "agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_resets_or_cuts_short_is_recorded() {
    let world = World::new(&open_policy()).await;
    for target in ["/reset", "/truncate"] {
        for h2 in [false, true] {
            let stream = world
                .tls(OPEN, world.origin(OPEN, 443), if h2 { &[b"h2"] } else { &[b"http/1.1"] })
                .await
                .unwrap();
            let asked = format!("{target}?h2={h2}");
            let failed = match send(stream, get(OPEN, &asked, h2), h2).await {
                Ok(response) => {
                    let status = response.status();
                    status == 502 || http_body_util::BodyExt::collect(response.into_body()).await.is_err()
                }
                Err(_) => true,
            };
            assert!(failed, "{asked}: the agent must not take a broken answer for a whole one");
            let record = world.exchange(&asked).await;
            assert_eq!(record.state, State::Failed, "{record:?}");
            assert_eq!(record.failure.unwrap().blame, "origin");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_ends_at_the_deadline() {
    let world = World::with_config(&open_policy(), "[limits]\nheader_timeout_ms = 300\n").await;
    let mut stream = world.connect(world.origin(OPEN, 8080)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: open").await.unwrap();
    let start = std::time::Instant::now();
    until_closed(&mut stream).await;
    assert!(start.elapsed() < Duration::from_secs(10));
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.failure.unwrap().code, "too_slow");
}
