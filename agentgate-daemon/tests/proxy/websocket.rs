//! WebSockets over HTTP/1.1: what passes is what was sent, and the record tells it in messages.

use agentgate::{
    model::{
        Record, State,
        websocket::{Closed, Sender},
    },
    store::Side,
};
use fake_internet::world::OPEN;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    frames::{deflated, frame, texts},
    setup::{LOOPBACK, PATIENCE, World},
};

fn open_policy() -> String {
    format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")
}

/// An open socket to the echo.
async fn socket(world: &World, target: &str, extensions: &str) -> TlsStream<TcpStream> {
    let mut stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"http/1.1"]).await.unwrap();
    let ask = format!(
        "GET {target} HTTP/1.1\r\nHost: {OPEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    assert_eq!(
        String::from_utf8_lossy(&head).to_lowercase().contains("permessage-deflate"),
        !extensions.is_empty()
    );
    stream
}

/// The next frame: its first byte and payload, which is short.
async fn heard(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let read = async {
        let first = stream.read_u8().await.unwrap();
        let length = match stream.read_u8().await.unwrap() {
            126 => stream.read_u16().await.unwrap(),
            length => length.into(),
        };
        let mut payload = vec![0; length.into()];
        stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    };
    timeout(PATIENCE, read).await.expect("a frame comes")
}

fn flagged(record: &Record) -> Option<&str> {
    record.flags.iter().find(|flag| flag.code == "websocket_fault").map(|flag| flag.evidence.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_both_ways_are_counted_and_kept() {
    let world = World::new(&open_policy()).await;
    let mut stream = socket(&world, "/ws/echo?plain", "").await;
    for text in ["hello", "wörld"] {
        stream.write_all(&frame(0x81, text.as_bytes())).await.unwrap();
        assert_eq!(heard(&mut stream).await, (0x81, text.as_bytes().to_vec()));
    }
    stream.write_all(&frame(0x89, b"ping")).await.unwrap();
    assert_eq!(heard(&mut stream).await, (0x8a, b"ping".to_vec()));
    stream.write_all(&frame(0x88, b"\x03\xe9leaving")).await.unwrap();
    assert_eq!(heard(&mut stream).await, (0x88, b"\x03\xe9leaving".to_vec()));
    drop(stream);
    let record = world.exchange("/ws/echo?plain").await;
    assert_eq!((record.protocol.as_str(), flagged(&record)), ("websocket", None), "{record:?}");
    assert_eq!(record.response.as_ref().unwrap().status, 101);
    let seen = record.websocket.as_deref().unwrap();
    assert_eq!([seen.client.messages, seen.client.bytes, seen.client.controls], [2, 11, 2]);
    assert_eq!([seen.server.messages, seen.server.bytes, seen.server.controls], [2, 11, 2]);
    let closed = Closed { by: Sender::Client, code: Some(1001), reason: "leaving".into() };
    assert_eq!(seen.closed, Some(closed));
    assert_eq!(texts(&world.body(&record, Side::Request)), ["hello", "wörld"]);
    assert_eq!(texts(&world.body(&record, Side::Response)), ["hello", "wörld"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deflated_messages_are_read_and_pass_as_they_are() {
    let world = World::new(&open_policy()).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut stream = socket(&world, "/ws/echo?deflate", offer).await;
    let text = "the same again and ".repeat(20);
    for _ in 0..2 {
        stream.write_all(&frame(0xc1, &deflated(&text))).await.unwrap();
        let (first, payload) = heard(&mut stream).await;
        assert!(first == 0xc1 && payload.len() < text.len(), "{first:x} {}", payload.len());
    }
    stream.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    heard(&mut stream).await;
    drop(stream);
    let record = world.exchange("/ws/echo?deflate").await;
    assert_eq!(flagged(&record), None);
    let seen = record.websocket.as_deref().unwrap();
    assert_eq!(seen.server.decoded, 2 * text.len() as u64);
    assert!(seen.server.bytes < text.len() as u64, "{seen:?}");
    assert_eq!(texts(&world.body(&record, Side::Request)), [text.as_str(), &text]);
    assert_eq!(texts(&world.body(&record, Side::Response)), [text.as_str(), &text], "with their context");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_frame_is_flagged_and_goes_on() {
    let world = World::new(&open_policy()).await;
    let mut stream = socket(&world, "/ws/echo?fault", "").await;
    stream.write_all(&frame(0x81, b"before")).await.unwrap();
    heard(&mut stream).await;
    // Not masked: the origin hangs up on it, so it has arrived.
    stream.write_all(b"\x81\x05after").await.unwrap();
    let mut rest = Vec::new();
    let _cut = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the origin hangs up");
    assert!(rest.is_empty(), "{rest:?}");
    let record = world.exchange("/ws/echo?fault").await;
    assert!(flagged(&record).unwrap().contains("without a mask"), "{record:?}");
    assert_eq!(texts(&world.body(&record, Side::Request)), ["before", "after"]);
    assert_eq!(record.websocket.as_deref().unwrap().closed, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_keeps_to_the_capture_limit() {
    let limits = "[capture]\nrequest_bytes = 1500\nresponse_bytes = 0\n";
    let world = World::with_config(&open_policy(), limits).await;
    let mut stream = socket(&world, "/ws/echo?long", "").await;
    for letter in ["a", "b", "c", "d"] {
        stream.write_all(&frame(0x81, letter.repeat(800).as_bytes())).await.unwrap();
        assert_eq!(heard(&mut stream).await.1.len(), 800);
    }
    stream.write_all(&frame(0x88, b"")).await.unwrap();
    heard(&mut stream).await;
    drop(stream);
    let record = world.exchange("/ws/echo?long").await;
    let seen = record.websocket.as_deref().unwrap();
    assert_eq!((seen.client.messages, seen.server.messages), (4, 4), "{seen:?}");
    assert_eq!(seen.left_out, 2 + 4);
    assert!(record.request.as_ref().unwrap().body.truncated);
    let kept = world.body(&record, Side::Request);
    assert!(kept.len() <= 1500, "{}", kept.len());
    assert_eq!(texts(&kept)[0], "a".repeat(800));
    assert!(world.body(&record, Side::Response).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_kept_does_not_leave_where_policy_says_so() {
    let policy = format!("{}[inspect]\ntruncated = \"deny\"\n", open_policy());
    let world = World::with_config(&policy, "[capture]\nrequest_bytes = 1500\n").await;
    let mut stream = socket(&world, "/ws/echo?whole", "").await;
    stream.write_all(&frame(0x81, &[b'a'; 800])).await.unwrap();
    assert_eq!(heard(&mut stream).await.1.len(), 800);
    stream.write_all(&frame(0x81, &[b'b'; 2000])).await.unwrap();
    let mut rest = Vec::new();
    let _cut = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert!(rest.is_empty(), "{rest:?}");
    let record = world.exchange("/ws/echo?whole").await;
    assert_eq!(record.state, State::Refused, "{record:?}");
    assert_eq!(record.verdict.unwrap().rule, "inspect:truncated");
    let arrived =
        world.internet.journal().read(|seen| seen.messages.iter().map(|m| m.text.len()).collect::<Vec<_>>());
    assert_eq!(arrived, [800]);
}
