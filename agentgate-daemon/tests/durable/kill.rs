//! Gates that are killed at the moment when an origin has all of a request.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
};

use agentgate::{
    model::{Record, State},
    store::{Query, Side, Store},
};
use tokio::net::{TcpListener, TcpStream};

use super::{
    child, content, framed, head_end, play, read_until, say,
    setup::World,
    sides::{Agent, Origin, open_policy, read},
};

/// Requests after which the gate is killed, one each round.
const ROUNDS: [usize; 3] = [1, 4, 9];
/// Lengths of bodies, in turn.
const LENGTHS: [usize; 3] = [700, 40_000, 9000];

/// A gate and an agent that posts to `play`'s address for ever, by `play`'s protocol.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test by itself: the child of those below"]
async fn gate() {
    let Some(play) = play() else { return };
    let (protocol, at) = play.split_once(' ').unwrap();
    let at: SocketAddr = at.parse().unwrap();
    let world = World::new(&open_policy()).await;
    println!("\n@{}", world.root.path().display());
    for number in 0_u64.. {
        let body = content(number, LENGTHS[number as usize % LENGTHS.len()]);
        let target = format!("/{number}");
        let half = body.len() / 2;
        if protocol == "h2" {
            let mut agent = Agent::new(&world, at).await;
            let (answer, mut up) = agent.post(&target).await;
            // By turns all at once and in two.
            if number % 2 == 0 {
                up.send_data(body.into(), true).unwrap();
            } else {
                up.send_data(body[..half].to_vec().into(), false).unwrap();
                tokio::task::yield_now().await;
                up.send_data(body[half..].to_vec().into(), true).unwrap();
            }
            assert_eq!(answer.await.unwrap().status(), 200);
        } else {
            let mut agent = world.connect(at).await;
            let (head, bytes) = framed((at, &target), &body, number % 3 == 1);
            if number % 2 == 0 {
                say(&mut agent, &[head.as_bytes(), &bytes].concat()).await;
            } else {
                say(&mut agent, &[head.as_bytes(), &bytes[..half]].concat()).await;
                tokio::task::yield_now().await;
                say(&mut agent, &bytes[half..]).await;
            }
            let mut answer = Vec::new();
            assert!(read_until(&mut agent, &mut answer, |answer| head_end(answer).is_some()).await);
            assert!(answer.starts_with(b"HTTP/1.1 204 "), "{answer:?}");
        }
    }
}

/// A child with a gate, and where its files are.
struct Child {
    process: std::process::Child,
    root: PathBuf,
}

impl Child {
    fn start(protocol: &str, origin: SocketAddr) -> Self {
        let mut process =
            child("kill::gate", format!("{protocol} {origin}")).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let root = lines.find_map(|line| line.unwrap().strip_prefix('@').map(PathBuf::from)).unwrap();
        Self { process, root }
    }

    /// SIGKILL. Then all that the origin had is in the store.
    fn kill(mut self, had: &BTreeMap<String, Vec<u8>>) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let store = Store::open(self.root.join("var/lib/agentgate/audit.redb")).unwrap();
        let records = store.query(&Query { limit: 1000, ..Query::default() }).unwrap().records;
        for (target, body) in had {
            let asks = |record: &&Record| record.request.as_ref().is_some_and(|r| r.target == *target);
            let record = records.iter().find(asks).unwrap_or_else(|| panic!("{target} has no record"));
            assert!(matches!(record.state, State::Done | State::Failed), "{record:?}");
            let kept = store.body(record.id, Side::Request).unwrap();
            assert_eq!(kept.as_deref(), Some(body.as_slice()), "{target} of {}", had.len());
        }
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

/// A request that came whole: its target and the content of its body.
async fn whole(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut got = Vec::new();
    assert!(read_until(stream, &mut got, |got| head_end(got).is_some()).await);
    let end = head_end(&got).unwrap();
    let head = String::from_utf8(got[..end].to_vec()).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let number: u64 = target[1..].parse().unwrap();
    let body = content(number, LENGTHS[number as usize % LENGTHS.len()]);
    let (_, bytes) =
        framed((([0, 0, 0, 0], 0).into(), &target), &body, head.to_lowercase().contains("chunked"));
    assert!(read_until(stream, &mut got, |got| got.len() >= end + bytes.len()).await);
    assert_eq!(got[end..], bytes);
    (target, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_origin_of_http1_has_is_on_disk() {
    for after in ROUNDS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let child = Child::start("h1", listener.local_addr().unwrap());
        let mut had = BTreeMap::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (target, body) = whole(&mut stream).await;
            had.insert(target, body);
            if had.len() == after {
                break;
            }
            say(&mut stream, b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
        child.kill(&had);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_origin_of_http2_has_is_on_disk() {
    for after in ROUNDS {
        let mut origin = Origin::new().await;
        let child = Child::start("h2", origin.at);
        let mut had = BTreeMap::new();
        loop {
            let mut arrived = origin.arrived().await;
            let (body, _) = read(arrived.body).await.unwrap();
            had.insert(arrived.head.uri.path().to_owned(), body);
            if had.len() == after {
                break;
            }
            arrived.respond.send_response(http::Response::new(()), true).unwrap();
        }
        child.kill(&had);
    }
}
