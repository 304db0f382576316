//! What a raw tunnel costs against a plain TCP relay: `cargo bench -p agentgate-daemon --bench tunnel`.
//!
//! Both relays do the same in turn, in an order that alternates, on loopback: a client, the relay on a
//! thread with a runtime of its own, and a server. The plain one is tokio's `copy_bidirectional` with
//! 64 KiB each way. Ratios are taken round by round and their medians shown: of the time, of the relay's
//! own CPU time, and of the CPU time of all three parties.

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use agentgate::forward::tunnel::{COPIED, Moved, Terms, relay};
use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::copy_bidirectional_with_sizes;

const CHUNK: usize = 64 * 1024;
const LONG: Duration = Duration::from_secs(600);

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each relay and each task; one more is thrown away
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// MiB of a bulk transfer
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Messages there and back of an interactive connection
    #[arg(long, default_value_t = 10_000)]
    messages: u32,
    /// Bytes copied before the kernel moves them
    #[arg(long, default_value_t = COPIED)]
    copied: u64,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug)]
enum Relay {
    Plain,
    /// Spliced after this many bytes.
    Tunnel(u64),
}

#[derive(Clone, Copy, Debug)]
enum Task {
    /// This many bytes from the server to the client.
    Down(u64),
    /// The same from the client to the server.
    Up(u64),
    /// Messages of `size` bytes, each sent back before the next.
    Messages { count: u32, size: usize },
}

/// Seconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    time: f64,
    relay: f64,
    all: f64,
}

fn main() -> Result<()> {
    let Arguments { rounds, mib, messages, copied, .. } = Arguments::parse();
    println!(
        "{:<26} {:>10} {:>10} {:>8} {:>10} {:>8}",
        "", "plain s", "tunnel s", "time", "relay CPU", "all CPU"
    );
    for (name, task) in [
        (format!("{mib} MiB down"), Task::Down(mib << 20)),
        (format!("{mib} MiB up"), Task::Up(mib << 20)),
        (format!("{messages} messages, 64 B"), Task::Messages { count: messages, size: 64 }),
        (format!("{messages} messages, 4 KiB"), Task::Messages { count: messages, size: 4096 }),
    ] {
        let mut pairs = Vec::new();
        for round in 0..=rounds {
            let (plain, tunnel) = if round % 2 == 0 {
                let plain = once(Relay::Plain, task)?;
                (plain, once(Relay::Tunnel(copied), task)?)
            } else {
                let tunnel = once(Relay::Tunnel(copied), task)?;
                (once(Relay::Plain, task)?, tunnel)
            };
            // The first pays for caches and the first pages.
            if round > 0 {
                pairs.push((plain, tunnel));
            }
        }
        let of = |figure: &dyn Fn(&(Cost, Cost)) -> f64| median(pairs.iter().map(figure).collect());
        println!(
            "{name:<26} {:>10.3} {:>10.3} {:>8.2} {:>10.2} {:>8.2}",
            of(&|(plain, _)| plain.time),
            of(&|(_, tunnel)| tunnel.time),
            of(&|(plain, tunnel)| tunnel.time / plain.time),
            of(&|(plain, tunnel)| tunnel.relay / plain.relay),
            of(&|(plain, tunnel)| tunnel.all / plain.all),
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cpu(clock: ClockId) -> f64 {
    let now = clock_gettime(clock);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// One task over a relay of its own.
fn once(kind: Relay, task: Task) -> Result<Cost> {
    let (listener, origin) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (to, behind) = (listener.local_addr()?, origin.local_addr()?);
    let all = cpu(ClockId::ProcessCPUTime);
    let relaying = thread::spawn(move || serve(kind, listener, behind));
    let client = TcpStream::connect(to)?;
    let (server, _) = origin.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let begin = Instant::now();
    match task {
        Task::Down(bytes) => bulk(server, client, bytes)?,
        Task::Up(bytes) => bulk(client, server, bytes)?,
        Task::Messages { count, size } => messages(client, server, count, size)?,
    }
    let time = begin.elapsed().as_secs_f64();
    let relay = relaying.join().map_err(|_| anyhow!("the relay panicked"))??;
    Ok(Cost { time, relay, all: cpu(ClockId::ProcessCPUTime) - all })
}

/// Relays one connection, and gives the CPU time that took.
fn serve(kind: Relay, listener: TcpListener, behind: SocketAddr) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let (mut near, _) = tokio::net::TcpListener::from_std(listener)?.accept().await?;
        let mut far = tokio::net::TcpStream::connect(behind).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let before = cpu(ClockId::ThreadCPUTime);
        match kind {
            Relay::Plain => {
                copy_bidirectional_with_sizes(&mut near, &mut far, CHUNK, CHUNK).await?;
            }
            Relay::Tunnel(copied) => {
                let moved = Moved::default();
                let look = &mut |_, _: &[u8]| {};
                let terms =
                    Terms { first: Bytes::new(), copied, idle: LONG, patience: LONG, moved: &moved, look };
                relay(near, far, terms).await?;
            }
        }
        Ok(cpu(ClockId::ThreadCPUTime) - before)
    })
}

fn bulk(mut from: TcpStream, mut to: TcpStream, bytes: u64) -> Result<()> {
    let sending = thread::spawn(move || -> Result<()> {
        let chunk = vec![7; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let part = chunk.get(..CHUNK.min(usize::try_from(left)?)).context("a part of a chunk")?;
            from.write_all(part)?;
            left -= part.len() as u64;
        }
        Ok(())
    });
    let (mut buffer, mut got) = (vec![0; CHUNK], 0);
    loop {
        match to.read(&mut buffer)? {
            0 => break,
            length => got += length as u64,
        }
    }
    ensure!(got == bytes, "{got} of {bytes} bytes");
    sending.join().map_err(|_| anyhow!("the sender panicked"))?
}

fn messages(mut client: TcpStream, mut server: TcpStream, count: u32, size: usize) -> Result<()> {
    let echoing = thread::spawn(move || {
        let mut message = vec![0; size];
        while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
    });
    let mut message = vec![1; size];
    for _ in 0..count {
        client.write_all(&message)?;
        client.read_exact(&mut message)?;
    }
    drop(client);
    echoing.join().map_err(|_| anyhow!("the server panicked"))
}
