//! Names are judged before anything is asked, and what is refused never leaves the host.

use std::net::IpAddr;

use agentgate::{
    dns::{Answers, refill},
    model::{Action, Host, State, Timestamp},
};
use fake_internet::{
    odd,
    world::{DENIED, OPEN, UNLISTED},
};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};

use crate::setup::{World, code, data, question_for};

const ENFORCE: &str = "version = 1\nmode = \"enforce\"\n[hosts]\nallow = [\"open.example:443\", \"*.odd.example\", \
                       \"*.anything.example\"]\n[network]\ncidrs = [{ allow = \"127.0.0.0/8\" }]\n";

#[tokio::test]
async fn an_allowed_name_is_answered_and_no_other_leaves_the_host() {
    let world = World::new(ENFORCE).await;
    let agent = world.agent(1).await;
    let answer = agent.ask(&format!("{OPEN}."), RecordType::A).await;
    assert_eq!(code(&answer), (ResponseCode::NoError, None));
    assert_eq!(data(&answer), ["127.0.0.1"]);
    let record = world.record(OPEN).await;
    assert_eq!(record.verdict.unwrap().rule, "allow:open.example:443");
    let question = record.question.unwrap();
    assert_eq!((question.code.as_str(), question.kind.as_str()), ("NOERROR", "A"));
    assert_eq!(question.transport, "udp");
    assert_eq!(question.addresses, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    for name in [DENIED, UNLISTED, "secret-in-a-name.evil.example", "odd.example", "8.113.0.203.in-addr.arpa"]
    {
        for kind in [RecordType::A, RecordType::TXT, RecordType::HTTPS] {
            let answer = agent.ask(&format!("{name}."), kind).await;
            assert_eq!(code(&answer), (ResponseCode::NXDomain, Some(15)), "{name}");
            assert!(answer.answers.is_empty());
        }
        let answer = agent.ask_tcp(&format!("{name}."), RecordType::A).await;
        assert_eq!(code(&answer), (ResponseCode::NXDomain, Some(15)), "{name}");
        assert_eq!(world.asked(name), 0);
        let record = world.record(name).await;
        assert_eq!(record.verdict.unwrap().rule, "mode:enforce");
        assert_eq!(record.state, State::Refused);
    }
    assert_eq!(world.heard(), 1, "one question left the host");
    let answer = agent.ask_tcp(&format!("{OPEN}."), RecordType::A).await;
    assert_eq!(data(&answer), ["127.0.0.1"]);
}

#[tokio::test]
async fn names_that_are_no_hosts_are_judged_by_their_parents() {
    let world = World::new(ENFORCE).await;
    let agent = world.agent(1).await;
    let asked = async |labels: &[&[u8]]| {
        let name = Name::from_labels(labels.iter().copied()).unwrap();
        code(&agent.put(&question_for(name, RecordType::A)).await)
    };
    for labels in [
        &[&b"_srv"[..], b"_tcp", b"plain", b"odd", b"example"][..],
        &[b"*", b"odd", b"example"],
        &[b"a b", b"odd", b"example"],
        &[b"\xff\0", b"odd", b"example"],
    ] {
        let told = asked(labels).await;
        assert_eq!(told, (ResponseCode::NXDomain, None), "{labels:?} is asked for, and does not exist");
    }
    for labels in [
        &[&b"*"[..], b"other", b"example"][..],
        &[b"a b", b"other", b"example"],
        &[b"x", b"odd.example"],
        &[b"x.odd", b"example"],
        &[b"1", b"2", b"3", b"4"],
        &[b"127", b"0", b"0", b"1"],
        &[b"com"],
        &[],
    ] {
        assert_eq!(asked(labels).await, (ResponseCode::NXDomain, Some(15)), "{labels:?}");
    }
}

#[tokio::test]
async fn what_the_gate_answers_itself_leaves_in_no_mode() {
    let world = World::new("version = 1\nmode = \"audit\"\n").await;
    let agent = world.agent(1).await;
    for (name, kind, expect) in [
        ("use-application-dns.net.", RecordType::A, (ResponseCode::NXDomain, Some(18))),
        ("_dns.resolver.arpa.", RecordType::SVCB, (ResponseCode::NXDomain, Some(18))),
        ("1.0.0.10.in-addr.arpa.", RecordType::PTR, (ResponseCode::NXDomain, Some(18))),
        ("254.169.254.169.in-addr.arpa.", RecordType::PTR, (ResponseCode::NXDomain, Some(18))),
        ("x.onion.", RecordType::A, (ResponseCode::NXDomain, Some(18))),
        ("open.example.", RecordType::AXFR, (ResponseCode::Refused, Some(21))),
        ("open.example.", RecordType::Unknown(249), (ResponseCode::Refused, Some(21))),
        ("open.example.", RecordType::ANY, (ResponseCode::NoError, None)),
    ] {
        let answer = agent.ask(name, kind).await;
        assert_eq!(code(&answer), expect, "{name} {kind}");
        if kind == RecordType::ANY {
            assert_eq!(answer.answers[0].record_type(), RecordType::HINFO, "RFC 8482");
        }
    }
    assert_eq!(world.heard(), 0);
}

#[tokio::test]
async fn audit_asks_and_says_what_it_would_have_done() {
    let world = World::new(
        "version = 1\nmode = \"audit\"\n[hosts]\nallow = [\"x.test\"]\ndeny = [\"denied.example\"]\n\
                            [network]\ncidrs = [{ allow = \"127.0.0.0/8\" }]\n",
    )
    .await;
    let agent = world.agent(1).await;
    for (name, flag) in [(DENIED, "would_block"), (UNLISTED, "host_not_allowlisted")] {
        assert_eq!(data(&agent.ask(&format!("{name}."), RecordType::A).await), ["127.0.0.1"]);
        let record = world.record(name).await;
        assert!(record.flags.iter().any(|f| f.code == flag), "{name}: {:?}", record.flags);
        assert_eq!(record.verdict.unwrap().action, Action::Allow);
    }
    let answer = agent.ask(&format!("{}.", odd::METADATA), RecordType::A).await;
    assert_eq!(code(&answer), (ResponseCode::NXDomain, Some(17)), "invariants hold in every mode");
    assert_eq!(data(&agent.ask(&format!("{}.", odd::INSIDE), RecordType::A).await), ["10.0.0.1"]);
    let record = world.record(odd::INSIDE).await;
    assert!(record.flags.iter().any(|f| f.code == "would_block"), "{:?}", record.flags);
}

#[tokio::test]
async fn the_same_again_is_counted_and_none_is_lost() {
    let mut world = World::new(ENFORCE).await;
    let agent = world.agent(1).await;
    for _ in 0..200 {
        agent.ask(&format!("{OPEN}."), RecordType::A).await;
        agent.ask(&format!("{UNLISTED}."), RecordType::A).await;
    }
    // A stop records what was counted.
    world.restart().await;
    let records = world.questions(400).await;
    assert_eq!(records.iter().map(|record| record.times).sum::<u64>(), 400);
    assert!(records.len() < 20, "{}", records.len());
}

#[tokio::test]
async fn a_tunnel_below_an_allowed_name_is_told_of_and_stopped() {
    let world = World::new(ENFORCE).await;
    let agent = world.agent(1).await;
    let label = |n: u32| format!("{n:08x}7d1f3b5e9a2c4068{:08x}", n.wrapping_mul(0x9e37_79b9));
    let mut stopped = None;
    for n in 0..900 {
        let name = format!("{}.{}.anything.example.", label(n), label(n + 7_000));
        let answer = agent.ask(&name, RecordType::A).await;
        if answer.metadata.response_code == ResponseCode::Refused {
            stopped = Some((n, code(&answer)));
            break;
        }
    }
    let (n, answer) = stopped.expect("it is stopped");
    assert_eq!(answer, (ResponseCode::Refused, Some(15)));
    assert!((400..900).contains(&n), "{n}");
    let records = world.questions(u64::from(n) + 1).await;
    let flagged = records.iter().filter(|r| r.flags.iter().any(|f| f.code == "dns_tunnel")).count();
    assert!(flagged > 300, "{flagged}");
    assert!(records[0].flags.is_empty(), "the first name says nothing yet: {:?}", records[0].flags);
    assert_eq!(records.last().unwrap().verdict.as_ref().unwrap().rule, "gate:dns_tunnel");
    let other = world.agent(2).await;
    let name = format!("{}.anything.example.", label(1));
    assert_eq!(code(&other.ask(&name, RecordType::A).await), (ResponseCode::NoError, None));
}

#[tokio::test]
async fn what_one_session_was_told_is_not_anothers_and_survives_a_restart() {
    let mut world = World::new("version = 1\nmode = \"blocklist\"\n").await;
    let (one, other) = (world.agent(11).await, world.agent(22).await);
    one.ask(&format!("{}.", odd::PLAIN), RecordType::A).await;
    other.ask(&format!("{}.", odd::TEXT), RecordType::TXT).await;
    let session = |record: agentgate::model::Record| record.subject.unwrap().session.clone();
    let first = session(world.record(odd::PLAIN).await);
    let second = session(world.record(odd::TEXT).await);
    assert_ne!(first, second);
    world.restart().await;
    let answers = &world.handles().answers;
    let at = IpAddr::V4(odd::PLAIN_AT);
    assert_eq!(answers.given(&first, at).as_deref(), Some(&[Host::parse(odd::PLAIN).unwrap()][..]));
    assert_eq!(answers.given(&second, at), None);
    let after_boot = Answers::default();
    assert_eq!(refill(&after_boot, &world.handles().store, Timestamp(i64::MAX)).unwrap(), 0);
}
