//! Agents that make work without end are sent away, and the gate serves on.

use agentgate::model::{Kind, Record, State};
use h2::Reason;
use http::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    setup::{PATIENCE, World},
    sides::{Agent, Origin, open_policy},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// GET of `/` at `authority`, without Huffman's code.
fn head(authority: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x41, u8::try_from(authority.len()).unwrap()];
    block.extend_from_slice(authority.as_bytes());
    block
}

/// Sends `bytes` without end while reading, until the gate ends it; the code of its GOAWAY.
async fn flood(mut stream: TcpStream, mut more: impl FnMut() -> Vec<u8>) -> Option<Reason> {
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let (mut from, mut to) = stream.split();
    let read = async {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 65_536];
        let mut code = None;
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return code,
                Ok(read) => seen.extend_from_slice(&buffer[..read]),
            }
            while let Some(length) =
                seen.get(..3).map(|l| usize::from(l[0]) << 16 | usize::from(l[1]) << 8 | usize::from(l[2]))
            {
                let Some(frame) = seen.get(..9 + length) else { break };
                if frame[3] == 7 {
                    code = Some(u32::from_be_bytes(frame[13..17].try_into().unwrap()).into());
                }
                seen.drain(..9 + length);
            }
        }
    };
    let write = async {
        loop {
            if to.write_all(&more()).await.is_err() {
                // What was said before it closed is still to be read.
                std::future::pending::<()>().await;
            }
        }
    };
    timeout(PATIENCE, async {
        tokio::select! {
            code = read => code,
            () = write => None,
        }
    })
    .await
    .expect("it is ended")
}

async fn serves_on(world: &World, origin: &mut Origin) {
    let mut agent = Agent::new(world, origin.at).await;
    let answer = agent.get("/still").await;
    loop {
        let mut arrived = origin.arrived().await;
        // What a flood got through may be there before.
        if arrived.head.uri.path() == "/still" {
            arrived.respond.send_response(Response::new(()), true).unwrap();
            break;
        }
    }
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// The record of the connection that flooded on its way to `origin`.
async fn flooding(world: &World, origin: &Origin) -> Record {
    let to = |record: &Record| record.flow.as_ref().is_some_and(|flow| flow.original.0 == origin.at);
    world.record(|r| r.kind == Kind::Flow && r.failure.is_some() && to(r)).await
}

async fn check(world: &World, what: &str, code: &str, more: impl FnMut() -> Vec<u8>) {
    let mut origin = Origin::new().await;
    let ended = flood(world.connect(origin.at).await, more).await;
    // A reset may overtake the GOAWAY where it is not read at once.
    assert!(ended.is_none_or(|ended| ended == Reason::ENHANCE_YOUR_CALM), "{what}: {ended:?}");
    let flow = flooding(world, &origin).await;
    assert_eq!(flow.state, State::Refused, "{what}: {flow:?}");
    assert_eq!(flow.failure.unwrap().code, code, "{what}");
    serves_on(world, &mut origin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_a_message() {
    let world = World::new(&open_policy()).await;
    check(&world, "PING", "flood", || frame(6, 0, 0, &[7; 8]).repeat(100)).await;
    check(&world, "SETTINGS", "flood", || frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100)).await;
    check(&world, "WINDOW_UPDATE", "flood", || frame(8, 0, 0, &[0, 0, 0, 1]).repeat(100)).await;
    check(&world, "PRIORITY", "flood", || frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(100)).await;
    check(&world, "no known type", "flood", || frame(0xee, 0, 0, &[1]).repeat(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end() {
    let world = World::new(&open_policy()).await;
    let mut first = true;
    check(&world, "CONTINUATION", "bad_http", move || {
        let kind = if std::mem::take(&mut first) { 1 } else { 9 };
        // A field that is not indexed: x: x.
        frame(kind, 0, 1, &[0, 1, b'x', 1, b'x'].repeat(10))
    })
    .await;
    let mut first = true;
    check(&world, "empty CONTINUATION", "bad_http", move || {
        frame(if std::mem::take(&mut first) { 1 } else { 9 }, 0, 1, &[])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let block = head(&origin.at.to_string());
    let mut stream = 1;
    let ended = flood(world.connect(origin.at).await, || {
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(frame(1, END_STREAM | END_HEADERS, stream, &block));
            bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
            stream += 2;
        }
        bytes
    })
    .await;
    assert!(ended.is_none_or(|ended| ended == Reason::ENHANCE_YOUR_CALM), "{ended:?}");
    let flow = flooding(&world, &origin).await;
    assert_eq!(flow.state, State::Refused, "{flow:?}");
    assert!(["flood", "bad_http"].contains(&flow.failure.unwrap().code.as_str()));
    serves_on(&world, &mut origin).await;
}

/// One at a time, so that each is taken on before it is given up: what `h2` counts does not see it.
#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_at_leisure() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let mut given_up = 0;
    while std::future::poll_fn(|cx| agent.ask.poll_ready(cx)).await.is_ok() {
        let request = agent.request(http::Method::GET, "/x");
        let Ok((_answer, mut up)) = agent.ask.send_request(request, true) else { break };
        let arrived = tokio::select! {
            arrived = origin.arrived() => Some(arrived),
            // Ended meanwhile.
            _ended = &mut agent.connection => None,
        };
        let Some(arrived) = arrived else { break };
        up.send_reset(Reason::CANCEL);
        drop(arrived);
        given_up += 1;
        assert!(given_up < 5_000, "it goes on");
    }
    assert!(given_up >= 400, "{given_up}");
    let flow = flooding(&world, &origin).await;
    assert_eq!(flow.failure.unwrap().code, "flood");
    serves_on(&world, &mut origin).await;
}
