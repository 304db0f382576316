//! `agentctl doctor`.

use std::{ffi::OsString, path::PathBuf};

use super::{
    Failure, Session, output,
    terminal::{Colour, escape},
};
use crate::{
    config::Paths,
    doctor::{self, Report, State},
    launch::command::{Launch, LaunchError, Note, become_command},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The daemon's settings, where it was started with others than those below --root
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Args {
    /// Whether it goes under guard, which every user may.
    pub(super) fn enrols(&self) -> bool {
        self.what.is_some()
    }
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Which runtimes of this host trust the gate: each makes a real request, under guard
    Trust(Trust),
}

#[derive(Debug, clap::Args)]
struct Trust {
    /// Try them in the environment that there is, without going under guard first: for a unit's
    #[arg(long)]
    here: bool,
    /// As of `run`
    #[arg(long, conflicts_with_all = ["keep_system_bundle", "here"])]
    system_bundle: bool,
    /// As of `run`
    #[arg(long, conflicts_with = "here")]
    keep_system_bundle: bool,
    /// These only, such as node or wget; all that are there where none is named
    #[arg(value_name = "RUNTIME")]
    only: Vec<String>,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    match &args.what {
        None => {
            let report = doctor::examine(&session.root, args.config.as_deref(), &session.socket);
            finish(session, &report)
        }
        Some(What::Trust(trust)) => {
            if let Some(strange) =
                trust.only.iter().find(|only| doctor::trust::names().all(|name| name != *only))
            {
                let known: Vec<&str> = doctor::trust::names().collect();
                let message = format!("{strange} is no runtime that is tried: {}", known.join(", "));
                return Err(Failure::Invalid(Some(message)));
            }
            if !trust.here {
                return Err(under_guard(session, trust)?.into());
            }
            let report = doctor::trust::examine(&Paths::below(&session.root).bundle, &trust.only);
            finish(session, &report)
        }
    }
}

/// Goes under guard as `agentctl run` does, and does the same there; returns only where that failed.
fn under_guard(session: &Session, trust: &Trust) -> Result<LaunchError, Failure> {
    let own = std::env::current_exe()
        .map_err(|source| LaunchError::Host { what: "this program".into(), source })?;
    let mut command: Vec<OsString> = vec![own.into(), "--root".into(), session.root.clone().into()];
    command.extend(session.output.json.then(|| "--json".into()));
    command.extend(["doctor", "trust", "--here"].map(OsString::from));
    command.extend(trust.only.iter().map(OsString::from));
    let launch = Launch {
        command,
        system_bundle: match (trust.system_bundle, trust.keep_system_bundle) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        },
        ..Launch::default()
    };
    let say = |notes: &[Note]| {
        for note in notes {
            match note {
                Note::Information(_) => {}
                Note::Warning(text) | Note::Lost(text) => output::complain(&format!("warning: {text}")),
            }
        }
    };
    Ok(become_command(&session.socket, &launch, say))
}

fn finish(session: &mut Session, report: &Report) -> Result<(), Failure> {
    if session.output.json {
        session.output.json(report)?;
    } else {
        print(session, report)?;
    }
    session.output.flush()?;
    if report.ok { Ok(()) } else { Err(Failure::Unhealthy) }
}

fn print(session: &mut Session, report: &Report) -> Result<(), Failure> {
    for check in &report.checks {
        let colour = match check.state {
            State::Ok => Colour::Green,
            State::Warn => Colour::Yellow,
            State::Fail => Colour::Red,
            State::Unseen => Colour::Dim,
        };
        let state = session.output.paint(colour, &format!("{:<5}", check.state.as_str()));
        session.output.line(&format!("{state} {:<16} {}", check.name, escape(&check.found)))?;
        if !check.advice.is_empty() {
            session.output.line(&format!("{:23}-> {}", "", escape(&check.advice)))?;
        }
    }
    let count = |state: State| report.checks.iter().filter(|check| check.state == state).count();
    let (fail, warn, unseen) = (count(State::Fail), count(State::Warn), count(State::Unseen));
    session.output.line(&format!("{fail} failed, {warn} to know of, {unseen} not seen"))
}
