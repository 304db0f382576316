//! Hostile and broken input over real eBPF: each has a defined end, and the gate serves on after it.

use fake_internet::world::{OPEN, UNLISTED};

use super::{Scenario, scripts};
use crate::lab::{case::Case, inside::Lab, log::Pattern};

const FLOW: Pattern = Pattern {
    kind: Some("flow"),
    state: None,
    host: None,
    action: None,
    rule: None,
    protocol: None,
    version: None,
    status: None,
    flag: None,
    blame: None,
    original: Some("198.51.100.10:443"),
};

pub(super) fn scenarios() -> Vec<Scenario> {
    let python = |name, script| Case::inside(name, &["python3", "-c", script]);
    let exchange = Pattern { kind: Some("exchange"), original: None, host: Some(OPEN), ..FLOW };
    let mut all: Vec<Scenario> = [
        python("half a ClientHello, then silence", scripts::HALF_HELLO)
            .says("refused")
            .nothing_at(OPEN)
            .logs(FLOW)
            .look(never_done),
        python("a malformed ClientHello", scripts::BROKEN_HELLO)
            .says("refused")
            .nothing_at(OPEN)
            .logs(FLOW)
            .look(never_done),
        python("silence", scripts::SILENCE).says("refused").nothing_at(OPEN).logs(FLOW).look(never_done),
        python("a header of 1 MiB", scripts::LONG_HEADER)
            .says("refused")
            .requests(OPEN, 0)
            .logs(Pattern { original: None, ..FLOW }),
        python("a body that stops in the middle", scripts::HALF_BODY)
            .says("left")
            .logs(exchange)
            .look(never_done),
        Case::inside(
            "an origin that resets",
            &["curl", "-sS", "-o", "/dev/null", "https://open.example/reset"],
        )
        .fails()
        .requests(OPEN, 1)
        .logs(Pattern { state: Some("failed"), blame: Some("origin"), ..exchange }),
        Case::inside(
            "an origin that stops in the middle",
            &["curl", "-sS", "-o", "/dev/null", "--http1.1", "https://open.example/truncate"],
        )
        .fails()
        .requests(OPEN, 1)
        .logs(Pattern { state: Some("failed"), blame: Some("origin"), ..exchange }),
        Case::inside(
            "TLS to a name that does not exist",
            &[
                "curl",
                "-sS",
                "-w",
                "\n%{http_code}",
                "--resolve",
                "nowhere.example:443:198.51.100.10",
                "https://nowhere.example/",
            ],
        )
        .says("502")
        .nothing_at(OPEN)
        .logs(Pattern { host: Some("nowhere.example"), ..exchange }),
    ]
    .into_iter()
    .map(Scenario::case)
    .collect();
    all.push(Scenario::case(
        Case::outside("somebody else at the listener", &["curl", "-sS", "http://127.0.0.1:7879/"])
            .fails()
            .logs(Pattern { rule: Some("invariant:unknown_flow"), ..Pattern::default() }),
    ));
    all.push(Scenario::Story("no server name, in enforce", |lab| Box::pin(no_server_name(lab))));
    all.push(Scenario::case(
        Case::inside("and the gate serves on", &["curl", "-sS", "https://unlisted.example/"])
            .says("This is unlisted.example.")
            .requests(UNLISTED, 1)
            .logs(Pattern { state: Some("done"), host: Some(UNLISTED), ..exchange }),
    ));
    all
}

/// No record of the case may claim that all went well, and none may be left open.
fn never_done(seen: &crate::lab::case::Seen<'_>) -> Vec<String> {
    let exchanges = seen.records.iter().filter(|r| r.kind == "exchange" || seen.records.len() == 1);
    exchanges.filter(|r| r.state == "done").map(|r| format!("recorded as done: {}", r.summary())).collect()
}

async fn no_server_name(lab: &mut Lab) -> anyhow::Result<crate::lab::row::Row> {
    lab.steer(&["mode", "enforce"]).await?;
    let case = Case::inside("no server name, in enforce", &["python3", "-c", scripts::NO_SNI])
        .says("refused")
        .nothing_at(OPEN)
        .logs(Pattern { state: Some("refused"), rule: Some("invariant:missing_sni"), ..FLOW });
    let row = case.run(lab).await;
    lab.steer(&["mode", "default"]).await?;
    row
}
