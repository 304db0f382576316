//! Sockets from the client's end, over both versions of HTTP.

use std::time::Duration;

use http_body_util::Empty;
use hyper::{Method, Request, body::Bytes, ext::Protocol};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::*;
use crate::{FakeInternet, tests::tls};

/// The client's end: its frames are masked, by a key that changes every byte.
struct Client {
    io: TokioIo<Upgraded>,
    deflate: Option<(Compress, Decompress)>,
}

impl Client {
    async fn over_http1(internet: &FakeInternet, site: &str, path: &str, deflate: bool) -> Self {
        let io = TokioIo::new(tls(internet, site, "http/1.1").await.unwrap());
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::get(path)
            .header("host", site)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            // Key and answer are RFC 6455's own, section 1.3.
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(Empty::<Bytes>::new())
            .unwrap();
        if deflate {
            let offer = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
            request.headers_mut().insert("sec-websocket-extensions", offer);
        }
        let response = send.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers().contains_key("sec-websocket-extensions"), deflate);
        let io = hyper::upgrade::on(response).await.unwrap();
        let contexts = || (Compress::new(Compression::default(), false), Decompress::new(false));
        Self { io: TokioIo::new(io), deflate: deflate.then(contexts) }
    }

    async fn over_http2(internet: &FakeInternet, site: &str, path: &str) -> Self {
        let io = TokioIo::new(tls(internet, site, "h2").await.unwrap());
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        // The server has to have said first that it knows extended CONNECT (RFC 8441, section 3): an answer
        // to anything else comes after that.
        let first = Request::get(format!("https://{site}/")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(send.send_request(first).await.unwrap().status(), 200);
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{site}{path}"))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = send.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let io = hyper::upgrade::on(response).await.unwrap();
        Self { io: TokioIo::new(io), deflate: None }
    }

    async fn frame(&mut self, first: u8, payload: &[u8]) {
        let key = [1, 2, 3, 4];
        let mut frame = vec![first];
        match u16::try_from(payload.len()).unwrap() {
            len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
            len => {
                frame.push(0x80 | 126);
                frame.extend(len.to_be_bytes());
            }
        }
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.io.write_all(&frame).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn say(&mut self, text: &str) {
        match &mut self.deflate {
            None => self.frame(0x81, text.as_bytes()).await,
            Some((out, _)) => {
                let coded = deflated(out, text.as_bytes()).unwrap();
                self.frame(0xc1, &coded).await;
            }
        }
    }

    /// Opcode and payload of the next frame.
    async fn hear(&mut self) -> (u8, Vec<u8>) {
        let first = self.io.read_u8().await.unwrap();
        let len = match self.io.read_u8().await.unwrap() {
            126 => usize::from(self.io.read_u16().await.unwrap()),
            127 => usize::try_from(self.io.read_u64().await.unwrap()).unwrap(),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.io.read_exact(&mut payload).await.unwrap();
        assert_eq!(first & 0x40 != 0, self.deflate.is_some() && first & 0x0f == 1);
        if first & 0x40 != 0 {
            payload = inflate(&mut self.deflate.as_mut().unwrap().1, &payload).unwrap();
        }
        (first & 0x0f, payload)
    }

    async fn event(&mut self) -> Value {
        let (opcode, payload) = self.hear().await;
        assert_eq!(opcode, 1);
        serde_json::from_slice(&payload).unwrap()
    }
}

#[test]
fn messages_survive_compression_and_share_its_context() {
    let (mut out, mut inward) = (Compress::new(Compression::default(), false), Decompress::new(false));
    let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut lens = Vec::new();
    for part in [&text[..], &text[..30_000], b"", b"{}", &text[..30_000]] {
        let coded = deflated(&mut out, part).unwrap();
        assert!(!coded.ends_with(&TAIL));
        assert_eq!(inflate(&mut inward, &coded).unwrap(), part);
        lens.push(coded.len());
    }
    assert!(lens[4] * 5 < lens[1], "what was sent before is not sent again: {lens:?}");
}

#[tokio::test]
async fn a_warm_up_and_a_turn_of_codex() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let mut client = Client::over_http1(&internet, world::OPENAI, "/v1/responses", true).await;
    let warm_up =
        json!({ "type": "response.create", "model": "gpt-6.1-sol", "generate": false, "input": [] });
    client.say(&warm_up.to_string()).await;
    let kinds = [client.event().await, client.event().await, client.event().await];
    assert_eq!(
        kinds.each_ref().map(|event| event["type"].as_str().unwrap()),
        ["response.created", "response.in_progress", "response.completed"]
    );
    assert_eq!(kinds[2]["response"]["output"], json!([]));
    let turn = json!({
        "type": "response.create", "model": "gpt-6.1-sol", "previous_response_id": kinds[2]["response"]["id"],
        "input": [{ "type": "additional_tools", "tools": [{ "type": "custom", "name": "exec" }] }],
    });
    client.say(&turn.to_string()).await;
    let end = loop {
        let event = client.event().await;
        if event["type"] == "response.completed" {
            break event;
        }
    };
    assert_eq!(end["response"]["id"], "resp_fake_002");
    assert_eq!(end["response"]["output"][1]["name"], "exec");
    let seen = internet.journal().snapshot().messages;
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[1].deflated, &seen[1].text), (true, &turn.to_string()));
}

#[tokio::test]
async fn lanes_interleave_and_errors_are_events() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let mut client = Client::over_http1(&internet, world::OPENAI, "/v1/responses", false).await;
    for lane in ["a", "b"] {
        let create = json!({ "type": "response.create", "model": "m", "input": "hi", "stream_id": lane });
        client.say(&create.to_string()).await;
    }
    let mut lanes = String::new();
    while lanes.matches('!').count() < 2 {
        let event = client.event().await;
        lanes.push_str(event["stream_id"].as_str().unwrap());
        if event["type"] == "response.completed" {
            lanes.push('!');
        }
    }
    assert!(lanes.contains("abab"), "{lanes}");
    let limited = json!({ "type": "response.create", "model": "m-status-429", "stream_id": "c" });
    client.say(&limited.to_string()).await;
    let error = client.event().await;
    assert_eq!(
        (&error["type"], &error["status"], &error["stream_id"]),
        (&json!("error"), &json!(429), &json!("c"))
    );
}

#[tokio::test]
async fn fragments_pings_and_ends_over_both_versions() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    for http2 in [false, true] {
        let mut client = if http2 {
            Client::over_http2(&internet, world::OPEN, "/ws/echo").await
        } else {
            Client::over_http1(&internet, world::OPEN, "/ws/echo", false).await
        };
        client.frame(0x01, b"in ").await;
        // A control frame may stand between two fragments.
        client.frame(0x89, b"there?").await;
        client.frame(0x80, "pieces".repeat(100).as_bytes()).await;
        assert_eq!(client.hear().await, (10, b"there?".to_vec()));
        assert_eq!(client.hear().await, (1, format!("in {}", "pieces".repeat(100)).into_bytes()));
        client.frame(0x82, &[0xff, 0]).await;
        assert_eq!(client.hear().await, (2, vec![0xff, 0]));
        client.frame(0x88, &1000_u16.to_be_bytes()).await;
        assert_eq!(client.hear().await, (8, 1000_u16.to_be_bytes().to_vec()));
    }
    let over = |s: &crate::Snapshot| {
        s.requests.iter().filter(|r| r.target.ends_with("/ws/echo") && r.complete).count() == 2
    };
    assert!(internet.journal().wait_for(Duration::from_secs(10), over).await);
}

#[tokio::test]
async fn who_breaks_the_rules_is_hung_up_on() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    // Not masked; a continuation of nothing; text that is none; larger than any message may be.
    let rows: [&[u8]; 4] = [
        &[0x81, 1, b'x'],
        &[0x80, 0x80, 0, 0, 0, 0],
        &[0x81, 0x81, 0, 0, 0, 0, 0xff],
        &[0x81, 0xff, 1, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in rows {
        let mut client = Client::over_http1(&internet, world::OPEN, "/ws/echo", false).await;
        client.io.write_all(bytes).await.unwrap();
        client.io.flush().await.unwrap();
        let mut rest = Vec::new();
        // However the connection ends, nothing comes back.
        let _ended = client.io.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{bytes:?}");
    }
    let broken = |log: &crate::Snapshot| log.requests.iter().filter(|r| r.aborted).count() == 4;
    assert!(internet.journal().wait_for(Duration::from_secs(10), broken).await);
}
