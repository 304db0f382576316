//! A gate with its name server, and agents that ask.

#[path = "../shared/guard.rs"]
mod guard;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agentgate::{
    app::{App, Handles},
    config::Config,
    kernel::fake::FakeKernel,
    model::{Flow, Kind, OriginalDestination, Record, State},
    store::Query,
};
use fake_internet::FakeInternet;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as DnsQuery, ResponseCode},
    rr::{Name, RecordType, rdata::opt::EdnsOption},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running gate with its internet.
pub(crate) struct World {
    pub(crate) internet: FakeInternet,
    pub(crate) kernel: Arc<FakeKernel>,
    pub(crate) root: tempfile::TempDir,
    pub(crate) gate: Gate,
    cookies: AtomicU64,
}

impl World {
    /// A gate with this `policy.toml`.
    pub(crate) async fn new(policy: &str) -> Self {
        let internet = FakeInternet::start_on_loopback().await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/agentgate");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("policy.toml"), policy).unwrap();
        let text = format!(
            "[gate]\nlisten_port = 0\n[dns]\nlisten_port = 0\nresolvers = [\"{}\"]\n[dashboard]\nenabled = false\n",
            internet.name_server(),
        );
        std::fs::write(root.path().join("agentgate.toml"), text).unwrap();
        let kernel = Arc::new(FakeKernel::default());
        let (gate, cookies) = (Gate::start(root.path(), &kernel).await, AtomicU64::new(1));
        Self { internet, kernel, root, gate, cookies }
    }

    /// Stops the gate and starts another one in its place.
    pub(crate) async fn restart(&mut self) {
        self.gate.stop().await;
        self.gate = Gate::start(self.root.path(), &self.kernel).await;
    }

    /// An agent of the session that the kernel numbers `session`.
    pub(crate) async fn agent(&self, session: u64) -> Agent {
        self.agent_since(session, u64::MAX).await
    }

    /// One that asked last at this time, in nanoseconds since boot.
    pub(crate) async fn agent_since(&self, session: u64, connected_ns: u64) -> Agent {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let flow = Flow {
            cookie: self.cookies.fetch_add(1, Ordering::Relaxed),
            original: OriginalDestination(([198, 51, 100, 53], 53).into()),
            pid: std::process::id(),
            uid: 0,
            gid: 0,
            comm: "test".into(),
            cgroup: session,
            session,
            netns: 0,
            connected_ns,
        };
        self.kernel.declare_asker(socket.local_addr().unwrap(), flow.clone());
        Agent { socket, flow, kernel: self.kernel.clone(), dns: self.gate.dns }
    }

    /// Names that reached the name server.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.internet.journal().read(|seen| seen.queries_for(name).count())
    }

    /// How many questions of agents reached the name server; the gate asks for the NAT64 prefix itself
    /// (RFC 7050).
    pub(crate) fn heard(&self) -> usize {
        self.internet.journal().read(|seen| seen.queries.iter().filter(|q| q.name != "ipv4only.arpa").count())
    }

    /// Every record of a question, oldest first, once `times` of them add up to `count`.
    pub(crate) async fn questions(&self, count: u64) -> Vec<Record> {
        let mut live = self.handles().audit.live();
        timeout(PATIENCE, async {
            loop {
                let query = Query { kind: Some(Kind::Dns), limit: 1000, ..Query::default() };
                let mut records = self.handles().store.query(&query).unwrap().records;
                records.reverse();
                let ended = records.iter().all(|record| record.state != State::Open);
                if ended && records.iter().map(|record| record.times).sum::<u64>() >= count {
                    return records;
                }
                live.recv().await.unwrap();
            }
        })
        .await
        .expect("the records appear")
    }

    /// The record of the question for `name`, ended.
    pub(crate) async fn record(&self, name: &str) -> Record {
        let mut live = self.handles().audit.live();
        timeout(PATIENCE, async {
            loop {
                let query = Query { kind: Some(Kind::Dns), limit: 1000, ..Query::default() };
                let records = self.handles().store.query(&query).unwrap().records;
                let of_name = |r: &Record| r.question.as_ref().is_some_and(|q| q.name == name);
                if let Some(found) = records.into_iter().find(|r| r.state != State::Open && of_name(r)) {
                    return found;
                }
                live.recv().await.unwrap();
            }
        })
        .await
        .expect("the record appears")
    }

    /// Every ended record of a connection, once there are `count`.
    pub(crate) async fn flows(&self, count: usize) -> Vec<Record> {
        let mut live = self.handles().audit.live();
        timeout(PATIENCE, async {
            loop {
                let query = Query { kind: Some(Kind::Flow), limit: 1000, ..Query::default() };
                let mut records = self.handles().store.query(&query).unwrap().records;
                records.retain(|record| record.state != State::Open);
                if records.len() >= count {
                    return records;
                }
                live.recv().await.unwrap();
            }
        })
        .await
        .expect("the records appear")
    }

    pub(crate) fn handles(&self) -> &Handles {
        self.gate.handles.as_ref().unwrap()
    }
}

/// One gate, until it is stopped.
pub(crate) struct Gate {
    pub(crate) dns: SocketAddr,
    handles: Option<Handles>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl Gate {
    async fn start(root: &Path, kernel: &Arc<FakeKernel>) -> Self {
        let config = Config::load(Some(&root.join("agentgate.toml")), root).unwrap();
        let app = App::start(config, kernel.clone(), guard::over_nothing(root)).await.unwrap();
        let (dns, handles) = ((Ipv4Addr::LOCALHOST, app.dns_port()).into(), app.handles());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            app.run(async {
                let _asked = stopped.await;
            })
            .await;
        });
        Self { dns, handles: Some(handles), stop: Some(stop), running: Some(running) }
    }

    /// Stops it and waits until it is gone.
    async fn stop(&mut self) {
        drop(self.stop.take());
        // The store is locked by whoever holds it.
        drop(self.handles.take());
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }
}

/// An agent with one UDP socket.
pub(crate) struct Agent {
    pub(crate) socket: UdpSocket,
    flow: Flow,
    kernel: Arc<FakeKernel>,
    pub(crate) dns: SocketAddr,
}

/// A question with EDNS.
pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    question_for(Name::from_ascii(name).unwrap(), kind)
}

/// The same for a name of any bytes.
pub(crate) fn question_for(name: Name, kind: RecordType) -> Message {
    let mut message = Message::new(4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(DnsQuery::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_version(0);
    message.set_edns(edns);
    message
}

impl Agent {
    /// Sends bytes and gives what comes back.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        self.socket.send_to(bytes, self.dns).await.unwrap();
        let mut answer = vec![0; 65_535];
        let (length, from) = timeout(PATIENCE, self.socket.recv_from(&mut answer)).await.unwrap().unwrap();
        assert_eq!(from, self.dns);
        answer.truncate(length);
        answer
    }

    /// Asks over UDP.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.put(&question(name, kind)).await
    }

    /// Asks anything over UDP.
    pub(crate) async fn put(&self, message: &Message) -> Message {
        Message::from_vec(&self.send(&message.to_vec().unwrap()).await).unwrap()
    }

    /// A connection to the server.
    pub(crate) async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        self.kernel.declare(socket.local_addr().unwrap(), self.flow.clone());
        socket.connect(self.dns).await.unwrap()
    }

    /// Asks over TCP.
    pub(crate) async fn ask_tcp(&self, name: &str, kind: RecordType) -> Message {
        let mut stream = self.connect().await;
        exchange(&mut stream, &question(name, kind)).await
    }
}

/// One question over a connection.
pub(crate) async fn exchange(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// The code, and the extended error where there is one.
pub(crate) fn code(answer: &Message) -> (ResponseCode, Option<u16>) {
    let option = answer.edns.as_ref().and_then(|edns| edns.option(15.into()));
    let extended = option.and_then(|option| {
        let EdnsOption::Unknown(15, bytes) = option else { return None };
        Some(u16::from_be_bytes(*bytes.first_chunk().unwrap()))
    });
    (answer.metadata.response_code, extended)
}

/// The data of the answers, as in a zone file.
pub(crate) fn data(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}
