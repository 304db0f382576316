//! How connections come to their end: told to stop, at rest for long, or not served in HTTP/2 any more.

use std::time::Duration;

use agentgate::model::State;
use fake_internet::world::OPEN;
use h2::{Reason, client, server};
use http::Response;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    setup::{PATIENCE, World},
    sides::{Agent, Origin, open_policy, read, serve},
};

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_what_is_under_way_ends_first() {
    let mut world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/under/way").await;
    let mut arrived = origin.arrived().await;
    let stopping = tokio::spawn(async move {
        world.stop().await;
        world
    });
    // GOAWAY has come once nothing more can be asked.
    while std::future::poll_fn(|cx| agent.ask.poll_ready(cx)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    down.send_data("whole".into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(read(answer.into_body()).await.unwrap().0, b"whole");
    drop(agent.ask);
    timeout(PATIENCE, agent.connection).await.unwrap().unwrap().unwrap();
    let world = timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert_eq!(world.exchange("/under/way").await.state, State::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_at_rest_is_ended_in_good_order() {
    let world = World::with_config(&open_policy(), "[limits]\nidle_timeout_ms = 1000\n").await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/once").await;
    origin.arrived().await.respond.send_response(Response::new(()), true).unwrap();
    answer.await.unwrap();
    let clock = Instant::now();
    timeout(PATIENCE, agent.connection).await.unwrap().unwrap().unwrap();
    assert!(clock.elapsed() >= Duration::from_millis(900), "{:?}", clock.elapsed());
    let flow = world.record(|r| r.kind == agentgate::model::Kind::Flow).await;
    assert_eq!(flow.state, State::Done, "{flow:?}");
}

/// An origin that spoke HTTP/2 when the agent was told so, and then does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_gave_http2_up_is_told_of() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let configs = [&b"h2"[..], b"http/1.1"].map(|alpn| world.internet.presenting(OPEN, &[alpn]).unwrap());
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let origin = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let config = configs[usize::from(number > 0)].clone();
            let arrived = arrived.clone();
            connections.spawn(async move {
                let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
                if number == 0 {
                    let (_order, orders) = mpsc::unbounded_channel();
                    let mut builder = server::Builder::new();
                    builder.max_concurrent_streams(10);
                    serve(stream, builder, number, arrived, orders).await;
                }
            });
        }
    });
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let stream = world.tls(OPEN, at, both).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let authority = format!("https://{OPEN}:{}", at.port());
    let mut first = Agent::over(stream, authority.clone(), &client::Builder::new()).await;
    let answer = first.get("/http2").await;
    let mut served = arrivals.recv().await.unwrap();
    served.respond.send_response(Response::new(()), true).unwrap();
    answer.await.unwrap();

    // It is believed to speak it still.
    let stream = world.tls(OPEN, at, both).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut second = Agent::over(stream, authority, &client::Builder::new()).await;
    let error = second.get("/not/any/more").await.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::HTTP_1_1_REQUIRED));
    let record = world.exchange("/not/any/more").await;
    assert_eq!(record.failure.unwrap().code, "http_1_1_required");
    // And not any more.
    let stream = world.tls(OPEN, at, both).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    origin.abort();
    drop((first, second));
}
