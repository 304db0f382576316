//! What is refused does not arrive, is said in the agent's language, and is recorded.

use std::time::Duration;

use agentgate::model::{Kind, State};
use fake_internet::world::{ANTHROPIC, DENIED, OPEN, UNLISTED};
use tokio::io::AsyncReadExt as _;

use super::setup::{Answer, LOOPBACK, World, get, send};

fn enforce(lists: &str) -> String {
    format!("version = 1\nmode = \"enforce\"\n[hosts]\n{lists}\n{LOOPBACK}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_host_gets_403_and_the_origin_nothing() {
    let world = World::new(&enforce(&format!("allow = [\"*\"]\ndeny = [\"{DENIED}\"]"))).await;
    for h2 in [false, true] {
        let target = format!("/secret?h2={h2}");
        let answer = world.https(DENIED, get(DENIED, &target, h2), h2).await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.headers["x-should-retry"], "false");
        let said = answer.json();
        assert_eq!(said["error"]["rule"], format!("deny:{DENIED}"));
        let record = world.exchange(&target).await;
        assert_eq!(record.state, State::Refused);
        assert_eq!(said["error"]["record"], record.id.0);
    }
    assert_eq!(world.arrivals(DENIED), 0);
    assert_eq!(world.internet.journal().read(|seen| seen.connections_to(DENIED).count()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn enforce_refuses_what_is_not_listed_in_the_providers_words() {
    let world = World::new(&enforce(&format!("allow = [\"{OPEN}\"]"))).await;
    assert_eq!(world.https(OPEN, get(OPEN, "/", false), false).await.status, 200);
    assert_eq!(world.https(UNLISTED, get(UNLISTED, "/", false), false).await.status, 403);
    let answer = world.https(ANTHROPIC, get(ANTHROPIC, "/v1/models", false), false).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json()["type"], "error");
    assert_eq!(answer.json()["error"]["type"], "permission_error");
    assert_eq!(world.arrivals(UNLISTED) + world.arrivals(ANTHROPIC), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_from_the_next_request_on_the_same_connection() {
    let world = World::new(&enforce("allow = []")).await;
    let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"http/1.1"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let first = Answer::of(sender.send_request(get(OPEN, "/?a", false)).await.unwrap()).await;
    assert_eq!(first.status, 403);
    let etc = world.root.path().join("etc/agentgate/policy.toml");
    std::fs::write(etc, enforce(&format!("allow = [\"{OPEN}\"]"))).unwrap();
    world.handles().policy.reload().unwrap();
    sender.ready().await.unwrap();
    let second = Answer::of(sender.send_request(get(OPEN, "/?b", false)).await.unwrap()).await;
    assert_eq!(second.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_must_agree_with_the_server_name() {
    let world = World::new(&enforce("allow = [\"*\"]")).await;
    for h2 in [false, true] {
        let answer = world.https(OPEN, get(UNLISTED, "/fronted", h2), h2).await;
        assert_eq!(answer.status, 421);
    }
    let record = world.exchange("/fronted").await;
    assert!(record.flags.iter().any(|flag| flag.code == "destination_mismatch"), "{record:?}");
    assert_eq!(world.arrivals(OPEN) + world.arrivals(UNLISTED), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_address_is_never_dialled() {
    // The name is the allowed one, the address somebody else's: the gate dials its own resolution.
    let world = World::new(&enforce(&format!("allow = [\"{OPEN}\"]"))).await;
    let elsewhere = world.origin(UNLISTED, 443);
    let stream = world.tls(OPEN, elsewhere, &[b"http/1.1"]).await.unwrap();
    let answer = Answer::of(send(stream, get(OPEN, "/forged", false), false).await.unwrap()).await;
    // Every site shares one address here, so the port still leads to the other site: its certificate
    // is not for the approved name, and nothing arrives.
    assert_eq!(answer.status, 502);
    assert_eq!(world.arrivals(UNLISTED), 0);
    assert_eq!(world.exchange("/forged").await.failure.unwrap().code, "origin_certificate_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_name_is_refused_in_enforce() {
    let world = World::new(&enforce("allow = [\"*\"]")).await;
    let original = world.origin(OPEN, 443);
    let error = world.tls("127.0.0.1", original, &[]).await.expect_err("an alert");
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.state, State::Refused);
    assert_eq!(flow.verdict.unwrap().rule, "invariant:missing_sni");
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_and_metadata_are_not_dialled_unless_named() {
    let world = World::new("version = 1\nmode = \"audit\"\n").await;
    // The agent meant a public address; the gate's own resolution of the name points inside.
    let public = std::net::SocketAddr::from(([198, 51, 100, 10], world.origin(OPEN, 443).port()));
    let stream = world.tls(OPEN, public, &[b"http/1.1"]).await.unwrap();
    let answer = Answer::of(send(stream, get(OPEN, "/inside", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 403, "{:?}", answer.body);
    let record = world.exchange("/inside").await;
    assert_eq!((record.state, record.failure.unwrap().code.as_str()), (State::Refused, "address_refused"));
    assert_eq!(world.arrivals(OPEN), 0);
    let mut stream = world.connect("169.254.169.254:80".parse().unwrap()).await;
    tokio::io::AsyncWriteExt::write_all(
        &mut stream,
        b"GET /latest/meta-data/ HTTP/1.1\r\nhost: 169.254.169.254\r\n\r\n",
    )
    .await
    .unwrap();
    let mut answer = Vec::new();
    // Refused before HTTP: a reset, or nothing.
    let read =
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(
        read.is_err() || answer.is_empty() || answer.starts_with(b"HTTP/1.1 403"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    let record = world
        .record(|r| r.flow.as_ref().is_some_and(|f| f.original.0.ip().to_string() == "169.254.169.254"))
        .await;
    assert_eq!(record.state, State::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gates_own_ports_are_not_dialled_even_where_loopback_is_open() {
    let world = World::new(&enforce("allow = [\"*\"]")).await;
    // A public address with the listener's port, under a name that resolves to loopback.
    let original = std::net::SocketAddr::from(([198, 51, 100, 10], world.port));
    world.answered(OPEN, original.ip());
    let host = format!("{OPEN}:{}", world.port);
    let stream = world.connect(original).await;
    let answer = Answer::of(send(stream, get(&host, "/own", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 403, "{:?}", answer.body);
    let record = world.exchange("/own").await;
    assert_eq!(record.verdict.unwrap().rule, "invariant:gate_port");
    assert_eq!(record.state, State::Refused);
}
