//! What arrived: connections, requests, datagrams and name queries, in the order they came.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::encoding::Coding;

/// One TCP connection that an origin or sink accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    pub id: u64,
    /// Name of the site whose port it was.
    pub site: String,
    /// Port as in [`crate::world`], also where an ephemeral one stands in for it.
    pub port: u16,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Server name of the ClientHello.
    pub sni: Option<String>,
    /// Protocols that the ClientHello offered, in its order.
    #[serde(default)]
    pub offered: Vec<String>,
    /// Protocol agreed on.
    pub alpn: Option<String>,
    /// Why TLS or HTTP ended badly.
    pub error: Option<String>,
    /// Bytes received, of a sink.
    pub received: u64,
}

/// One request head that an origin read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    /// [`Connection::id`].
    pub connection: u64,
    pub site: String,
    pub port: u16,
    pub method: String,
    /// As sent: path and query, or the absolute form; for HTTP/2 the whole URI.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Names in lower case, values as sent, in order.
    pub headers: Vec<(String, String)>,
    /// The head as it came, to its empty line; nothing of HTTP/2's.
    #[serde(default)]
    pub raw_head: String,
    /// Bytes of body that arrived.
    pub body_len: u64,
    /// The first of them, until the body ended none; only for readers in this process.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// SHA-256 of them in hex; empty until the body ended.
    pub body_sha256: String,
    pub trailers: Vec<(String, String)>,
    /// The body ended as it should.
    pub complete: bool,
    /// The answer was handed over whole, or nobody wants the rest of it.
    #[serde(default)]
    pub answered: bool,
    /// The peer went away before the end of its body or of the answer.
    pub aborted: bool,
}

impl Request {
    /// First value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body that was kept as text, out of its content coding; as it came where that cannot be done.
    #[must_use]
    pub fn text(&self) -> String {
        let coding = self.header("content-encoding").and_then(Coding::named);
        let decoded = coding.and_then(|coding| coding.decode(&self.body).ok());
        String::from_utf8_lossy(decoded.as_deref().unwrap_or(&self.body)).into_owned()
    }
}

/// One message that an origin received over a WebSocket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// [`Request::id`] of the request that opened the socket.
    pub request: u64,
    /// 1 for text, 2 for bytes.
    pub opcode: u8,
    /// It came compressed.
    pub deflated: bool,
    /// What it said, decompressed.
    pub text: String,
}

/// One datagram that a sink received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Datagram {
    pub site: String,
    pub port: u16,
    pub peer: SocketAddr,
    pub len: usize,
}

/// One question that the name server answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    pub name: String,
    /// `A`, `AAAA`, …
    pub kind: String,
    pub peer: SocketAddr,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Address the question was sent to.
    pub local: SocketAddr,
}

/// Everything so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub connections: Vec<Connection>,
    pub requests: Vec<Request>,
    /// Of WebSockets.
    #[serde(default)]
    pub messages: Vec<Message>,
    pub datagrams: Vec<Datagram>,
    pub queries: Vec<Query>,
}

impl Snapshot {
    /// Connections that a site accepted.
    pub fn connections_to(&self, site: &str) -> impl DoubleEndedIterator<Item = &Connection> {
        self.connections.iter().filter(move |c| c.site == site)
    }

    /// Requests that a site read.
    pub fn requests_to(&self, site: &str) -> impl DoubleEndedIterator<Item = &Request> {
        self.requests.iter().filter(move |r| r.site == site)
    }

    /// Datagrams that a site's sink received.
    pub fn datagrams_to(&self, site: &str) -> impl DoubleEndedIterator<Item = &Datagram> {
        self.datagrams.iter().filter(move |d| d.site == site)
    }

    /// Questions for a name.
    pub fn queries_for(&self, name: &str) -> impl DoubleEndedIterator<Item = &Query> {
        self.queries.iter().filter(move |q| q.name == name)
    }
}

/// The log of arrivals. Lives in memory: a test internet runs for minutes.
#[derive(Debug)]
pub struct Journal {
    snapshot: Mutex<Snapshot>,
    changed: watch::Sender<()>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { snapshot: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Journal {
    /// A copy of everything so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.locked().clone()
    }

    /// Asks a question of the log without copying it.
    pub fn read<T>(&self, question: impl FnOnce(&Snapshot) -> T) -> T {
        question(&self.locked())
    }

    /// Waits until `condition` holds; false if it does not within `deadline`.
    pub async fn wait_for(&self, deadline: Duration, condition: impl Fn(&Snapshot) -> bool) -> bool {
        let mut changes = self.changed.subscribe();
        let held = async {
            // The sender lives in self, so waiting never fails.
            while !self.read(&condition) && changes.changed().await.is_ok() {}
        };
        tokio::time::timeout(deadline, held).await.is_ok()
    }

    fn locked(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        let result = change(&mut self.locked());
        self.changed.send_replace(());
        result
    }

    pub(crate) fn connection(&self, site: &str, port: u16, peer: SocketAddr, local: SocketAddr) -> u64 {
        self.write(|s| {
            let id = s.connections.len() as u64;
            s.connections.push(Connection {
                id,
                site: site.to_owned(),
                port,
                peer,
                local,
                sni: None,
                offered: Vec::new(),
                alpn: None,
                error: None,
                received: 0,
            });
            id
        })
    }

    pub(crate) fn update_connection(&self, id: u64, change: impl FnOnce(&mut Connection)) {
        self.write(|s| s.connections.iter_mut().find(|c| c.id == id).map(change));
    }

    pub(crate) fn request(&self, mut request: Request) -> u64 {
        self.write(|s| {
            let id = s.requests.len() as u64;
            request.id = id;
            s.requests.push(request);
            id
        })
    }

    pub(crate) fn update_request(&self, id: u64, change: impl FnOnce(&mut Request)) {
        self.write(|s| s.requests.iter_mut().find(|r| r.id == id).map(change));
    }

    pub(crate) fn message(&self, message: Message) {
        self.write(|s| s.messages.push(message));
    }

    pub(crate) fn datagram(&self, datagram: Datagram) {
        self.write(|s| s.datagrams.push(datagram));
    }

    pub(crate) fn query(&self, query: Query) {
        self.write(|s| s.queries.push(query));
    }
}
