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

Verdicts: *blocked*: nothing arrived. *captured*: the gate got it, judged it and let nothing through.
*LEAKED*: it arrived. *not defended*: it arrived, and README.md says that it would. *not testable here*:
it does not arrive outside either. The suite takes two to five minutes.

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
    if session.output.json {
        for row in shown.rows.values() {
            session.output.json(row)?;
        }
        session.output.json(&serde_json::json!({ "summary": summary }))?;
    } else {
        table(session, &shown)?;
        session.output.line("")?;
        advise(session, &shown)?;
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

/// One line per attempt, or two where it ended otherwise for root than for a user; by family.
fn table(session: &mut Session, shown: &Shown) -> Result<(), Failure> {
    let rows: Vec<&Row> = shown.rows.values().collect();
    let mut family = None;
    for ran in rows.chunk_by(|one, other| one.attempt == other.attempt) {
        let Some(first) = ran.first() else { continue };
        if family != Some(first.family) {
            if family.is_some() {
                session.output.line("")?;
            }
            let heading = format!("{}: {}", first.family.as_str(), first.family.about());
            session.output.line(&heading)?;
            family = Some(first.family);
        }
        for alike in ran.chunk_by(|one, other| told_of(one) == told_of(other)) {
            let who: Vec<&str> = alike.iter().map(|row| row.identity.as_str()).collect();
            if let Some(row) = alike.first() {
                line(session, row, &who.join(" "))?;
            }
        }
    }
    Ok(())
}

/// Verdict and its reason without what differs by run: the run's own address.
fn told_of(row: &Row) -> (&'static str, String) {
    let arrived = matches!(row.verdict, Verdict::Leaked { .. } | Verdict::Undefended { .. });
    (row.verdict.word(), if arrived { String::new() } else { row.verdict.detail() })
}

/// Columns of a terminal that a line may take.
const WIDTH: usize = 100;
/// Where the reason begins.
const REASON: usize = 59;

fn line(session: &mut Session, row: &Row, who: &str) -> Result<(), Failure> {
    let colour = match &row.verdict {
        Verdict::Leaked { .. } => Colour::Red,
        Verdict::Blocked { .. } | Verdict::Captured { .. } => Colour::Green,
        Verdict::Undefended { .. } => Colour::Yellow,
        Verdict::Untestable { .. } => Colour::Dim,
    };
    let word = session.output.paint(colour, &format!("{:18}", row.verdict.word()));
    let start = format!("  {:26} {who:9}  {word} ", row.attempt);
    let detail = escape(&row.verdict.detail());
    let mut parts = wrapped(&detail, WIDTH - REASON).into_iter();
    session.output.line(&format!("{start}{}", parts.next().unwrap_or_default()))?;
    for part in parts {
        session.output.line(&format!("{:REASON$}{part}", ""))?;
    }
    Ok(())
}

/// The text in lines of `width` characters at most, where its words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full =
            |line: &String| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width;
        if lines.last().is_some_and(full) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// What to do about what leaked.
fn advise(session: &mut Session, shown: &Shown) -> Result<(), Failure> {
    let leaked = shown.rows.values().filter(|row| matches!(row.verdict, Verdict::Leaked { .. }));
    let names: std::collections::BTreeSet<&str> = leaked.map(|row| row.attempt.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().collect();
    for part in wrapped(&format!("LEAKED: {}", names.join(", ")), WIDTH) {
        let part = session.output.paint(Colour::Red, &part);
        session.output.line(&part)?;
    }
    for advice in ADVICE {
        session.output.line(advice)?;
    }
    session.output.line("")
}

const ADVICE: [&str; 4] = [
    "What leaked gets past the gate on this kernel. `agentctl doctor` says which layers are not in force",
    "and how to have them; `agentctl selftest --list NAME` says what should have stopped it; until then run",
    "agents as ordinary users by `agentctl run` or agent@.service. If every layer is in force it is a fault",
    "of agentgate: please report it with the output of `agentctl selftest --json NAME`.",
];

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
