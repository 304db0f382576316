//! `agentctl`: one subcommand per file. Speaks to the daemon over the control socket only; `policy check`
//! works without one.
//!
//! Text that an agent had a hand in is escaped before a terminal sees it (`terminal`).

mod allow;
mod audit;
mod ca;
mod dashboard;
mod detach;
mod doctor;
mod failure;
mod logs;
mod mode;
mod output;
mod policy;
mod run;
mod selftest;
mod show;
mod status;
mod terminal;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    config::Paths,
    control::{
        client::Client,
        wire::{Payload, Request},
    },
    reload::List,
};

pub use failure::Failure;
use output::Output;

const EXIT_CODES: &str = "\
Exit codes:
  0        done
  1        the daemon refused or failed; `status --check`, `doctor`: not all is
           well; `audit reconcile`: the books do not balance; `audit verify`: not
           whole; `audit import`: nothing was imported; `detach`: not detached;
           `selftest`: something leaked
  2        wrong usage, or a policy or value that is not valid, also on `policy reload`;
           `audit verify`: it cannot be told
  3        the daemon cannot be reached
  4        `selftest` could not be run
  125-127  of `run`: 125 not put under guard, 126 command not executable, 127 command not found;
           otherwise `run` exits as the command does";

/// What every subcommand takes.
const EVERYWHERE: &str = "Options of every command";

/// Runs agents under guard, and steers and watches the gate.
#[derive(Debug, Parser)]
#[command(name = "agentctl", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    /// Directory that holds etc, var and run of the gate
    #[arg(long, global = true, value_name = "DIR", default_value = "/", help_heading = EVERYWHERE)]
    root: PathBuf,
    /// The daemon's socket [default: below --root run/agentgate/control.sock, or enrol.sock for `run`
    /// and `ca`]
    #[arg(long, global = true, value_name = "PATH", help_heading = EVERYWHERE)]
    socket: Option<PathBuf>,
    /// Answer in JSON, one object per line
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How the gate is
    Status(status::Args),
    /// Run a command under guard, as yourself
    Run(run::Args),
    /// What was let through and what was refused: look for records, count them, follow them
    Logs(logs::Args),
    /// One record in full, and its bodies
    Show(show::Args),
    /// Check or reload the policy
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show the mode, or override that of policy.toml
    Mode(mode::Args),
    /// Add a host to the allow list
    Allow(allow::Args),
    /// Add a host to the deny list, which always wins
    Deny(allow::Args),
    /// Add a host to the passthrough list: tunnelled unread
    Passthrough(allow::Args),
    /// The certificate of the gate's authority
    #[command(subcommand)]
    Ca(ca::Command),
    /// Whether this host can guard and does, and what to do where not
    Doctor(doctor::Args),
    /// The log as a whole: verify, export, back up, reconcile with the kernel
    #[command(subcommand)]
    Audit(audit::Command),
    /// Take the programs off the guarded cgroup: whatever runs in it goes free
    ///
    /// The only thing that opens it. Needs root, and the gate stopped; recorded before it is done. The next
    /// start of the gate attaches again.
    Detach(detach::Args),
    /// Where the dashboard is, with a code that logs in once, within two minutes
    Dashboard,
    /// Try every known way round the gate, on this kernel
    Selftest(selftest::Args),
    /// The part of `selftest` in namespaces of its own
    #[command(hide = true)]
    SelftestInside(selftest::Told),
    /// One attempt of `selftest`
    #[command(hide = true)]
    SelftestAttempt(selftest::Told),
}

impl Command {
    /// The socket that answers it: the one for every user where that is enough.
    fn socket(&self, paths: Paths) -> PathBuf {
        match self {
            Self::Run(_) | Self::Ca(_) => paths.enrol_socket,
            Self::Doctor(args) if args.enrols() => paths.enrol_socket,
            Self::Status(_)
            | Self::Logs(_)
            | Self::Show(_)
            | Self::Policy(_)
            | Self::Mode(_)
            | Self::Allow(_)
            | Self::Deny(_)
            | Self::Passthrough(_)
            | Self::Doctor(_)
            | Self::Audit(_)
            // Speaks to nobody.
            | Self::Detach(_)
            | Self::Dashboard
            | Self::Selftest(_)
            | Self::SelftestInside(_)
            | Self::SelftestAttempt(_) => paths.control_socket,
        }
    }
}

/// What every subcommand is given.
#[derive(Debug)]
struct Session {
    root: PathBuf,
    socket: PathBuf,
    output: Output,
}

impl Session {
    fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket)?)
    }

    fn ask(&self, request: Request) -> Result<Payload, Failure> {
        Ok(self.connect()?.ask(request)?)
    }
}

/// The command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let socket = cli.socket.unwrap_or_else(|| cli.command.socket(Paths::below(&cli.root)));
    let mut session = Session { root: cli.root, socket, output: Output::to_stdout(cli.json) };
    let done = match cli.command {
        Command::Status(args) => status::run(&mut session, &args),
        Command::Run(args) => run::run(&session, args),
        Command::Logs(args) => logs::run(&mut session, args),
        Command::Show(args) => show::run(&mut session, &args),
        Command::Policy(command) => policy::run(&mut session, &command),
        Command::Mode(args) => mode::run(&mut session, &args),
        Command::Allow(args) => allow::run(&mut session, List::Allow, args),
        Command::Deny(args) => allow::run(&mut session, List::Deny, args),
        Command::Passthrough(args) => allow::run(&mut session, List::Passthrough, args),
        Command::Ca(ca::Command::Export) => ca::export(&mut session),
        Command::Doctor(args) => doctor::run(&mut session, &args),
        Command::Audit(command) => audit::run(&mut session, &command),
        Command::Detach(args) => detach::run(&mut session, &args),
        Command::Dashboard => dashboard::run(&mut session),
        Command::Selftest(args) => selftest::run(&mut session, args),
        Command::SelftestInside(told) => selftest::inside(&told),
        Command::SelftestAttempt(told) => selftest::attempt(&told),
    };
    match done.and_then(|()| session.output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                output::complain(&message);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests;
