//! A dashboard on an ephemeral loopback port with its own store and policy, and a client that says
//! exactly what it is told to, bytes and all.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentgate::{
    audit::{Audit, AuditOptions, AuditThread},
    dashboard::{self, DashboardContext, LoginCodes, Token},
    model::Record,
    reload::{PolicyHandle, PolicyPaths},
    store::Store,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// No single answer takes longer than this.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running dashboard.
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) token: String,
    pub(crate) audit: Audit,
    codes: LoginCodes,
    /// The `Host` of each session by its cookie.
    hosts: Mutex<BTreeMap<String, String>>,
    dir: tempfile::TempDir,
    drain: watch::Sender<bool>,
    server: JoinHandle<()>,
    thread: Option<AuditThread>,
}

impl Served {
    /// Serves with this `policy.toml`.
    pub(crate) async fn with_policy(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::write(root.join("policy.toml"), text).unwrap();
        std::fs::create_dir(root.join("lists")).unwrap();
        let policy = PolicyHandle::load(PolicyPaths {
            policy: root.join("policy.toml"),
            lists: root.join("lists"),
            mode: root.join("mode"),
        });
        let store = Arc::new(Store::open(root.join("audit.redb")).unwrap());
        let (audit, thread) = Audit::start(store.clone(), AuditOptions::default());
        let token = Token::load_or_create(&root.join("dashboard.token")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let codes = LoginCodes::default();
        let context = DashboardContext {
            policy,
            audit: audit.clone(),
            store,
            token: token.clone(),
            codes: codes.clone(),
            listen: addr,
            status: Arc::new(|| serde_json::json!({ "guarded": "agent.slice" })),
        };
        let (drain, drained) = watch::channel(false);
        let server = tokio::spawn(dashboard::serve(listener, context, drained));
        let token = token.expose().to_owned();
        let hosts = Mutex::default();
        Self { addr, token, audit, codes, hosts, dir, drain, server, thread: Some(thread) }
    }

    /// Serves with an `enforce` policy and empty lists.
    pub(crate) async fn start() -> Self {
        Self::with_policy("version = 1\nmode = \"enforce\"\n").await
    }

    /// Puts a finished record into the log.
    pub(crate) async fn record(&self, record: Record) -> u64 {
        self.audit.note(record).await.unwrap().0
    }

    /// The contents of a list's file; empty where there is none.
    pub(crate) fn list(&self, name: &str) -> String {
        let path: PathBuf = self.dir.path().join("lists").join(format!("{name}.txt"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The address that `agentctl dashboard` would print: its path and query.
    pub(crate) fn login_target(&self) -> String {
        let url = self.codes.url(self.addr).unwrap();
        url.strip_prefix(&format!("http://{}", self.addr)).unwrap().to_owned()
    }

    /// Logs in by a one-time code and gives the `Cookie` header's value.
    pub(crate) async fn login(&self) -> String {
        let answer = self.get(&self.login_target(), &[]).await;
        self.enter(&answer).await
    }

    /// Goes on from the answer to a login, and gives the `Cookie` header's value. Requests that carry it
    /// are addressed to the session's host.
    pub(crate) async fn enter(&self, login: &Answer) -> String {
        assert_eq!((login.status, login.header("set-cookie")), (200, None), "{login:?}");
        let (host, target) = login.onward();
        let answer = self.raw("GET", &target, &[("Host", &host)], "").await;
        assert_eq!((answer.status, answer.header("refresh")), (200, Some("0; url=/")), "{answer:?}");
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        self.hosts.lock().unwrap().insert(cookie.clone(), host);
        cookie
    }

    /// The `Host` of requests with these headers: that of their session, or the plain one.
    pub(crate) fn host(&self, headers: &[(&str, &str)]) -> String {
        let hosts = self.hosts.lock().unwrap();
        let own = headers.iter().find_map(|(name, value)| hosts.get(*value).filter(|_| *name == "Cookie"));
        own.cloned().unwrap_or_else(|| self.addr.to_string())
    }

    /// `GET` with the right `Host` and more headers.
    pub(crate) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", target, headers, "").await
    }

    /// A request with the right `Host`.
    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let host = self.host(headers);
        let mut all = vec![("Host", host.as_str())];
        all.extend_from_slice(headers);
        self.raw(method, target, &all, body).await
    }

    /// A request with these headers and no others but `Connection` and the body's length.
    pub(crate) async fn raw(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.send(method, target, headers, body).await;
        let mut bytes = Vec::new();
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        Answer::parse(&bytes)
    }

    /// Opens a stream of events.
    pub(crate) async fn events(&self, target: &str, cookie: &str) -> Events {
        let host = self.host(&[("Cookie", cookie)]);
        let stream = self.send("GET", target, &[("Host", &host), ("Cookie", cookie)], "").await;
        Events { stream, seen: String::new() }
    }

    /// A connection on which these bytes were sent and nothing more.
    pub(crate) async fn begin(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut text = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Ends the server; panics where it does not end in time.
    pub(crate) async fn stop(self) {
        self.drain.send_replace(true);
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
        if let Some(thread) = self.thread {
            thread.drain(Duration::from_secs(5)).await;
        }
    }

    /// Takes the audit log away under the dashboard's feet.
    pub(crate) async fn close_audit(mut self) -> Self {
        self.thread.take().unwrap().drain(Duration::from_secs(5)).await;
        self
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Where the page goes on to by itself: host and target.
    pub(crate) fn onward(&self) -> (String, String) {
        let url = self.header("refresh").unwrap().strip_prefix("0; url=http://").unwrap();
        let (host, path) = url.split_once('/').unwrap();
        (host.to_owned(), format!("/{path}"))
    }

    /// The CSRF token of the page's forms.
    pub(crate) fn csrf(&self) -> &str {
        let (_, rest) = self.body.split_once("name=\"csrf\" value=\"").unwrap();
        rest.split('"').next().unwrap()
    }
}

/// A stream of events, as text.
pub(crate) struct Events {
    stream: TcpStream,
    seen: String,
}

impl Events {
    /// Reads until `text` comes, and forgets everything up to its end.
    pub(crate) async fn wait_for(&mut self, text: &str) -> String {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout_at(deadline, self.stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("{text:?} did not come: {}", self.seen)).unwrap();
            assert_ne!(read, 0, "the stream ended without {text:?}: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    /// Reads to the stream's end.
    pub(crate) async fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        tokio::time::timeout(DEADLINE, self.stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&bytes));
        self.seen
    }
}
