//! Bodies of any size go through in bounded memory, and who does not read holds up who sends.

use std::{future::poll_fn, time::Duration};

use agentgate::model::State;
use bytes::Bytes;
use h2::{SendStream, client};
use http::Response;
use tokio::time::timeout;

use super::{
    setup::World,
    sides::{Agent, Origin, open_policy},
};

/// How long nothing moves before it is taken for a standstill.
const STANDSTILL: Duration = Duration::from_secs(2);
const MIB: usize = 1024 * 1024;

/// Sends until nothing is taken any more, and says how much was.
async fn unread(stream: &mut SendStream<Bytes>) -> usize {
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    let mut sent = 0;
    loop {
        stream.reserve_capacity(piece.len());
        while stream.capacity() == 0 {
            match timeout(STANDSTILL, poll_fn(|cx| stream.poll_capacity(cx))).await {
                Ok(room) => drop(room.unwrap().unwrap()),
                Err(_standstill) => return sent,
            }
        }
        let room = stream.capacity().min(piece.len());
        stream.send_data(piece.slice(..room), false).unwrap();
        sent += room;
        assert!(sent < 200 * MIB, "nobody is held up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_does_not_read_holds_the_agent_up() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let (_answer, mut up) = agent.post("/unread").await;
    let arrived = origin.arrived().await;
    let sent = unread(&mut up).await;
    assert!(sent < 2 * MIB, "{sent}");
    // Others go on meanwhile.
    let answer = agent.get("/other").await;
    origin.arrived().await.respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    drop(arrived);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_holds_the_origin_up() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let answer = agent.get("/unread").await;
    let mut arrived = origin.arrived().await;
    let mut down = arrived.respond.send_response(Response::new(()), false).unwrap();
    let body = answer.await.unwrap();
    let sent = unread(&mut down).await;
    assert!(sent < 6 * MIB, "{sent}");
    drop(body);
}

/// Of this process: the gate and both ends.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn send(mut stream: SendStream<Bytes>, total: usize) -> usize {
    let piece = Bytes::from(vec![b'y'; 64 * 1024]);
    let (mut sent, mut most) = (0, 0);
    while sent < total {
        stream.reserve_capacity(piece.len());
        if stream.capacity() == 0 {
            poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        }
        let room = stream.capacity().min(piece.len()).min(total - sent);
        sent += room;
        stream.send_data(piece.slice(..room), sent == total).unwrap();
        if sent % (8 * MIB) < room {
            most = most.max(resident());
        }
    }
    most
}

async fn drain(mut body: h2::RecvStream) -> usize {
    let mut total = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        total += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways_in_bounded_memory() {
    let world =
        World::with_config(&open_policy(), "[capture]\nrequest_bytes = 1000\nresponse_bytes = 1000\n").await;
    let mut origin = Origin::new().await;
    let mut builder = client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 21);
    let mut agent = Agent::with(&world, origin.at, &builder).await;
    let total = 200 * MIB;
    let before = resident();
    let (answer, up) = agent.post("/large").await;
    let mut arrived = origin.arrived().await;
    let down = arrived.respond.send_response(Response::new(()), false).unwrap();
    let answer = answer.await.unwrap();
    let (most, received, back, answered) =
        tokio::join!(send(up, total), drain(arrived.body), send(down, total), drain(answer.into_body()));
    assert_eq!((received, answered), (total, total));
    let grown = most.max(back).saturating_sub(before);
    // Windows of four connections, and what other tests of this process hold.
    assert!(grown < 100 * MIB, "{grown}");
    let record = world.exchange("/large").await;
    assert_eq!(record.state, State::Done);
    let totals = (record.request.unwrap().body.total, record.response.unwrap().body.total);
    assert_eq!(totals, (total as u64, total as u64));
}
