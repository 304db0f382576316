//! `agentctl audit prove`.

use super::super::{Failure, Session};
use crate::{
    control::wire::{Item, Request},
    model::RecordId,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The record
    id: RecordId,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let client = session.connect()?;
    let output = &mut session.output;
    client.stream(Request::AuditProve { id: args.id }, false, |item| {
        let Item::Text { text } = item else { return Err(Failure::Unexpected) };
        output.bytes(text.as_bytes())
    })
}
