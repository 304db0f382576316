//! What is allowed arrives as it was sent, and is recorded.

use agentgate::{
    model::{Action, Kind, State},
    store::Side,
};
use bytes::Bytes;
use fake_internet::world::{ANTHROPIC, EXPIRED, OLD, OPEN, PASSTHROUGH, SELF_SIGNED, WRONG_NAME};
use http_body_util::{BodyExt as _, Full};

use super::setup::{Answer, LOOPBACK, PATIENCE, World, get, send};

fn open_policy() -> String {
    format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")
}

#[tokio::test(flavor = "multi_thread")]
async fn https_over_both_versions_is_carried_and_recorded() {
    let world = World::new(&open_policy()).await;
    for h2 in [false, true] {
        let target = format!("/bytes/100000?h2={h2}");
        let answer = world.https(OPEN, get(OPEN, &target, h2), h2).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.len(), 100_000);
        let record = world.exchange(&target).await;
        assert_eq!(record.state, State::Done, "{record:?}");
        assert_eq!(record.authority.as_ref().unwrap().host.as_str(), OPEN);
        assert_eq!(record.verdict.as_ref().unwrap().action, Action::Allow);
        let response = record.response.as_ref().unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.body.total, 100_000);
        assert_eq!(world.body(&record, Side::Response), answer.body);
        let flow = world.record(|r| Some(r.id) == record.parent).await;
        assert_eq!(flow.kind, Kind::Flow);
        assert_eq!(flow.protocol, "tls");
        assert!(flow.bytes_down > 100_000, "{}", flow.bytes_down);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_offered_what_its_origin_speaks() {
    let world = World::new(&open_policy()).await;
    for (name, chosen) in [(OLD, &b"http/1.1"[..]), (OPEN, b"h2")] {
        let stream = world.tls(name, world.origin(name, 443), &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen));
        let h2 = chosen == b"h2";
        let answer = Answer::of(send(stream, get(name, "/", h2), h2).await.unwrap()).await;
        assert_eq!(answer.status, 200);
    }
    // One that insists on what its origin does not speak is told so.
    let answer = world.https(OLD, get(OLD, "/", true), true).await;
    assert_eq!(answer.status, 502);
    assert_eq!(world.arrivals(OLD), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posted_body_arrives_and_is_kept() {
    let world = World::with_config(&open_policy(), "[capture]\nrequest_bytes = 1000\n").await;
    let sent = Bytes::from(vec![b'x'; 50_000]);
    let request = http::Request::post("/echo?keep")
        .header("host", OPEN)
        .header("X-Mixed-Case", "Kept")
        .header("authorization", "Bearer sk-ant-very-secret-0123456789")
        .body(Full::new(sent.clone()))
        .unwrap();
    let answer = world.https(OPEN, request, false).await;
    assert_eq!(answer.status, 200);
    let record = world.exchange("/echo?keep").await;
    let body = &record.request.as_ref().unwrap().body;
    assert_eq!((body.total, body.truncated), (50_000, true));
    assert_eq!(world.body(&record, Side::Request).len(), 1000);
    let shown = format!("{record:?}");
    assert!(!shown.contains("very-secret"), "{shown}");
    let seen = world.internet.journal().snapshot();
    let arrived = seen.requests_to(OPEN).next().unwrap();
    assert_eq!(arrived.header("authorization"), Some("Bearer sk-ant-very-secret-0123456789"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_as_they_come() {
    let world = World::new(&open_policy()).await;
    let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"http/1.1"]).await.unwrap();
    let mut body = send(stream, get(OPEN, "/sse?n=3&ms=300", false), false).await.unwrap().into_body();
    let start = std::time::Instant::now();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let first_after = start.elapsed();
    assert!(
        first.starts_with(b"event:") || first.starts_with(b"data:") || first.starts_with(b"id:"),
        "{first:?}"
    );
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(!rest.is_empty());
    // The stream takes at least 300 ms more: a gate that buffers would give both at once.
    assert!(
        start.elapsed() > first_after + std::time::Duration::from_millis(200),
        "{first_after:?} {:?}",
        start.elapsed()
    );
    world.exchange("/sse?n=3&ms=300").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_stream_is_carried() {
    let world = World::new(&open_policy()).await;
    let body = r#"{"model":"claude-sonnet-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let request = http::Request::post("/v1/messages")
        .header("host", ANTHROPIC)
        .header("content-type", "application/json")
        .header("x-api-key", "sk-ant-api03-not-to-be-seen-anywhere")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let answer = world.https(ANTHROPIC, request, false).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.windows(12).any(|w| w == b"message_stop"));
    let record = world.exchange("/v1/messages").await;
    assert_eq!(world.body(&record, Side::Request), body);
    assert_eq!(world.body(&record, Side::Response), answer.body);
    assert!(!format!("{record:?}").contains("not-to-be-seen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_an_origin_are_used_again() {
    let world = World::new(&open_policy()).await;
    for n in 0..5 {
        let target = format!("/?n={n}");
        assert_eq!(world.https(OLD, get(OLD, &target, false), false).await.status, 200);
        world.exchange(&target).await;
    }
    let connections = world.internet.journal().read(|seen| seen.connections_to(OLD).count());
    assert_eq!(connections, 1);
    assert_eq!(world.arrivals(OLD), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_an_odd_port() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(OPEN, 8080);
    let host = format!("{OPEN}:{}", original.port());
    let stream = world.connect(original).await;
    let answer = Answer::of(send(stream, get(&host, "/plain", false), false).await.unwrap()).await;
    assert!(answer.status == 200 || answer.status == 404, "{}", answer.status);
    let record = world.exchange("/plain").await;
    assert_eq!(record.request.as_ref().unwrap().scheme, "http");
    assert_eq!(record.state, State::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_are_a_clear_502_and_flagged() {
    let world = World::new(&open_policy()).await;
    for name in [EXPIRED, WRONG_NAME, SELF_SIGNED] {
        let target = format!("/?from={name}");
        let answer = world.https(name, get(name, &target, false), false).await;
        assert_eq!(answer.status, 502, "{name}");
        assert!(
            answer.json()["error"]["message"].as_str().unwrap().contains("certificate"),
            "{:?}",
            answer.body
        );
        assert_eq!(answer.headers["x-should-retry"], "false");
        let record = world.exchange(&target).await;
        assert_eq!(record.state, State::Failed);
        assert_eq!(record.failure.as_ref().unwrap().code, "origin_certificate_invalid");
        assert!(record.flags.iter().any(|flag| flag.code == "origin_certificate_invalid"));
        assert_eq!(world.arrivals(name), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_exist_and_origins_that_do_not_answer() {
    let world = World::new(&open_policy()).await;
    let original = world.origin(OPEN, 443);
    let stream = world.tls("nowhere.example", original, &[]).await.unwrap();
    let answer = Answer::of(send(stream, get("nowhere.example", "/gone", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 502);
    assert_eq!(world.exchange("/gone").await.failure.unwrap().code, "no_such_name");
    // A port where nobody listens: bound and closed again.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stream = world.tls(OPEN, closed, &[]).await.unwrap();
    let answer = Answer::of(send(stream, get(OPEN, "/closed", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 502);
    assert_eq!(world.exchange("/closed").await.failure.unwrap().code, "connect_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn passthrough_is_not_touched() {
    let policy =
        format!("version = 1\nmode = \"enforce\"\n[hosts]\npassthrough = [\"{PASSTHROUGH}\"]\n{LOOPBACK}");
    let world = World::new(&policy).await;
    let original = world.origin(PASSTHROUGH, 443);
    let pem = world.internet.root_pem().to_owned();
    let stream = world
        .tls_trusting(&pem, PASSTHROUGH, original, &[b"http/1.1"])
        .await
        .expect("the origin's own certificate");
    let answer = Answer::of(send(stream, get(PASSTHROUGH, "/", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 200);
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.verdict.unwrap().action, Action::Passthrough);
    assert_eq!(flow.authority.unwrap().host.as_str(), PASSTHROUGH);
    assert!(flow.bytes_up > 0 && flow.bytes_down > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_and_connect_are_refused_in_words() {
    let world = World::new(&open_policy()).await;
    let upgrade = http::Request::get("/ws")
        .header("host", OPEN)
        .header("connection", "Upgrade")
        .header("upgrade", "something-else")
        .body(Full::default())
        .unwrap();
    let answer = world.https(OPEN, upgrade, false).await;
    assert_eq!(answer.status, 426);
    assert_eq!(world.exchange("/ws").await.state, State::Refused);
    let connect = http::Request::connect("elsewhere.example:443")
        .header("host", "elsewhere.example:443")
        .body(Full::default())
        .unwrap();
    let answer = world.https(OPEN, connect, false).await;
    assert_eq!(answer.status, 405);
    assert_eq!(world.arrivals(OPEN), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_goes_away_is_a_cancellation() {
    let world = World::new(&open_policy()).await;
    let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"http/1.1"]).await.unwrap();
    let mut body = send(stream, get(OPEN, "/sse?n=1000&ms=20", false), false).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body); // hyper closes the connection
    let record = world.exchange("/sse?n=1000&ms=20").await;
    assert_eq!(record.state, State::Cancelled, "{record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_what_is_under_way_end() {
    let mut world = World::new(&open_policy()).await;
    let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"http/1.1"]).await.unwrap();
    let response = send(stream, get(OPEN, "/sse?n=5&ms=100", false), false).await.unwrap();
    let stopping = async {
        tokio::time::timeout(PATIENCE, world.stop()).await.expect("the gate stops");
    };
    let reading = async { response.into_body().collect().await.expect("the stream ends whole").to_bytes() };
    let ((), whole) = tokio::join!(stopping, reading);
    assert!(!whole.is_empty());
}
