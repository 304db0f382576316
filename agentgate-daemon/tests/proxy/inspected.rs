//! Bodies in content codings, and requests that have to be inspected whole.

use agentgate::{
    inspect::{self, Limits},
    model::{Captured, Record, State},
    store::Side,
};
use bytes::Bytes;
use fake_internet::world::OPEN;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::setup::{LOOPBACK, PATIENCE, World};

fn policy(mode: &str, truncated: &str) -> String {
    format!("version = 1\nmode = \"{mode}\"\n{LOOPBACK}[inspect]\ntruncated = \"{truncated}\"\n")
}

const SMALL: &str = "[capture]\nrequest_bytes = 1000\n";

/// `bytes` as gzip has them (RFC 1952), the checksum left to be wrong where nobody looks at it.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let deflated = miniz_oxide::deflate::compress_to_vec(bytes, 6);
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let length = u32::try_from(bytes.len()).unwrap();
    [&head[..], &deflated, &(!crc).to_le_bytes(), &length.to_le_bytes()].concat()
}

fn post(target: &str, coding: Option<&str>, body: Vec<u8>) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::post(target).header("host", OPEN);
    if let Some(coding) = coding {
        request = request.header("content-encoding", coding);
    }
    request.body(Full::new(body.into())).unwrap()
}

/// Sends `bytes` and reads until the gate closes.
async fn said(world: &World, bytes: &[u8]) -> String {
    let mut stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"http/1.1"]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _cut = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8(answer).unwrap()
}

fn chunked(target: &str, length: usize) -> Vec<u8> {
    let mut bytes =
        format!("POST {target} HTTP/1.1\r\nHost: {OPEN}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..length / 500 {
        bytes.extend_from_slice(b"1f4\r\n");
        bytes.extend_from_slice(&[b'x'; 500]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn rule(record: &Record) -> &str {
    record.verdict.as_ref().map_or("", |verdict| verdict.rule.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coded_body_passes_as_it_is_and_is_read_when_looked_at() {
    let world = World::new(&policy("blocklist", "deny")).await;
    let (text, coded) = (b"what was said ".repeat(100), gzip(&b"what was said ".repeat(100)));
    let answer = world.https(OPEN, post("/echo?coded", Some("gzip"), coded.clone()), false).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let record = world.exchange("/echo?coded").await;
    assert_eq!(record.state, State::Done);
    let seen = record.request_seen.as_deref().unwrap();
    assert_eq!((seen.encoding.as_str(), seen.truncated, seen.decoded), ("gzip", false, None));
    assert_eq!(record.response_seen, None, "all of it is there as it is");
    let raw = world.body(&record, Side::Request);
    assert_eq!(raw, coded);
    let head = record.request.unwrap();
    let captured = Captured { bytes: raw, ..head.body };
    let opened = inspect::open(&captured, &inspect::recorded(&head.headers), Limits::of(1 << 20));
    assert_eq!(opened.bytes, text);
    assert!(opened.inspected.is_whole());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_is_on_record_and_passes_by_default() {
    let world = World::with_config(
        &policy("enforce", "allow").replace("[inspect]", "[hosts]\nallow = [\"*\"]\n[inspect]"),
        SMALL,
    )
    .await;
    let answer = world.https(OPEN, post("/echo?cut", None, vec![b'x'; 5000]), false).await;
    assert_eq!(answer.status, 200);
    let record = world.exchange("/echo?cut").await;
    let seen = record.request_seen.as_deref().unwrap();
    assert_eq!((seen.captured, seen.total, seen.truncated), (1000, 5000, true));
    assert_eq!(seen.encoding, "identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_by_its_head() {
    let world = World::with_config(&policy("blocklist", "deny"), SMALL).await;
    let answer = world.https(OPEN, post("/echo?long", None, vec![b'x'; 1001]), false).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.headers["x-agentgate-rule"], "inspect:truncated");
    let record = world.exchange("/echo?long").await;
    assert_eq!((record.state, rule(&record)), (State::Refused, "inspect:truncated"));
    let answer = world.https(OPEN, post("/echo?odd", Some("snappy"), b"?".to_vec()), false).await;
    assert_eq!(answer.status, 415);
    assert_eq!(rule(&world.exchange("/echo?odd").await), "inspect:coding");
    assert_eq!(world.arrivals(OPEN), 0);
    assert_eq!(world.https(OPEN, post("/echo?fits", None, vec![b'x'; 1000]), false).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_turns_out_too_long_is_broken_off() {
    let world = World::with_config(&policy("blocklist", "deny"), SMALL).await;
    let answer = said(&world, &chunked("/echo?chunks", 5000)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("inspect:truncated"), "{answer}");
    let record = world.exchange("/echo?chunks").await;
    assert_eq!((record.state, rule(&record)), (State::Refused, "inspect:truncated"), "{record:?}");
    assert_eq!(record.response.as_ref().unwrap().status, 413);
    assert!(record.request.as_ref().unwrap().body.truncated);
    let whole = world.internet.journal().read(|seen| seen.requests_to(OPEN).filter(|r| r.complete).count());
    assert_eq!(whole, 0, "the origin never had all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_and_a_corrupt_body_are_broken_off() {
    let world = World::with_config(&policy("blocklist", "deny"), "[capture]\nrequest_bytes = 20000\n").await;
    let bomb = gzip(&vec![0; 1 << 20]);
    assert!(bomb.len() < 20_000, "{}", bomb.len());
    let answer = world.https(OPEN, post("/echo?bomb", Some("gzip"), bomb), false).await;
    assert_eq!(answer.status, 413, "{:?}", answer.body);
    assert_eq!(rule(&world.exchange("/echo?bomb").await), "inspect:truncated");
    let answer = world.https(OPEN, post("/echo?corrupt", Some("gzip"), vec![b'x'; 300]), false).await;
    assert_eq!(answer.status, 415);
    let record = world.exchange("/echo?corrupt").await;
    assert_eq!(rule(&record), "inspect:coding");
    assert!(record.failure.unwrap().detail.contains("gzip data is corrupt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_lets_pass_and_says_what_would_have_been() {
    let world = World::with_config(&policy("audit", "deny"), SMALL).await;
    let asked = String::from_utf8(chunked("/echo?audit", 5000)).unwrap();
    let closing = asked.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let answer = said(&world, closing.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let record = world.exchange("/echo?audit").await;
    assert_eq!(record.state, State::Done);
    let would: Vec<_> = record.flags.iter().filter(|flag| flag.code == "would_block").collect();
    assert_eq!(would.len(), 1, "{would:?}");
    assert!(would[0].evidence.starts_with("inspect:truncated: "), "{would:?}");
}
