//! `agentctl audit`: one file per command.

mod export;
mod import;
mod key;
mod prove;
mod reconcile;
mod saved;
mod sound;
mod stopping;
mod upkeep;
mod verify;

use super::{Failure, Session};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compare the log with the kernel's own counters: what the kernel counted is on record, declared as
    /// lost, or on its way. Exits with 1 where it is not
    Reconcile(reconcile::Args),
    /// Write the log in other forms, from its beginning to its end
    Export(export::Args),
    /// Begin a log with what exports of another hold; the gate must be stopped
    Import(import::Args),
    /// Whether the log, a copy of it or an export is whole; says what happened where it is not. Exits with
    /// 1 where it is not whole, with 2 where that cannot be told
    Verify(verify::Args),
    /// The proof that a record is in the log, for `audit verify` anywhere
    Prove(prove::Args),
    /// Sign the log with another key from here on; the one before vouches for it
    RotateKey,
    #[command(flatten)]
    Upkeep(upkeep::Command),
}

pub(super) fn run(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Reconcile(args) => reconcile::run(session, args),
        Command::Export(args) => export::run(session, args),
        Command::Import(args) => import::run(session, args),
        Command::Verify(args) => verify::run(session, args),
        Command::Prove(args) => prove::run(session, args),
        Command::RotateKey => key::rotate(session),
        Command::Upkeep(command) => upkeep::run(session, command),
    }
}
