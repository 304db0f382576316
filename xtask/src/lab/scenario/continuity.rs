//! No gap: a client that hammers what is not allowed while the daemon is ended, started and steered, and
//! one that is allowed and only has to wait; and the books afterwards.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fake_internet::{
    Snapshot,
    world::{OPEN, OUTSIDE_RESOLVER, SINK, UNLISTED},
};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::Scenario;
use crate::lab::{
    daemon::{Restart, policy},
    inside::Lab,
    namespace,
    row::Row,
};

/// Reloads of the policy for each restart under the hammer.
const RELOADS: usize = 10;
/// Restarts under the client that is allowed, at most.
const QUIET_RESTARTS: usize = 20;
/// How long a client may take to end once it is told.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::Story("nothing arrives while the daemon is restarted and reloaded", |lab| {
            Box::pin(hammer(lab))
        }),
        Scenario::Story("an allowed client waits through restarts and is never refused", |lab| {
            Box::pin(waits(lab))
        }),
        Scenario::Story("kill -9 in a flood: the books balance and say what was lost", |lab| {
            Box::pin(killed_in_a_flood(lab))
        }),
    ]
}

/// The last of a suite.
pub(super) fn books() -> Scenario {
    Scenario::Story("the audit log holds what the kernel saw", |lab| {
        Box::pin(async {
            let mut row = Row::new("", "agentctl audit reconcile --recount");
            balanced(lab, &mut row).await?;
            Ok(row)
        })
    })
}

#[derive(Debug, Deserialize)]
struct Balance {
    total: Vec<BalanceRow>,
    balanced: bool,
}

#[derive(Debug, Deserialize)]
struct BalanceRow {
    what: String,
    kernel: u64,
    recorded: u64,
    abandoned: u64,
    declared: u64,
    pending: u64,
}

/// Asks for the balance, which must hold.
async fn balanced(lab: &Lab, row: &mut Row) -> anyhow::Result<Balance> {
    let mut command = lab.agentctl();
    command.args(["--json", "audit", "reconcile", "--recount"]).stdin(std::process::Stdio::null());
    let output = command.output().await.context("agentctl")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let balance: Balance = serde_json::from_str(&said).with_context(|| format!("{said}{complaint}"))?;
    let line = |r: &BalanceRow| {
        let BalanceRow { what, kernel, recorded, abandoned, declared, pending } = r;
        format!(
            "{what}: {kernel} = {recorded} + {abandoned} abandoned + {declared} declared + {pending} pending"
        )
    };
    row.log = balance.total.iter().map(line).collect::<Vec<_>>().join("; ");
    row.details = row.log.clone();
    row.expect(balance.balanced && output.status.success(), || format!("the books do not balance: {said}"));
    Ok(balance)
}

/// What reached origins that nobody may reach.
fn strays(arrived: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for site in [UNLISTED, SINK, OUTSIDE_RESOLVER] {
        found.extend(arrived.connections_to(site).map(|c| format!("a connection to {site}:{}", c.port)));
        found.extend(arrived.datagrams_to(site).map(|d| format!("a datagram to {site}:{}", d.port)));
    }
    found.extend(
        arrived
            .queries
            .iter()
            .filter(|q| q.name.contains("hammer"))
            .map(|q| format!("a question for {}", q.name)),
    );
    found
}

async fn hammer(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "hammer; restart; reload");
    namespace::grow_small_disk(&lab.state())?;
    enforce(lab, "").await?;
    let before = lab.internet.journal.snapshot();
    let mut client = Client::start(lab, HAMMER)?;
    client.line().await?;
    let began = Instant::now();
    let own = lab.programs.agentgated.clone();
    let other = lab.dir.join("agentgated-other");
    fs::copy(&own, &other).context("copy agentgated")?;
    let (socket, policy_file) = (lab.root().join("run/agentgate/control.sock"), lab.policy());
    let times = lab.restarts;
    let restarts = async {
        // In turn: in good order, by SIGKILL, and to a program at another path.
        let mut took = Vec::new();
        for n in 0..times {
            lab.programs.agentgated = if n % 3 == 2 { other.clone() } else { own.clone() };
            took.push(lab.restart_daemon(if n % 3 == 1 { Signal::KILL } else { Signal::TERM }).await?);
        }
        anyhow::Ok((lab, took))
    };
    let reloads = async {
        let mut done = 0;
        while done < times * RELOADS {
            let list = if done % 2 == 0 { "\"spare.example\"" } else { "" };
            fs::write(&policy_file, enforcing(list))?;
            done += usize::from(reload(&socket).await);
        }
        anyhow::Ok(())
    };
    let (lab, reloaded) = tokio::join!(restarts, reloads);
    let (lab, took) = lab?;
    reloaded?;
    lab.programs.agentgated = own;
    row.saw(&format!("{times} restarts, {} reloads in {} s", times * RELOADS, began.elapsed().as_secs()));
    row.saw(&described(&took));
    let attempts = client.end().await?;
    row.saw(&format!("attempts and failures: {attempts}"));
    let arrived = super::super::case::since(&before, lab.internet.journal.snapshot());
    let strays = strays(&arrived);
    row.origin = format!("arrivals: {}", strays.len());
    row.expect(strays.is_empty(), || format!("{} arrived: {}", strays.len(), strays.join(", ")));
    let tried: u64 = attempts.split(' ').filter_map(|n| n.parse::<u64>().ok()).next().unwrap_or(0);
    row.expect(tried > times as u64 * 10, || format!("the hammer was no hammer: {attempts}"));
    balanced(lab, &mut row).await?;
    row.details = format!("{}\n{}", row.agent, row.details);
    back(lab).await?;
    Ok(row)
}

async fn waits(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "fetch, restart, fetch");
    let mut client = Client::start(lab, ALLOWED)?;
    client.line().await?;
    let began = Instant::now();
    let mut took = Vec::new();
    let restarts = QUIET_RESTARTS.min(lab.restarts);
    for _ in 0..restarts {
        // In the middle of something, each time.
        client.line().await?;
        took.push(lab.restart_daemon(Signal::TERM).await?);
    }
    let counted = client.end().await?;
    row.saw(&format!(
        "{} s; {}; fetched, failed, slowest: {counted}",
        began.elapsed().as_secs(),
        described(&took)
    ));
    row.details = row.agent.clone();
    let numbers: Vec<&str> = counted.split(' ').collect();
    row.expect(numbers.get(1) == Some(&"0"), || format!("some fetches failed: {counted}"));
    let fetched: usize = numbers.first().and_then(|n| n.parse().ok()).unwrap_or(0);
    row.expect(fetched >= restarts, || format!("too few fetches to tell: {counted}"));
    let arrived = lab.internet.journal.snapshot().requests_to(OPEN).count();
    row.expect(arrived > 0, || "nothing arrived".to_owned());
    Ok(row)
}

async fn killed_in_a_flood(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "a flood; kill -9; start; reconcile");
    enforce(lab, "").await?;
    let mut client = Client::start(lab, HAMMER)?;
    client.line().await?;
    for _ in 0..3 {
        lab.restart_daemon(Signal::KILL).await?;
    }
    // Without the sockets too: nobody listens for a moment.
    lab.daemon.take().context("the daemon does not run")?.kill().await?;
    lab.start_daemon().await?;
    let attempts = client.end().await?;
    row.saw(&attempts);
    let balance = balanced(lab, &mut row).await?;
    let declared: u64 = balance.total.iter().map(|row| row.declared + row.abandoned).sum();
    row.expect(declared > 0, || "four kills in a flood lost nothing, which nobody can believe".to_owned());
    back(lab).await?;
    Ok(row)
}

/// The middle and the longest of what restarts took.
fn described(took: &[Restart]) -> String {
    let span = |part: fn(&Restart) -> Duration| {
        let mut all: Vec<u128> = took.iter().map(|restart| part(restart).as_millis()).collect();
        all.sort_unstable();
        let middle = all.get(all.len() / 2).copied().unwrap_or_default();
        format!("{middle} ms, at most {}", all.last().copied().unwrap_or_default())
    };
    format!("to end {}; to be ready {}", span(|restart| restart.ending), span(|restart| restart.starting))
}

fn enforcing(more: &str) -> String {
    format!(
        "version = 1\nmode = \"enforce\"\n\n[hosts]\nallow = [\"{OPEN}\"{}{more}]\n",
        if more.is_empty() { "" } else { ", " }
    )
}

async fn enforce(lab: &Lab, more: &str) -> anyhow::Result<()> {
    fs::write(lab.policy(), enforcing(more))?;
    lab.steer(&["policy", "reload"]).await.map(drop)
}

async fn back(lab: &Lab) -> anyhow::Result<()> {
    fs::write(lab.policy(), policy("blocklist"))?;
    lab.steer(&["policy", "reload"]).await.map(drop)
}

/// One reload by the control socket; false where no daemon answers.
async fn reload(socket: &std::path::Path) -> bool {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"{\"version\":1,\"request\":{\"op\":\"policy_reload\"}}\n").await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("{\"ok\""))
    };
    let answered = matches!(timeout(PATIENCE, ask).await, Ok(Ok(true)));
    if !answered {
        // Lets the restart go on.
        tokio::task::yield_now().await;
    }
    answered
}

/// A script under guard that says one line when it has begun, and one when its input is closed.
struct Client {
    child: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Client {
    fn start(lab: &Lab, script: &str) -> anyhow::Result<Self> {
        let mut command = lab.inside(&["python3", "-u", "-c", script].map(str::to_owned));
        command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::inherit());
        let mut child = command.spawn().context("agentctl run")?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Self { child, lines })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.context("the client hangs")??;
        line.context("the client ended")
    }

    async fn end(mut self) -> anyhow::Result<String> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        while let Some(line) =
            timeout(PATIENCE, self.lines.next_line()).await.context("the client hangs")??
        {
            said = line;
        }
        let status = timeout(PATIENCE, self.child.wait()).await.context("the client hangs")??;
        anyhow::ensure!(status.success(), "the client ended with {status}");
        Ok(said)
    }
}

/// Tries, from a thread each, what enforce refuses: TLS and bytes to origins that nobody listed, over both
/// families; datagrams, connected and not; questions to a resolver elsewhere, over UDP and TCP.
const HAMMER: &str = r"
import socket, ssl, struct, sys, threading, collections
stop = threading.Event()
tried, failed = collections.Counter(), collections.Counter()
context = ssl._create_unverified_context()

def question(n):
    labels = b''.join(bytes([len(l)]) + l for l in [b'hammer%d' % n, b'example'])
    return struct.pack('>HHHHHH', n % 65536, 0x100, 1, 0, 0, 0) + labels + b'\0' + struct.pack('>HH', 1, 1)

def tls(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((address, 443))
        with context.wrap_socket(s, server_hostname='unlisted.example') as t:
            t.sendall(b'GET / HTTP/1.1\r\nhost: unlisted.example\r\nconnection: close\r\n\r\n')
            assert b' 200 ' not in t.recv(4096).split(b'\r\n')[0]

def data(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((address, 9000))
        s.sendall(b'\1\2secret\n' * 10)
        s.recv(1)

def datagram(family, address, connected):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        if connected:
            s.connect((address, 9999))
            s.send(b'secret')
        else:
            s.sendto(b'secret', (address, 9999))

def ask(n, tcp):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect(('8.8.8.8', 53))
        q = question(n)
        s.send(struct.pack('>H', len(q)) + q if tcp else q)
        s.recv(512)

def work(name, act):
    n = 0
    while not stop.is_set():
        n += 1
        tried[name] += 1
        try:
            act(n)
        except AssertionError:
            raise
        except OSError:
            failed[name] += 1
            stop.wait(0.003)

acts = {
    'tls4': lambda n: tls(socket.AF_INET, '203.0.113.40'),
    'tls6': lambda n: tls(socket.AF_INET6, '2001:db8::40'),
    'data4': lambda n: data(socket.AF_INET, '203.0.113.80'),
    'data6': lambda n: data(socket.AF_INET6, '2001:db8::80'),
    'udp4': lambda n: datagram(socket.AF_INET, '203.0.113.80', False),
    'udp6': lambda n: datagram(socket.AF_INET6, '2001:db8::80', False),
    'udp4c': lambda n: datagram(socket.AF_INET, '203.0.113.80', True),
    'dns': lambda n: ask(n, False),
    'dnstcp': lambda n: ask(n, True),
}
threads = [threading.Thread(target=work, args=act, daemon=True) for act in acts.items()]
for t in threads: t.start()
print('begun')
sys.stdin.read()
stop.set()
for t in threads: t.join(10)
print(sum(tried.values()), sum(failed.values()), ' '.join(f'{k}={v}' for k, v in tried.items()))
";

/// Fetches what is allowed, each time over a connection of its own.
const ALLOWED: &str = r"
import sys, threading, time, urllib.request
stop = threading.Event()
fetched = failed = 0
slowest = 0
def work():
    global fetched, failed, slowest
    while not stop.is_set():
        began = time.monotonic()
        try:
            with urllib.request.urlopen('https://open.example/', timeout=20) as response:
                response.read()
            fetched += 1
            print('fetched')
        except Exception as error:
            failed += 1
            print(repr(error), file=sys.stderr)
        slowest = max(slowest, time.monotonic() - began)
thread = threading.Thread(target=work)
thread.start()
print('begun')
sys.stdin.read()
stop.set()
thread.join()
print(fetched, failed, f'{slowest * 1000:.0f}ms')
";
