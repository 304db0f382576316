//! `agentctl doctor`.

use super::{
    Failure, Session,
    terminal::{Colour, escape},
};
use crate::doctor::{self, Report, State};

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    let report = doctor::examine(&session.root, &session.socket);
    if session.output.json {
        session.output.json(&report)?;
    } else {
        print(session, &report)?;
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
