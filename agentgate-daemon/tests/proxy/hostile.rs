//! Agents and origins that mean harm, or are slow in ways that look like it. Each test once failed.

use std::{net::SocketAddr, time::Duration};

use agentgate::{
    model::{Kind, Record, State},
    store::Query,
};
use fake_internet::world::{OPEN, PASSTHROUGH};
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{
    setup::{LOOPBACK, PATIENCE, World, get, send},
    smuggling::{open_policy, origin},
};

fn passing() -> String {
    format!("version = 1\nmode = \"enforce\"\n[hosts]\npassthrough = [\"{PASSTHROUGH}\"]\n{LOOPBACK}")
}

fn stored(world: &World) -> Vec<Record> {
    world.handles().store.query(&Query { limit: 1000, ..Query::default() }).unwrap().records
}

/// One plain HTTP/1.1 exchange; `head` is all of it but `Connection: close` and the empty line.
async fn talk(world: &World, original: SocketAddr, head: &str) -> String {
    let mut stream = world.connect(original).await;
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _reset_or_end = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end");
    String::from_utf8_lossy(&all).into_owned()
}

fn host(at: SocketAddr) -> String {
    format!("Host: {OPEN}:{}\r\n", at.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_through_a_tunnel_outlives_the_idle_limit() {
    let world = World::with_config(&passing(), "[limits]\nidle_timeout_ms = 1000\n").await;
    let pem = world.internet.root_pem().to_owned();
    let original = world.origin(PASSTHROUGH, 443);
    let stream = world.tls_trusting(&pem, PASSTHROUGH, original, &[b"http/1.1"]).await.unwrap();
    let response = send(stream, get(PASSTHROUGH, "/sse?n=30&ms=100", false), false).await.unwrap();
    response.into_body().collect().await.expect("not cut while bytes move one way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_on_disk_with_name_and_verdict_while_it_runs() {
    let world = World::new(&passing()).await;
    let pem = world.internet.root_pem().to_owned();
    let original = world.origin(PASSTHROUGH, 443);
    let stream = world.tls_trusting(&pem, PASSTHROUGH, original, &[b"http/1.1"]).await.unwrap();
    let response = send(stream, get(PASSTHROUGH, "/sse?n=1000&ms=20", false), false).await.unwrap();
    let flow = stored(&world).into_iter().find(|record| record.kind == Kind::Flow).unwrap();
    assert_eq!(flow.state, State::Open);
    assert_eq!(flow.authority.unwrap().host.as_str(), PASSTHROUGH);
    assert!(flow.verdict.is_some());
    drop(response);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_reads_is_ended() {
    // The same limit holds for an origin's silence: one that has to make its answer first would be the
    // slower of the two on a busy machine.
    let world = World::with_config(&open_policy(), "[limits]\nidle_timeout_ms = 3000\n").await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 60000000\r\n\r\n";
    let mut answer = vec![0; head.len() + 60_000_000];
    answer[..head.len()].copy_from_slice(head);
    let (original, _seen) = origin(answer.leak()).await;
    let mut stream = world.connect(original).await;
    let head = format!("GET /never-read HTTP/1.1\r\n{}\r\n", host(original));
    stream.write_all(head.as_bytes()).await.unwrap();
    let exchange = world.exchange("/never-read").await;
    assert_eq!(exchange.state, State::Cancelled, "{:?}", exchange.failure);
    assert_eq!(world.record(|record| record.kind == Kind::Flow).await.state, State::Failed);
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_downloads_hold_up_nobody_else() {
    let world = World::new(&open_policy()).await;
    let mut held = Vec::new();
    for n in 0..4 {
        let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"h2"]).await.unwrap();
        let target = format!("/bytes/30000000?n={n}");
        held.push(send(stream, get(OPEN, &target, true), true).await.unwrap());
    }
    let other = timeout(PATIENCE, world.https(OPEN, get(OPEN, "/bytes/1000", true), true)).await;
    assert_eq!(other.expect("another connection is served").status, 200);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_moves_outlives_the_idle_limit() {
    let world = World::with_config(&open_policy(), "[limits]\nidle_timeout_ms = 1000\n").await;
    let original = world.origin(OPEN, 8080);
    let stream = world.connect(original).await;
    let (mut read, mut write) = stream.into_split();
    let head =
        format!("POST /echo HTTP/1.1\r\n{}content-length: 25\r\nconnection: close\r\n\r\n", host(original));
    write.write_all(head.as_bytes()).await.unwrap();
    let upload = tokio::spawn(async move {
        for _ in 0..25 {
            sleep(Duration::from_millis(100)).await;
            write.write_all(b"x").await.unwrap();
        }
        write // dropping it would close this side, which is taken for going away
    });
    let mut all = String::new();
    timeout(PATIENCE, read.read_to_string(&mut all)).await.expect("an answer").unwrap();
    drop(upload.await.unwrap());
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_http1_stay_as_they_are() {
    let world = World::new(&open_policy()).await;
    let (at, seen) = origin(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let head =
        format!("GET /c HTTP/1.1\r\n{}Cookie: a=1\r\nX-One: 1\r\nCookie: b=2\r\nTE: trailers\r\n", host(at));
    talk(&world, at, &head).await;
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    for line in ["Cookie: a=1\r\n", "Cookie: b=2\r\n", "X-One: 1\r\n", "TE: trailers\r\n"] {
        assert!(seen.contains(line), "{line:?} in {seen}");
    }
    assert!(!seen.to_lowercase().contains("connection:"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_host_is_replaced_by_what_was_judged() {
    let world = World::new(&open_policy()).await;
    let (at, seen) = origin(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let answer = talk(&world, at, &format!("GET http://{OPEN}:{}/x HTTP/1.1\r\nHost:\r\n", at.port())).await;
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).to_lowercase();
    let replaced = seen.contains(&format!("host: {OPEN}:{}\r\n", at.port()));
    assert!(replaced || answer.starts_with("HTTP/1.1 4"), "{seen:?} {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_whole_or_refused() {
    let world = World::new(&open_policy()).await;
    let rows: [(&str, &'static [u8], &str, State); 5] = [
        ("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhi", "502", State::Failed),
        ("gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "502", State::Failed),
        ("lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "502", State::Failed),
        ("trailers", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n", "200", State::Done),
        ("early", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "103", State::Done),
    ];
    for (name, answer, status, state) in rows {
        let (at, _seen) = origin(answer).await;
        let got = talk(&world, at, &format!("GET /{name} HTTP/1.1\r\n{}TE: trailers\r\n", host(at))).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {got}");
        assert!(status == "502" || got.contains("HTTP/1.1 200 OK\r\n"), "{name}: {got}");
        let record = world.exchange(&format!("/{name}")).await;
        assert_eq!(record.state, state, "{name}: {record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_fifty_fields_pass() {
    let world = World::new(&open_policy()).await;
    let fields: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
    let (at, _seen) = origin(answer.into_bytes().leak()).await;
    let got = talk(&world, at, &format!("GET /many HTTP/1.1\r\n{}", host(at))).await;
    assert!(got.starts_with("HTTP/1.1 200") && got.contains("x-149: 1"), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_answer_is_nobodys() {
    let world = World::new(&open_policy()).await;
    let (at, _seen) = origin(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL",
    )
    .await;
    for n in 0..10 {
        let got = talk(&world, at, &format!("GET /{n} HTTP/1.1\r\n{}", host(at))).await;
        assert!(!got.contains("EVIL"), "{got}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_bodies_that_break_off_are_marked() {
    let refusing = World::new(&format!("version = 1\nmode = \"enforce\"\n{LOOPBACK}")).await;
    let open = World::new(&open_policy()).await;
    let (early, _seen) = origin(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    for (world, original) in [(&refusing, refusing.origin(OPEN, 8080)), (&open, early)] {
        let mut stream = world.connect(original).await;
        let head = format!("POST /cut HTTP/1.1\r\n{}content-length: 100\r\n\r\nabc", host(original));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let body = world.exchange("/cut").await.request.unwrap().body;
        assert!(body.truncated, "3 of 100 bytes pass for the whole body: {body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_place_is_one_place() {
    let world = World::with_config(&open_policy(), "[limits]\nconnections = 1\n").await;
    let original = world.origin(OPEN, 8080);
    for n in 0..3 {
        // The agent sees the end of a connection before its place is free: until then it is refused.
        let served = timeout(PATIENCE, async {
            let head = format!("GET /?{n} HTTP/1.1\r\n{}", host(original));
            while !talk(&world, original, &head).await.starts_with("HTTP/1.1 200") {}
        });
        assert!(served.await.is_ok(), "the place of the one before is not free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_head_makes_no_huge_record() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(OPEN, 8080);
    let mut head = format!("GET /?fat HTTP/1.1\r\n{}", host(original)).into_bytes();
    for n in 0..20 {
        head.extend_from_slice(format!("x-{n}: ").as_bytes());
        head.extend_from_slice(&[0x80; 10_000]);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"connection: close\r\n\r\n");
    let mut stream = world.connect(original).await;
    stream.write_all(&head).await.unwrap();
    let mut all = Vec::new();
    let _reset_or_end = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end");
    let record = world.exchange("/?fat").await;
    let size: usize = record.request.unwrap().headers.iter().map(|(n, v)| n.len() + v.len()).sum();
    assert!(size < 70_000, "{size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_listener_do_not_fill_the_log() {
    let world = World::new(&open_policy()).await;
    for _ in 0..200 {
        // Reset so soon that connect(2) may see it already.
        if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", world.port)).await {
            let mut all = Vec::new();
            let _reset_or_end = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end");
        }
    }
    world.record(|record| record.kind == Kind::Flow).await;
    let strangers = stored(&world).iter().filter(|record| record.kind == Kind::Flow).count();
    assert!((1..100).contains(&strangers), "{strangers}");
}
