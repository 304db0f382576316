//! What an agent is given of what upstream answers.

use std::net::{IpAddr, Ipv4Addr};

use agentgate::model::{Action, OWN_ADDRESS, OWN_NAME, State};
use fake_internet::odd;
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::setup::{Agent, World, code, data, exchange, question};

const BLOCKLIST: &str = "version = 1\nmode = \"blocklist\"\n";

async fn ask(agent: &Agent, name: &str, kind: RecordType) -> Vec<String> {
    let answer = agent.ask(&format!("{name}."), kind).await;
    assert_eq!(code(&answer), (ResponseCode::NoError, None), "{name}");
    data(&answer)
}

#[tokio::test]
async fn other_types_and_chains_come_back_as_they_are() {
    let world = World::new(BLOCKLIST).await;
    let agent = world.agent(1).await;
    assert_eq!(ask(&agent, odd::PLAIN, RecordType::A).await, [odd::PLAIN_AT.to_string()]);
    assert_eq!(ask(&agent, odd::TEXT, RecordType::TXT).await, ["hello"]);
    assert_eq!(
        ask(&agent, odd::ALIAS, RecordType::A).await,
        [format!("{}.", odd::PLAIN), odd::PLAIN_AT.to_string()]
    );
    let record = world.record(odd::ALIAS).await;
    let told = record.question.unwrap();
    assert_eq!(told.addresses, [IpAddr::V4(odd::PLAIN_AT)]);
    assert_eq!(told.answers, [format!("CNAME {}.", odd::PLAIN)]);
    let upper = agent.ask("PlAiN.OdD.eXaMpLe.", RecordType::A).await;
    assert_eq!(upper.queries[0].name().to_ascii(), "PlAiN.OdD.eXaMpLe.", "letters come back as sent");
    let asked: Vec<String> =
        world.internet.journal().read(|seen| seen.queries.iter().map(|query| query.name.clone()).collect());
    assert!(asked.iter().all(|name| *name == name.to_lowercase()));
}

#[tokio::test]
async fn negative_answers_keep_their_code_and_failures_say_what_they_are() {
    let world = World::new(BLOCKLIST).await;
    let agent = world.agent(1).await;
    let missing = agent.ask("nowhere.example.", RecordType::A).await;
    assert_eq!(code(&missing), (ResponseCode::NXDomain, None), "what upstream says is not our refusal");
    let empty = agent.ask(&format!("{}.", odd::PLAIN), RecordType::MX).await;
    assert_eq!((code(&empty), data(&empty).len()), ((ResponseCode::NoError, None), 0));
    let broken = agent.ask(&format!("{}.", odd::BROKEN), RecordType::A).await;
    assert_eq!(code(&broken), (ResponseCode::ServFail, Some(23)));
    let record = world.record(odd::BROKEN).await;
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.failure.unwrap().code, "dns_failed");
}

#[tokio::test]
async fn addresses_inside_are_left_out() {
    let world = World::new(BLOCKLIST).await;
    let agent = world.agent(1).await;
    assert_eq!(ask(&agent, odd::MIXED, RecordType::A).await, [odd::PLAIN_AT.to_string()]);
    let mixed = world.record(odd::MIXED).await;
    assert!(mixed.flags.iter().any(|flag| flag.code == "dns_rebinding"), "{:?}", mixed.flags);
    assert_eq!(mixed.question.unwrap().addresses, [IpAddr::V4(odd::PLAIN_AT)]);
    for (name, kind) in
        [(odd::INSIDE, RecordType::A), (odd::INSIDE, RecordType::AAAA), (odd::METADATA, RecordType::A)]
    {
        let answer = agent.ask(&format!("{name}."), kind).await;
        assert_eq!(code(&answer), (ResponseCode::NXDomain, Some(17)), "{name} {kind}");
        assert!(answer.answers.is_empty());
    }
    let record = world.record(odd::METADATA).await;
    assert_eq!(record.state, State::Refused);
    let verdict = record.verdict.unwrap();
    assert_eq!((verdict.action, verdict.rule.as_str()), (Action::Deny, "invariant:metadata"));
    assert!(record.question.unwrap().addresses.is_empty());
}

#[tokio::test]
async fn policy_lets_addresses_inside_be_given() {
    let policy = "version = 1\nmode = \"enforce\"\n[hosts]\nallow = [\"*.odd.example\"]\n\
                  [network]\nprivate = \"allow\"\n";
    let world = World::new(policy).await;
    let agent = world.agent(1).await;
    assert_eq!(ask(&agent, odd::INSIDE, RecordType::A).await, ["10.0.0.1"]);
    let answer = agent.ask(&format!("{}.", odd::METADATA), RecordType::A).await;
    assert_eq!(code(&answer), (ResponseCode::NXDomain, Some(17)), "metadata is not merely private");
}

#[tokio::test]
async fn service_records_lose_what_leads_round_the_gate() {
    let world = World::new(BLOCKLIST).await;
    let agent = world.agent(1).await;
    let [service] = ask(&agent, odd::SERVICE, RecordType::HTTPS).await.try_into().unwrap();
    assert_eq!(service, "1 . mandatory=alpn, alpn=h2, ipv4hint=198.51.100.77,", "{service}");
    let record = world.record(odd::SERVICE).await;
    let told = record.question.unwrap();
    assert_eq!(told.addresses, [IpAddr::V4(odd::PLAIN_AT)], "a hint is an address that was given");
    for left_out in ["10.0.0.1", "fd00::1", "ech"] {
        assert!(told.answers.iter().any(|line| line.contains(left_out)), "{left_out}: {:?}", told.answers);
    }
    assert!(ask(&agent, odd::HTTP3_ONLY, RecordType::HTTPS).await.is_empty());
    let inside = agent.ask(&format!("{}.", odd::INSIDE_SERVICE), RecordType::HTTPS).await;
    assert_eq!(code(&inside), (ResponseCode::NXDomain, Some(17)));
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_comes_over_tcp() {
    let world = World::new(BLOCKLIST).await;
    let agent = world.agent(1).await;
    let name = format!("{}.", odd::BIG);
    let answer = agent.ask(&name, RecordType::TXT).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let mut plain = question(&name, RecordType::TXT);
    plain.edns = None;
    let bytes = agent.send(&plain.to_vec().unwrap()).await;
    assert!(bytes.len() <= 512 && bytes[2] & 2 != 0, "{} bytes", bytes.len());
    let mut stream = agent.connect().await;
    let whole = exchange(&mut stream, &question(&name, RecordType::TXT)).await;
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 60));
    let again = exchange(&mut stream, &question(&format!("{}.", odd::TEXT), RecordType::TXT)).await;
    assert_eq!(data(&again), ["hello"], "more than one question on a connection");
}

#[tokio::test]
async fn a_record_holds_so_much_of_an_answer() {
    let world = World::new(BLOCKLIST).await;
    let agent = world.agent(1).await;
    let large = agent.ask_tcp(&format!("{}.", odd::BIG), RecordType::TXT).await;
    assert_eq!(large.answers.len(), 60);
    let record = world.record(odd::BIG).await;
    let told = record.question.unwrap().answers;
    assert!(told.len() <= 16 && told.iter().all(|line| line.len() <= 204), "{told:?}");
}

#[tokio::test]
async fn the_gate_s_own_name_is_answered_here_whatever_policy_says() {
    let world = World::new("version = 1\nmode = \"enforce\"\n[hosts]\ndeny = [\"*\"]\n").await;
    let agent = world.agent(1).await;
    assert_eq!(ask(&agent, OWN_NAME, RecordType::A).await, [OWN_ADDRESS.to_string()]);
    assert!(ask(&agent, OWN_NAME, RecordType::AAAA).await.is_empty());
    assert_eq!(world.asked(OWN_NAME), 0);
    // Not what is below it, which could carry data.
    let below = agent.ask(&format!("x.{OWN_NAME}."), RecordType::A).await;
    assert_eq!(code(&below).0, ResponseCode::NXDomain);
}

#[tokio::test]
async fn localhost_is_answered_here() {
    let world = World::new("version = 1\nmode = \"enforce\"\n").await;
    let agent = world.agent(1).await;
    for name in ["localhost", "x.localhost"] {
        assert_eq!(ask(&agent, name, RecordType::A).await, [Ipv4Addr::LOCALHOST.to_string()]);
        assert_eq!(ask(&agent, name, RecordType::AAAA).await, ["::1"]);
        assert!(ask(&agent, name, RecordType::TXT).await.is_empty());
        assert_eq!(world.asked(name), 0);
    }
}
