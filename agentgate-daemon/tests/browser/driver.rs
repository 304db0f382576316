//! As much of the WebDriver protocol (W3C WebDriver, chromedriver) as the tests need.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// How long a page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one call may take; longer than what the browser itself waits.
const DEADLINE: Duration = Duration::from_secs(40);

/// A headless browser with an empty profile. Dropped, it and all its processes are gone.
pub(crate) struct Browser {
    port: u16,
    session: String,
    driver: Child,
    group: rustix::process::Pid,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver leads its own process group, in which the browser's processes are.
        let _ = rustix::process::kill_process_group(self.group, rustix::process::Signal::KILL);
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("chromedriver: {e}; install the packages chromium and chromium-driver")
            });
        let group = rustix::process::Pid::from_raw(i32::try_from(driver.id().unwrap()).unwrap()).unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(DEADLINE, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("chromedriver ended");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').parse().unwrap();
                }
            }
        });
        let port = port.await.expect("chromedriver does not start");
        // Read on, so that its output never blocks it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut browser = Self { port, session: String::new(), driver, group, _profile: profile };
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let wanted = json!({
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis(), "pageLoad": PATIENCE.as_millis() },
            "unhandledPromptBehavior": "ignore",
        });
        let session =
            browser.call("POST", "/session", json!({ "capabilities": { "alwaysMatch": wanted } })).await;
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Opens an address and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.ask("POST", "/url", json!({ "url": url })).await;
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn get(&self, expression: &str) -> Value {
        self.ask("POST", "/execute/sync", json!({ "script": format!("return {expression};"), "args": [] }))
            .await
    }

    /// Waits until a JavaScript expression is true, over navigations too.
    pub(crate) async fn wait_for(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0];
             const check = () => {{ try {{ return Boolean({expression}); }} catch (error) {{ return false; }} }};
             if (check()) {{ done(true); return; }}
             const seen = new MutationObserver(() => {{ if (check()) {{ seen.disconnect(); done(true); }} }});
             seen.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
             window.addEventListener('pagehide', () => done(false));"
        );
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let body = json!({ "script": script, "args": [] });
            let target = format!("/session/{}/execute/async", self.session);
            // A navigation ends the script with an error or `false`; the next page is asked again.
            if self.send("POST", &target, &body).await.is_ok_and(|value| value == true) {
                return;
            }
        }
        let page = self.get("location.href + '\\n' + document.body.innerText").await;
        panic!("it did not become true: {expression}\n{}", page.as_str().unwrap_or_default());
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.ask("POST", &format!("/element/{element}/click"), json!({})).await;
    }

    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.ask("POST", &format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Makes the window as wide as a telephone's, or as wide as it was.
    pub(crate) async fn narrow(&self, narrow: bool) {
        let (command, parameters) = if narrow {
            let size = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false });
            ("Emulation.setDeviceMetricsOverride", size)
        } else {
            ("Emulation.clearDeviceMetricsOverride", json!({}))
        };
        self.ask("POST", "/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await;
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.ask("POST", "/element", json!({ "using": "css selector", "value": selector })).await;
        // The key is fixed by the standard ("web element identifier").
        found["element-6066-11e4-a52e-4f735466cecf"].as_str().unwrap().to_owned()
    }

    /// What the browser wrote to its console as an error: refused by the content policy, or thrown.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", json!({ "type": "browser" })).await;
        let severe = |entry: &&Value| entry["level"] == "SEVERE" || entry["source"] == "security";
        log.as_array().unwrap().iter().filter(severe).map(ToString::to_string).collect()
    }

    /// Ends the browser as a person would.
    pub(crate) async fn close(mut self) {
        self.ask("DELETE", "", json!({})).await;
        self.driver.start_kill().unwrap();
        self.driver.wait().await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body).await
    }

    async fn call(&self, method: &str, target: &str, body: Value) -> Value {
        self.send(method, target, &body)
            .await
            .unwrap_or_else(|error| panic!("{method} {target} {body}: {error}"))
    }

    /// One call; the error is WebDriver's.
    async fn send(&self, method: &str, target: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "DELETE" { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = BufReader::new(stream);
            let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
            answer.read_line(&mut status).await.unwrap();
            while answer.read_line(&mut line).await.unwrap() > 2 {
                let header = line.to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            answer.read_exact(&mut body).await.unwrap();
            (status, body)
        };
        let (head, body) =
            tokio::time::timeout(DEADLINE, exchange).await.expect("chromedriver does not answer");
        let value: Value = serde_json::from_slice::<Value>(&body).unwrap()["value"].take();
        if head.starts_with("HTTP/1.1 200") { Ok(value) } else { Err(value) }
    }
}
