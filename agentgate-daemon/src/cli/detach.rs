//! `agentctl detach`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::{Failure, Session, terminal::escape};
use crate::{
    config::Config,
    detach::{self, Caller},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let config = Config::load(None, &session.root).map_err(|errors| {
        Failure::Invalid(Some(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
    })?;
    #[expect(clippy::disallowed_methods, reason = "sudo(8) says who called it in this variable only")]
    let sudo_uid = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let caller = Caller::this_process(sudo_uid);
    let plan = detach::plan(&config, &caller)?;
    if !args.yes && !confirmed(&plan.cgroup)? {
        return Err(Failure::Invalid(Some("nothing was done".to_owned())));
    }
    let id = detach::run(&config.paths.store, &plan, &caller)?;
    if session.output.json {
        return session.output.json(&serde_json::json!({ "cgroup": plan.cgroup, "record": id }));
    }
    session.output.line(&format!("{} is no longer guarded (record {id})", escape(&plan.cgroup)))
}

/// Whether the person at the terminal means it; without a terminal nobody can be asked.
fn confirmed(cgroup: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Invalid(Some("there is no terminal to ask at: say --yes".to_owned())));
    }
    let mut out = io::stderr();
    write!(
        out,
        "Every process in {} will reach the network unjudged and unrecorded.\nType \"detach\" to go on: ",
        escape(cgroup)
    )?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "detach")
}
