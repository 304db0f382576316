//! What is allowed goes on as it came, and is recorded.

use std::future::poll_fn;

use agentgate::{
    model::{Record, State},
    store::Side,
};
use bytes::Bytes;
use fake_internet::world::OPEN;
use h2::{Reason, client, ext::Protocol, server};
use http::{HeaderMap, Method, Request, Response};

use super::{
    setup::World,
    sides::{Agent, Origin, open_policy, read},
};

fn code(record: &Record) -> &str {
    record.failure.as_ref().map_or("", |failure| failure.code.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_tls_origin_has_its_trailers() {
    let world = World::new(&open_policy()).await;
    let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"h2"]).await.unwrap();
    let mut agent = Agent::over(stream, format!("https://{OPEN}"), &client::Builder::new()).await;
    let mut call = agent.request(Method::POST, "/lab.Echo/Unary");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    call.headers_mut().insert("te", "trailers".parse().unwrap());
    let (answer, mut up) = agent.ask.send_request(call, false).unwrap();
    let message = [&[0, 0, 0, 0, 5][..], b"hello"].concat();
    up.send_data(message.clone().into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let (body, trailers) = read(answer.into_body()).await.unwrap();
    assert!(body.len() > 5, "{body:?}");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    let record = world.exchange("/lab.Echo/Unary").await;
    assert_eq!((record.state, record.protocol.as_str()), (State::Done, "http/2"), "{record:?}");
    assert_eq!(world.body(&record, Side::Request), message);
    assert_eq!(world.body(&record, Side::Response), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_has_only_trailers() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/fails").await;
    let mut arrived = origin.arrived().await;
    let head = Response::builder().header("grpc-status", "5").body(()).unwrap();
    arrived.respond.send_response(head, true).unwrap();
    let answer = answer.await.unwrap();
    assert!(answer.body().is_end_stream());
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert_eq!(world.exchange("/fails").await.state, State::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_speak_in_turns_and_their_words_are_kept() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let (answer, mut up) = agent.post("/turns").await;
    let mut arrived = origin.arrived().await;
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    for turn in ["one ", "two ", "three"] {
        up.send_data(turn.into(), false).unwrap();
        assert_eq!(arrived.body.data().await.unwrap().unwrap(), turn);
        down.send_data(turn.to_uppercase().into(), false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), turn.to_uppercase());
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert!(read(arrived.body).await.unwrap().0.is_empty());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    down.send_trailers(trailers.clone()).unwrap();
    assert_eq!(read(answer).await.unwrap().1, Some(trailers));
    let record = world.exchange("/turns").await;
    assert_eq!(record.state, State::Done);
    assert_eq!(world.body(&record, Side::Request), "one two three");
    assert_eq!(world.body(&record, Side::Response), "ONE TWO THREE");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_arrive_as_they_were_sent() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let mut request = agent.request(Method::GET, "/a%20b?c=d&e=%66");
    for (name, value) in
        [("cookie", "a=1"), ("x-z", "1"), ("cookie", "b=2"), ("x-a", ""), ("priority", "u=1")]
    {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let sent = request.headers().clone();
    let (answer, _) = agent.ask.send_request(request, true).unwrap();
    let mut arrived = origin.arrived().await;
    assert_eq!(arrived.head.uri.to_string(), format!("http://{}/a%20b?c=d&e=%66", origin.at));
    let listed = |headers: &HeaderMap| -> Vec<(String, String)> {
        headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
    };
    assert_eq!(listed(&arrived.head.headers), listed(&sent));
    assert!(arrived.body.is_end_stream());
    let head = Response::builder()
        .status(299)
        .header("set-cookie", "a")
        .header("x-z", "1")
        .header("set-cookie", "b")
        .body(())
        .unwrap();
    let sent = head.headers().clone();
    arrived.respond.send_response(head, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 299);
    assert_eq!(listed(answer.headers()), listed(&sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn informational_answers_are_passed_on() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let mut request = agent.request(Method::POST, "/continues");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut answer, mut up) = agent.ask.send_request(request, false).unwrap();
    let mut arrived = origin.arrived().await;
    assert_eq!(arrived.head.headers["expect"], "100-continue");
    for status in [100, 103] {
        arrived.respond.send_informational(Response::builder().status(status).body(()).unwrap()).unwrap();
        let early = poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(early.status(), status);
    }
    up.send_data("body".into(), true).unwrap();
    assert_eq!(read(arrived.body).await.unwrap().0, b"body");
    arrived.respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let record = world.exchange("/continues").await;
    assert_eq!((record.state, record.response.unwrap().status), (State::Done, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_leaves_the_rest_of_the_request() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let (answer, mut up) = agent.post("/early").await;
    up.send_data("some".into(), false).unwrap();
    let mut arrived = origin.arrived().await;
    let head = Response::builder().status(413).body(()).unwrap();
    let mut down = arrived.respond.send_response(head, false).unwrap();
    down.send_data("too large".into(), true).unwrap();
    drop((arrived, down));
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(read(answer.into_body()).await.unwrap().0, b"too large");
    assert_eq!(poll_fn(|cx| up.poll_reset(cx)).await.unwrap(), Reason::NO_ERROR);
    let record = world.exchange("/early").await;
    assert_eq!(record.state, State::Done);
    assert!(record.request.unwrap().body.truncated);
    assert_eq!(record.response.unwrap().body.total, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_stream() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::with(server::Builder::new().enable_connect_protocol()).await;
    let mut agent = Agent::new(&world, origin.at).await;
    assert!(!agent.ask.is_extended_connect_protocol_enabled());
    let answer = agent.get("/first").await;
    origin.arrived().await.respond.send_response(Response::new(()), true).unwrap();
    answer.await.unwrap();
    // Said once the origin has said it.
    while !agent.ask.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut connect = agent.request(Method::CONNECT, "/socket");
    connect.extensions_mut().insert(Protocol::from_static("websocket"));
    connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (answer, mut up) = agent.ask.send_request(connect, false).unwrap();
    let mut arrived = origin.arrived().await;
    assert_eq!(arrived.head.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
    assert_eq!(arrived.head.method, Method::CONNECT);
    assert_eq!(arrived.head.uri.path(), "/socket");
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    for word in ["echo", "again"] {
        up.send_data(word.into(), false).unwrap();
        let heard = arrived.body.data().await.unwrap().unwrap();
        down.send_data(heard, false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), word);
    }
    up.send_data(Bytes::new(), true).unwrap();
    down.send_data(Bytes::new(), true).unwrap();
    read(answer).await.unwrap();
    // What passed was no frames: that is told, and it went on all the same.
    let record = world.exchange("/socket").await;
    assert_eq!((record.state, record.protocol.as_str()), (State::Done, "websocket"), "{record:?}");
    assert_eq!(record.response.as_ref().unwrap().body.total, 9);
    assert!(record.flags.iter().any(|flag| flag.code == "websocket_fault"), "{record:?}");
}

/// MASQUE (RFC 9298, RFC 9484) is a way to anywhere, unread.
#[tokio::test(flavor = "multi_thread")]
async fn an_extended_connect_is_for_websockets_only() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::with(server::Builder::new().enable_connect_protocol()).await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/first").await;
    origin.arrived().await.respond.send_response(Response::new(()), true).unwrap();
    answer.await.unwrap();
    while !agent.ask.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    for protocol in ["connect-udp", "connect-ip", "connect-tcp", "webtransport", "websocket, connect-udp"] {
        let target = format!("/.well-known/masque/{}", protocol.len());
        let mut connect = agent.request(Method::CONNECT, &target);
        connect.extensions_mut().insert(Protocol::from(protocol));
        let (answer, _up) = agent.ask.send_request(connect, true).unwrap();
        let answer = tokio::select! {
            answer = answer => answer.unwrap(),
            arrived = origin.arrived() => panic!("{protocol} went on: {:?}", arrived.head),
        };
        assert_eq!(answer.status(), 426, "{protocol}");
        let record = world.exchange(&target).await;
        assert_eq!((record.state, record.verdict.unwrap().rule.as_str()), (State::Refused, "gate:upgrade"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_connect_is_refused() {
    let world = World::new(&open_policy()).await;
    let origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let connect = Request::builder().method(Method::CONNECT).uri(origin.at.to_string()).body(()).unwrap();
    let (answer, _up) = agent.ask.send_request(connect, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 405);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_read_and_the_connection_stays() {
    let world = World::new(&format!("{}[hosts]\ndeny = [\"open.example\"]\n", open_policy())).await;
    let original = world.origin(OPEN, 8080);
    let mut agent = Agent::new(&world, original).await;
    for target in ["/refused", "/again"] {
        let mut request = agent.request(Method::POST, target);
        *request.uri_mut() = format!("http://{OPEN}:{}{target}", original.port()).parse().unwrap();
        let (answer, mut up) = agent.ask.send_request(request, false).unwrap();
        up.send_data("what was asked".into(), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 403);
        let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
        assert_eq!(read(answer.into_body()).await.unwrap().0.len(), length);
        let record = world.exchange(target).await;
        assert_eq!(record.state, State::Refused);
        assert_eq!(world.body(&record, Side::Request), "what was asked");
    }
    assert_eq!(world.arrivals(OPEN), 0);
}

/// A body to what has none is an error of the stream (RFC 9113 8.1.1), in which the answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_is_answered_with_a_head() {
    let world = World::new(&format!("{}[hosts]\ndeny = [\"open.example\"]\n", open_policy())).await;
    let original = world.origin(OPEN, 8080);
    let mut agent = Agent::new(&world, original).await;
    let mut request = agent.request(Method::HEAD, "/head");
    *request.uri_mut() = format!("http://{OPEN}:{}/head", original.port()).parse().unwrap();
    let (answer, _up) = agent.ask.send_request(request, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 403);
    assert!(answer.headers().contains_key("content-length"));
    assert!(read(answer.into_body()).await.unwrap().0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_together_share_one_connection() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let mut answers = Vec::new();
    for number in 0..50 {
        answers.push(agent.get(&format!("/{number}")).await);
    }
    for _ in 0..50 {
        let mut arrived = origin.arrived().await;
        assert_eq!(arrived.connection, 0);
        let target = arrived.head.uri.path().to_owned();
        let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
        down.send_data(target.into(), true).unwrap();
    }
    for (number, answer) in answers.into_iter().enumerate() {
        let (body, _) = read(answer.await.unwrap().into_body()).await.unwrap();
        assert_eq!(body, format!("/{number}").as_bytes());
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_origin_is_a_clear_answer_to_each() {
    let world = World::new(&open_policy()).await;
    // Bound and let go: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut agent = Agent::new(&world, nobody).await;
    let (one, two) = (agent.get("/one").await, agent.get("/two").await);
    for (answer, target) in [(one, "/one"), (two, "/two")] {
        assert_eq!(answer.await.unwrap().status(), 502);
        let record = world.exchange(target).await;
        assert_eq!((record.state, code(&record)), (State::Failed, "connect_failed"));
    }
}
