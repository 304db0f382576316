//! The socket from both ends, in one process, with a real policy and a real audit log.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    audit::{Audit, AuditOptions, AuditThread},
    control::{
        DashboardAccess,
        client::{Client, ClientError},
        enrol::{EnrolError, Enroller},
        peer::{Process, unified_path},
        socket::bind_control,
        wire::{GateReport, Hidden, Item, LogFilter, Payload, Request, from_hex},
    },
    kernel::GuardedCgroup,
    model::{
        Authority, Host, Kind, Mode, Record, RecordId, RequestHead, SessionId, Severity, State, Subject,
        Timestamp,
    },
    reload::{Edit, List, PolicyHandle, PolicyPaths},
    store::{Query, Side, Store},
};

mod exports;

/// A cgroup that no test runs in.
const ELSEWHERE: &str = "/agentgate-nobody.slice";

fn elsewhere() -> GuardedCgroup {
    GuardedCgroup::find(&ELSEWHERE[1..]).unwrap()
}

/// The cgroup of the tests.
fn here() -> GuardedCgroup {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = Path::new(unified_path(&own).unwrap());
    let point = Path::new("/agentgate-no-such-mount");
    GuardedCgroup::on_mount("/", point, &point.join(path.strip_prefix("/").unwrap())).unwrap()
}

#[derive(Debug, Default)]
struct Counting {
    calls: AtomicUsize,
}

impl Enroller for Counting {
    fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
        assert_eq!(process.pid(), std::process::id());
        match self.calls.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(format!("{ELSEWHERE}/run-1-0.scope")),
            1 => Err(EnrolError::ProcessGone { pid: process.pid() }),
            _ => {
                let cgroup = format!("{ELSEWHERE}/run-1-1.scope");
                Err(EnrolError::Stranger {
                    pid: process.pid(),
                    who: "\"sshd\", /usr/sbin/sshd".into(),
                    cgroup,
                })
            }
        }
    }
}

struct Gate {
    dir: tempfile::TempDir,
    socket: PathBuf,
    context: ControlContext,
    thread: Option<AuditThread>,
    drain: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

impl Gate {
    fn start(guarded: GuardedCgroup, bounds: Bounds) -> Self {
        Self::behind(Door::Steering, guarded, bounds)
    }

    fn behind(door: Door, guarded: GuardedCgroup, bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (policy, lists, mode) =
            (dir.path().join("policy.toml"), dir.path().join("lists"), dir.path().join("mode"));
        fs::write(&policy, "version = 1\nmode = \"enforce\"\n").unwrap();
        fs::create_dir(&lists).unwrap();
        let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
        let (audit, thread) = Audit::start(Arc::clone(&store), AuditOptions::default());
        let report = || GateReport {
            version: "0.1.0".into(),
            pid: std::process::id(),
            started: Timestamp(0),
            guarded: ELSEWHERE.into(),
            listen: Vec::new(),
            programs: Vec::new(),
            layers: None,
            lost_events: 0,
            unbooked: 0,
            counters: Vec::new(),
            connections: 0,
            dashboard: None,
            draining: false,
            checkpoints: Vec::new(),
        };
        let context = ControlContext {
            policy: PolicyHandle::load(PolicyPaths { policy, lists, mode }),
            audit,
            store,
            enroller: Arc::new(Counting::default()),
            gate: Arc::new(report),
            mirror: None,
            books: None,
            ca_pem: "PEM".into(),
            bundle: dir.path().join("ca-bundle.pem"),
            hidden: Hidden::default(),
            system_bundle: false,
            guarded,
            dashboard: Some(DashboardAccess {
                listen: "127.0.0.1:7878".parse().unwrap(),
                url: Arc::new(|| Ok("http://127.0.0.1:7878/login#secret".into())),
            }),
        };
        let socket = dir.path().join("control.sock");
        let listener = bind_control(&socket, "no-such-group").unwrap();
        let (drain, draining) = watch::channel(false);
        let server = tokio::spawn(serve_within(door, bounds, listener, Arc::new(context.clone()), draining));
        Self { dir, socket, context, thread: Some(thread), drain, server }
    }

    async fn ask(&self, request: Request) -> Result<Payload, ClientError> {
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || Client::connect(&socket)?.ask(request)).await.unwrap()
    }

    async fn items(&self, request: Request) -> Result<Vec<Item>, ClientError> {
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut items = Vec::new();
            Client::connect(&socket)?.stream(request, false, |item| {
                items.push(item);
                Ok::<_, ClientError>(())
            })?;
            Ok(items)
        })
        .await
        .unwrap()
    }

    /// Sends raw bytes, closes the sending half if asked, and returns the one reply.
    async fn raw(&self, bytes: Vec<u8>, end: bool) -> Option<Reply> {
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = StdUnixStream::connect(&socket).unwrap();
            // The daemon may stop reading before the end of a line that is too long.
            let _cut = stream.write_all(&bytes);
            if end {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer);
            (!answer.is_empty()).then(|| wire::decode(&answer).unwrap())
        })
        .await
        .unwrap()
    }

    /// Returns the notes of the control records with their state, oldest first, when the last of them
    /// is written.
    async fn stop(mut self) -> Vec<(State, String)> {
        self.drain.send_replace(true);
        self.server.await.unwrap();
        if let Some(thread) = self.thread.take() {
            thread.drain(Duration::from_secs(5)).await;
        }
        let query = Query { kind: Some(Kind::Control), limit: 100, ..Query::default() };
        let records = self.context.store.query(&query).unwrap().records;
        records.into_iter().rev().map(|record| (record.state, record.note.unwrap())).collect()
    }
}

fn code(result: Result<Payload, ClientError>) -> ErrorCode {
    match result {
        Err(ClientError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steers_the_policy_and_records_who_did() {
    let gate = Gate::start(elsewhere(), STEERING);
    assert_eq!(gate.ask(Request::ModeGet).await.unwrap(), Payload::Mode { mode: Mode::Enforce });
    let set = Request::ModeSet { mode: Some(Mode::Audit) };
    assert_eq!(gate.ask(set).await.unwrap(), Payload::Mode { mode: Mode::Audit });
    assert_eq!(gate.context.policy.current().mode(), Mode::Audit);
    let back = Request::ModeSet { mode: None };
    assert_eq!(gate.ask(back).await.unwrap(), Payload::Mode { mode: Mode::Enforce });
    let add = |host: &str| Request::ListEdit { list: List::Allow, edit: Edit::Add, host: host.into() };
    for expect in [true, false] {
        let Payload::List { changed, .. } = gate.ask(add("api.example.com")).await.unwrap() else { panic!() };
        assert_eq!(changed, expect);
    }
    assert_eq!(code(gate.ask(add("not a host")).await), ErrorCode::Invalid);
    assert!(
        matches!(gate.ask(Request::PolicyReload).await.unwrap(), Payload::Policy(s) if s.summary.allow == 1)
    );
    fs::write(gate.dir.path().join("policy.toml"), "version = 1\nmodes = 2\n").unwrap();
    match gate.ask(Request::PolicyReload).await {
        Err(ClientError::Refused(error)) => {
            assert_eq!(error.code, ErrorCode::PolicyInvalid);
            assert!(error.message.contains("policy.toml:2:1"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
    let Payload::Status(status) = gate.ask(Request::Status).await.unwrap() else { panic!() };
    assert_eq!((status.policy.errors.len(), status.audit.healthy), (1, true));

    let notes = gate.stop().await;
    let who = format!("by uid {} (pid {}, ", rustix::process::geteuid().as_raw(), std::process::id());
    let expect = [
        (State::Done, "mode audit, "),
        (State::Done, "mode as in policy.toml, "),
        (State::Done, "\"api.example.com\" added to the allow list, "),
        (State::Done, "\"api.example.com\" added to the allow list, "),
        (State::Failed, "\"not a host\" added to the allow list, "),
        (State::Done, "policy reload, "),
        (State::Failed, "policy reload, "),
    ];
    assert_eq!(notes.len(), expect.len(), "{notes:?}");
    for ((state, note), (expect_state, what)) in notes.iter().zip(expect) {
        assert_eq!(*state, expect_state, "{note}");
        assert!(note.starts_with(&format!("{what}{who}")), "{note}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_peer_is_refused_and_recorded_whatever_it_asks() {
    let gate = Gate::start(here(), STEERING);
    for request in [Request::Status, Request::Enrol, Request::ModeSet { mode: Some(Mode::Audit) }] {
        assert_eq!(code(gate.ask(request).await), ErrorCode::Guarded);
    }
    // Without a byte from the peer, too.
    assert!(
        matches!(gate.raw(Vec::new(), false).await, Some(Reply::Error(e)) if e.code == ErrorCode::Guarded)
    );
    assert_eq!(gate.context.policy.current().mode(), Mode::Enforce);
    let page = gate.context.store.query(&Query { limit: 10, ..Default::default() }).unwrap();
    assert_eq!(page.records.len(), 4);
    for record in page.records {
        assert_eq!((record.kind, record.state), (Kind::Control, State::Refused));
        assert_eq!(record.subject.unwrap().pid, std::process::id());
    }
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_peer_that_hammers_is_counted_and_holds_no_place() {
    let gate = Gate::start(here(), Bounds { refusals: 1, ..STEERING });
    let socket = gate.socket.clone();
    let attempts = 200;
    let held = tokio::task::spawn_blocking(move || {
        (0..attempts).map(|_| StdUnixStream::connect(&socket).unwrap()).collect::<Vec<_>>()
    });
    let held = held.await.unwrap();
    // Each is closed by the daemon, with or without an answer.
    let closed = tokio::task::spawn_blocking(move || {
        for mut stream in held {
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    closed.await.unwrap();
    // One more that is answered, after all of them, carries the count. While the last record is being
    // written it may be dropped like the others.
    let mut more = 0;
    timeout(Duration::from_secs(10), async {
        loop {
            more += 1;
            match gate.ask(Request::Status).await {
                Err(ClientError::Refused(error)) => break assert_eq!(error.code, ErrorCode::Guarded),
                Err(ClientError::Io(_) | ClientError::Protocol(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
    .unwrap();
    let notes = gate.stop().await;
    let counted = |note: &str| match note.split_once("(and ") {
        Some((_, rest)) => 1 + rest.split_once(" attempts").unwrap().0.parse::<usize>().unwrap(),
        None => 1,
    };
    let total: usize = notes.iter().map(|(_, note)| counted(note)).sum();
    assert_eq!(total, attempts + more);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_that_cannot_be_recorded() {
    let mut gate = Gate::start(elsewhere(), STEERING);
    gate.thread.take().unwrap().drain(Duration::from_secs(5)).await;
    let add = Request::ListEdit { list: List::Allow, edit: Edit::Add, host: "a.example.com".into() };
    for request in [Request::ModeSet { mode: Some(Mode::Audit) }, add, Request::Enrol, Request::Dashboard] {
        assert_eq!(code(gate.ask(request).await), ErrorCode::AuditUnavailable);
    }
    assert_eq!(gate.context.policy.current().mode(), Mode::Enforce);
    assert!(!gate.dir.path().join("mode").exists() && !gate.dir.path().join("lists/allow.txt").exists());
    let body = Request::Body { id: RecordId(1), side: Side::Request };
    assert!(
        matches!(gate.items(body).await, Err(ClientError::Refused(e)) if e.code == ErrorCode::AuditUnavailable)
    );
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_says_where_and_the_failure_why() {
    let gate = Gate::start(elsewhere(), STEERING);
    let Payload::Enrolled(enrolled) = gate.ask(Request::Enrol).await.unwrap() else { panic!() };
    assert_eq!(
        (enrolled.cgroup.as_str(), enrolled.guarded.as_str()),
        ("/agentgate-nobody.slice/run-1-0.scope", ELSEWHERE)
    );
    assert_eq!(enrolled.bundle, gate.dir.path().join("ca-bundle.pem"));
    assert_eq!(code(gate.ask(Request::Enrol).await), ErrorCode::EnrolFailed);
    // Nobody is left to be told, so the record says it.
    assert_eq!(code(gate.ask(Request::Enrol).await), ErrorCode::StrangerEnrolled);
    let store = Arc::clone(&gate.context.store);
    gate.stop().await;
    let records = store.query(&Query { limit: 10, ..Query::default() }).unwrap().records;
    let flags: Vec<_> = records[0].flags.iter().map(|flag| (flag.code.as_str(), flag.severity)).collect();
    assert_eq!(flags, [("stranger_enrolled", Severity::High)]);
    assert!(records[0].flags[0].evidence.contains("sshd"), "{:?}", records[0]);
    assert!(records[1].flags.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_bodies_are_given_and_recorded() {
    let gate = Gate::start(elsewhere(), STEERING);
    let mut record = Record::new(Kind::Exchange, Timestamp::now());
    record.subject = Some(
        Subject {
            comm: "curl".into(),
            cmdline: vec!["curl".into(), "--user".into(), "me:hunter2hunter2".into()],
            cgroup: "/x".into(),
            ..Subject::unknown(SessionId("s@1".into()), 1, 0)
        }
        .into(),
    );
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut head = RequestHead::default();
    head.body.bytes = bytes.clone().into();
    record.request = Some(head);
    let id = gate.context.audit.note(record).await.unwrap();
    let items = gate.items(Request::Body { id, side: Side::Request }).await.unwrap();
    let got: Vec<u8> = items
        .iter()
        .flat_map(|item| {
            let Item::Body { hex } = item else { panic!("{item:?}") };
            from_hex(hex).unwrap()
        })
        .collect();
    assert_eq!(got, bytes);
    assert!(items.len() > 1);
    let none = gate.items(Request::Body { id, side: Side::Response }).await;
    assert!(matches!(none, Err(ClientError::Refused(e)) if e.code == ErrorCode::NotFound));
    assert!(
        matches!(gate.ask(Request::Dashboard).await.unwrap(), Payload::Dashboard { url, .. } if url.ends_with("#secret"))
    );
    let Payload::Record(shown) = gate.ask(Request::Show { id }).await.unwrap() else { panic!("a record") };
    assert_eq!(shown.id, id);
    assert!(!format!("{shown:?}").contains("hunter2hunter2"), "{shown:?}");
    assert_eq!(code(gate.ask(Request::Show { id: RecordId(999) }).await), ErrorCode::NotFound);
    assert_eq!(gate.ask(Request::CaExport).await.unwrap(), Payload::Ca { pem: "PEM".into() });
    let notes = gate.stop().await;
    assert!(notes[0].1.starts_with(&format!("request body of record {id} shown, by uid ")), "{notes:?}");
    assert!(notes[2].1.starts_with("dashboard login code made, by uid "), "{notes:?}");
    assert!(!notes.iter().any(|(_, note)| note.contains("secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_gets_one_answer() {
    let gate = Gate::start(elsewhere(), STEERING);
    let rows: [(Vec<u8>, bool, Option<ErrorCode>); 7] = [
        (b"hello\n".to_vec(), false, Some(ErrorCode::BadRequest)),
        (b"\n".to_vec(), false, Some(ErrorCode::BadRequest)),
        (b"\xff\xfe\n".to_vec(), false, Some(ErrorCode::BadRequest)),
        (b"{\"version\":1,".to_vec(), true, Some(ErrorCode::BadRequest)),
        (b"{\"version\":2,\"request\":{\"op\":\"status\"}}\n".to_vec(), false, Some(ErrorCode::Version)),
        (vec![b'x'; LINE_CAP + 1], false, Some(ErrorCode::BadRequest)),
        (Vec::new(), true, None),
    ];
    for (bytes, end, expect) in rows {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let got = gate.raw(bytes, end).await.map(|reply| match reply {
            Reply::Error(error) => error.code,
            other @ (Reply::Ok(_) | Reply::Item(_) | Reply::End) => panic!("{other:?}"),
        });
        assert_eq!(got, expect, "{shown}");
    }
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_cut_off_and_a_full_house_says_so() {
    let bounds = Bounds { read: Duration::from_millis(50), connections: 1, of_one_user: 1, refusals: 1 };
    let gate = Gate::start(elsewhere(), bounds);
    let reply = gate.raw(b"{\"ver".to_vec(), false).await;
    assert!(matches!(reply, Some(Reply::Error(e)) if e.code == ErrorCode::Deadline));
    let (mut told, follower) = follow(&gate);
    gate.context.audit.note(Record::new(Kind::Flow, Timestamp(0))).await.unwrap();
    // An item means that the follower has its place.
    assert!(told.recv().await.is_some());
    assert_eq!(code(gate.ask(Request::Status).await), ErrorCode::Busy);
    gate.stop().await;
    follower.await.unwrap().unwrap();
}

type Following = tokio::task::JoinHandle<Result<(), ClientError>>;

fn follow(gate: &Gate) -> (tokio::sync::mpsc::UnboundedReceiver<Item>, Following) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let socket = gate.socket.clone();
    let follower = tokio::task::spawn_blocking(move || {
        let filter = LogFilter { kind: Some(Kind::Flow), limit: 10, ..LogFilter::default() };
        Client::connect(&socket)?.stream(Request::Logs { filter, follow: true }, true, |item| {
            tell.send(item).unwrap();
            Ok(())
        })
    });
    (told, follower)
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_what_was_and_what_comes_and_then_the_end() {
    let gate = Gate::start(elsewhere(), STEERING);
    let flow = || Record::new(Kind::Flow, Timestamp::now());
    let first = gate.context.audit.note(flow()).await.unwrap();
    let (mut told, follower) = follow(&gate);
    let state = |item: Option<Item>| match item {
        Some(Item::Record(record)) => (record.id, record.state),
        other => panic!("{other:?}"),
    };
    assert_eq!(state(told.recv().await), (first, State::Done));
    assert_eq!(told.recv().await, Some(Item::Listed));
    let entry = gate.context.audit.open(flow()).await.unwrap();
    let second = entry.id();
    assert_eq!(state(told.recv().await), (second, State::Open));
    entry.finish(State::Failed);
    assert_eq!(state(told.recv().await), (second, State::Failed));
    gate.context.audit.note(Record::new(Kind::Kernel, Timestamp::now())).await.unwrap();
    gate.stop().await;
    assert!(told.recv().await.is_none(), "another kind was filtered out");
    follower.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_leaves_gives_up_its_place() {
    let gate = Gate::start(elsewhere(), Bounds { connections: 1, ..STEERING });
    let socket = gate.socket.clone();
    let leave = tokio::task::spawn_blocking(move || {
        let filter = LogFilter { limit: 1, ..LogFilter::default() };
        let line = wire::encode(&Envelope::from(Request::Logs { filter, follow: true })).unwrap();
        let mut stream = StdUnixStream::connect(&socket).unwrap();
        stream.write_all(&line).unwrap();
        // The record proves that the server is in its loop.
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
    });
    gate.context.audit.note(Record::new(Kind::Flow, Timestamp::now())).await.unwrap();
    leave.await.unwrap();
    // The place comes free when the server has seen the end; until then the answer is Busy.
    timeout(Duration::from_secs(10), async {
        loop {
            match gate.ask(Request::ModeGet).await {
                Ok(_) => break,
                Err(ClientError::Refused(e)) if e.code == ErrorCode::Busy => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
    .unwrap();
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_is_all_that_its_socket_answers() {
    let gate = Gate::behind(Door::Enrolment, elsewhere(), ENROLMENT);
    assert!(matches!(gate.ask(Request::Enrol).await.unwrap(), Payload::Enrolled(_)));
    assert!(matches!(gate.ask(Request::CaExport).await.unwrap(), Payload::Ca { .. }));
    let id = RecordId(1);
    let (filter, host) = (LogFilter::default(), "a.example.com".to_owned());
    for request in [
        Request::Status,
        Request::Logs { filter, follow: false },
        Request::Show { id },
        Request::Body { id, side: Side::Request },
        Request::PolicyReload,
        Request::ModeGet,
        Request::ModeSet { mode: Some(Mode::Audit) },
        Request::ListEdit { list: List::Allow, edit: Edit::Add, host },
        Request::Dashboard,
    ] {
        assert_eq!(code(gate.ask(request).await), ErrorCode::Unavailable);
    }
    assert_eq!(gate.context.policy.current().mode(), Mode::Enforce);
    assert_eq!(gate.stop().await.len(), 1, "the enrolment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_peer_is_refused_at_the_enrolment_socket_too() {
    let gate = Gate::behind(Door::Enrolment, here(), ENROLMENT);
    assert_eq!(code(gate.ask(Request::Enrol).await), ErrorCode::Guarded);
    let notes = gate.stop().await;
    assert!(notes[0].1.contains("connected to the enrolment socket"), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_cannot_take_every_place() {
    let gate = Gate::behind(Door::Enrolment, elsewhere(), Bounds { of_one_user: 1, ..ENROLMENT });
    let socket = gate.socket.clone();
    let silent = tokio::task::spawn_blocking(move || StdUnixStream::connect(&socket).unwrap()).await.unwrap();
    // Connections are accepted in order, so the silent one has its place.
    let Err(ClientError::Refused(error)) = gate.ask(Request::Enrol).await else { panic!("no place is left") };
    assert_eq!(error.code, ErrorCode::Busy);
    let uid = rustix::process::geteuid().as_raw();
    assert!(error.message.ends_with(&format!("of uid {uid}")), "{}", error.message);
    drop(silent);
    gate.stop().await;
}

/// A header of obs-text becomes three bytes a byte, an ancestor's path of control characters six: one such
/// record ended every listing, and what was newer was never sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_does_not_hide_what_came_after_it() {
    let gate = Gate::start(elsewhere(), STEERING);
    let mut large = Record::new(Kind::Exchange, Timestamp::now());
    large.request = Some(RequestHead {
        method: "GET".into(),
        headers: vec![("x", "\u{fffd}".repeat(260_000))].into(),
        ..RequestHead::default()
    });
    let exe = "\u{1}".repeat(4000);
    large.subject = Some(
        Subject {
            session: SessionId("s@1".into()),
            pid: 1,
            uid: 1,
            start: None,
            comm: "p".into(),
            exe: None,
            cmdline: Vec::new(),
            ancestors: vec![crate::model::Ancestor { pid: 2, exe }; 32],
            cgroup: ELSEWHERE.into(),
            privileges: Vec::new(),
        }
        .into(),
    );
    let before = gate.context.audit.note(Record::new(Kind::Flow, Timestamp::now())).await.unwrap();
    let large = gate.context.audit.note(large).await.unwrap();
    let after = gate.context.audit.note(Record::new(Kind::Flow, Timestamp::now())).await.unwrap();
    let filter = LogFilter { limit: 50, ..LogFilter::default() };
    let items = gate.items(Request::Logs { filter, follow: false }).await.unwrap();
    let found: Vec<_> = items.iter().filter_map(record).collect();
    assert_eq!(found.iter().map(|record| record.id).collect::<Vec<_>>(), [after, large, before]);
    let Payload::Record(shown) = gate.ask(Request::Show { id: large }).await.unwrap() else { panic!() };
    for record in [found[1], &shown] {
        assert!(
            record.note.as_ref().is_some_and(|note| note.contains("cut to be shown")),
            "{:?}",
            record.note
        );
    }
    gate.stop().await;
}

fn record(item: &Item) -> Option<&Record> {
    if let Item::Record(record) = item { Some(record) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_tells_what_it_found_while_it_goes_on() {
    let gate = Gate::start(elsewhere(), STEERING);
    let audit = &gate.context.audit;
    let of = |host: &str| {
        let mut record = Record::new(Kind::Flow, Timestamp::now());
        record.authority = Some(Authority { host: Host::parse(host).unwrap(), port: 443 });
        record
    };
    let old = audit.note(of("rare.test")).await.unwrap();
    let mut notes = JoinSet::new();
    for _ in 0..crate::store::SCAN_CAP {
        let (audit, record) = (audit.clone(), of("often.test"));
        notes.spawn(async move { audit.note(record).await.unwrap() });
    }
    notes.join_all().await;
    let new = audit.note(of("rare.test")).await.unwrap();
    // What no index knows.
    let filter = LogFilter { text: "url:rare*".into(), limit: 10, ..LogFilter::default() };
    let items = gate.items(Request::Logs { filter, follow: false }).await.unwrap();
    // Between the two it told that it goes on, so that the client does not take it for dead.
    let [Item::Record(first), Item::Searched { .. }, Item::Record(last), Item::Listed] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!((first.id, last.id), (new, old));
    for (text, expect) in
        [("url:rare*", 2), ("host:rare.test", 2), ("-host:rare.test kind:flow", 10_000), ("", 10_002)]
    {
        let filter = LogFilter { text: text.into(), ..LogFilter::default() };
        let items = gate.items(Request::Count { filter }).await.unwrap();
        assert_eq!(items.last(), Some(&Item::Counted { count: expect, unreadable: 0 }), "{text}");
    }
    let filter = LogFilter { text: "sort:bytes".into(), limit: 1, ..LogFilter::default() };
    let refused = gate.items(Request::Logs { filter, follow: true }).await;
    assert!(matches!(refused, Err(ClientError::Refused(e)) if e.code == ErrorCode::Invalid));
    gate.stop().await;
}
