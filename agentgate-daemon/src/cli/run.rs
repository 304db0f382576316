//! `agentctl run`.

use std::ffi::OsString;

use super::{Failure, Session, output};
use crate::launch::command::{Launch, Note, become_command};

/// The command becomes this process: it keeps the terminal, the user and the exit code.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep HTTPS_PROXY and the like, which would send the agent to a proxy that the gate then judges
    #[arg(long)]
    keep_proxy_env: bool,
    /// Let set-uid programs such as sudo work; without root this needs `--expose all`, and lets the
    /// command type into your terminal and make sockets of any family
    #[arg(long)]
    allow_new_privileges: bool,
    /// Show the command a place that is hidden from it: a name such as docker, dbus or ssh-agent, a path,
    /// abstract (unix sockets without a path), or all. May be repeated. What is behind it acts for the
    /// command outside the gate
    #[arg(long, value_name = "PLACE")]
    expose: Vec<String>,
    /// Show the command the system's own roots with the gate's among them, in its view only: the default for
    /// ordinary users (`[run] system_bundle`)
    #[arg(long, conflicts_with = "keep_system_bundle")]
    system_bundle: bool,
    /// Show it those as the host has them: what reads no variable, such as wget, does not trust the gate
    /// then. The default for root, who may want to change them
    #[arg(long)]
    keep_system_bundle: bool,
    /// Let the command inherit descriptor N. May be repeated
    #[arg(long, value_name = "N")]
    keep_fd: Vec<i32>,
    /// Do not say which variables were changed, nor that the command runs as root
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(session: &Session, args: Args) -> Result<(), Failure> {
    let launch = Launch {
        command: args.command,
        keep_proxies: args.keep_proxy_env,
        allow_new_privileges: args.allow_new_privileges,
        expose: args.expose,
        system_bundle: match (args.system_bundle, args.keep_system_bundle) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        },
        keep: args.keep_fd,
    };
    let say = |notes: &[Note]| {
        for note in notes {
            match note {
                Note::Information(_) | Note::Warning(_) if args.quiet => {}
                Note::Information(text) => output::complain(text),
                Note::Warning(text) | Note::Lost(text) => output::complain(&format!("warning: {text}")),
            }
        }
    };
    Err(become_command(&session.socket, &launch, say).into())
}
