//! WebSockets in Extended CONNECT, and requests that have to be inspected whole.

use agentgate::{model::State, store::Side};
use bytes::Bytes;
use fake_internet::world::OPEN;
use h2::{Reason, client, ext::Protocol};
use http::Method;
use tokio::time::timeout;

use super::{
    frames::{deflated, frame, texts},
    setup::{PATIENCE, World},
    sides::{Agent, Origin, open_policy, read},
};

const SMALL: &str = "[capture]\nrequest_bytes = 1000\n";

fn whole() -> String {
    format!("{}[inspect]\ntruncated = \"deny\"\n", open_policy())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_on_record_with_its_messages() {
    let world = World::new(&open_policy()).await;
    let stream = world.tls(OPEN, world.origin(OPEN, 443), &[b"h2"]).await.unwrap();
    let mut agent = Agent::over(stream, format!("https://{OPEN}"), &client::Builder::new()).await;
    timeout(PATIENCE, async {
        while !agent.ask.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the origin takes WebSockets");
    let mut connect = agent.request(Method::CONNECT, "/ws/echo?stream");
    connect.extensions_mut().insert(Protocol::from_static("websocket"));
    connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    connect.headers_mut().insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
    let (answer, mut up) = agent.ask.send_request(connect, false).unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-extensions"], "permessage-deflate");
    let text = "again and again ".repeat(30);
    for _ in 0..2 {
        up.send_data(frame(0xc1, &deflated(&text)).into(), false).unwrap();
    }
    up.send_data(frame(0x88, b"\x03\xe8done").into(), false).unwrap();
    let (heard, _) = timeout(PATIENCE, read(answer.into_body())).await.unwrap().unwrap();
    assert!(heard.ends_with(b"\x88\x06\x03\xe8done"), "{heard:?}");
    // The origin may have left by itself meanwhile.
    let _gone = up.send_data(Bytes::new(), true);
    let record = world.exchange("/ws/echo?stream").await;
    assert_eq!((record.state, record.protocol.as_str()), (State::Done, "websocket"), "{record:?}");
    assert_eq!(record.request.as_ref().unwrap().version, "HTTP/2");
    assert!(record.flags.iter().all(|flag| flag.code != "websocket_fault"), "{record:?}");
    let seen = record.websocket.as_deref().unwrap();
    assert_eq!((seen.client.messages, seen.server.messages), (2, 2));
    assert_eq!(seen.server.decoded, 2 * text.len() as u64);
    assert_eq!(seen.closed.as_ref().and_then(|closed| closed.code), Some(1000));
    assert_eq!(texts(&world.body(&record, Side::Request)), [text.as_str(), &text]);
    assert_eq!(texts(&world.body(&record, Side::Response)), [text.as_str(), &text]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_protocol_is_carried_in_a_connect() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::with(h2::server::Builder::new().enable_connect_protocol()).await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/first").await;
    origin.arrived().await.respond.send_response(http::Response::new(()), true).unwrap();
    answer.await.unwrap();
    while !agent.ask.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut connect = agent.request(Method::CONNECT, "/tunnel");
    connect.extensions_mut().insert(Protocol::from_static("connect-ip"));
    let (answer, _up) = agent.ask.send_request(connect, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 426);
    assert_eq!(world.exchange("/tunnel").await.verdict.unwrap().rule, "gate:upgrade");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_too_long_is_refused_by_its_head() {
    let world = World::with_config(&whole(), SMALL).await;
    let origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    for (name, value, status) in [("content-length", "1001", 413), ("content-encoding", "snappy", 415)] {
        let mut request = agent.request(Method::POST, &format!("/{name}"));
        request.headers_mut().insert(name, value.parse().unwrap());
        let (answer, _up) = agent.ask.send_request(request, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{name}");
        assert_eq!(world.exchange(&format!("/{name}")).await.state, State::Refused);
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_turns_out_too_long_is_reset_and_answered() {
    let world = World::with_config(&whole(), SMALL).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let (answer, mut up) = agent.post("/long").await;
    up.send_data(vec![b'x'; 900].into(), false).unwrap();
    let mut arrived = origin.arrived().await;
    assert_eq!(arrived.body.data().await.unwrap().unwrap().len(), 900);
    up.send_data(vec![b'x'; 200].into(), false).unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    let gone = arrived.body.data().await.unwrap().unwrap_err();
    assert_eq!(gone.reason(), Some(Reason::CANCEL));
    let record = world.exchange("/long").await;
    assert_eq!(record.state, State::Refused, "{record:?}");
    assert_eq!(record.verdict.unwrap().rule, "inspect:truncated");
    // The connection carries on.
    let answer = agent.get("/after").await;
    origin.arrived().await.respond.send_response(http::Response::new(()), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_already_is_reset() {
    let world = World::with_config(&whole(), SMALL).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let (answer, mut up) = agent.post("/early").await;
    let mut arrived = origin.arrived().await;
    let _down = arrived.respond.send_response(http::Response::new(()), false).unwrap();
    let mut answer = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    up.send_data(vec![b'x'; 1001].into(), false).unwrap();
    let broke = timeout(PATIENCE, answer.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(broke.reason(), Some(Reason::CANCEL));
    let record = world.exchange("/early").await;
    assert_eq!(record.state, State::Refused, "{record:?}");
    assert_eq!(record.response.unwrap().status, 200, "what the agent was answered");
}
