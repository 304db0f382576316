//! Set-up, demo and tests: `cargo xtask help`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks to a person")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

mod bench;
mod clients;
mod demo;
mod ebpf;
mod fidelity;
mod fuzz;
mod lab;
mod privilege;
mod setup;
mod test;
mod tidy;
mod vm;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo and tests of agentgate")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what builds and tests need; says what it does before it does it
    Setup {
        /// Only report what is missing
        #[arg(long)]
        check: bool,
    },
    /// Build the eBPF object and print its path
    Ebpf,
    /// Show an agent's traffic caught, judged and recorded, on this machine, and leave nothing behind
    Demo {
        /// End after the table; the exit code is 1 if anything differs from what was expected
        #[arg(long)]
        once: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Run the tests
    Test {
        /// Which: all but `vm`, in this order, where none is named
        #[arg(value_enum)]
        steps: Vec<test::Step>,
        /// Run only those scenarios of the lab, cases of `clients`, or kernels of `vm`, whose name contains this
        #[arg(long)]
        filter: Option<String>,
        #[command(flatten)]
        clients: clients::Options,
        #[command(flatten)]
        kills: lab::kills::Options,
    },
    /// Measure
    #[command(subcommand)]
    Bench(bench::Task),
    /// Feed the parsers with what nobody thought of; not part of `test`
    Fuzz {
        /// Which targets: all, in turn, where none is named
        targets: Vec<String>,
        /// How long each runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Send random exchanges through the gate in one process and compare both ends, byte for byte; `test` has
    /// a thousand of them
    Fidelity {
        /// How many, of HTTP/1.1 and HTTP/2 together
        #[arg(long, default_value_t = 100_000)]
        exchanges: u64,
        /// Gives the same exchanges again; another each time where none is named
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Check module headers, file sizes, the import table and what must not be in a source file
    Tidy,
    /// The parts of the lab, as root
    #[command(subcommand)]
    Lab(LabTask),
}

#[derive(Debug, Subcommand)]
enum LabTask {
    /// Check the lab itself, without the daemon
    Bare,
    /// End labs in several ways and check that nothing remains of them
    Hygiene {
        /// With the daemon running in them
        #[arg(long)]
        daemon: bool,
    },
    /// Build a lab and keep it until it is ended
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        daemon: bool,
    },
    /// Run the scenarios against programs that are built already
    Suite {
        filter: Option<String>,
        /// Restarts of the daemon under the hammer; the policy is reloaded ten times as often
        #[arg(long, default_value_t = lab::RESTARTS)]
        restarts: usize,
    },
    /// Kill the daemon under load, with programs that are built already
    Kills {
        #[command(flatten)]
        options: lab::kills::Options,
    },
    /// Run real clients against programs that are built and kits that are installed already
    #[command(hide = true)]
    Clients { orders: String },
    /// Run the demo against programs that are built already
    Demo {
        #[arg(long)]
        once: bool,
        #[arg(long)]
        json: bool,
    },
    /// Name what labs that are gone have left; exit code 1 if there is anything
    Leftovers,
    /// Remove it
    Sweep,
    /// Join a machine without a network to the small internet while a command runs
    #[command(hide = true)]
    Internet {
        /// Directory for its files
        #[arg(long)]
        at: PathBuf,
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// The inner process
    #[command(hide = true)]
    Inside { orders: String },
}

fn main() -> ExitCode {
    run(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup { check } => setup::run(check).map(|()| ExitCode::SUCCESS),
        Task::Ebpf => build_ebpf(),
        Task::Demo { once, json } => demo::run(once, json),
        Task::Test { steps, filter, clients, kills } => {
            test::run(&steps, test::Options { filter: filter.as_deref(), clients: &clients, kills: &kills })
        }
        Task::Fuzz { targets, seconds } => fuzz::run(&targets, seconds),
        Task::Fidelity { exchanges, seed } => fidelity::run(exchanges, seed),
        Task::Bench(task) => bench::run(task),
        Task::Tidy => tidy::run(),
        Task::Lab(task) => run_lab(task),
    }
}

fn build_ebpf() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let toolchain = ebpf::find(ebpf::named_object())?;
    let object = ebpf::build(&toolchain, &root, &root.join("target/ebpf"))?;
    println!("{}", object.display());
    Ok(ExitCode::SUCCESS)
}

fn run_lab(task: LabTask) -> anyhow::Result<ExitCode> {
    match task {
        LabTask::Bare => lab::outside::run(lab::Job::Bare),
        LabTask::Hygiene { daemon } => lab::hygiene::run(daemon),
        LabTask::Hold { daemon } => lab::outside::run(lab::Job::Hold { daemon }),
        LabTask::Suite { filter, restarts } => lab::outside::run(lab::Job::Suite { filter, restarts }),
        LabTask::Kills { options } => lab::outside::run(lab::Job::Kills(options)),
        LabTask::Clients { orders } => clients::outside(&orders),
        LabTask::Demo { once, json } => lab::outside::run(lab::Job::Demo { once, json }),
        LabTask::Leftovers => {
            let found = lab::leftovers::of_dead_labs()?;
            print!("{found}");
            Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        LabTask::Sweep => {
            print!("{}", lab::leftovers::sweep()?);
            Ok(ExitCode::SUCCESS)
        }
        LabTask::Internet { at, command } => lab::internet::run(&at, &command),
        LabTask::Inside { orders } => lab::inside::run(&orders),
    }
}
