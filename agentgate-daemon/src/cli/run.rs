//! `agentctl run`.

use std::ffi::OsString;

use super::{Failure, Session, output};
use crate::launch::command::{Launch, become_command};

/// The command becomes this process: it keeps the terminal, the user and the exit code.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep HTTPS_PROXY and the like, which would send the agent to a proxy that the gate then judges
    #[arg(long)]
    keep_proxy_env: bool,
    /// Do not say which variables were changed
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(session: &Session, args: Args) -> Result<(), Failure> {
    let launch = Launch { command: args.command, keep_proxies: args.keep_proxy_env };
    let say = |notes: &[String]| {
        if !args.quiet {
            notes.iter().for_each(|note| output::complain(note));
        }
    };
    Err(become_command(&session.socket, &launch, say).into())
}
