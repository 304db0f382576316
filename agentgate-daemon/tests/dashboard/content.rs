//! What the pages and the API say.

use agentgate::model::{Action, Record, Timestamp};

use crate::{
    seed,
    served::{Answer, Served},
};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Ids of the rows of a page, as they stand.
fn rows(page: &Answer) -> Vec<u64> {
    page.body
        .split("data-id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_says_what_to_do() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let page = served.get("/", &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("agentctl run -- curl https://example.com/"), "{}", page.body);
    let page = served.get("/?host=x", &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("Nothing matches"), "{}", page.body);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let now = Timestamp::now();
    let old = Timestamp(now.0 - 7_200_000_000);
    let flow = served.record(seed::flow(old, &seed::claude(), "api.anthropic.com", "203.0.113.10:443")).await;
    let refused = served.record(seed::refused(now)).await;
    let kernel = served.record(seed::kernel(now)).await;
    let mut tunnel = seed::flow(now, &seed::curl(), "codeload.github.com", "203.0.113.12:443");
    tunnel.verdict = Some(seed::verdict(Action::Passthrough, "passthrough:codeload.github.com", "listed"));
    std::sync::Arc::make_mut(tunnel.subject.as_mut().unwrap()).session.0 = "other.scope@7".into();
    let tunnel = served.record(tunnel).await;
    let login = 1;
    let cases: [(&str, &[u64]); 23] = [
        ("", &[tunnel, kernel, refused, flow, login]),
        ("kind=control", &[login]),
        ("host=paste", &[refused]),
        ("host=*.GitHub.com", &[tunnel]),
        ("verdict=deny", &[refused]),
        ("verdict=passthrough", &[tunnel]),
        ("kind=flow", &[tunnel, flow]),
        ("kind=kernel", &[kernel]),
        ("session=other.scope", &[tunnel]),
        ("session=other.scope%407", &[tunnel]),
        ("session=other", &[]),
        ("since=1h", &[tunnel, kernel, refused, login]),
        ("text=%2FAPI%2Fnew%3Ftitle%3Dit%2527s", &[refused]),
        ("text=mode%3Aenforce", &[refused]),
        ("text=8.8.8.8", &[kernel]),
        ("text=host_not_allow&kind=exchange", &[refused]),
        ("kind=flow&since=1h&host=codeload", &[tunnel]),
        ("limit=2", &[tunnel, kernel]),
        ("q=host%3A*.github.com", &[tunnel]),
        ("q=verdict%3Adeny+-kind%3Akernel", &[refused]),
        ("q=kind%3Akernel+or+verdict%3Apassthrough&since=1h", &[tunnel, kernel]),
        ("q=kind%3Aflow+sort%3Aoldest", &[flow, tunnel]),
        ("q=%22title+it%22", &[refused]),
    ];
    let bearer = format!("Bearer {}", served.token);
    for (query, expect) in cases {
        let page = served.get(&format!("/?{query}"), &[("Cookie", &cookie)]).await;
        assert_eq!(rows(&page), expect, "page {query}");
        let answer = served.get(&format!("/api/records?{query}"), &[("Authorization", &bearer)]).await.json();
        let ids: Vec<u64> =
            answer["records"].as_array().unwrap().iter().map(|r| r["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, expect, "API {query}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_wrong_is_told_at_its_field() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let bearer = format!("Bearer {}", served.token);
    let now = Timestamp::now();
    let refused = served.record(seed::refused(now)).await;
    served.record(seed::kernel(now)).await;
    let page = served.get("/?q=verdict%3Adeny+hots%3Apaste", &[("Cookie", &cookie)]).await;
    assert_eq!(page.status, 400);
    for part in [
        "value=\"verdict:deny hots:paste\"",
        "aria-invalid=\"true\"",
        "column 14: `hots` is no field; did you mean `host:`?",
        "<pre>verdict:deny <mark>hots</mark>:paste</pre>",
        "data-wrong-from=\"13\" data-wrong-to=\"17\"",
        "name=\"more\" open>",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert!(!page.body.contains("id=\"live\"") && rows(&page).is_empty());
    let page = served.get("/?q=host%3A*paste*", &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("1 record<") && page.body.contains("id=\"live\""), "{}", page.body);
    assert_eq!(rows(&page), [refused]);
    let page = served.get("/?q=sort%3Aduration", &[("Cookie", &cookie)]).await;
    assert!(!page.body.contains("id=\"live\""), "what comes is not in that order");
    let sorted = served.get("/live?q=sort%3Aduration", &[("Cookie", &cookie)]).await;
    assert_eq!(sorted.status, 400);
    for (query, expect) in
        [("q=state%3Arefused", 2), ("q=state%3Arefused&kind=kernel", 1), ("q=host%3Anowhere", 0)]
    {
        let answer = served.get(&format!("/api/count?{query}"), &[("Authorization", &bearer)]).await.json();
        let expect = serde_json::json!({ "count": expect, "next": null, "unreadable": 0 });
        assert_eq!(answer, expect, "{query}");
    }
    for target in ["/api/records?q=hots%3Aa", "/api/count?q=hots%3Aa"] {
        let answer = served.get(target, &[("Authorization", &bearer)]).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("q: column 1: `hots` is no field; did you mean `host:`?"), "{answer:?}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_the_list_narrow_it_down_and_its_head_sorts_it() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let get = async |target: &str| served.get(target, &[("Cookie", &cookie)]).await;
    let now = Timestamp::now();
    let refused = served.record(seed::refused(now)).await;
    let failed = served.record(seed::failed(now)).await;
    let question = served.record(seed::question(now)).await;
    let page = get("/?q=state%3Arefused+or+state%3Afailed&kind=exchange").await;
    let within = "/?q=%28state%3Arefused%20or%20state%3Afailed%29%20";
    for (condition, link) in [
        ("host:paste.example", "host%3Apaste.example&amp;kind=exchange"),
        ("verdict:deny", "verdict%3Adeny&amp;kind=exchange"),
        ("agent:curl", "agent%3Acurl&amp;kind=exchange"),
        ("session:claude-3f2a.scope", "session%3Aclaude-3f2a.scope&amp;kind=exchange"),
        ("flag:host_not_allowlisted", "flag%3Ahost_not_allowlisted&amp;kind=exchange"),
        ("state:failed", "state%3Afailed&amp;kind=exchange"),
    ] {
        let expect = format!("href=\"{within}{link}\" data-is=\"{condition}\"");
        assert!(page.body.contains(&expect), "{expect}: {}", page.body);
        let target = format!("{within}{link}").replace("&amp;", "&");
        let expect = if condition == "session:claude-3f2a.scope" {
            vec![failed, refused]
        } else if condition == "state:failed" {
            vec![failed]
        } else {
            vec![refused]
        };
        assert_eq!(rows(&get(&target).await), expect, "{condition}");
    }
    assert!(page.body.contains("2 records<"), "{}", page.body);
    let all = get("/").await;
    assert!(all.body.contains("4 records<") && all.body.contains("data-is=\"code:NOERROR\""), "{}", all.body);
    assert!(all.body.contains("data-is=\"host:codeload.github.com\""), "what DNS was asked for");

    // The head: once for an order, again for the one before, and what else was chosen stays.
    let sort = "/?q=%28state%3Arefused%20or%20state%3Afailed%29%20sort%3Aduration&amp;kind=exchange";
    assert!(page.body.contains(&format!("href=\"{sort}\"")), "{}", page.body);
    let sorted = get(&sort.replace("&amp;", "&")).await;
    assert_eq!(rows(&sorted).len(), 2);
    assert!(sorted.body.contains("aria-sort=\"descending\"><a href=\"/?q=%28state"), "{}", sorted.body);
    assert!(page.body.contains("agentctl logs '(state:refused or state:failed) kind:exchange'"));

    // A long filter is not repeated in every row, and what hides characters is no link.
    let long = get(&format!("/?q=-host%3A{}", "x".repeat(600))).await;
    assert!(long.status == 200 && !rows(&long).is_empty() && !long.body.contains("data-is="));
    let hostile = served.record(seed::hostile(now)).await;
    let page = get(&format!("/?q=id%3A{hostile}")).await;
    assert!(page.body.contains("data-is=\"host:evil.example\""), "{}", page.body);
    assert!(!page.body.contains("data-is=\"agent:") && !page.body.contains("data-is=\"flag:"));

    // Facts are shown, and lead to records with the same.
    let mut record = seed::failed(now);
    record.facts = vec![
        agentgate::model::Fact::text("model", "claude-<4>"),
        agentgate::model::Fact::micros("cost", 12_500),
        agentgate::model::Fact::text("server", "github"),
    ];
    let told = served.record(record).await;
    let page = get(&format!("/records/{told}")).await;
    for expect in ["data-is=\"model:&quot;claude-&lt;4&gt;&quot;\"", "cost%3A0.0125", "fact.server:github"] {
        assert!(page.body.contains(expect), "{expect}: {}", page.body);
    }
    assert_eq!(rows(&get("/?q=cost%3A0.0125").await), [told]);
    assert_eq!(rows(&get("/?q=kind%3Adns").await), [question]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let served = Served::start().await;
    let bearer = format!("Bearer {}", served.token);
    let now = Timestamp::now();
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(served.record(seed::refused(now)).await);
        served.record(seed::kernel(now)).await;
    }
    ids.reverse();
    for query in ["kind=exchange", "text=paste.example"] {
        let (mut seen, mut before) = (Vec::new(), String::new());
        for _ in 0..10 {
            let target = format!("/api/records?{query}&limit=3{before}");
            let answer = served.get(&target, &[("Authorization", &bearer)]).await.json();
            seen.extend(answer["records"].as_array().unwrap().iter().map(|r| r["id"].as_u64().unwrap()));
            match answer["next"].as_u64() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ids, "{query}");
    }
    let cookie = served.login().await;
    let page = served.get("/?kind=exchange&limit=3", &[("Cookie", &cookie)]).await;
    let older = format!("/?kind=exchange&amp;before={}&amp;limit=3", ids[2]);
    assert!(page.body.contains(&older), "{older}: {}", page.body);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_shown_with_all_that_belongs_to_it() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let flow = seed::flow(Timestamp::now(), &seed::claude(), "api.anthropic.com", "203.0.113.10:443");
    let parent = served.record(flow.clone()).await;
    let child = served.record(seed::messages(&flow, parent)).await;
    let page = served.get(&format!("/records/{child}"), &[("Cookie", &cookie)]).await;
    for expect in [
        "allow:api.anthropic.com",
        "Bearer ****7QAA",
        "Secrets are masked",
        "/usr/bin/agentctl",
        "claude-3f2a.scope@48213",
        "203.0.113.10:443",
        &format!("href=\"/records/{parent}\""),
    ] {
        assert!(page.body.contains(expect), "{expect}: {}", page.body);
    }
    let page = served.get(&format!("/records/{parent}"), &[("Cookie", &cookie)]).await;
    assert_eq!(rows(&page), [child], "the flow lists its exchange");
    assert!(!page.body.contains("Show bodies"), "it has none: {}", page.body);
    let bearer = format!("Bearer {}", served.token);
    let answer = served.get(&format!("/api/records/{child}"), &[("Authorization", &bearer)]).await.json();
    assert_eq!(answer["record"]["id"].as_u64(), Some(child));
    let failed = served.record(seed::failed(Timestamp::now())).await;
    let page = served.get(&format!("/records/{failed}"), &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("origin_certificate_invalid") && page.body.contains("expired on 2026-11-18"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_command_lines_are_masked() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let mut record = seed::refused(Timestamp::now());
    std::sync::Arc::make_mut(record.subject.as_mut().unwrap()).cmdline =
        ["curl", "-H", "Authorization: Bearer sk-ant-api03-abcdefghijklmnopqrstuvwxyz"]
            .map(String::from)
            .to_vec();
    let id = served.record(record).await;
    let bearer = format!("Bearer {}", served.token);
    let page = served.get(&format!("/records/{id}"), &[("Cookie", &cookie)]).await;
    let api = served.get(&format!("/api/records/{id}"), &[("Authorization", &bearer)]).await;
    let list = served.get("/api/records", &[("Authorization", &bearer)]).await;
    for (what, answer) in [("page", page), ("API", api), ("API list", list)] {
        assert!(answer.body.contains("curl"), "{what}");
        assert!(!answer.body.contains("abcdefghijklmnop"), "{what}: {}", answer.body);
    }
    served.stop().await;
}

/// Whatever an agent or an origin can choose holds markup, quotes, controls and a direction override.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_stays_text() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let id = served.record(seed::hostile(Timestamp::now())).await;
    for target in ["/".to_owned(), format!("/records/{id}")] {
        let page = served.get(&target, &[("Cookie", &cookie)]).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("&lt;script&gt;alert(1)"), "{target}");
        assert!(!page.body.contains("<script>"), "{target}: {}", page.body);
        // An attribute could be left through its quote.
        assert!(!page.body.contains("</script>\"'"), "{target}: {}", page.body);
        assert!(!page.body.contains(['\u{1b}', '\u{202e}', '\r']), "{target}: {}", page.body);
        assert!(page.body.contains("\\u{1b}[2J\\u{202e}"), "{target}: {}", page.body);
    }
    for target in [
        "/?text=%3Cscript%3E%22",
        "/?since=%3Cscript%3E%22",
        "/?host=%3Cscript%3E%22%1b&session=%3Cscript%3E",
    ] {
        let page = served.get(target, &[("Cookie", &cookie)]).await;
        assert!(
            !page.body.contains("<script>") && !page.body.contains(";script&gt;\"\""),
            "{target}: {}",
            page.body
        );
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_change_the_lists_and_say_so() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let cookie = ("Cookie", cookie.as_str());
    let id = served.record(seed::refused(Timestamp::now())).await;
    let detail = format!("/records/{id}");
    let page = served.get(&detail, &[cookie]).await;
    assert!(page.body.contains("agentctl allow paste.example"), "{}", page.body);
    let csrf = page.csrf().to_owned();
    for list in ["allow", "deny", "passthrough"] {
        let member =
            |page: &Answer| page.body.contains(&format!("data-list=\"{list}\" data-member=\"true\""));
        assert!(!member(&served.get(&detail, &[cookie]).await), "{list}");
        let add = format!("csrf={csrf}&record={id}&list={list}&host=paste.example");
        let answer = served.ask("POST", "/host", &[FORM, cookie], &add).await;
        let to = answer.header("location").unwrap().to_owned();
        assert_eq!((answer.status, to.as_str()), (303, format!("{detail}?changed={list}-added").as_str()));
        assert!(served.list(list).contains("paste.example"));
        let page = served.get(&to, &[cookie]).await;
        assert!(member(&page) && page.body.contains(&format!("Added to the {list} list.")), "{}", page.body);
        let again = served.ask("POST", "/host", &[FORM, cookie], &add).await;
        assert!(again.header("location").unwrap().ends_with("?changed=nothing"));
        let answer = served.ask("POST", "/host", &[FORM, cookie], &format!("{add}&remove=true")).await;
        assert!(answer.header("location").unwrap().ends_with(&format!("?changed={list}-removed")));
        assert!(!served.list(list).contains("paste.example"));
        assert!(!member(&served.get(&detail, &[cookie]).await), "{list}");
    }
    let page = served.get("/?kind=control", &[cookie]).await;
    assert_eq!(rows(&page).len(), 1 + 9, "the login and each change are recorded: {}", page.body);
    let last = served.get(&format!("/records/{}", rows(&page)[0]), &[cookie]).await;
    let note = "removed paste.example from the passthrough list, by dashboard session 1 from 127.0.0.1:";
    assert!(last.body.contains(note), "{}", last.body);
    // What is no pattern is refused, and that is recorded too.
    let bad = format!("csrf={csrf}&list=allow&host=https%3A%2F%2Fpaste.example%2F");
    let mut written = served.audit.live();
    let answer = served.ask("POST", "/host", &[FORM, cookie], &bad).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    while written.recv().await.unwrap().failure.is_none() {}
    let page = served.get("/?kind=control&text=invalid_pattern", &[cookie]).await;
    assert_eq!(rows(&page).len(), 1, "{}", page.body);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_policy_file_are_shown_and_not_removable() {
    let served =
        Served::with_policy("version = 1\nmode = \"enforce\"\n[hosts]\ndeny = [\"*.example\"]\n").await;
    let cookie = served.login().await;
    let id = served.record(seed::refused(Timestamp::now())).await;
    let page = served.get(&format!("/records/{id}"), &[("Cookie", &cookie)]).await;
    let (_, row) = page.body.split_once("data-list=\"deny\"").unwrap();
    let row = row.split("</tr>").next().unwrap();
    assert!(
        row.contains("data-member=\"true\"") && row.contains("*.example") && row.contains("policy.toml"),
        "{row}"
    );
    assert!(!row.contains("<button"), "{row}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_said_on_every_page() {
    let served = Served::with_policy("version = 1\nmode = \"audit\"\n").await;
    let cookie = served.login().await;
    let page = served.get("/", &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("Audit mode: nothing is refused."), "{}", page.body);
    served.stop().await;

    let served = Served::with_policy("version = 1\nmode = \"strict\"\n").await;
    let cookie = served.login().await;
    let page = served.get("/", &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("was not installed") && page.body.contains("policy.toml:2:"), "{}", page.body);
    let bearer = format!("Bearer {}", served.token);
    let status = served.get("/api/status", &[("Authorization", &bearer)]).await.json();
    assert_eq!(status["policy"]["mode"].as_str(), Some("enforce"), "{status}");
    assert_eq!(status["policy"]["errors"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(status["audit"]["ok"].as_bool(), Some(true), "{status}");
    assert_eq!(status["gate"]["guarded"].as_str(), Some("agent.slice"), "{status}");
    served.stop().await;
}

/// A record as bare as the format allows has pages too.
#[tokio::test(flavor = "multi_thread")]
async fn bare_records_are_shown() {
    let served = Served::start().await;
    let cookie = served.login().await;
    use agentgate::model::Kind;
    for kind in [Kind::Flow, Kind::Exchange, Kind::Kernel, Kind::Control] {
        let id = served.record(Record::new(kind, Timestamp(i64::MAX))).await;
        let page = served.get(&format!("/records/{id}"), &[("Cookie", &cookie)]).await;
        assert_eq!(page.status, 200, "{kind:?}");
    }
    assert_eq!(rows(&served.get("/", &[("Cookie", &cookie)]).await).len(), 1 + 4, "and the login");
    served.stop().await;
}

/// Texts of the dashboard's own records, newest first.
async fn notes(served: &Served) -> Vec<String> {
    let bearer = format!("Bearer {}", served.token);
    let answer = served.get("/api/records?kind=control", &[("Authorization", &bearer)]).await.json();
    answer["records"].as_array().unwrap().iter().map(|r| r["note"].as_str().unwrap().to_owned()).collect()
}

/// Bodies may hold secrets: nobody sees one unasked, and whoever asks is on record.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_shown_when_asked_for_and_that_is_recorded() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let cookie = ("Cookie", cookie.as_str());
    let bearer = format!("Bearer {}", served.token);
    let bearer = ("Authorization", bearer.as_str());
    let flow = seed::flow(Timestamp::now(), &seed::claude(), "api.anthropic.com", "203.0.113.10:443");
    let id = served.record(seed::messages(&flow, 1)).await;
    let secrets = ["claude-opus-5", "content_block_delta"];
    let (detail, api) = (format!("/records/{id}"), format!("/api/records/{id}"));
    let page = served.get(&detail, &[cookie]).await;
    for (what, answer) in [
        ("page", &page),
        ("API", &served.get(&api, &[bearer]).await),
        ("API with a session", &served.get(&api, &[cookie]).await),
        ("list", &served.get("/api/records", &[bearer]).await),
    ] {
        assert_eq!(answer.status, 200, "{what}");
        assert!(!secrets.iter().any(|secret| answer.body.contains(secret)), "{what}: {}", answer.body);
    }
    assert_eq!(notes(&served).await.len(), 1, "only the login");

    let (ask, api_ask) = (format!("{detail}/body"), format!("{api}/body"));
    assert!(page.body.contains(&format!("action=\"{ask}\"")), "{}", page.body);
    let csrf = format!("csrf={}", page.csrf());
    for (what, headers, body, status) in [
        ("no session", vec![FORM], csrf.as_str(), 401),
        ("no CSRF token", vec![FORM, cookie], "csrf=0", 403),
        ("from elsewhere", vec![FORM, cookie, ("Sec-Fetch-Site", "same-site")], csrf.as_str(), 403),
    ] {
        assert_eq!(served.ask("POST", &ask, &headers, body).await.status, status, "{what}");
    }
    assert_eq!(served.ask("POST", &api_ask, &[cookie], "").await.status, 401, "the API by bearer only");
    assert_eq!(served.ask("POST", "/api/records/99/body", &[bearer], "").await.status, 404);
    assert_eq!(served.ask("POST", "/records/99/body", &[FORM, cookie], &csrf).await.status, 404);
    assert_eq!(served.get(&ask, &[cookie]).await.header("location"), Some(detail.as_str()));
    assert_eq!(notes(&served).await.len(), 1, "nothing was shown");

    let page = served.ask("POST", &ask, &[FORM, cookie], &csrf).await;
    assert!(page.body.contains("&quot;model&quot;: &quot;claude-opus-5&quot;,\n"), "{}", page.body);
    assert!(page.body.contains("event: content_block_delta") && !page.body.contains("Show bodies"));
    let note = format!("bodies of record {id} shown, by dashboard session 1 from 127.0.0.1:");
    assert!(notes(&served).await[0].starts_with(&note), "{:?}", notes(&served).await);
    let answer = served.ask("POST", &api_ask, &[bearer], "").await.json();
    assert!(answer["request_body"]["text"].as_str().unwrap().contains("claude-opus-5"), "{answer}");
    assert!(answer["response_body"]["text"].as_str().unwrap().contains("message_stop"), "{answer}");
    let note = format!("bodies of record {id} shown, by dashboard API from 127.0.0.1:");
    assert!(notes(&served).await[0].starts_with(&note), "{:?}", notes(&served).await);

    // What cannot be recorded is not shown.
    let served = served.close_audit().await;
    for (target, headers, body) in [(&ask, vec![FORM, cookie], csrf.as_str()), (&api_ask, vec![bearer], "")] {
        let answer = served.ask("POST", target, &headers, body).await;
        assert_eq!(answer.status, 503, "{target}: {answer:?}");
        assert!(answer.body.contains("cannot be recorded"), "{answer:?}");
        assert!(!secrets.iter().any(|secret| answer.body.contains(secret)), "{target}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_recorded_and_failed_ones_from_the_second_on() {
    let served = Served::start().await;
    for _ in 0..40 {
        served.get("/login?code=wrong", &[]).await;
    }
    served.login().await;
    let notes = notes(&served).await;
    assert!(notes[0].starts_with("logged in: dashboard session 1 from 127.0.0.1:"), "{notes:?}");
    let failures: Vec<&str> = notes[1..].iter().rev().map(|n| n.split("number ").nth(1).unwrap()).collect();
    let expect = ["2", "3", "4", "5", "6", "7", "8", "9", "10", "16", "32"];
    assert_eq!(failures, expect.map(|n| format!("{n} in a minute")), "{notes:?}");
    served.stop().await;
}

/// What the kernel refused says what it was, where to, why, and what helps; no button that does not.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_by_the_kernel_are_understood() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let cookie = ("Cookie", cookie.as_str());
    let rows = [
        ("udp", "kernel:udp", "203.0.113.80:9999", "UDP to 203.0.113.80:9999", "falls back to TCP"),
        ("tcp", "kernel:loopback", "127.0.0.1:5432", "TCP to 127.0.0.1:5432", "ports = [5432]"),
        ("raw", "kernel:socket_type", "[::]:0", "raw socket", "run the tool outside the gate"),
        ("tcp", "kernel:gate_port", "127.0.0.1:443", "TCP to 127.0.0.1:443", "No policy opens these ports"),
    ];
    for (protocol, rule, to, title, helps) in rows {
        let mut record = seed::flow(Timestamp::now(), &seed::curl(), "203.0.113.80", to);
        record.kind = agentgate::model::Kind::Kernel;
        record.protocol = protocol.into();
        record.authority = (!to.ends_with(":0")).then(|| {
            let at: std::net::SocketAddr = to.parse().unwrap();
            seed::authority(&at.ip().to_string(), at.port())
        });
        record.verdict = Some(seed::verdict(Action::Deny, rule, "the reason in words"));
        record.note = Some("connect4: family 2 type 1 protocol 6; 12 more like it were counted".into());
        let id = served.record(record).await;
        let page = served.get(&format!("/records/{id}"), &[cookie]).await;
        let (_, headline) = page.body.split_once("<h1>").unwrap();
        assert_eq!(headline.split("</h1>").next().unwrap(), title, "{rule}");
        for expect in [helps, "the reason in words", "connect4: family 2"] {
            assert!(page.body.contains(expect), "{rule}: {expect}: {}", page.body);
        }
        assert!(!page.body.contains("data-list=") && !page.body.contains("took"), "{rule}: {}", page.body);
        let list = served.get("/?kind=kernel", &[cookie]).await;
        let row = list.body.split("data-id=").nth(1).unwrap().split("</tr>").next().unwrap();
        let port = to.rsplit(':').next().unwrap();
        assert!(row.contains("the reason in words") && !row.contains("connect4"), "{rule}: {row}");
        assert!(row.contains("+12 alike"), "{rule}: {row}");
        assert!(row.contains(&format!(">:{port}<")) || row.contains("no address"), "{rule}: {row}");
    }
    served.stop().await;
}

/// A log that holds only logins still says what to do first.
#[tokio::test(flavor = "multi_thread")]
async fn the_welcome_stays_until_something_passes() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let cookie = ("Cookie", cookie.as_str());
    let shown = |page: &Answer| page.body.contains("<div id=\"empty\" data-welcome>");
    assert!(shown(&served.get("/", &[cookie]).await));
    assert!(!shown(&served.get("/?kind=control", &[cookie]).await));
    served.record(seed::refused(Timestamp::now())).await;
    assert!(!shown(&served.get("/", &[cookie]).await));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_listed_and_shown() {
    let served = Served::start().await;
    let cookie = served.login().await;
    let now = Timestamp::now();
    let flow = served.record(seed::flow(now, &seed::claude(), "api.anthropic.com", "203.0.113.10:443")).await;
    let asked = served.record(seed::question(now)).await;
    let refused = served.record(seed::hostile_question(now)).await;
    for (query, expect) in [
        ("kind=dns", vec![refused, asked]),
        ("kind=dns&verdict=deny", vec![refused]),
        ("host=*.github.com", vec![asked]),
        ("host=evil", vec![refused]),
        ("text=2001:db8::11", vec![asked]),
        ("text=nxdomain", vec![refused]),
        ("kind=flow", vec![flow]),
    ] {
        let page = served.get(&format!("/?{query}"), &[("Cookie", &cookie)]).await;
        assert_eq!(rows(&page), expect, "{query}");
    }
    let list = served.get("/?kind=dns", &[("Cookie", &cookie)]).await;
    for part in
        ["codeload.github.com", "AAAA", "2001:db8::10", "NOERROR", "+4 alike", "aria-current=\"page\">DNS<"]
    {
        assert!(list.body.contains(part), "{part}: {}", list.body);
    }
    let page = served.get(&format!("/records/{asked}"), &[("Cookie", &cookie)]).await;
    for part in ["2001:db8::10", "2001:db8::11", "left out fd00::1", "12 ms", "5 times", "allow:*.github.com"]
    {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    let page = served.get(&format!("/records/{refused}"), &[("Cookie", &cookie)]).await;
    assert!(page.body.contains("NXDOMAIN") && page.body.contains("&lt;script&gt;alert(2)"), "{}", page.body);
    assert!(!page.body.contains("<script>alert") && !page.body.contains('\u{202e}'), "{}", page.body);
    assert!(!list.body.contains("<script>alert") && !list.body.contains('\u{202e}'), "{}", list.body);
    served.stop().await;
}
