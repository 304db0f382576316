//! Origins that take few streams at a time: what is beyond that waits for its turn, and reaches its agent.

use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, client, server};
use http::{HeaderMap, HeaderValue, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::yield_now,
    time::timeout,
};

use super::{
    setup::{PATIENCE, World},
    sides::{Agent, Order, Origin, open_policy, read, serve},
};

/// How long nothing must come.
const QUIET: Duration = Duration::from_millis(300);
/// Of the client's preface (RFC 9113 3.4).
const PREFACE: usize = 24;
/// Of a frame's head (4.1).
const FRAME: usize = 9;

/// Heads of requests that have come on `stream` and are not read yet.
async fn heads(stream: &TcpStream) -> usize {
    let mut bytes = vec![0; 64 * 1024];
    let length = stream.peek(&mut bytes).await.unwrap();
    let (mut rest, mut heads) = (bytes[..length].get(PREFACE..).unwrap_or_default(), 0);
    while let [a, b, c, kind, _, _, _, _, _, ..] = rest {
        heads += usize::from(*kind == 1);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = rest.get(FRAME + length..).unwrap_or_default();
    }
    heads
}

async fn heads_reach(stream: &TcpStream, wanted: usize) {
    while heads(stream).await < wanted {
        yield_now().await;
    }
}

/// The origin's words are late, and a request that it refuses would bring its trailers, which `h2` takes for
/// an error of the whole connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_is_asked_for_no_more_than_it_takes() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut agent = Agent::new(&world, listener.local_addr().unwrap()).await;
    let mut answers = Vec::new();
    for number in 0..12 {
        let (answer, mut up) = agent.post(&format!("/{number}")).await;
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
        up.send_data(Bytes::from_static(b"some"), false).unwrap();
        up.send_trailers(trailers).unwrap();
        answers.push(answer);
    }
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    timeout(PATIENCE, heads_reach(&stream, 1)).await.unwrap();
    assert!(timeout(QUIET, heads_reach(&stream, 3)).await.is_err(), "before it said how many it takes");

    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (_order, orders) = mpsc::unbounded_channel();
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(3);
    let serving = tokio::spawn(serve(stream, builder, 0, arrived, orders));
    for _ in 0..4 {
        let mut held = Vec::new();
        for _ in 0..3 {
            let arrived = timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
            let (body, trailers) = read(arrived.body).await.unwrap();
            assert_eq!((&body[..], trailers.map(|fields| fields.len())), (&b"some"[..], Some(1)));
            held.push(arrived.respond);
        }
        assert!(arrivals.try_recv().is_err(), "four at a time");
        for mut respond in held {
            respond.send_response(Response::new(()), true).unwrap();
        }
    }
    for answer in answers {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    }
    drop((agent, serving));
}

/// What waits is not lost in silence, nor taken for the origin's failure: it was not asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_origin_that_leaves_was_not_asked() {
    let world = World::new(&open_policy()).await;
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(1);
    let mut origin = Origin::with(&builder).await;
    let mut agent = Agent::with(&world, origin.at, &client::Builder::new()).await;
    let mut answers = Vec::new();
    for number in 0..5 {
        answers.push(agent.get(&format!("/{number}")).await);
    }
    let mut first = origin.arrived().await;
    origin.order(0, Order::Leave);
    // The next goes elsewhere once GOAWAY has come.
    let later = async {
        loop {
            let answer = agent.get("/later").await;
            let answered = timeout(PATIENCE, answer).await.unwrap();
            match answered {
                Ok(answer) => return assert_eq!(answer.status(), 200),
                Err(error) => assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM), "{error}"),
            }
        }
    };
    let serving = async {
        loop {
            let mut arrived = origin.arrived().await;
            let connection = arrived.connection;
            arrived.respond.send_response(Response::new(()), true).unwrap();
            if connection > 0 {
                return;
            }
        }
    };
    tokio::join!(later, serving);
    first.respond.send_response(Response::new(()), true).unwrap();
    let asked: usize = first.head.uri.path()[1..].parse().unwrap();
    let answer = answers.swap_remove(asked);
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    for answer in answers {
        match timeout(PATIENCE, answer).await.unwrap() {
            Ok(answer) => assert_eq!(answer.status(), 200),
            Err(error) => assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM), "{error}"),
        }
    }
}
