//! `agentctl audit rotate-key`.

use super::super::{Failure, Session};
use crate::control::wire::{Payload, Request};

pub(super) fn rotate(session: &mut Session) -> Result<(), Failure> {
    let Payload::AuditKey(statement) = session.ask(Request::AuditRotateKey)? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        return session.output.json(&statement);
    }
    let (key, entries) = (statement.key, statement.entries);
    session.output.line(&format!("key {key} signs from entry {entries} on"))?;
    session.output.line("keep the new audit.pub where you keep the one before")
}
