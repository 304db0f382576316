//! Bytes that no client would send, and more of them than any client would.

use agentgate::model::{Kind, State};
use fake_internet::world::OPEN;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    time::timeout,
};

use crate::setup::{PATIENCE, World, code, data, exchange, question};

const POLICY: &str = "version = 1\nmode = \"blocklist\"\n[network]\ncidrs = [{ allow = \"127.0.0.0/8\" }]\n";

fn header(bytes: &[u8]) -> (u16, u8, u8) {
    (u16::from_be_bytes([bytes[0], bytes[1]]), bytes[2] >> 7, bytes[3] & 0xf)
}

#[tokio::test]
async fn every_message_has_a_defined_end() {
    let world = World::new(POLICY).await;
    let agent = world.agent(1).await;
    let good = question("open.example.", RecordType::A).to_vec().unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut message = good.clone();
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    };
    let looping = |target: u8| {
        let mut message = good[..12].to_vec();
        message.extend([0xc0, target, 0, 1, 0, 1]);
        message[11] = 0;
        message
    };
    let (formerr, notimp, refused) = (1, 4, 5);
    let mut unknown = question("open.example.", RecordType::A);
    unknown.queries[0].set_query_class(DNSClass::CH);
    for (what, bytes, expect) in [
        ("no question", with(4, &[0, 0]), formerr),
        ("two questions", with(4, &[0, 2]), formerr),
        ("65535 questions", with(4, &[255, 255]), formerr),
        ("an answer in it", with(6, &[0, 1]), formerr),
        ("an authority in it", with(8, &[0, 1]), formerr),
        ("more additional records than there are", with(10, &[0, 2]), formerr),
        ("65535 additional records", with(10, &[255, 255]), formerr),
        ("UPDATE", with(2, &[0x28, 0]), notimp),
        ("STATUS", with(2, &[0x10, 0]), notimp),
        ("an operation that does not exist", with(2, &[0x78, 0]), notimp),
        ("class CH", unknown.to_vec().unwrap(), refused),
        ("a name that points to itself", looping(12), formerr),
        ("a name that points ahead", looping(14), formerr),
        ("a name that points into the header", looping(0), formerr),
        ("4097 bytes", [good.clone(), vec![0; 4097 - good.len()]].concat(), formerr),
        ("60000 bytes", vec![0; 60_000], formerr),
    ] {
        let answer = agent.send(&bytes).await;
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(header(&answer), (id, 1, expect), "{what}");
        assert!(answer.len() <= bytes.len().max(12), "{what}: an answer larger than what was sent");
    }
    let mut newer = question("open.example.", RecordType::A);
    newer.edns.as_mut().unwrap().set_version(1);
    let answer = agent.put(&newer).await;
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert_eq!(data(&agent.ask(&format!("{OPEN}."), RecordType::A).await), ["127.0.0.1"], "it serves on");
}

#[tokio::test]
async fn beginnings_and_noise_get_an_error_or_nothing() {
    let world = World::new(POLICY).await;
    let agent = world.agent(1).await;
    let good = question("open.example.", RecordType::A).to_vec().unwrap();
    let mut messages: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
    let mut state: u32 = 1;
    messages.extend((0..300).map(|length| {
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        // A question by its header, so that what follows is parsed.
        [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1].into_iter().chain(noise.take(length)).collect()
    }));
    let (probe, mut answer, mut sent) = (world.agent(2).await, vec![0; 65_535], 0);
    // Not so many at once that the socket's buffer overflows: its datagrams are taken in as they came.
    for some in messages.chunks(50) {
        for message in some {
            agent.socket.send_to(message, world.gate.dns).await.unwrap();
        }
        assert_eq!(data(&probe.ask(&format!("{OPEN}."), RecordType::A).await), ["127.0.0.1"], "it serves on");
        sent += some.len() as u64 + 1;
        while let Ok((length, _)) = agent.socket.try_recv_from(&mut answer) {
            assert_eq!(header(&answer[..length]).1, 1);
        }
    }
    // A stop records what was counted: every one is in some record.
    let mut world = world;
    world.restart().await;
    let records = world.questions(sent).await;
    assert_eq!(records.iter().map(|record| record.times).sum::<u64>(), sent);
}

#[tokio::test]
async fn an_answer_is_not_answered() {
    let world = World::new(POLICY).await;
    let agent = world.agent(1).await;
    let mut reflected = Message::new(9, MessageType::Response, OpCode::Query);
    reflected.add_query(Query::query(Name::from_ascii("open.example.").unwrap(), RecordType::A));
    agent.socket.send_to(&reflected.to_vec().unwrap(), world.gate.dns).await.unwrap();
    agent.socket.send_to(&[1, 2, 3], world.gate.dns).await.unwrap();
    let answer = agent.ask(&format!("{OPEN}."), RecordType::A).await;
    assert_eq!(answer.metadata.id, 4242, "the first that comes back is to the question");
    assert_eq!(world.asked(OPEN), 1);
}

#[tokio::test]
async fn who_is_not_known_gets_nothing() {
    let world = World::new(POLICY).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..50 {
        let bytes = question("open.example.", RecordType::A).to_vec().unwrap();
        stranger.send_to(&bytes, world.gate.dns).await.unwrap();
    }
    let mut tcp = tokio::net::TcpStream::connect(world.gate.dns).await.unwrap();
    let mut nothing = Vec::new();
    let ended = timeout(PATIENCE, tcp.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty() && ended.is_err(), "{ended:?}");
    let agent = world.agent(1).await;
    agent.ask(&format!("{OPEN}."), RecordType::A).await;
    assert!(stranger.try_recv(&mut [0; 512]).is_err(), "no answer");
    let strangers: Vec<_> = world
        .questions(2)
        .await
        .into_iter()
        .filter(|r| r.verdict.as_ref().is_some_and(|v| v.rule == "invariant:unknown_flow"))
        .collect();
    assert!((1..=11).contains(&strangers.len()), "{}", strangers.len());
    assert!(strangers.iter().all(|record| record.state == State::Refused));
    assert_eq!(world.asked(OPEN), 1);
}

#[tokio::test]
async fn connections_end_where_they_break_the_protocol() {
    let world = World::new(POLICY).await;
    let agent = world.agent(1).await;
    for (what, bytes) in [
        ("more than any question", &[0xff, 0xff, 0, 0][..]),
        ("an answer", &[0, 12, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a short one", &[0, 1, 0]),
        ("an empty one", &[0, 0]),
    ] {
        let mut stream = agent.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().ok();
        assert!(answer.is_empty(), "{what}");
    }
    let mut stream = agent.connect().await;
    let good = question(&format!("{OPEN}."), RecordType::A);
    assert_eq!(data(&exchange(&mut stream, &good).await), ["127.0.0.1"]);
    // Half a question, and then the agent goes away.
    stream.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
    drop(stream);
    let mut waiting = agent.connect().await;
    let bad = exchange(&mut waiting, &Message::new(5, MessageType::Query, OpCode::Update)).await;
    assert_eq!(code(&bad).0, ResponseCode::NotImp);
    drop(waiting);
    let flows = world.flows(6).await;
    assert!(flows.iter().all(|flow| flow.kind == Kind::Flow && flow.protocol == "dns"));
    assert_eq!(flows.iter().filter(|flow| flow.state == State::Failed).count(), 5);
}

#[tokio::test]
async fn one_session_cannot_take_all_connections() {
    let world = World::new(POLICY).await;
    let (greedy, other) = (world.agent(1).await, world.agent(2).await);
    let mut held = Vec::new();
    for _ in 0..32 {
        let mut stream = greedy.connect().await;
        // Answered, so it has its place.
        exchange(&mut stream, &question("localhost.", RecordType::A)).await;
        held.push(stream);
    }
    let mut beyond = greedy.connect().await;
    let mut nothing = Vec::new();
    timeout(PATIENCE, beyond.read_to_end(&mut nothing)).await.unwrap().unwrap_err();
    assert_eq!(data(&other.ask_tcp(&format!("{OPEN}."), RecordType::A).await), ["127.0.0.1"]);
    let records = world.questions(3).await;
    assert!(records.iter().any(|r| r.flags.iter().any(|flag| flag.code == "too_many_questions")));
}

#[tokio::test]
async fn a_flood_is_refused_and_told_by_its_number() {
    let mut world = World::new(POLICY).await;
    let agent = world.agent(1).await;
    let mut refused = 0;
    for n in 0..1_500 {
        let answer = agent.ask(&format!("n{}.localhost.", n % 50), RecordType::A).await;
        refused += u64::from(answer.metadata.response_code == ResponseCode::Refused);
    }
    assert!(refused > 0, "a thousand at once, and a hundred a second");
    let other = world.agent(2).await;
    assert_eq!(code(&other.ask("localhost.", RecordType::A).await), (ResponseCode::NoError, None));
    world.restart().await;
    let records = world.questions(1_501).await;
    assert_eq!(records.iter().map(|record| record.times).sum::<u64>(), 1_501);
    let of_flood = |r: &&agentgate::model::Record| {
        r.verdict.as_ref().is_some_and(|v| v.rule == "gate:too_many_questions")
    };
    assert_eq!(records.iter().filter(of_flood).map(|r| r.times).sum::<u64>(), refused);
    assert!(records.iter().filter(of_flood).count() < 10);
}

/// The port of an agent that asked long ago may be anybody's by now.
#[tokio::test]
async fn who_asked_long_ago_is_not_who_asks() {
    let world = World::new(POLICY).await;
    let agent = world.agent_since(7, 0).await;
    agent
        .socket
        .send_to(&question("open.example.", RecordType::A).to_vec().unwrap(), agent.dns)
        .await
        .unwrap();
    let record = world.questions(1).await.remove(0);
    assert_eq!(record.state, State::Refused);
    assert_eq!(record.verdict.unwrap().rule, "invariant:unknown_flow");
    assert!(record.subject.is_none() && world.heard() == 0);
}
