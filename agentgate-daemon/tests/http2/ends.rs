//! Streams that end before their end: the code that one side says is what the other hears, and the record
//! says who it was.

use std::{future::poll_fn, time::Duration};

use agentgate::model::{Mode, Record, State};
use h2::{Reason, client};
use http::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{Instant, timeout},
};

use super::{
    setup::{PATIENCE, World},
    sides::{Agent, Order, Origin, open_policy, read},
};

fn ended(record: &Record) -> (State, &str, &str) {
    let failure = record.failure.as_ref();
    (record.state, failure.map_or("", |f| f.blame.as_str()), failure.map_or("", |f| f.code.as_str()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_code_reaches_the_origin() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    for (target, reason) in [("/cancel", Reason::CANCEL), ("/calm", Reason::ENHANCE_YOUR_CALM)] {
        let (_answer, mut up) = agent.post(target).await;
        let mut arrived = origin.arrived().await;
        up.send_reset(reason);
        assert_eq!(poll_fn(|cx| arrived.respond.poll_reset(cx)).await.unwrap(), reason);
        assert_eq!(ended(&world.exchange(target).await), (State::Cancelled, "agent", "agent_went_away"));
    }
    // Amid the answer.
    let (answer, mut up) = agent.post("/amid").await;
    let mut arrived = origin.arrived().await;
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    down.send_data("some".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "some");
    up.send_reset(Reason::CANCEL);
    assert_eq!(poll_fn(|cx| down.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    let record = world.exchange("/amid").await;
    assert_eq!(ended(&record), (State::Cancelled, "agent", "agent_went_away"));
    assert_eq!(record.response.unwrap().body.total, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origins_code_reaches_the_agent() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    for (target, reason) in [("/refused", Reason::REFUSED_STREAM), ("/http1", Reason::HTTP_1_1_REQUIRED)] {
        let answer = agent.get(target).await;
        origin.arrived().await.respond.send_reset(reason);
        assert_eq!(answer.await.unwrap_err().reason(), Some(reason));
        assert_eq!(ended(&world.exchange(target).await), (State::Failed, "origin", "origin_broke_off"));
    }
    // Amid the answer, of which nothing is lost.
    let answer = agent.get("/amid").await;
    let mut arrived = origin.arrived().await;
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    down.send_data("some".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "some");
    down.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(body.data().await.unwrap().unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    let record = world.exchange("/amid").await;
    assert_eq!(ended(&record), (State::Failed, "origin", "origin_broke_off"));
    assert_eq!(record.response.unwrap().body.total, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_goes_away_is_a_cancellation() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let (answer, _up) = agent.post("/gone").await;
    let mut arrived = origin.arrived().await;
    agent.connection.abort();
    let reset = timeout(PATIENCE, poll_fn(|cx| arrived.respond.poll_reset(cx))).await.unwrap();
    assert_eq!(reset.unwrap(), Reason::CANCEL);
    drop(answer);
    assert_eq!(ended(&world.exchange("/gone").await), (State::Cancelled, "agent", "agent_went_away"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_leaves_serves_what_it_has_and_the_next_dials_anew() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let first = agent.get("/first").await;
    let mut arrived = origin.arrived().await;
    origin.order(0, Order::Leave);
    // The agent's connection is its own: it stays. Which request is the first to find the origin leaving
    // is the origin's affair; none is lost.
    let mut last = 0;
    for turn in 0.. {
        let answer = agent.get(&format!("/more/{turn}")).await;
        let mut next = origin.arrived().await;
        next.respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        last = next.connection;
        if last == 1 {
            break;
        }
        assert!(turn < 100, "still on the connection that its origin left");
    }
    assert_eq!(last, 1);
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    down.send_data("late".into(), true).unwrap();
    assert_eq!(read(first.await.unwrap().into_body()).await.unwrap().0, b"late");
    assert_eq!(world.exchange("/first").await.state, State::Done);
    assert!(!agent.connection.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_aborts_ends_its_streams_only() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/aborted").await;
    let mut arrived = origin.arrived().await;
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    down.send_data("some".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "some");
    origin.order(0, Order::Abort(Reason::INTERNAL_ERROR));
    assert!(body.data().await.unwrap().is_err());
    assert_eq!(ended(&world.exchange("/aborted").await), (State::Failed, "origin", "origin_broke_off"));
    let answer = agent.get("/next").await;
    let mut arrived = origin.arrived().await;
    assert_eq!(arrived.connection, 1);
    arrived.respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// What an origin left unprocessed by its own word may be asked again without harm, and only the agent
/// knows whether it wants to.
#[tokio::test(flavor = "multi_thread")]
async fn an_unprocessed_stream_is_a_refused_one() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // SETTINGS, and once something came GOAWAY with 0 as the last stream.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut seen = Vec::new();
        while !seen.windows(5).any(|bytes| bytes == b"/left") && seen.len() < 10_000 {
            stream.read_buf(&mut seen).await.unwrap();
            // The path is Huffman-coded; the frame's head (HEADERS, stream 1) tells as well.
            if seen.windows(6).any(|bytes| bytes[0] == 1 && bytes[2..] == [0, 0, 0, 1]) {
                break;
            }
        }
        stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        stream.read_to_end(&mut seen).await.unwrap();
    });
    let mut agent = Agent::new(&world, at).await;
    let answer = agent.get("/left").await;
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
    assert_eq!(ended(&world.exchange("/left").await), (State::Failed, "origin", "origin_broke_off"));
    drop(agent);
    timeout(PATIENCE, origin).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_breaks_before_its_answer_is_a_502() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let origin = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let mut agent = Agent::new(&world, at).await;
    assert_eq!(agent.get("/broke").await.await.unwrap().status(), 502);
    assert_eq!(ended(&world.exchange("/broke").await), (State::Failed, "origin", "origin_broke_off"));
    origin.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_origin_is_a_504() {
    let world = World::with_config(&open_policy(), "[limits]\nidle_timeout_ms = 1000\n").await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let clock = Instant::now();
    let answer = agent.get("/silent").await;
    let mut arrived = origin.arrived().await;
    assert_eq!(answer.await.unwrap().status(), 504);
    assert!(clock.elapsed() >= Duration::from_secs(1), "{:?}", clock.elapsed());
    assert_eq!(poll_fn(|cx| arrived.respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    assert_eq!(ended(&world.exchange("/silent").await), (State::Failed, "origin", "response_timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_do_not_match_end_the_stream() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::with(&world, origin.at, &client::Builder::new()).await;
    let mut request = agent.request(http::Method::POST, "/short");
    request.headers_mut().insert("content-length", "10".parse().unwrap());
    let (answer, mut up) = agent.ask.send_request(request, false).unwrap();
    let mut arrived = origin.arrived().await;
    up.send_data("five!".into(), true).unwrap();
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    let reset = poll_fn(|cx| arrived.respond.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::CANCEL);
    assert_eq!(world.exchange("/short").await.state, State::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_connection_has_few_to_origins() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let kept = agent.get("/kept").await;
    let mut under_way = origin.arrived().await;
    // Each policy has connections of its own, as each name has.
    for turn in 0..40 {
        world.handles().policy.set_mode([Some(Mode::Audit), None][turn % 2]).unwrap();
        let answer = agent.get("/again").await;
        origin.arrived().await.respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200, "{turn}");
    }
    assert_eq!(origin.connections(), 41, "a policy's connection is not another's");
    timeout(PATIENCE, async {
        while origin.open() > 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("those that are not used are closed");
    under_way.respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(kept.await.unwrap().status(), 200, "what is under way goes on");
}
