//! What is recorded of handshakes, and of clients that do not accept the gate's certificate.

use agentgate::model::{Kind, Record, RecordId};
use tokio::io::AsyncWriteExt as _;

use super::setup::{Answer, LOOPBACK, World, get, send};

const API: &str = fake_internet::world::ANTHROPIC;

fn open_policy() -> String {
    format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")
}

fn pinned(record: &Record) -> Option<&str> {
    record.flags.iter().find(|flag| flag.code == "pinned_client").map(|flag| flag.evidence.as_str())
}

/// The flow after `last` that has ended.
async fn flow_after(world: &World, last: &mut RecordId) -> Record {
    let after = *last;
    let record = world.record(|r| r.kind == Kind::Flow && r.id > after).await;
    *last = record.id;
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_is_recorded_with_its_fingerprint() {
    let world = World::new(&open_policy()).await;
    let stream = world.tls(API, world.origin(API, 443), &[b"http/1.1"]).await.unwrap();
    let answer = Answer::of(send(stream, get(API, "/", false), false).await.unwrap()).await;
    assert!(answer.status > 0);
    let flow = flow_after(&world, &mut RecordId(0)).await;
    assert_eq!(pinned(&flow), None);
    let tls = flow.tls.unwrap();
    assert_eq!(tls.sni.as_deref(), Some(API));
    assert!(tls.ja4.starts_with("t13d") && tls.ja4.len() == 36, "{}", tls.ja4);
    assert_eq!(tls.offered, ["http/1.1"]);
    assert_eq!((tls.version.as_deref(), tls.alpn.as_deref()), (Some("TLS 1.3"), Some("http/1.1")));
    assert!(tls.cipher.unwrap().starts_with("TLS13_"));
    assert_eq!(tls.origin_version.as_deref(), Some("TLS 1.3"));
    assert!(!tls.resumed && !tls.ech && !tls.origin_resumed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_refuses_the_certificate_is_named_with_the_remedy() {
    let world = World::new(&open_policy()).await;
    let foreign = world.internet.root_pem().to_owned();
    let original = world.origin(API, 443);
    assert!(world.tls_trusting(&foreign, API, original, &[b"http/1.1"]).await.is_err());
    let flow = flow_after(&world, &mut RecordId(0)).await;
    let evidence = pinned(&flow).expect("flagged");
    assert!(evidence.contains("unknown_ca"), "{evidence}");
    assert!(evidence.ends_with(&format!("agentctl passthrough {API}")), "{evidence}");
    assert_eq!(flow.failure.unwrap().code, "agent_distrusts");
}

/// As a client that compares the certificate with one of its own after the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_again_and_again_is_named_until_it_asks() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(API, 443);
    let mut last = RecordId(0);
    for round in 1..=4 {
        let mut stream = world.tls(API, original, &[b"http/1.1"]).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        let flow = flow_after(&world, &mut last).await;
        assert_eq!(pinned(&flow).is_some(), round >= 3, "{round}: {flow:?}");
    }
    let stream = world.tls(API, original, &[b"http/1.1"]).await.unwrap();
    Answer::of(send(stream, get(API, "/", false), false).await.unwrap()).await;
    assert_eq!(pinned(&flow_after(&world, &mut last).await), None);
    for _ in 0..4 {
        let mut stream = world.tls(API, original, &[b"http/1.1"]).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(pinned(&flow_after(&world, &mut last).await), None);
    }
}
