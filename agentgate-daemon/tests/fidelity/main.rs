//! What leaves the client is what reaches the origin, and back, byte for byte: random but valid exchanges
//! through the whole gate, compared at both ends. `cargo test --test fidelity -- --exchanges N --seed S`;
//! a seed gives the same exchanges again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "its results are for people")]

mod generate;
mod http1;
mod http2;
#[expect(dead_code, reason = "shared with the tests of the proxy, which need all of it")]
#[path = "../proxy/setup.rs"]
mod setup;

use std::{process::ExitCode, time::Instant};

use clap::Parser as _;

/// Sends random exchanges through the gate and compares both ends.
#[derive(clap::Parser)]
struct Arguments {
    /// How many exchanges, of both versions together.
    #[arg(long, default_value_t = 1000)]
    exchanges: u64,
    /// Only one version.
    #[arg(long)]
    only: Option<Version>,
    /// Leaves the gate out, which tries the test itself.
    #[arg(long)]
    direct: bool,
    /// The first seed; each connection has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    connections: u64,
    /// What the test harness is given (`--nocapture` and the like) is not for this one.
    #[arg(hide = true)]
    _filter: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Version {
    Http1,
    Http2,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Arguments { exchanges, only, direct, seed, connections, .. } = arguments;
    let each = if only.is_some() { exchanges } else { exchanges.div_ceil(2) };
    let mut right = true;
    for version in [Version::Http1, Version::Http2] {
        if only.is_some_and(|only| only != version) {
            continue;
        }
        let start = Instant::now();
        let (name, (done, wrong)) = runtime.block_on(async {
            match version {
                Version::Http1 => ("HTTP/1.1", http1::run(each, seed, connections, direct).await),
                Version::Http2 => ("HTTP/2", http2::run(each, seed, connections, direct).await),
            }
        });
        let took = start.elapsed().as_secs_f64();
        println!("{name}: {done} exchanges from seed {seed} in {took:.1} s, {} differ", wrong.len());
        for line in wrong.iter().take(10) {
            println!("  {line}");
        }
        right &= wrong.is_empty() && done >= each;
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
