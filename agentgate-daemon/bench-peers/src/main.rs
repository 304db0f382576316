//! What the gate is measured with and against: load generator, origin, bare relays, hudsucker.
//!
//! `cargo xtask bench proxy` starts these in a network namespace of its own. Each that serves prints
//! `ready` once it listens, and ends when its standard input does.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "programs that a benchmark reads")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod load;
mod names;
mod origin;
mod pki;
mod relay;
mod sucker;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Make both certificate authorities and the origin's leaves
    Pki {
        /// Directory for them
        dir: std::path::PathBuf,
    },
    /// HTTP/1.1 and HTTP/2 by ALPN, and a name server that knows every name below `example`
    Origin(origin::Arguments),
    /// Carry bytes
    #[command(subcommand)]
    Relay(relay::Kind),
    /// A proxy made of hudsucker
    Hudsucker(sucker::Arguments),
    /// Ask, and measure the answers
    Load(load::Arguments),
}

fn main() -> ExitCode {
    let part = Arguments::parse().part;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    // Fails only where there is one already.
    let _first = provider.install_default();
    let done = match part {
        Part::Pki { dir } => pki::make(&dir),
        Part::Origin(arguments) => origin::run(&arguments),
        Part::Relay(kind) => relay::run(&kind),
        Part::Hudsucker(arguments) => sucker::run(&arguments),
        Part::Load(arguments) => load::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says that it listens, and waits until standard input ends, which is when whoever started it is gone
/// or has had enough.
async fn serve_until_told() -> anyhow::Result<()> {
    use tokio::io::AsyncReadExt as _;
    println!("ready");
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    Ok(())
}

/// A runtime with a worker for each CPU, as every server here uses.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
