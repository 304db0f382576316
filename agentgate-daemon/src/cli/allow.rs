//! `agentctl allow`, `deny` and `passthrough`: one host in or out of a list.

use super::{Failure, Session, terminal::escape};
use crate::{
    control::wire::{Payload, Request},
    reload::{Edit, List},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A name, *.name for everything below it, with :port for one port only
    host: String,
    /// Take it out of the list
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(session: &mut Session, list: List, args: Args) -> Result<(), Failure> {
    let edit = if args.remove { Edit::Remove } else { Edit::Add };
    let answer = session.ask(Request::ListEdit { list, edit, host: args.host })?;
    let Payload::List { list, host, changed } = answer else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        return session.output.json(&serde_json::json!({ "list": list, "host": host, "changed": changed }));
    }
    let what = match (edit, changed) {
        (Edit::Add, true) => "added to",
        (Edit::Add, false) => "already in",
        (Edit::Remove, true) => "removed from",
        (Edit::Remove, false) => "not in",
    };
    session.output.line(&format!("{} {what} the {} list", escape(&host), list.as_str()))
}
