//! The dashboard in a real browser: headless Chromium, driven through chromedriver.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "browser/driver.rs"]
mod driver;
#[path = "dashboard/seed.rs"]
#[expect(dead_code, reason = "shared with the tests over plain HTTP, which use the rest")]
mod seed;
#[path = "dashboard/served.rs"]
#[expect(dead_code, reason = "shared with the tests over plain HTTP, which use the rest")]
mod served;

use agentgate::model::Timestamp;
use driver::Browser;
use served::Served;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium; run by cargo xtask test"]
async fn a_person_watches_and_allows() {
    let served = Served::start().await;
    let base = format!("http://{}", served.addr);
    let browser = Browser::start().await;

    // In by the form: what is asked for without a session leads there.
    browser.open(&format!("{base}/")).await;
    browser.wait_for("location.pathname === '/login'").await;
    browser.type_into("input[name=token]", &served.token).await;
    browser.click("button.primary").await;
    browser
        .wait_for(
            "location.pathname === '/' && document.getElementById('live-state')?.textContent === 'live'",
        )
        .await;
    browser.wait_for("!document.getElementById('empty').hidden").await;

    // A row appears as it is recorded, above what was there, and takes the empty state's place.
    let first = served.record(seed::kernel(Timestamp::now())).await;
    browser
        .wait_for(&format!("document.getElementById('r{first}') && document.getElementById('empty').hidden"))
        .await;
    let second = served.record(seed::refused(Timestamp::now())).await;
    browser.wait_for(&format!("document.querySelector('#records tr')?.id === 'r{second}'")).await;
    browser.wait_for(&format!("document.getElementById('r{second}').classList.contains('fresh')")).await;

    // Paused: the stream is closed. Resumed: what was missed is there.
    browser.click("#live-toggle").await;
    browser.wait_for("document.getElementById('live-state').textContent === 'paused'").await;
    let hostile = served.record(seed::hostile(Timestamp::now())).await;
    assert!(browser.get(&format!("document.getElementById('r{hostile}')")).await.is_null());
    browser.click("#live-toggle").await;
    browser.wait_for(&format!("document.querySelector('#records tr')?.id === 'r{hostile}'")).await;

    // Into the refused record, by the keyboard's way: the link, then the button.
    browser.click(&format!("#r{second} .c-what a")).await;
    browser.wait_for(&format!("location.pathname === '/records/{second}'")).await;
    assert_eq!(browser.get("document.querySelectorAll('tr[data-member=true]').length").await, 0);
    browser.click("button.allow").await;
    browser.wait_for("document.querySelector('tr[data-list=allow]')?.dataset.member === 'true'").await;
    assert!(served.list("allow").contains("paste.example"));
    browser.click("tr[data-list=allow] button").await;
    browser.wait_for("document.querySelector('tr[data-list=allow]')?.dataset.member === 'false'").await;
    assert!(!served.list("allow").contains("paste.example"));

    // Hostile text is text; our own script is the only one.
    browser.open(&format!("{base}/records/{hostile}")).await;
    let scripts = browser.get("[...document.scripts].map((s) => s.getAttribute('src'))").await;
    assert_eq!(scripts, serde_json::json!(["/static/live.js"]));
    assert_eq!(browser.get("document.body.innerText.includes('<script>alert(1)</script>')").await, true);

    // Out, and back by the address that `agentctl dashboard` prints.
    browser.click("header form button").await;
    browser.wait_for("location.pathname === '/login'").await;
    browser.open(&format!("{base}/login?token={}", served.token)).await;
    browser.wait_for("location.pathname === '/' && location.search === ''").await;

    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "the browser complained: {complaints:?}");
    browser.close().await;
    served.stop().await;
}
