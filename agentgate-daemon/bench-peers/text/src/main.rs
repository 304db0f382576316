//! The record's full-text index beside tantivy, on one corpus:
//! `cargo run --release --manifest-path agentgate-daemon/bench-peers/text/Cargo.toml`.
//!
//! Each engine gets the same records in the same order on one thread, and is then asked for the newest 50
//! records that have a word, and for how many there are. The index's own code is compiled in from the
//! product, so that what is measured is what runs. Each engine runs in a process of its own: memory is told
//! apart.

mod corpus;
mod peers;
mod product;
mod report;
#[allow(dead_code, unreachable_pub, reason = "the product uses what is not used here")]
mod store;
#[allow(dead_code, unreachable_pub, reason = "the product uses what is not used here")]
mod words;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

#[derive(Debug, Parser)]
struct Arguments {
    /// `exchanges` of 2 KiB, or `conversations` that grow
    #[arg(long, default_value = "exchanges")]
    corpus: corpus::Kind,
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Only this one: `agentgate`, `tantivy`, `tantivy-positions`
    #[arg(long)]
    engine: Option<String>,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(engine) = &arguments.engine else {
        println!("{} × {:?}", arguments.records, arguments.corpus);
        report::heading();
        for engine in ["agentgate", "tantivy", "tantivy-positions"] {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(std::env::args_os().skip(1)).args(["--engine", engine]);
            ensure!(command.status().context("another process of its own")?.success(), "{engine} failed");
        }
        return Ok(());
    };
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let corpus = corpus::Corpus::new(arguments.corpus, arguments.records);
    match engine.as_str() {
        "agentgate" => product::run(&corpus, dir.path()),
        "tantivy" => peers::run(&corpus, dir.path(), false),
        "tantivy-positions" => peers::run(&corpus, dir.path(), true),
        other => anyhow::bail!("{other} is no engine"),
    }
}
