//! `agentctl ca`.

use super::{Failure, Session, terminal::escape_lines};
use crate::control::wire::{Payload, Request};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the certificate (PEM), for a client that reads none of the variables that `run` sets
    Export,
}

pub(super) fn export(session: &mut Session) -> Result<(), Failure> {
    let Payload::Ca { pem } = session.ask(Request::CaExport)? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        session.output.json(&serde_json::json!({ "pem": pem }))
    } else {
        session.output.line(&escape_lines(pem.trim_end_matches('\n')))
    }
}
