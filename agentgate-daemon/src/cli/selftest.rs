//! `agentctl selftest`, and the hidden commands by which it starts itself again.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
};

use super::{
    Failure, Session, output,
    terminal::{Colour, escape},
};
use crate::selftest::{self, Event, Identity, Options, Row, SelftestError, Summary, Verdict};

const ABOUT: &str = "\
Tries every known way round the gate on this kernel: in a throw-away guarded cgroup, with a real
agentgated, against servers in network namespaces of its own. Nothing of this machine's network is
touched, and its own gate is not tested (that is `agentctl doctor`). Each attempt is run outside the
guarded cgroup too, where it must arrive: so what cannot be tried here is told, and not called blocked.

Needs root, cgroup v2 and iproute2.

Exit codes: 0 nothing leaked, 1 something did, 2 wrong usage, 4 the suite could not be run";

#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT)]
pub(super) struct Args {
    /// Only attempts with this in their name, or of this family
    filter: Option<String>,
    /// Show the suite and what stops each attempt, and run nothing
    #[arg(long)]
    list: bool,
    /// The daemon to test [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    agentgated: Option<PathBuf>,
    /// Without the layers of `agentctl run`: what the kernel's programs alone stop
    #[arg(long)]
    bare: bool,
    /// Guard nothing, so that every attempt must leak: a test of the test
    #[arg(long, conflicts_with = "bare")]
    unguarded: bool,
}

/// What the hidden commands are given.
#[derive(Debug, clap::Args)]
pub(super) struct Told {
    /// One JSON object
    told: String,
}

pub(super) fn run(session: &mut Session, args: Args) -> Result<(), Failure> {
    if args.list {
        return list(session, args.filter.as_deref());
    }
    let options = Options {
        agentgated: args.agentgated,
        filter: args.filter,
        bare: args.bare,
        unguarded: args.unguarded,
    };
    let mut shown = Shown::new(io::stderr().is_terminal() && !session.output.json);
    let summary = selftest::run(options, |event| shown.hear(event)).map_err(Failure::Selftest);
    shown.clear();
    let summary = summary?;
    for row in shown.rows.values() {
        if session.output.json {
            session.output.json(row)?;
        } else {
            let line = line(session, row);
            session.output.line(&line)?;
        }
    }
    if session.output.json {
        session.output.json(&serde_json::json!({ "summary": summary }))?;
    } else {
        session.output.line("")?;
        session.output.line(&told(&summary))?;
    }
    session.output.flush()?;
    if summary.leaked > 0 { Err(Failure::Leaked(summary.leaked)) } else { Ok(()) }
}

fn list(session: &mut Session, filter: Option<&str>) -> Result<(), Failure> {
    let listed = selftest::list(filter);
    if let (true, Some(filter)) = (listed.is_empty(), filter) {
        return Err(Failure::Selftest(SelftestError::NoSuchAttempt(filter.to_owned())));
    }
    for attempt in listed {
        if session.output.json {
            session.output.json(&attempt)?;
            continue;
        }
        let who = attempt.identities.iter().map(|who| who.as_str()).collect::<Vec<_>>().join(", ");
        let name = format!("{:9} {:28}", attempt.family.as_str(), attempt.attempt);
        session.output.line(&format!("{name} {} (as {who})", attempt.what))?;
        let stop = attempt.undefended.unwrap_or(attempt.stopped_by);
        session.output.line(&format!("{:38} {stop}", ""))?;
    }
    Ok(())
}

fn line(session: &Session, row: &Row) -> String {
    let colour = match &row.verdict {
        Verdict::Leaked { .. } => Colour::Red,
        Verdict::Blocked { .. } | Verdict::Captured { .. } => Colour::Green,
        Verdict::Undefended { .. } => Colour::Yellow,
        Verdict::Untestable { .. } => Colour::Dim,
    };
    let word = session.output.paint(colour, &format!("{:17}", row.verdict.word()));
    let detail = escape(&row.verdict.detail());
    format!("{:9} {:28} {:4}  {word} {detail}", row.family.as_str(), row.attempt, row.identity.as_str())
}

fn told(summary: &Summary) -> String {
    format!(
        "{} attempts: {} blocked, {} captured, {} LEAKED, {} not defended, {} not testable here",
        summary.attempts,
        summary.blocked,
        summary.captured,
        summary.leaked,
        summary.undefended,
        summary.untestable
    )
}

/// What has been told so far; on a terminal one line of it.
struct Shown {
    rows: BTreeMap<(selftest::Family, String, Identity), Row>,
    expected: usize,
    terminal: bool,
}

impl Shown {
    fn new(terminal: bool) -> Self {
        Self { rows: BTreeMap::new(), expected: 0, terminal }
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::Ready { attempts } => self.expected = *attempts,
            Event::Begun { attempt, identity } => self.progress(attempt, *identity),
            Event::Row(row) => {
                self.rows.insert((row.family, row.attempt.clone(), row.identity), (**row).clone());
            }
            Event::Done(_) | Event::Failed { .. } => {}
        }
    }

    fn progress(&self, attempt: &str, identity: Identity) {
        if self.terminal {
            let leaked =
                self.rows.values().filter(|row| matches!(row.verdict, Verdict::Leaked { .. })).count();
            let (done, of) = (self.rows.len() + 1, self.expected);
            let as_whom = identity.as_str();
            // A line that cannot be written is missed by nobody.
            let _unseen =
                write!(io::stderr(), "\r\u{1b}[K[{done}/{of}] {attempt} as {as_whom}; {leaked} leaked");
        }
    }

    fn clear(&self) {
        if self.terminal {
            let _unseen = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

/// `selftest-inside`: the part in namespaces of its own.
pub(super) fn inside(told: &Told) -> Result<(), Failure> {
    let code = selftest::run_inside(&told.told);
    if code == std::process::ExitCode::SUCCESS { Ok(()) } else { Err(Failure::Unhealthy) }
}

/// `selftest-attempt`: one attempt.
pub(super) fn attempt(told: &Told) -> Result<(), Failure> {
    selftest::run_attempt(&told.told).map_err(|error| {
        output::complain(&error.to_string());
        Failure::Unhealthy
    })
}
