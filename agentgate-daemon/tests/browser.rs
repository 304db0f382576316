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

use std::time::Duration;

use agentgate::model::Timestamp;
use driver::Browser;
use served::Served;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Another web server on this machine, which keeps the heads of what it is asked.
struct Snoop {
    port: u16,
    heads: tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<String>>,
}

impl Snoop {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, heads) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
                    let _ = sender.send(String::from_utf8_lossy(&head).into_owned());
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { port, heads: tokio::sync::Mutex::new(heads) }
    }

    /// The head of the request for `path`.
    async fn head(&self, path: &str) -> String {
        let mut heads = self.heads.lock().await;
        loop {
            let head = tokio::time::timeout(Duration::from_secs(20), heads.recv()).await.unwrap().unwrap();
            if head.starts_with(&format!("GET {path} ")) {
                return head;
            }
        }
    }
}

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
            "location.hostname.endsWith('.localhost') && location.pathname === '/' && document.getElementById('live-state')?.textContent === 'live'",
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
    let own = browser.get("location.origin").await.as_str().unwrap().to_owned();
    browser.open(&format!("{own}/records/{hostile}")).await;
    let scripts = browser.get("[...document.scripts].map((s) => s.getAttribute('src'))").await;
    assert_eq!(scripts, serde_json::json!(["/static/page.js", "/static/live.js"]));
    assert_eq!(browser.get("document.body.innerText.includes('<script>alert(1)</script>')").await, true);

    // Bodies come when asked for.
    let body = "[...document.querySelectorAll('pre.body')].some((e) => e.innerText.includes('alert(1)'))";
    assert_eq!(browser.get(body).await, false);
    browser.click("#show-bodies").await;
    browser.wait_for(body).await;

    // Out, and back by the address that `agentctl dashboard` prints.
    browser.click("header form button").await;
    browser.wait_for("location.pathname === '/login'").await;
    browser.open(&format!("{base}{}", served.login_target())).await;
    browser.wait_for("location.pathname === '/' && location.search === ''").await;
    let again = browser.get("location.origin").await.as_str().unwrap().to_owned();
    assert_ne!(again, own, "each session has a name of its own");

    // Another server, on another port of this machine, gets no cookie under any name that it can know.
    let snoop = Snoop::start().await;
    for name in ["127.0.0.1", "localhost", "gate-000000000000000000000000.localhost"] {
        browser.open(&format!("http://{name}:{}/{name}", snoop.port)).await;
        let head = snoop.head(&format!("/{name}")).await;
        assert!(!head.to_lowercase().contains("cookie"), "{head}");
    }
    // Under the session's name it would: the browser does send cookies to other ports.
    let known = again.rsplit_once(':').unwrap().0;
    browser.open(&format!("{known}:{}/known", snoop.port)).await;
    let head = snoop.head("/known").await;
    assert!(head.contains("agentgate_session="), "this test could not have failed: {head}");

    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "the browser complained: {complaints:?}");
    browser.close().await;
    served.stop().await;
}

/// Keys as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const DOWN: &str = "\u{e015}";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium; run by cargo xtask test"]
async fn a_person_looks_for_records() {
    let served = Served::start().await;
    for _ in 0..105 {
        served.record(seed::refused(Timestamp::now())).await;
    }
    served.record(seed::kernel(Timestamp::now())).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}{}", served.addr, served.login_target())).await;
    let live = "document.getElementById('live-state')?.textContent === 'live'";
    browser.wait_for(live).await;
    assert_eq!(browser.get("document.getElementById('count').textContent").await, "107 records");

    // A key leads into the field, and what is begun is offered: a field, then its values.
    let value = "document.getElementById('q').value";
    let offers = "[...document.querySelectorAll('#q-offers li code')].map((e) => e.textContent).join(' ')";
    browser.type_into("body", "/").await;
    browser.wait_for("document.activeElement.id === 'q'").await;
    assert_eq!(browser.get(value).await, "");
    browser.type_into("#q", "stat").await;
    browser.wait_for(&format!("{offers} === 'status: state:'")).await;
    browser.type_into("#q", &format!("{DOWN}{DOWN}{ENTER}ref")).await;
    browser.wait_for(&format!("{offers} === 'state:refused'")).await;
    browser.type_into("#q", TAB).await;
    assert_eq!(browser.get(value).await, "state:refused ");
    // What stands in the list is offered too.
    browser.type_into("#q", "host:pas").await;
    browser.wait_for(&format!("{offers} === 'host:paste.example'")).await;

    // What cannot be read is told, kept, and ready to be typed over.
    browser.type_into("#q", &format!("te* hots:x{ENTER}")).await;
    browser.wait_for("document.querySelector('#q-fault mark')?.textContent === 'hots'").await;
    assert_eq!(browser.get(value).await, "state:refused host:paste* hots:x");
    assert_eq!(
        browser.get("document.querySelector('#q-fault p').textContent.includes('`host:`')").await,
        true
    );
    assert_eq!(browser.get("getSelection().toString()").await, "hots");
    browser.type_into("#q", &format!("-method{ENTER}")).await;
    browser.wait_for(live).await;
    let found = "document.getElementById('count').textContent + ' ' + document.querySelectorAll('#records tr').length";
    assert_eq!(browser.get(value).await, "state:refused host:paste* -method:x");
    assert_eq!(browser.get(found).await, "105 records 100");
    let query = browser.get("location.search").await;
    assert!(!query.as_str().unwrap().contains("verdict="), "what is empty is not in the address: {query}");

    // The live feed has the same filter.
    served.record(seed::kernel(Timestamp::now())).await;
    let newest = served.record(seed::refused(Timestamp::now())).await;
    browser.wait_for(&format!("document.querySelector('#records tr')?.id === 'r{newest}'")).await;
    assert!(browser.get("document.querySelector('#records tr.k-kernel')").await.is_null());

    // Onwards by the cursor, and back.
    browser.click("a[rel=next]").await;
    browser.wait_for("location.search.includes('before=') && !document.getElementById('live')").await;
    assert_eq!(browser.get(value).await, "state:refused host:paste* -method:x");
    let rows = browser.get("document.querySelectorAll('#records tr').length").await.as_u64().unwrap();
    assert!((5..=6).contains(&rows), "{rows}");

    // A value narrows the list down, a head sorts it.
    browser.click("#records .c-session a.pick").await;
    browser.wait_for(live).await;
    assert_eq!(browser.get(value).await, "state:refused host:paste* -method:x session:claude-3f2a.scope");
    browser.click("th.c-took a").await;
    browser.wait_for("document.querySelector('th.c-took').getAttribute('aria-sort') === 'descending'").await;
    assert!(browser.get("document.getElementById('live')").await.is_null());

    // Nothing is wider than a telephone, and what explains opens over the list.
    browser.narrow(true).await;
    let wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
    let top = "document.querySelector('#records').getBoundingClientRect().top";
    let before = browser.get(top).await;
    for at in [1, 2] {
        browser.click(&format!("details.more:nth-of-type({at}) summary")).await;
        browser.wait_for(&format!("document.querySelector('details.more:nth-of-type({at})').open")).await;
        assert_eq!(browser.get(wide).await, false);
        assert_eq!(browser.get(top).await, before, "the list stays where it is");
    }
    browser
        .open(&format!("{}/records/{newest}", browser.get("location.origin").await.as_str().unwrap()))
        .await;
    assert_eq!(browser.get(wide).await, false);
    browser.narrow(false).await;

    let mut complaints = browser.complaints().await;
    // The browser tells of every 400, and one was meant.
    complaints.retain(|text| !text.contains("400 (Bad Request)"));
    assert!(complaints.is_empty(), "the browser complained: {complaints:?}");
    browser.close().await;
    served.stop().await;
}
