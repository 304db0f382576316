//! Requests and answers that two readers could take for different ones. The gate is one reader and the
//! origin another: what was judged and recorded must be all that the origin finds.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use agentgate::model::{Kind, Mode, State};
use fake_internet::world::OPEN;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::setup::{LOOPBACK, PATIENCE, World};

pub(crate) fn open_policy() -> String {
    format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An origin that keeps what it is sent and answers each read that ends a head or body with `answer`.
pub(crate) async fn origin(answer: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    log.lock().unwrap().extend_from_slice(&buffer[..length]);
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (at, seen)
}

/// All that comes until the gate closes.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let _reset_or_end = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end");
    String::from_utf8_lossy(&all).into_owned()
}

/// What comes until there is `until`.
async fn heard(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), until: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(until) {
        let read = timeout(PATIENCE, stream.read_buf(&mut all)).await.expect("more").unwrap();
        assert_ne!(read, 0, "{:?}", String::from_utf8_lossy(&all));
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_two_ways_goes_nowhere() {
    let world = World::new(&open_policy()).await;
    let (at, seen) = origin(OK).await;
    let name = format!("{OPEN}:{}", at.port());
    let host = format!("Host: {name}\r\n");
    let smuggled = format!("GET /smuggled HTTP/1.1\r\n{host}\r\n");
    let post = |more: &str| format!("POST /x HTTP/1.1\r\n{host}{more}\r\n0\r\n\r\n{smuggled}");
    let get = |line: &str, more: &str| format!("{line}\r\n{host}{more}\r\n{smuggled}");
    let rows = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        post("Transfer-Encoding: xchunked\r\n"),
        post("Transfer-Encoding: chunked, identity\r\n"),
        post("Transfer-Encoding:\u{b}chunked\r\n"),
        post("Transfer-Encoding : chunked\r\n"),
        post(" Transfer-Encoding: chunked\r\n"),
        post("X: y\r\n Transfer-Encoding: chunked\r\n"),
        post("X: y\rTransfer-Encoding: chunked\r\n"),
        post("X: y\nTransfer-Encoding: chunked\r\n"),
        post("Transfer-Encoding: chunked\0\r\n"),
        post("Content-Length: 5\r\nContent-Length: 5\r\n"),
        post("Content-Length: 5, 5\r\n"),
        post("Content-Length: +5\r\n"),
        post("Content-Length: 0x5\r\n"),
        post("Content-Length: 5 5\r\n"),
        post("Content-Length: 18446744073709551621\r\n"),
        get("GET /x HTTP/1.1", "Connection: close, host\r\n"),
        get("GET /x HTTP/1.1", "Connection: Content-Length\r\n"),
        get("GET /x HTTP/1.1", "Connection: transfer-encoding\r\n"),
        get("GET /x HTTP/1.1", "Host: other.example\r\n"),
        get("GET /x HTTP/1.1", "host:\r\n"),
        get("GET http://other.example/x HTTP/1.1", ""),
        get("GET /x#/../y HTTP/1.1", ""),
        get("GET http://open.example#@other.example/ HTTP/1.1", ""),
        get("GET /x", ""),
        get("GET /x HTTP/0.9", ""),
        get("GET /x HTTP/2.0", ""),
        get("GET /x HTTP/1.1 HTTP/1.1", ""),
        get("GET\t/x\tHTTP/1.1", ""),
        get("GET /x\rHTTP/1.1", ""),
        get("CONNECT /x HTTP/1.1", ""),
        get("CONNECT http://other.example/ HTTP/1.1", ""),
        get("GET /x HTTP/1.1", "Upgrade: tls/1.0\r\nConnection: upgrade\r\n"),
        get("GET /x HTTP/1.1", "Upgrade: h2c, foo\r\nConnection: upgrade\r\n"),
    ];
    for row in rows {
        let mut stream = world.connect(at).await;
        // A first request that is plain, so that the bad one comes where only this engine reads.
        stream.write_all(format!("GET /first HTTP/1.1\r\n{host}\r\n").as_bytes()).await.unwrap();
        heard(&mut stream, "\r\n\r\nok").await;
        seen.lock().unwrap().clear();
        stream.write_all(row.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        let refused = ["400", "403", "421", "426", "501"]
            .iter()
            .any(|code| answer.starts_with(&format!("HTTP/1.1 {code} ")));
        assert!(refused, "{row:?}: {answer:?}");
        let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        assert!(!sent.contains("/x"), "{row:?} went on as {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_ends_the_connection_and_nothing_after_it_is_a_request() {
    let world = World::new(&open_policy()).await;
    let (at, seen) = origin(b"").await;
    let host = format!("Host: {OPEN}:{}\r\n", at.port());
    for body in [
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\t;a\u{1}\r\nhelloX\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nX: y\r\nhOsT: other.example\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\r\n folded\r\n\r\n",
    ] {
        seen.lock().unwrap().clear();
        let mut stream = world.connect(at).await;
        let all = format!(
            "POST /body HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\n{host}\r\n"
        );
        stream.write_all(all.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer:?}");
        let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        assert!(!sent.contains("/smuggled"), "{body:?} went on as {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_hide_no_target() {
    let world = World::new(&open_policy()).await;
    let (at, seen) = origin(OK).await;
    let host = format!("Host: {OPEN}:{}\r\n", at.port());
    for (number, lines) in [&["\r", "\n"][..], &["\r\n\r", "\n"], &["\r\n\r\n\r\n"]].into_iter().enumerate() {
        let mut stream = world.connect(at).await;
        stream.write_all(format!("GET /first HTTP/1.1\r\n{host}\r\n").as_bytes()).await.unwrap();
        heard(&mut stream, "\r\n\r\nok").await;
        seen.lock().unwrap().clear();
        for piece in lines {
            stream.write_all(piece.as_bytes()).await.unwrap();
            // Each is to be read by itself.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let target = format!("/hidden/{number}");
        stream
            .write_all(format!("GET {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let answer = rest(&mut stream).await;
        let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        if answer.starts_with("HTTP/1.1 200") {
            assert!(sent.starts_with("GET "), "{lines:?} went on as {sent:?}");
            assert_eq!(world.exchange(&target).await.state, State::Done);
        } else {
            assert!(answer.starts_with("HTTP/1.1 400"), "{lines:?}: {answer:?}");
            assert!(sent.is_empty(), "{lines:?} went on as {sent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_cannot_be_is_answered_with_why() {
    let world = World::with_config(&open_policy(), "[limits]\nheader_bytes = 8192\n").await;
    let (at, _seen) = origin(OK).await;
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(9000));
    for (head, status) in [("GET / HTTP/1.1\nHost: a\n\n", "400"), (long.as_str(), "431")] {
        let mut stream = world.connect(at).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:.30?}: {answer:?}");
        assert!(answer.contains("agentgate: "), "{answer:?}");
    }
    let flow = world.record(|record| record.kind == Kind::Flow).await;
    assert_eq!((flow.state, flow.failure.unwrap().code.as_str()), (State::Refused, "bad_http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_origin_says_unasked_answers_nobody() {
    let world = World::new(&open_policy()).await;
    const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL";
    let rows: [(&str, String); 4] = [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n".to_owned() + EVIL),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n".to_owned() + EVIL),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned() + EVIL),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned() + EVIL),
    ];
    for (method, answer) in rows {
        let (at, _seen) = origin(answer.clone().into_bytes().leak()).await;
        let host = format!("Host: {OPEN}:{}\r\n", at.port());
        let mut stream = world.connect(at).await;
        let ask = format!("{method} /x HTTP/1.1\r\n{host}\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        heard(&mut stream, "\r\n\r\n").await;
        // The next, of the same agent's connection or of another, gets an answer of its own.
        stream.write_all(ask.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = rest(&mut stream).await;
        let mut other = world.connect(at).await;
        other
            .write_all(format!("{method} /y HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        all += &rest(&mut other).await;
        assert!(!all.contains("EVIL"), "{method} {answer:?}: {all:?}");
    }
}

/// An origin that closes a connection on which nothing was asked for a while, as many do.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_made_early_and_closed_meanwhile_costs_no_request() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let config = world.internet.presenting(OPEN, &[b"http/1.1"]).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = count.fetch_add(1, SeqCst);
            let Ok(mut stream) = TlsAcceptor::from(config.clone()).accept(stream).await else { continue };
            if number == 0 {
                stream.shutdown().await.unwrap();
                closed.send(()).unwrap();
                continue;
            }
            let mut buffer = vec![0; 65536];
            while let Ok(1..) = stream.read(&mut buffer).await {
                stream.write_all(OK).await.unwrap();
            }
        }
    });
    let mut stream = world.tls(OPEN, at, &[b"http/1.1"]).await.unwrap();
    timeout(PATIENCE, is_closed.recv()).await.unwrap().unwrap();
    // A POST, which may not be sent twice.
    let ask = format!(
        "POST /late HTTP/1.1\r\nHost: {OPEN}:{}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        at.port()
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    assert_eq!(accepted.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_outlives_no_policy() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    stream.write_all(OK).await.unwrap();
                }
            });
        }
    });
    let ask = format!("GET /x HTTP/1.1\r\nHost: {OPEN}:{}\r\n\r\n", at.port());
    let mut stream = world.connect(at).await;
    let policy = &world.handles().policy;
    for (mode, connections) in [(None, 1), (None, 1), (Some(Mode::Audit), 2), (Some(Mode::Audit), 2)] {
        policy.set_mode(mode).unwrap();
        stream.write_all(ask.as_bytes()).await.unwrap();
        heard(&mut stream, "\r\n\r\nok").await;
        assert_eq!(accepted.load(SeqCst), connections, "{mode:?}");
    }
    policy.set_mode(Some(Mode::Enforce)).unwrap();
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = heard(&mut stream, "not").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(accepted.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_never_comes_to_its_answer_is_given_up() {
    let world = World::new(&open_policy()).await;
    let flood = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(10_000);
    let (at, _seen) = origin(flood.leak()).await;
    let mut stream = world.connect(at).await;
    let ask = format!("GET /hints HTTP/1.1\r\nHost: {OPEN}:{}\r\nConnection: close\r\n\r\n", at.port());
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.matches("HTTP/1.1 103 ").count() < 100, "{}", answer.len());
    assert!(answer.contains("HTTP/1.1 502 "), "{answer}");
    assert_eq!(world.exchange("/hints").await.state, State::Failed);
}
