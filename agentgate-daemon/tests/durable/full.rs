//! A gate that may write to no file any more, between a request's head and the end of its body.

use std::time::Duration;

use agentgate::{
    model::{Record, State},
    store::Side,
};
use h2::Reason;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    content, framed, head_end, read_until, say,
    setup::{PATIENCE, World},
    sides::{Agent, Origin, open_policy, read},
};

/// What the kernel sends with EFBIG.
const SIGXFSZ: i32 = 25;

/// Whether this process may write to files.
fn may_write(may: bool) {
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: if may { limit.maximum } else { Some(0) }, ..limit })
        .unwrap();
}

async fn recovers(world: &World) {
    may_write(true);
    timeout(PATIENCE, async {
        while !world.handles().audit.health().ok {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the log can be written again");
}

fn check(world: &World, record: &Record, body: &[u8]) {
    assert_eq!(record.state, State::Failed, "{record:?}");
    assert_eq!(record.failure.as_ref().unwrap().code, "audit_unavailable");
    assert_eq!(record.response.as_ref().unwrap().status, 503);
    assert_eq!(world.body(record, Side::Request), body);
}

#[test]
fn http1_ends_before_the_end() {
    assert!(super::child("full::http1", "on").status().unwrap().success());
}

#[test]
fn http2_ends_before_the_end() {
    assert!(super::child("full::http2", "on").status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test by itself: the child of http1_ends_before_the_end"]
async fn http1() {
    if super::play().is_none() {
        return;
    }
    let _survived = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    for (number, chunked) in [(1, false), (2, true)] {
        let body = content(number, 3000);
        let target = format!("/full-{number}");
        let (head, bytes) = framed((at, &target), &body, chunked);
        let mut agent = world.connect(at).await;
        say(&mut agent, head.as_bytes()).await;
        say(&mut agent, &bytes[..1500]).await;
        let (mut origin, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        assert!(read_until(&mut origin, &mut got, |got| got.len() == head.len() + 1500).await);
        may_write(false);
        say(&mut agent, &bytes[1500..]).await;
        let mut answer = Vec::new();
        assert!(read_until(&mut agent, &mut answer, |answer| head_end(answer).is_some()).await);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("gate:audit_unavailable"), "{answer}");
        let _ended = timeout(PATIENCE, origin.read_to_end(&mut got)).await.expect("it ends");
        assert_eq!(got.len(), head.len() + 1500, "the origin never has all of it");
        recovers(&world).await;
        check(&world, &world.exchange(&target).await, &body);
    }
    // And then it goes on.
    let (head, bytes) = framed((at, "/after"), b"and on", false);
    let mut agent = world.connect(at).await;
    say(&mut agent, head.as_bytes()).await;
    let (mut origin, _) = listener.accept().await.unwrap();
    say(&mut agent, &bytes).await;
    assert!(read_until(&mut origin, &mut Vec::new(), |got| got.ends_with(b"and on")).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test by itself: the child of http2_ends_before_the_end"]
async fn http2() {
    if super::play().is_none() {
        return;
    }
    let _survived = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    for (number, trailers) in [(1, false), (2, true)] {
        let body = content(number, 3000);
        let target = format!("/full-{number}");
        let (answer, mut up) = agent.post(&target).await;
        up.send_data(body[..1500].to_vec().into(), false).unwrap();
        let mut arrived = origin.arrived().await;
        assert_eq!(arrived.body.data().await.unwrap().unwrap().len(), 1500);
        may_write(false);
        up.send_data(body[1500..].to_vec().into(), !trailers).unwrap();
        if trailers {
            up.send_trailers(http::HeaderMap::new()).unwrap();
        }
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["x-agentgate-rule"], "gate:audit_unavailable");
        let end = timeout(PATIENCE, read(arrived.body)).await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::CANCEL), "the origin never has all of it");
        recovers(&world).await;
        check(&world, &world.exchange(&target).await, &body);
    }
    let (_answer, mut up) = agent.post("/after").await;
    up.send_data("and on".into(), true).unwrap();
    assert_eq!(read(origin.arrived().await.body).await.unwrap().0, b"and on");
}
