//! What the programs add to connect(2) and to sending a datagram: `cargo xtask bench connect`.
//!
//! Three clients do the same in turn, a short round each: one in a cgroup without programs, one beside
//! the guarded cgroup, where only the watch is, and one in it. Destinations are as near to each other as
//! can be: TCP ends at one listener on loopback, whether it was asked for or put in place of another
//! address; datagrams for the DNS server likewise; other datagrams go by a wire into another network
//! namespace, each to the same address. Only the system call is timed. Nobody works at the other end
//! during a round: connections wait in the backlog, datagrams in the buffer.
//!
//! Runs as root in network and mount namespaces of its own, which `cargo xtask bench` makes.

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use agentgate::kernel::{Attached, Kernel as _, Options, UdpRange, cgroup2_mount, detach};
use agentgate_common::settings::Settings;
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use rustix::{
    net::{AddressFamily, SendFlags, SocketType, bind, connect, send, sendto, socket, sockopt},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::{Deserialize, Serialize};

const LISTENER: u16 = 7879;
const RESOLVER: u16 = 7880;
/// Behind the wire.
const FAR: &str = "203.0.113.7:9999";
/// Calls of one round: their datagrams fit into a receive buffer of the default size.
const CALLS: usize = 100;
/// Rounds whose figures are thrown away: caches and the first route lookups.
const WARM_UP: usize = 3;

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each client and each call
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    #[arg(long)]
    json: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Does the calls, in a cgroup
    #[command(hide = true)]
    Client {
        cgroup: PathBuf,
        #[arg(action = clap::ArgAction::Set)]
        guarded: bool,
    },
    /// The other end of the wire
    #[command(hide = true)]
    Far,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Call {
    /// connect(2) of TCP.
    TcpConnect,
    /// socket(2), connect(2) and close(2) of TCP, by a reset.
    TcpWhole,
    /// sendto(2) to port 53, on a socket that is not connected.
    UdpDns,
    /// sendto(2) to a listed destination, on a socket that is not connected.
    UdpSendto,
    /// send(2) on a socket that is connected to a listed destination.
    UdpSend,
}

const ALL: [Call; 5] = [Call::TcpConnect, Call::TcpWhole, Call::UdpDns, Call::UdpSendto, Call::UdpSend];

impl Call {
    fn shown(self) -> &'static str {
        match self {
            Self::TcpConnect => "TCP connect",
            Self::TcpWhole => "TCP socket, connect, close",
            Self::UdpDns => "UDP sendto, DNS",
            Self::UdpSendto => "UDP sendto, listed",
            Self::UdpSend => "UDP send, connected, listed",
        }
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Arm {
    Bare,
    Watched,
    Guarded,
}

const ARMS: [Arm; 3] = [Arm::Bare, Arm::Watched, Arm::Guarded];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Client { cgroup, guarded }) => client(&cgroup, guarded),
        Some(Part::Far) => far(),
        None => measure(arguments.rounds, arguments.json),
    }
}

// ---- The clients

fn client(cgroup: &Path, guarded: bool) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").context("enter the cgroup")?;
    let (tcp, dns): (SocketAddr, SocketAddr) = if guarded {
        ("203.0.113.7:443".parse()?, "203.0.113.7:53".parse()?)
    } else {
        ((Ipv4Addr::LOCALHOST, LISTENER).into(), (Ipv4Addr::LOCALHOST, RESOLVER).into())
    };
    let far: SocketAddr = FAR.parse()?;
    for line in std::io::stdin().lines() {
        let call = Call::from_str(&line?, false).map_err(anyhow::Error::msg)?;
        let times = match call {
            Call::TcpConnect => tcp_connect(tcp)?,
            Call::TcpWhole => tcp_whole(tcp)?,
            Call::UdpDns => udp_sendto(dns)?,
            Call::UdpSendto => udp_sendto(far)?,
            Call::UdpSend => udp_send(far)?,
        };
        println!("{}", serde_json::to_string(&times)?);
    }
    Ok(())
}

/// Nanoseconds.
fn timed<T>(call: impl FnOnce() -> rustix::io::Result<T>) -> Result<(T, u64)> {
    let began = Instant::now();
    let done = call();
    let took = began.elapsed();
    Ok((done?, u64::try_from(took.as_nanos())?))
}

fn tcp_connect(to: SocketAddr) -> Result<Vec<u64>> {
    let once = || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // Closed by a reset, so that no port is kept waiting.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        Ok(timed(|| connect(&socket, &to))?.1)
    };
    (0..CALLS).map(|_| once()).collect()
}

fn tcp_whole(to: SocketAddr) -> Result<Vec<u64>> {
    let once = || {
        let whole = || {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            connect(&socket, &to)
        };
        Ok(timed(whole)?.1)
    };
    (0..CALLS).map(|_| once()).collect()
}

fn udp_sendto(to: SocketAddr) -> Result<Vec<u64>> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    (0..CALLS).map(|_| Ok(timed(|| sendto(&socket, &[7; 64], SendFlags::empty(), &to))?.1)).collect()
}

fn udp_send(to: SocketAddr) -> Result<Vec<u64>> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    connect(&socket, &to)?;
    (0..CALLS).map(|_| Ok(timed(|| send(&socket, &[7; 64], SendFlags::empty()))?.1)).collect()
}

/// A process of this program that answers lines with lines.
struct Peer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, questions, answers })
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.questions, "{line}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "a client ended");
        Ok(answer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

// ---- The other end of the wire

fn far() -> Result<()> {
    let mut lines = std::io::stdin().lines();
    println!("here");
    lines.next().context("no wire")??;
    ip(&[
        "link set lo up",
        "link set v1 up",
        "addr add 198.51.100.2/24 dev v1",
        "addr add 203.0.113.7/32 dev lo",
    ])?;
    let sink = UdpSocket::bind(FAR)?;
    sink.set_nonblocking(true)?;
    println!("bound");
    for line in lines {
        line?;
        println!("{}", drained(&sink)?);
    }
    Ok(())
}

/// How many datagrams waited.
fn drained(socket: &UdpSocket) -> Result<usize> {
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 128]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

fn ip(lines: &[&str]) -> Result<()> {
    for line in lines {
        let status = Command::new("ip").args(line.split(' ')).status().context("start ip")?;
        ensure!(status.success(), "ip {line}: {status}");
    }
    Ok(())
}

// ---- The measurement

/// Cgroups and pins; undone on drop.
struct Ground {
    base: PathBuf,
    options: Options,
    directory: tempfile::TempDir,
}

impl Ground {
    fn make() -> Result<Self> {
        let interfaces = fs::read_to_string("/proc/thread-self/net/dev")?;
        let others = interfaces.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count();
        ensure!(others == 0, "this wants namespaces of its own: cargo xtask bench connect");
        let directory = tempfile::tempdir()?;
        let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()).status()?;
        ensure!(status.success(), "mount: {status}");
        let base = cgroup2_mount()?.join(format!("agentgate-bench-{}", std::process::id()));
        for below in ["bare", "watched/plain", "watched/agent"] {
            fs::create_dir_all(base.join(below))?;
        }
        let options = Options {
            cgroup: base.join("watched/agent"),
            pin_dir: directory.path().join("agentgate"),
            watch: Some(base.join("watched")),
        };
        ip(&["link set lo up"])?;
        Ok(Self { base, options, directory })
    }

    fn of(&self, arm: Arm) -> PathBuf {
        self.base.join(match arm {
            Arm::Bare => "bare",
            Arm::Watched => "watched/plain",
            Arm::Guarded => "watched/agent",
        })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let detached = detach(&self.options).map_err(anyhow::Error::from);
        let below = ["bare", "watched/plain", "watched/agent", "watched", ""];
        let removed = below.iter().try_for_each(|below| fs::remove_dir(self.base.join(below)));
        let unmounted = Command::new("umount").arg(self.directory.path()).status();
        if let Err(error) = detached.and(removed.map_err(Into::into)).and(unmounted.map_err(Into::into)) {
            println!("something stays: {error:#}");
        }
    }
}

/// Everything timed, in nanoseconds, by call and arm.
#[derive(Default)]
struct Times(Vec<(Call, Arm, Vec<u64>)>);

impl Times {
    fn add(&mut self, call: Call, arm: Arm, mut times: Vec<u64>) {
        match self.0.iter_mut().find(|(c, a, _)| (*c, *a) == (call, arm)) {
            Some((.., all)) => all.append(&mut times),
            None => self.0.push((call, arm, times)),
        }
    }

    fn of(&mut self, call: Call, arm: Arm) -> Result<Figures> {
        let found = self.0.iter_mut().find(|(c, a, _)| (*c, *a) == (call, arm));
        let (.., times) = found.context("nothing was timed")?;
        times.sort_unstable();
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
        Ok(Figures { median_ns: at(0.5), p99_ns: at(0.99), calls: times.len() })
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    median_ns: u64,
    p99_ns: u64,
    calls: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    call: Call,
    bare: Figures,
    watched: Figures,
    guarded: Figures,
    /// Added at the median.
    watched_added_ns: i64,
    guarded_added_ns: i64,
    guarded_ratio: f64,
}

fn measure(rounds: usize, json: bool) -> Result<()> {
    stay_on_one_processor()?;
    let ground = Ground::make()?;
    let own = std::env::current_exe()?;

    let mut unshared = Command::new("unshare");
    unshared.arg("--net").arg(&own).arg("far");
    let mut far = Peer::start(unshared)?;
    let mut here = String::new();
    far.answers.read_line(&mut here)?;
    let wire = format!("link add v0 type veth peer name v1 netns {}", far.child.id());
    ip(&[&wire, "link set v0 up", "addr add 198.51.100.1/24 dev v0"])?;
    far.ask("go")?;
    ip(&["route add default via 198.51.100.2"])?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, LISTENER))?;
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, RESOLVER))?;
    resolver.set_nonblocking(true)?;

    let kernel = Attached::start(&ground.options)?;
    kernel.configure(&Settings { listener_port: LISTENER, dns_port: RESOLVER, ..Settings::default() })?;
    let far_address: SocketAddr = FAR.parse()?;
    kernel.set_udp(&[UdpRange {
        net: far_address.ip().into(),
        ports: vec![(far_address.port(), far_address.port())],
    }])?;

    let mut clients = Vec::new();
    for arm in ARMS {
        let mut command = Command::new(&own);
        command.arg("client").arg(ground.of(arm)).arg((arm == Arm::Guarded).to_string());
        clients.push((arm, Peer::start(command)?));
    }
    let mut times = Times::default();
    for round in 0..rounds + WARM_UP {
        for call in ALL {
            // Each is first, second and last in turn.
            clients.rotate_left(1);
            for (arm, client) in &mut clients {
                let name = call.to_possible_value().context("a name")?.get_name().to_owned();
                let taken: Vec<u64> = serde_json::from_str(&client.ask(&name)?)?;
                let arrived = match call {
                    Call::TcpConnect | Call::TcpWhole => accepted(&listener)?,
                    Call::UdpDns => drained(&resolver)?,
                    Call::UdpSendto | Call::UdpSend => far.ask("how many")?.trim().parse()?,
                };
                ensure!(arrived == CALLS, "{call:?} of {arm:?}: {arrived} of {CALLS} arrived");
                let flows = kernel.abandoned_flows(u64::MAX)?.len();
                let redirected = *arm == Arm::Guarded && matches!(call, Call::TcpConnect | Call::TcpWhole);
                ensure!(flows == if redirected { CALLS } else { 0 }, "{call:?} of {arm:?}: {flows} flows");
                if round >= WARM_UP {
                    times.add(call, *arm, taken);
                }
            }
        }
    }
    judged(&kernel, rounds)?;
    drop(clients);
    let lines = ALL.into_iter().map(|call| line(&mut times, call)).collect::<Result<Vec<_>>>()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        show(&lines);
    }
    Ok(())
}

fn stay_on_one_processor() -> Result<()> {
    let ours = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| ours.is_set(*cpu)).context("no processor")?;
    let mut one = CpuSet::new();
    one.set(last);
    Ok(sched_setaffinity(None, &one)?)
}

/// How many connections waited.
fn accepted(listener: &TcpListener) -> Result<usize> {
    let mut count = 0;
    loop {
        match listener.accept() {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the programs saw as much as was done.
fn judged(kernel: &Attached, rounds: usize) -> Result<()> {
    let counters = kernel.counters()?;
    let at_least = |hook: &str, outcome: &str, times: usize| {
        let count = counters.iter().find(|c| c.hook == hook && c.outcome == outcome).map_or(0, |c| c.count);
        if (count as usize) < times {
            bail!("{hook} came to {outcome} {count} times, not {times}")
        } else {
            Ok(())
        }
    };
    at_least("connect4", "listener", 2 * rounds * CALLS)?;
    at_least("sendmsg4", "resolver", rounds * CALLS)?;
    at_least("sendmsg4", "listed", rounds * CALLS)?;
    at_least("egress", "listed", 2 * rounds * CALLS)
}

fn line(times: &mut Times, call: Call) -> Result<Line> {
    let [bare, watched, guarded] = [Arm::Bare, Arm::Watched, Arm::Guarded].map(|arm| times.of(call, arm));
    let (bare, watched, guarded) = (bare?, watched?, guarded?);
    let added = |figures: Figures| figures.median_ns.cast_signed() - bare.median_ns.cast_signed();
    Ok(Line {
        call,
        bare,
        watched,
        guarded,
        watched_added_ns: added(watched),
        guarded_added_ns: added(guarded),
        guarded_ratio: guarded.median_ns as f64 / bare.median_ns as f64,
    })
}

fn show(lines: &[Line]) {
    println!("nanoseconds of one call: median (99th percentile), and what is added at the median\n");
    println!(
        "{:28} {:>17} {:>17} {:>7} {:>17} {:>7} {:>6}",
        "", "without programs", "beside the guard", "added", "under guard", "added", "ratio"
    );
    let cell = |figures: &Figures| format!("{} ({})", figures.median_ns, figures.p99_ns);
    for line in lines {
        println!(
            "{:28} {:>17} {:>17} {:>7} {:>17} {:>7} {:>6.2}",
            line.call.shown(),
            cell(&line.bare),
            cell(&line.watched),
            line.watched_added_ns,
            cell(&line.guarded),
            line.guarded_added_ns,
            line.guarded_ratio,
        );
    }
    if let Some(line) = lines.first() {
        println!("\n{} calls of each kind and place, in turn", line.bare.calls);
    }
}
