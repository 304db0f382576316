//! Exchanges between two sides that the tests are.

use std::cell::RefCell;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::http::h1::through::{Through, through};

/// What an exchange did: how it ended, what each side got, and the contents that were seen.
struct Ran {
    done: Done,
    to_origin: Vec<u8>,
    to_agent: Vec<u8>,
    up: Vec<u8>,
    down: Vec<u8>,
}

/// Relays one request, whose bytes are `asks`, to an origin that answers `answers` once it has read
/// `after` bytes; both then end if `close`, else they stay silent.
async fn ran(asks: &[u8], answers: &[u8], after: usize, close: bool) -> Ran {
    let (agent_far, agent) = duplex(64);
    let (mut origin_far, origin) = duplex(64);
    let (mut agent, mut origin) = (Wire::new(agent), Wire::new(origin));
    let (asks, answers) = (asks.to_vec(), answers.to_vec());
    let (mut read_far, mut write_far) = tokio::io::split(agent_far);
    let asker = tokio::spawn(async move {
        write_far.write_all(&asks).await.ok();
        write_far
    });
    let listener = tokio::spawn(async move {
        let mut got = Vec::new();
        read_far.read_to_end(&mut got).await.ok();
        got
    });
    let answerer = tokio::spawn(async move {
        let mut got = BytesMut::new();
        while got.len() < after && origin_far.read_buf(&mut got).await.unwrap_or(0) > 0 {}
        origin_far.write_all(&answers).await.ok();
        if close {
            origin_far.shutdown().await.ok();
        }
        let mut got = got.to_vec();
        origin_far.read_to_end(&mut got).await.ok();
        got
    });
    let (up, down) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let mut lull = Lull::new(Duration::from_secs(60));
    let bytes = poll_head(&mut agent).await;
    let request = head::request(bytes).unwrap();
    let raw = request.parts.extensions.get::<super::super::RawHead>().unwrap().bytes().clone();
    let asking = Asking {
        head: raw,
        framing: request.framing,
        method: &request.parts.method,
        keep_alive: request.keep_alive,
        upgrade: request.parts.headers.contains_key("upgrade"),
    };
    let done = relay(
        &mut agent,
        &mut origin,
        &mut lull,
        asking,
        |data: &[u8]| {
            up.borrow_mut().extend_from_slice(data);
            if data.contains(&b'!') { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
        |data| down.borrow_mut().extend_from_slice(data),
        |head| head.raw.bytes().clone(),
    )
    .await;
    drop((agent, origin));
    let (to_agent, to_origin) = (listener.await.unwrap(), answerer.await.unwrap());
    drop(asker.await);
    Ran { done, to_origin, to_agent, up: up.into_inner(), down: down.into_inner() }
}

async fn poll_head(wire: &mut Wire<DuplexStream>) -> BytesMut {
    std::future::poll_fn(|cx| wire.poll_head(cx, 4096)).await.unwrap().unwrap()
}

#[tokio::test]
async fn both_sides_get_every_byte_as_it_was_sent() {
    let ask = b"POST /x HTTP/1.1\r\nhOST: a\r\nTransfer-Encoding: chunked\r\n\r\n05;e=1\r\nhello\r\n0\r\nT: 1\r\n\r\n";
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 200 Fine  indeed\r\nB: 1\r\na: 2\r\nB: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n00\r\nx: y\r\n\r\n";
    let ran = ran(ask, answer, ask.len(), false).await;
    assert!(matches!(ran.done.outcome, Outcome::Whole), "{:?}", ran.done);
    assert!(ran.done.agent_stays && ran.done.origin_stays);
    assert_eq!(ran.to_origin, ask);
    assert_eq!(ran.to_agent, answer);
    assert_eq!((ran.up.as_slice(), ran.down.as_slice()), (&b"hello"[..], &b"abc"[..]));
}

#[tokio::test]
async fn a_body_larger_than_every_buffer_passes() {
    let mut ask = b"PUT / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n".to_vec();
    ask.resize(ask.len() + 300_000, b'u');
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.resize(answer.len() + 200_000, b'd');
    let ran = ran(&ask, &answer, ask.len(), true).await;
    assert!(matches!(ran.done.outcome, Outcome::Whole), "{:?}", ran.done);
    assert!(!ran.done.agent_stays && !ran.done.origin_stays, "it ended by closing");
    assert_eq!(ran.to_origin, ask);
    assert_eq!(ran.to_agent, answer);
    assert_eq!((ran.up.len(), ran.down.len()), (300_000, 200_000));
}

#[tokio::test]
async fn what_is_stopped_does_not_go_on() {
    for (ask, went) in [
        (&b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab!cdefgh"[..], &b""[..]),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\n!\r\n1\r\nc\r\n0\r\n\r\n",
            b"!",
        ),
    ] {
        let ran = ran(ask, b"", ask.len(), false).await;
        assert!(matches!(ran.done.outcome, Outcome::Stopped), "{:?}", ran.done);
        assert!(!ran.done.origin_stays && !ran.done.agent_stays && !ran.done.request_whole);
        assert!(!ran.to_origin.contains(&b'!'), "{}", ran.to_origin.escape_ascii());
        assert!(went.is_empty() || ran.up.ends_with(went), "nothing is seen after it");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_whole() {
    let ask = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345";
    let early =
        ran(ask, b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", ask.len(), true)
            .await;
    assert!(matches!(early.done.outcome, Outcome::Whole), "{:?}", early.done);
    assert!(early.done.response_whole && !early.done.request_whole && !early.done.agent_stays);
    assert!(early.to_agent.ends_with(b"\r\n\r\nno"));
}

#[tokio::test]
async fn what_breaks_is_told_by_who_broke_it() {
    let get = b"GET / HTTP/1.1\r\n\r\n";
    for (answer, answered) in [
        (&b""[..], false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", false),
        (b"SSH-2.0-OpenSSH\r\n\r\n", false),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123", true),
    ] {
        let ran = ran(get, answer, get.len(), true).await;
        assert!(matches!(ran.done.outcome, Outcome::Origin(_)), "{answer:?}: {:?}", ran.done);
        assert_eq!(ran.done.answered, answered, "{answer:?}");
        assert_eq!(ran.done.heard, !answer.is_empty());
        assert!(!ran.done.origin_stays && !ran.done.agent_stays);
    }
    let bad = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
    let ran = ran(bad, b"", bad.len(), false).await;
    assert!(matches!(ran.done.outcome, Outcome::AgentBody(_)), "{:?}", ran.done);
    assert!(!ran.to_origin.ends_with(b"xyz\r\n"), "nothing of a bad body goes on");
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_by_who_was_silent() {
    let (mut agent_far, agent) = duplex(1024);
    let (_origin_far, origin) = duplex(1024);
    let (mut agent, mut origin) = (Wire::new(agent), Wire::new(origin));
    let idle = Duration::from_secs(8);
    let mut lull = Lull::new(idle);
    let method = Method::POST;
    for (framing, blames_agent) in [(Framing::Length(5), true), (Framing::Empty, false)] {
        let head = Bytes::from_static(b"POST / HTTP/1.1\r\n\r\n");
        let asking = Asking { head, framing, method: &method, keep_alive: true, upgrade: false };
        let start = Instant::now();
        let done = relay(
            &mut agent,
            &mut origin,
            &mut lull,
            asking,
            |_: &[u8]| ControlFlow::Continue(()),
            |_| {},
            |_| Bytes::new(),
        )
        .await;
        assert!(matches!(done.outcome, Outcome::Silent { agent } if agent == blames_agent), "{done:?}");
        assert!(start.elapsed() >= idle && start.elapsed() <= idle * 3 / 2, "{:?}", start.elapsed());
    }
    agent_far.write_all(b"x").await.unwrap();
}

#[tokio::test]
async fn a_switched_connection_is_moved_until_both_have_ended() {
    let (mut agent_far, agent) = duplex(64);
    let (mut origin_far, origin) = duplex(64);
    let (mut agent, mut origin) = (Wire::new(agent), Wire::new(origin));
    let ends = tokio::spawn(async move {
        agent_far.write_all(&[1; 500]).await.unwrap();
        agent_far.shutdown().await.unwrap();
        let mut got = Vec::new();
        agent_far.read_to_end(&mut got).await.unwrap();
        got
    });
    let echo = tokio::spawn(async move {
        let mut got = Vec::new();
        origin_far.read_to_end(&mut got).await.unwrap();
        origin_far.write_all(&got).await.unwrap();
    });
    let mut lull = Lull::new(Duration::from_secs(60));
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let moved = through(
        &mut agent,
        &mut origin,
        &mut lull,
        |data| {
            up.extend_from_slice(data);
            ControlFlow::Continue(())
        },
        |data| down.extend_from_slice(data),
    )
    .await;
    assert!(matches!(moved, Through::Done), "{moved:?}");
    assert_eq!(ends.await.unwrap(), [1; 500]);
    echo.await.unwrap();
    assert_eq!((up, down), (vec![1; 500], vec![1; 500]), "each byte is seen once");
}

#[tokio::test]
async fn no_switch_before_the_request_is_there() {
    let ask = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 10\r\n\r\n12345";
    let answer = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\nhello";
    let early = ran(ask, answer, ask.len(), false).await;
    assert!(matches!(early.done.outcome, Outcome::Origin(_)), "{:?}", early.done);
    assert!(early.to_agent.is_empty());
}

#[tokio::test]
async fn who_has_the_answer_may_leave_the_rest_of_the_request_away() {
    let (mut agent_far, agent) = duplex(1000);
    let (mut origin_far, origin) = duplex(1000);
    let (mut agent, mut origin) = (Wire::new(agent), Wire::new(origin));
    let ask = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";
    agent_far.write_all(ask).await.unwrap();
    let answer = b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno";
    origin_far.write_all(answer).await.unwrap();
    let asker = tokio::spawn(async move {
        let mut got = vec![0; answer.len()];
        agent_far.read_exact(&mut got).await.unwrap();
        got // and it is gone
    });
    let request = head::request(poll_head(&mut agent).await).unwrap();
    let asking = Asking {
        head: Bytes::from_static(ask),
        framing: request.framing,
        method: &request.parts.method,
        keep_alive: true,
        upgrade: false,
    };
    let mut lull = Lull::new(Duration::from_secs(60));
    let done = relay(
        &mut agent,
        &mut origin,
        &mut lull,
        asking,
        |_: &[u8]| ControlFlow::Continue(()),
        |_| {},
        |head| head.raw.bytes().clone(),
    )
    .await;
    assert!(matches!(done.outcome, Outcome::Whole), "{done:?}");
    assert!(done.response_whole && !done.request_whole && !done.origin_stays && !done.agent_stays);
    assert_eq!(asker.await.unwrap(), answer);
}
