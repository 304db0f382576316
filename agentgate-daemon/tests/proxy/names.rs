//! Which address a connection goes to, which name it is for, and what the gate's DNS server said of the
//! two. Origins are on loopback, which policy opens here; agents mean to go to public addresses.

use std::{net::SocketAddr, time::Duration};

use agentgate::model::{Action, Kind, Record, Severity, State};
use bytes::Bytes;
use fake_internet::world::{OPEN, PASSTHROUGH, SINK, UNLISTED};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::setup::{Answer, LOOPBACK, PATIENCE, World, get, send};

fn policy(mode: &str, hosts: &str) -> String {
    format!("version = 1\nmode = \"{mode}\"\n[hosts]\n{hosts}\n{LOOPBACK}")
}

const ALL: &str = "allow = [\"*\"]";

/// A public address with the port at which `name` really is.
fn public(world: &World, name: &str, port: u16) -> SocketAddr {
    let ip = fake_internet::world::find(name).unwrap().v4;
    SocketAddr::new(ip.into(), world.origin(name, port).port())
}

fn codes(record: &Record) -> Vec<&str> {
    record.flags.iter().map(|flag| flag.code.as_str()).collect()
}

async fn https(world: &World, original: SocketAddr, name: &str, target: &str, h2: bool) -> Answer {
    let alpn: &[&[u8]] = if h2 { &[b"h2"] } else { &[b"http/1.1"] };
    let stream = world.tls(name, original, alpn).await.unwrap();
    Answer::of(send(stream, get(name, target, h2), h2).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_dns_never_gave_is_refused_in_enforce() {
    let world = World::new(&policy("enforce", ALL)).await;
    let original = public(&world, OPEN, 443);
    world.answered_elsewhere(OPEN, original.ip());
    for h2 in [false, true] {
        let target = format!("/?never-h2={h2}");
        let answer = https(&world, original, OPEN, &target, h2).await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.json()["error"]["rule"], "invariant:address_not_resolved");
        let record = world.exchange(&target).await;
        assert_eq!((record.state, codes(&record)), (State::Refused, vec!["address_not_resolved"]));
    }
    // The same over plain HTTP.
    let plain = public(&world, OPEN, 8080);
    let stream = world.connect(plain).await;
    let host = format!("{OPEN}:{}", plain.port());
    let answer = Answer::of(send(stream, get(&host, "/?plain", false), false).await.unwrap()).await;
    assert_eq!(answer.json()["error"]["rule"], "invariant:address_not_resolved");
    assert_eq!(world.arrivals(OPEN), 0);
    // Once DNS has given it, it passes and nothing is flagged.
    world.answered(OPEN, original.ip());
    for h2 in [false, true] {
        let target = format!("/?given-h2={h2}");
        let answer = https(&world, original, OPEN, &target, h2).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert!(!world.exchange(&target).await.flags.iter().any(|flag| flag.code != "privileged_agent"));
    }
    let stream = world.connect(plain).await;
    let answer = Answer::of(send(stream, get(&host, "/?plain-given", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(world.arrivals(OPEN), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_dns_never_gave_is_flagged_outside_enforce() {
    for (mode, expect) in
        [("blocklist", &["address_not_resolved"][..]), ("audit", &["address_not_resolved", "would_block"])]
    {
        let world = World::new(&policy(mode, ALL)).await;
        let answer = https(&world, public(&world, OPEN, 443), OPEN, "/?flagged", false).await;
        assert_eq!(answer.status, 200);
        assert_eq!(codes(&world.exchange("/?flagged").await), expect, "{mode}");
        assert_eq!(world.arrivals(OPEN), 1);
    }
}

/// The name decides where it goes, so an address of another name's is flagged and not dialled.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_given_for_another_name_is_flagged() {
    let world = World::new(&policy("enforce", ALL)).await;
    let port = world.origin(OPEN, 443).port();
    let elsewhere = SocketAddr::new(public(&world, UNLISTED, 443).ip(), port);
    world.answered(UNLISTED, elsewhere.ip());
    for h2 in [false, true] {
        let target = format!("/?other-h2={h2}");
        let answer = https(&world, elsewhere, OPEN, &target, h2).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let record = world.exchange(&target).await;
        assert_eq!(codes(&record), ["destination_mismatch"]);
        assert_eq!(record.flags[0].severity, Severity::Medium);
        assert!(record.flags[0].evidence.contains(UNLISTED), "{:?}", record.flags);
    }
    assert_eq!((world.arrivals(OPEN), world.arrivals(UNLISTED)), (2, 0));
}

/// Each request of a connection is held to the name of its handshake, also where its own name was given
/// for the same address.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_agrees_with_its_connection() {
    let world = World::new(&policy("enforce", ALL)).await;
    let original = public(&world, OPEN, 443);
    for name in [OPEN, UNLISTED] {
        world.answered(name, original.ip());
    }
    for h2 in [false, true] {
        let alpn: &[&[u8]] = if h2 { &[b"h2"] } else { &[b"http/1.1"] };
        let stream = world.tls(OPEN, original, alpn).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let names = [(OPEN, 200), (UNLISTED, 421), (OPEN, 200)];
        if h2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
            tokio::spawn(connection);
            for (name, status) in names {
                sender.ready().await.unwrap();
                let answer = Answer::of(sender.send_request(get(name, "/?h2", true)).await.unwrap()).await;
                assert_eq!(answer.status, status, "{name}");
            }
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            for (name, status) in names {
                sender.ready().await.unwrap();
                let answer = Answer::of(sender.send_request(get(name, "/?h1", false)).await.unwrap()).await;
                assert_eq!(answer.status, status, "{name}");
            }
        }
    }
    assert_eq!(world.arrivals(UNLISTED), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passthrough_tunnel_is_no_way_to_an_address_of_ones_own() {
    let world = World::new(&policy("enforce", &format!("passthrough = [\"{PASSTHROUGH}\"]"))).await;
    let original = public(&world, PASSTHROUGH, 443);
    let pem = world.internet.root_pem().to_owned();
    let error = world.tls_trusting(&pem, PASSTHROUGH, original, &[]).await.expect_err("an alert");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    assert_eq!(flow.verdict.as_ref().unwrap().rule, "invariant:address_not_resolved");
    assert!(codes(&flow).contains(&"address_not_resolved"), "{flow:?}");
    assert_eq!(world.internet.journal().read(|seen| seen.connections_to(PASSTHROUGH).count()), 0);

    world.answered(PASSTHROUGH, original.ip());
    let stream = world.tls_trusting(&pem, PASSTHROUGH, original, &[b"http/1.1"]).await.unwrap();
    let answer = Answer::of(send(stream, get(PASSTHROUGH, "/", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 200);
    let flow = world.record(|r| r.kind == Kind::Flow && r.state == State::Done).await;
    assert!(!codes(&flow).contains(&"address_not_resolved"), "{flow:?}");
}

/// What is not HTTP goes to the name that its address was given for, as the gate resolves it.
#[tokio::test(flavor = "multi_thread")]
async fn opaque_tcp_is_judged_by_name() {
    let world = World::new(&policy("enforce", "")).await;
    let original = public(&world, SINK, 9000);
    let opaque = format!("opaque_tcp = [{{ host = \"{SINK}\", port = {} }}]", original.port());
    let text = format!("{}{opaque}\n", policy("enforce", ""));
    std::fs::write(world.root.path().join("etc/agentgate/policy.toml"), text).unwrap();
    world.handles().policy.reload().unwrap();

    // Never given: nothing names it.
    let mut stream = world.connect(original).await;
    stream.write_all(b"SSH-2.0-agent\r\n").await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    let refused = world.record(|r| r.kind == Kind::Flow && r.state == State::Refused).await;
    assert_eq!(refused.verdict.unwrap().rule, "invariant:opaque");
    assert_eq!(world.internet.journal().read(|seen| seen.connections_to(SINK).count()), 0);

    world.answered(SINK, original.ip());
    let mut stream = world.connect(original).await;
    stream.write_all(b"SSH-2.0-agent\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let _end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap();
    let flow = world.record(|r| r.kind == Kind::Flow && r.state != State::Refused).await;
    let verdict = flow.verdict.unwrap();
    assert_eq!(verdict.action, Action::Passthrough);
    assert_eq!(verdict.rule, format!("opaque_tcp:{SINK}:{}", original.port()));
    assert_eq!(flow.bytes_up, 15);
    assert_eq!((flow.protocol.as_str(), flow.note.as_deref()), ("ssh", Some("SSH-2.0-agent")));
    assert_eq!(world.internet.journal().read(|seen| seen.connections_to(SINK).count()), 1);
}

/// `*` names no address: an address that nobody wrote down and no DNS answer had stays closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_literal_address_has_to_be_named() {
    let world = World::new(&policy("enforce", ALL)).await;
    let stream = world.connect("203.0.113.40:80".parse().unwrap()).await;
    let answer = Answer::of(send(stream, get("203.0.113.40", "/literal", false), false).await.unwrap()).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json()["error"]["rule"], "invariant:address_not_resolved");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_loopback_whatever_led_there() {
    for mode in ["enforce", "blocklist", "audit"] {
        let world = World::new(&format!("version = 1\nmode = \"{mode}\"\n[hosts]\n{ALL}\n")).await;
        let original: SocketAddr = "198.51.100.10:80".parse().unwrap();
        for name in ["localhost", "LOCALHOST.", "gate.localhost"] {
            world.answered(name, original.ip());
            let stream = world.connect(original).await;
            let answer = Answer::of(send(stream, get(name, "/here", false), false).await.unwrap()).await;
            assert_eq!(answer.status, 403, "{mode} {name}");
            assert_eq!(answer.json()["error"]["rule"], "invariant:loopback", "{mode} {name}");
        }
    }
}

/// A name that resolves to this host is not dialled, in whatever way the host is spelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_this_host_is_not_dialled() {
    let world = World::new(&format!("version = 1\nmode = \"audit\"\n[hosts]\n{ALL}\n")).await;
    let original = public(&world, OPEN, 443);
    world.answered(OPEN, original.ip());
    let answer = https(&world, original, OPEN, "/rebound", false).await;
    assert_eq!(answer.status, 403);
    assert_eq!(world.exchange("/rebound").await.verdict.unwrap().rule, "invariant:loopback");
    assert_eq!(world.arrivals(OPEN), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_over_https_is_flagged() {
    let world = World::new(&policy("enforce", ALL)).await;
    let request = http::Request::post("/dns-query")
        .header("host", OPEN)
        .header("content-type", "application/dns-message")
        .body(Full::new(Bytes::from_static(&[0; 17])))
        .unwrap();
    world.https(OPEN, request, false).await;
    let record = world.exchange("/dns-query").await;
    assert_eq!(codes(&record), ["dns_over_https"]);
    assert_eq!(record.verdict.unwrap().action, Action::Allow, "it is HTTPS, and judged as such");
}

/// Flows in these tests are root's.
#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_agent_is_flagged_once_a_connection() {
    let world = World::new(&policy("enforce", ALL)).await;
    world.https(OPEN, get(OPEN, "/root", false), false).await;
    let flow = world.record(|r| r.kind == Kind::Flow).await;
    let flag = flow.flags.iter().find(|flag| flag.code == "privileged_agent").unwrap();
    assert!(flag.evidence.starts_with("uid 0"), "{flag:?}");
    assert!(!codes(&world.exchange("/root").await).contains(&"privileged_agent"));
}

/// The host's own addresses are closed from the start on, and the kernel knows them.
#[tokio::test(flavor = "multi_thread")]
async fn own_addresses_are_installed_before_the_gate_is_up() {
    let world = World::new(&policy("audit", ALL)).await;
    let told = world.kernel.host_addresses();
    assert!(told.contains(&"127.0.0.1".parse().unwrap()), "{told:?}");
    assert!(
        told.iter()
            .filter(|ip| !ip.is_loopback())
            .all(|ip| { world.handles().policy.current().addresses().admits(*ip, 443).is_err() })
    );
}

/// What policy says of loopback and UDP reaches the kernel, also after a reload.
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_is_told_of_loopback_and_udp() {
    let own = "version = 1\nmode = \"enforce\"\n[network]\n";
    let world = World::new(own).await;
    assert_eq!(world.kernel.settings().loopback_own, 1);
    assert!(world.kernel.udp().is_empty());
    let text = format!(
        "{own}loopback = {{ default = \"deny\", ports = [5432] }}\n\
         udp = [{{ allow = \"10.1.2.0/24\", ports = [\"6000-6010\"] }}]\n"
    );
    std::fs::write(world.root.path().join("etc/agentgate/policy.toml"), text).unwrap();
    world.handles().policy.reload().unwrap();
    let told = tokio::time::timeout(PATIENCE, async {
        // The kernel is told by a task of its own, and tells nobody when it was.
        while world.kernel.udp().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    told.await.expect("the kernel is told");
    assert_eq!(world.kernel.settings().loopback_own, 0);
    assert_eq!(world.kernel.settings().loopback_ports[0], 5432);
    let udp = world.kernel.udp();
    assert_eq!((udp[0].net.to_string(), &udp[0].ports[..]), ("10.1.2.0/24".to_owned(), &[(6000, 6010)][..]));
}
