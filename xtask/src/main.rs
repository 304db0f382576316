//! Set-up, demo and tests: `cargo xtask help`.

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

mod ebpf;
mod setup;

#[derive(Debug, Parser)]
#[command(about = "Set-up, demo and tests of agentgate")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what building and testing need.
    Setup {
        /// Only report what is missing.
        #[arg(long)]
        check: bool,
    },
    /// Build the eBPF object and print its path.
    Ebpf,
}

#[expect(clippy::print_stderr, reason = "what a person at the terminal is told")]
fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup { check } => setup::run(check),
        Task::Ebpf => build_ebpf(),
    };
    done.map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

#[expect(clippy::print_stdout, reason = "the path is what the task is run for")]
fn build_ebpf() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let toolchain = ebpf::find(ebpf::named_object())?;
    println!(
        "{}",
        ebpf::build(&toolchain, &root, &root.join("target/ebpf"))?.display()
    );
    Ok(())
}
