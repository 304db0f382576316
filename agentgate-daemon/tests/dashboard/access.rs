//! Login, sessions, Host check, CSRF, headers, limits.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::{
    seed,
    served::{Answer, Served},
};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Shorter than any deadline of the server's, by which it would make room in time.
const SOON: Duration = Duration::from_secs(3);

/// Headers of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];

fn assert_hardened(what: &str, answer: &Answer) {
    let expect = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in expect {
        assert_eq!(answer.header(name), Some(value), "{what}: {name}");
        assert_eq!(answer.headers.iter().filter(|(n, _)| n == name).count(), 1, "{what}: {name} once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_hardened() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let bearer = format!("Bearer {}", served.token);
    let rows: [(&str, &str, Headers<'_>, u16); 21] = [
        ("GET", "/", &[], 303),
        ("GET", "/", &[("Cookie", &cookie)], 200),
        ("HEAD", "/", &[("Cookie", &cookie)], 200),
        ("GET", "/?verdict=perhaps", &[("Cookie", &cookie)], 400),
        ("GET", "/?nonsense=1", &[("Cookie", &cookie)], 400),
        ("GET", "/records/99", &[("Cookie", &cookie)], 404),
        ("GET", "/records/x", &[("Cookie", &cookie)], 404),
        ("GET", "/login", &[], 200),
        ("GET", "/login?code=wrong", &[], 401),
        ("GET", "/enter?ticket=wrong", &[], 401),
        ("GET", "/static/app.css", &[], 200),
        ("GET", "/static/live.js", &[], 200),
        ("GET", "/static/mark.svg", &[], 200),
        ("GET", "/nowhere", &[], 404),
        ("DELETE", "/", &[("Cookie", &cookie)], 405),
        ("GET", "/host", &[("Cookie", &cookie)], 405),
        ("GET", "/live", &[], 401),
        ("GET", "/api/records", &[], 401),
        ("GET", "/api/records", &[("Authorization", &bearer)], 200),
        ("GET", "/api/records?limit=0", &[("Authorization", &bearer)], 400),
        ("GET", "/api/nowhere", &[], 404),
    ];
    for (method, target, headers, status) in rows {
        let answer = served.ask(method, target, headers, "").await;
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        assert_hardened(&format!("{method} {target}"), &answer);
        if target.starts_with("/api/") {
            assert_eq!(answer.header("content-type"), Some("application/json"), "{target}");
        }
    }
    let long = format!("/?text={}", "a".repeat(9000));
    let answer = served.get(&long, &[("Cookie", &cookie)]).await;
    assert_eq!(answer.status, 414);
    assert_hardened("a long address", &answer);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_hosts_are_misdirected() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let session = served.host(&[("Cookie", &cookie)]);
    let name = session.split(':').next().unwrap();
    let own = served.addr.to_string();
    let rows: [(&[&str], u16); 11] = [
        (&[&session], 200),
        (&[&session.to_uppercase()], 200),
        (&[&format!("{name}:1234")], 200),
        (&[&own], 303),
        (&["localhost:1234"], 303),
        (&["[::1]:7878"], 303),
        (&["gate-000000000000000000000000.localhost"], 303),
        (&["rebind.example"], 421),
        (&["rebind.localhost:7878"], 421),
        (&[], 421),
        (&[&session, "rebind.example"], 421),
    ];
    for (hosts, status) in rows {
        let mut headers = vec![("Cookie", cookie.as_str())];
        headers.extend(hosts.iter().map(|host| ("Host", *host)));
        let answer = served.raw("GET", "/", &headers, "").await;
        assert_eq!(answer.status, status, "{hosts:?}: {answer:?}");
        assert_hardened(&format!("{hosts:?}"), &answer);
    }
    served.stop().await;
}

/// Every server on 127.0.0.1 gets the cookies of 127.0.0.1: a session's must be of no use there, and
/// nothing may tell its name to whoever has no session.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_counts_under_its_own_name_only() {
    let served = Served::start().await;
    let (cookie, other) = (served.login().await, served.login().await);
    let (host, others) = (served.host(&[("Cookie", &cookie)]), served.host(&[("Cookie", &other)]));
    let name = host.split(':').next().unwrap();
    assert!(name.starts_with("gate-") && name.ends_with(".localhost") && host != others, "{host}");
    assert!(!cookie.contains(name.split('.').next().unwrap()), "the cookie does not tell the name");
    let plain = served.addr.to_string();
    for wrong in [plain.as_str(), "localhost", others.as_str()] {
        let headers = [("Host", wrong), ("Cookie", cookie.as_str())];
        for (target, status) in [("/", 303), ("/records/1", 303), ("/live", 401), ("/api/records", 401)] {
            let answer = served.raw("GET", target, &headers, "").await;
            assert_eq!(answer.status, status, "{target} at {wrong}: {answer:?}");
            assert!(!format!("{answer:?}").contains("gate-"), "{target} at {wrong}: {answer:?}");
        }
    }
    let headers = [("Host", host.as_str()), ("Cookie", cookie.as_str())];
    assert_eq!(served.raw("GET", "/api/records", &headers, "").await.status, 200);
    served.stop().await;
}

/// The address that is printed is worth nothing once it was opened, and the next step too.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_address_works_once() {
    let served = Served::start().await;
    let target = served.login_target();
    assert!(!target.contains(&served.token), "{target}");
    let answer = served.get(&target, &[]).await;
    let (host, ticket) = answer.onward();
    let again = served.get(&target, &[]).await;
    assert_eq!(again.status, 401);
    assert!(again.body.contains("used already") && again.header("refresh").is_none(), "{again:?}");
    let plain = served.addr.to_string();
    for (host, status) in [(&plain, 401), (&host, 200), (&host, 401)] {
        let answer = served.raw("GET", &ticket, &[("Host", host)], "").await;
        assert_eq!((answer.status, answer.header("set-cookie").is_some()), (status, status == 200), "{host}");
    }
    // The lasting token opens nothing from an address.
    for target in [format!("/login?token={}", served.token), format!("/login?code={}", served.token)] {
        let answer = served.get(&target, &[]).await;
        assert!(answer.header("refresh").is_none() && answer.header("set-cookie").is_none(), "{answer:?}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_opened_kept_and_ended() {
    let served = Served::start().await;
    // Without: to the login page.
    let answer = served.get("/", &[]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/login")));
    let answer = served.get("/", &[("Cookie", "agentgate_session=0000")]).await;
    assert_eq!(answer.status, 303, "an invented session");
    // By form.
    let form = format!("token={}", served.token);
    let answer = served.ask("POST", "/login", &[FORM, ("Sec-Fetch-Site", "cross-site")], &form).await;
    assert_eq!(answer.status, 403, "from elsewhere");
    let answer = served.ask("POST", "/login", &[FORM], "token=wrong").await;
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("That is not the token.") && answer.header("set-cookie").is_none());
    let answer = served
        .ask("POST", "/login", &[FORM, ("Origin", "null"), ("Sec-Fetch-Site", "same-origin")], &form)
        .await;
    assert!(answer.body.contains("ends in"), "what to do where it goes nowhere: {}", answer.body);
    let (host, target) = answer.onward();
    let answer = served.raw("GET", &target, &[("Host", &host)], "").await;
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.to_lowercase().contains("domain"), "for that host only: {cookie}");
    let answer = served
        .ask("POST", "/login", &[FORM, ("Origin", "null"), ("Sec-Fetch-Site", "same-origin")], &form)
        .await;
    let cookie = served.enter(&answer).await;
    let cookie = cookie.as_str();
    assert!(!cookie.contains(&served.token), "the cookie is not the token");
    let page = served.get("/", &[("Cookie", cookie)]).await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains(&served.token));
    // Out: only with the form's token.
    let csrf = page.csrf().to_owned();
    let answer = served.ask("POST", "/logout", &[FORM, ("Cookie", cookie)], "csrf=0").await;
    assert_eq!(answer.status, 403);
    assert_eq!(served.get("/", &[("Cookie", cookie)]).await.status, 200);
    let answer = served.ask("POST", "/logout", &[FORM, ("Cookie", cookie)], &format!("csrf={csrf}")).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/login")));
    assert_eq!(served.get("/", &[("Cookie", cookie)]).await.status, 303);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_slowed_and_the_right_one_is_not() {
    let served = Served::start().await;
    for n in 0..10 {
        let answer = served.get("/api/status", &[("Authorization", "Bearer wrong")]).await;
        assert_eq!(answer.status, 401, "{n}");
    }
    let answer = served.get("/api/status", &[("Authorization", "Bearer wrong")]).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() <= 61);
    let answer = served.get("/login?code=wrong", &[]).await;
    assert_eq!(answer.status, 429, "one count for all ways");
    served.login().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_need_the_sessions_own_form() {
    let served = Served::start().await;
    let (cookie, other) = (served.login().await, served.login().await);
    let csrf = served.get("/", &[("Cookie", &cookie)]).await.csrf().to_owned();
    let foreign = served.get("/", &[("Cookie", &other)]).await.csrf().to_owned();
    let own = format!("http://{}", served.host(&[("Cookie", &cookie)]));
    let plain = format!("http://{}", served.addr);
    let change = |csrf: &str| format!("csrf={csrf}&list=allow&host=a.example");
    let good = change(&csrf);
    let cookie = ("Cookie", cookie.as_str());
    let refused: [(&str, Headers<'_>, &str, u16); 10] = [
        ("no session", &[FORM], &good, 401),
        ("no CSRF token", &[FORM, cookie], "list=allow&host=a.example", 422),
        ("an empty one", &[FORM, cookie], &change(""), 403),
        ("another session's", &[FORM, cookie], &change(&foreign), 403),
        ("from another site", &[FORM, cookie, ("Sec-Fetch-Site", "cross-site")], &good, 403),
        ("from another port", &[FORM, cookie, ("Origin", "http://127.0.0.1:1")], &good, 403),
        ("from our login page", &[FORM, cookie, ("Origin", &plain)], &good, 403),
        ("from a sandboxed page", &[FORM, cookie, ("Origin", "null")], &good, 403),
        ("as JSON", &[("Content-Type", "application/json"), cookie], &good, 415),
        (
            "the bearer token in its place",
            &[FORM, ("Authorization", &format!("Bearer {}", served.token))],
            &good,
            401,
        ),
    ];
    for (what, headers, body, status) in refused {
        let answer = served.ask("POST", "/host", headers, body).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_hardened(what, &answer);
    }
    let huge = format!("{good}&record=1{}", "0".repeat(9000));
    assert_eq!(served.ask("POST", "/host", &[FORM, cookie], &huge).await.status, 413);
    assert_eq!(served.list("allow"), "", "none of them changed anything");
    let answer = served.ask("POST", "/host", &[FORM, cookie, ("Origin", &own)], &good).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert!(served.list("allow").contains("a.example"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_changes_by_bearer_only() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let body = r#"{"list":"deny","host":"*.bad.example"}"#;
    let json = ("Content-Type", "application/json");
    let answer = served.ask("POST", "/api/host", &[json, ("Cookie", &cookie)], body).await;
    assert_eq!(answer.status, 401, "a session is not enough: {answer:?}");
    let bearer = format!("Bearer {}", served.token);
    let auth = ("Authorization", bearer.as_str());
    for (body, status) in [
        (r#"{"list":"deny"}"#, 422),
        (r#"{"list":"grey","host":"a.example"}"#, 422),
        (r#"{"list":"deny","host":"a.example","more":1}"#, 422),
        (r#"{"list":"deny","host":"https://a.example/"}"#, 400),
        ("{", 400),
    ] {
        let answer = served.ask("POST", "/api/host", &[json, auth], body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(served.list("deny"), "");
    for changed in [true, false] {
        let answer = served.ask("POST", "/api/host", &[json, auth], body).await;
        assert_eq!((answer.status, answer.json()["changed"].as_bool()), (200, Some(changed)));
    }
    assert!(served.list("deny").contains("*.bad.example"));
    let remove = r#"{"list":"deny","host":"*.bad.example","remove":true}"#;
    let answer = served.ask("POST", "/api/host", &[json, auth], remove).await;
    assert_eq!(answer.json()["changed"].as_bool(), Some(true));
    assert!(!served.list("deny").contains("bad.example"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_changed() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let csrf = served.get("/", &[("Cookie", &cookie)]).await.csrf().to_owned();
    let served = served.close_audit().await;
    let form = format!("csrf={csrf}&list=allow&host=a.example");
    let answer = served.ask("POST", "/host", &[FORM, ("Cookie", &cookie)], &form).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("cannot be recorded"));
    assert_eq!(served.list("allow"), "");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let served = Served::start().await;
    let host = served.addr.to_string();
    let headers = [("Host", host.as_str()), FORM, ("Content-Length", "100")];
    let answer = served.raw("POST", "/login", &headers, "").await;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_hardened("a body that does not come", &answer);
    served.stop().await;
}

/// Another local user opens connections and never ends a request, in each way there is.
#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_do_not_keep_the_owner_out() {
    let served = Served::start().await;
    let mut held = Vec::new();
    for start in [
        "",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    ] {
        for _ in 0..140 {
            held.push(served.begin(start).await);
        }
        let cookie = tokio::time::timeout(SOON, served.login()).await.expect("the owner gets in");
        let page = tokio::time::timeout(SOON, served.get("/", &[("Cookie", &cookie)])).await;
        assert_eq!(page.expect("the owner gets a page").status, 200, "behind {start:?}");
    }
    served.stop().await;
}

/// Who logged in is not pushed out by who did not.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_feed_outlasts_a_flood_of_strangers() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let mut events = served.events("/live", &cookie).await;
    events.wait_for("event: page").await;
    let mut held = Vec::new();
    for _ in 0..140 {
        held.push(served.begin("").await);
    }
    served.record(seed::refused(agentgate::model::Timestamp::now())).await;
    events.wait_for("event: row").await;
    served.stop().await;
}

/// A head that does not come is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_head_is_dropped_within_seconds() {
    let served = Served::start().await;
    let mut stream = served.begin("GET / HTTP/1.1\r\nHost: localhost\r\n").await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open");
    served.stop().await;
}
