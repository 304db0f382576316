//! `agentctl audit`: one file per command.

mod export;
mod reconcile;
mod saved;

use super::{Failure, Session};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compare the log with the kernel's own counters: what the kernel counted is on record, declared as
    /// lost, or on its way. Exits with 1 where it is not
    Reconcile(reconcile::Args),
    /// Write the log in other forms, from its beginning to its end
    Export(export::Args),
}

pub(super) fn run(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Reconcile(args) => reconcile::run(session, args),
        Command::Export(args) => export::run(session, args),
    }
}
