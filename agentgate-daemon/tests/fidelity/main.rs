//! What leaves the client is what reaches the origin, and back, byte for byte: random but valid exchanges
//! through the whole gate, compared at both ends. `cargo test --test fidelity -- --exchanges N --seed S`;
//! a seed gives the same exchanges again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "its results are for people")]

mod generate;
mod http1;
#[expect(dead_code, reason = "shared with the tests of the proxy, which need all of it")]
#[path = "../proxy/setup.rs"]
mod setup;

use std::{process::ExitCode, time::Instant};

use clap::Parser as _;

/// Sends random exchanges through the gate and compares both ends.
#[derive(clap::Parser)]
struct Arguments {
    /// How many exchanges.
    #[arg(long, default_value_t = 1000)]
    exchanges: u64,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let start = Instant::now();
    let (done, wrong) =
        runtime.block_on(http1::run(arguments.exchanges, arguments.seed, arguments.connections));
    println!("HTTP/1.1: {done} exchanges in {:.1} s, {} differ", start.elapsed().as_secs_f64(), wrong.len());
    for line in wrong.iter().take(10) {
        println!("  {line}");
    }
    if wrong.is_empty() && done >= arguments.exchanges { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
