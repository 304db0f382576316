//! Names are judged before anything is asked.

use fake_internet::world::{DENIED, OPEN, UNLISTED};
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::setup::{World, code, data};

const ENFORCE: &str = "version = 1\nmode = \"enforce\"\n[hosts]\nallow = [\"open.example\"]\n\
                       [network]\ncidrs = [{ allow = \"127.0.0.0/8\" }]\n";

#[tokio::test]
async fn an_allowed_name_is_answered_and_no_other_leaves_the_host() {
    let world = World::new(ENFORCE).await;
    let agent = world.agent(1).await;
    let answer = agent.ask(&format!("{OPEN}."), RecordType::A).await;
    assert_eq!(code(&answer), (ResponseCode::NoError, None));
    assert_eq!(data(&answer), ["127.0.0.1"]);
    let record = world.record(OPEN).await;
    let question = record.question.unwrap();
    assert_eq!((question.code.as_str(), question.kind.as_str()), ("NOERROR", "A"));
    assert_eq!(question.addresses, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    for name in [DENIED, UNLISTED] {
        let answer = agent.ask(&format!("{name}."), RecordType::A).await;
        assert_eq!(code(&answer), (ResponseCode::NXDomain, Some(15)), "{name}");
        assert!(answer.answers.is_empty());
        assert_eq!(world.asked(name), 0);
        assert_eq!(world.record(name).await.verdict.unwrap().rule, "mode:enforce");
    }
    let answer = agent.ask_tcp(&format!("{OPEN}."), RecordType::A).await;
    assert_eq!(data(&answer), ["127.0.0.1"]);
}
