//! The live feed.

use agentgate::model::{State, Timestamp};

use crate::{seed, served::Served};

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_they_are_written() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let first = served.record(seed::refused(Timestamp::now())).await;
    let mut events = served.events("/live", &cookie).await;
    let head = events.wait_for("event: page").await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store") && head.contains("content-security-policy:"), "{head}");
    let page = events.wait_for("\n\n").await;
    assert!(page.contains(&format!("data-id=\"{first}\"")), "{page}");

    let flow = seed::flow(Timestamp::now(), &seed::claude(), "api.anthropic.com", "203.0.113.10:443");
    let mut record = seed::messages(&flow, 1);
    record.finished = None;
    let entry = served.audit.open(record).await.unwrap();
    let id = entry.id();
    events.wait_for("event: row").await;
    let row = events.wait_for("\n\n").await;
    assert!(row.contains(&format!("data-id=\"{id}\"")) && row.contains("class=\"k-exchange open\""), "{row}");
    entry.finish(State::Done);
    events.wait_for("event: row").await;
    let row = events.wait_for("\n\n").await;
    assert!(
        row.contains(&format!("data-id=\"{id}\"")) && !row.contains("open\""),
        "the same row, done: {row}"
    );

    // A hostile row is escaped here too, and cannot end the event early.
    let id = served.record(seed::hostile(Timestamp::now())).await;
    events.wait_for("event: row").await;
    let row = events.wait_for("\n\n").await;
    assert!(row.contains(&format!("data-id=\"{id}\"")) && row.contains("&lt;script&gt;"), "{row}");
    assert!(!row.contains("<script>") && !row.contains(['\u{1b}', '\u{202e}']), "{row}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_filters_like_the_page() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let mut events =
        served.events("/live?verdict=deny&text=PASTE&host=paste&session=claude-3f2a.scope", &cookie).await;
    events.wait_for("event: page").await;
    let flow = seed::flow(Timestamp::now(), &seed::claude(), "api.anthropic.com", "203.0.113.10:443");
    let allowed = served.record(seed::messages(&flow, 1)).await;
    let refused = served.record(seed::refused(Timestamp::now())).await;
    let before = events.wait_for(&format!("data-id=\"{refused}\"")).await;
    assert!(!before.contains(&format!("data-id=\"{allowed}\"")), "{before}");
    let row = events.wait_for("\n\n").await;
    assert!(
        row.contains("q=host%3Apaste.example&amp;host=paste&amp;verdict=deny"),
        "its values narrow this list: {row}"
    );
    let answer = served.get("/live?verdict=perhaps", &[("Cookie", &cookie)]).await;
    assert_eq!(answer.status, 400);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_ends_with_its_session_and_with_the_server() {
    let served = Served::start().await;
    let (cookie, other) = (served.login().await, served.login().await);
    let mut events = served.events("/live", &cookie).await;
    let mut lasting = served.events("/live", &other).await;
    for feed in [&mut events, &mut lasting] {
        feed.wait_for("event: page").await;
        feed.wait_for("\n\n").await;
    }
    let csrf = served.get("/", &[("Cookie", &cookie)]).await.csrf().to_owned();
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Cookie", &cookie)];
    assert_eq!(served.ask("POST", "/logout", &headers, &format!("csrf={csrf}")).await.status, 303);
    served.record(seed::refused(Timestamp::now())).await;
    let rest = events.rest().await;
    assert!(rest.contains("event: end") && !rest.contains("data-id"), "nothing after the logout: {rest}");
    lasting.wait_for("event: row").await;
    served.stop().await;
    lasting.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_are_bounded() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let mut feeds = Vec::new();
    for _ in 0..32 {
        let mut events = served.events("/live", &cookie).await;
        events.wait_for("event: page").await;
        feeds.push(events);
    }
    assert_eq!(served.get("/live", &[("Cookie", &cookie)]).await.status, 503);
    assert_eq!(served.get("/", &[("Cookie", &cookie)]).await.status, 200, "pages go on");
    served.stop().await;
}
