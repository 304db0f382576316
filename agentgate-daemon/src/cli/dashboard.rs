//! `agentctl dashboard`.

use std::fs;

use super::{Failure, Session, terminal::escape};
use crate::control::wire::{Payload, Request};

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    let Payload::Dashboard { listen, url } = session.ask(Request::Dashboard)? else {
        return Err(Failure::Unexpected);
    };
    // From another machine the tunnel ends at the same port, because the dashboard checks the Host.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "HOST".to_owned());
    let tunnel = format!("ssh -L {}:{listen} {}", listen.port(), host.trim());
    if session.output.json {
        return session.output.json(&serde_json::json!({ "url": url, "listen": listen, "tunnel": tunnel }));
    }
    session.output.line(&escape(&url))?;
    session
        .output
        .line("good once, within two minutes; in a browser that knows *.localhost (Firefox, Chromium)")?;
    session.output.line(&format!("from another machine first: {}", escape(&tunnel)))
}
