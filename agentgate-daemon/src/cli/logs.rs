//! `agentctl logs`.

use jiff::{Span, SpanRelativeTo};

use super::{
    Failure, Session,
    output::Output,
    terminal::{Colour, escape},
};
use crate::{
    control::wire::{Item, LIMIT_CAP, LogFilter, Request},
    model::{Action, Kind, Question, Record, State, Timestamp},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Part of a host name, or a pattern with *
    #[arg(long)]
    host: Option<String>,
    /// allow, deny or passthrough
    #[arg(long, value_parser = verdict)]
    verdict: Option<Action>,
    /// flow, exchange, kernel, dns, guard or control
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Session, as `show` names it
    #[arg(long)]
    session: Option<String>,
    /// 2h, 30m, 1d, or a time as in 2026-11-20T08:00:00Z
    #[arg(long, value_parser = |text: &str| since(text, jiff::Timestamp::now()))]
    since: Option<Timestamp>,
    /// The newest so many, at most 1000
    #[arg(long, default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Print each match as it is found, which is newest first: for a search through a long log
    #[arg(long, conflicts_with = "follow")]
    newest_first: bool,
}

fn verdict(text: &str) -> Result<Action, String> {
    [Action::Allow, Action::Deny, Action::Passthrough]
        .into_iter()
        .find(|action| action.as_str() == text)
        .ok_or_else(|| "allow, deny or passthrough".to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "flow" => Ok(Kind::Flow),
        "exchange" => Ok(Kind::Exchange),
        "kernel" => Ok(Kind::Kernel),
        "dns" => Ok(Kind::Dns),
        "guard" => Ok(Kind::Guard),
        "control" => Ok(Kind::Control),
        _ => Err("flow, exchange, kernel, dns, guard or control".to_owned()),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=LIMIT_CAP).contains(n)).ok_or_else(|| format!("1 to {LIMIT_CAP}"))
}

/// A time, or a span before `now`; days have 24 hours.
pub(super) fn since(text: &str, now: jiff::Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(time.as_microsecond()));
    }
    let wrong = || "a span such as 2h or 1d, or a time such as 2026-11-20T08:00:00Z".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let back = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    let time = now.checked_sub(back.abs()).map_err(|_| wrong())?;
    Ok(Timestamp(time.as_microsecond()))
}

pub(super) fn run(session: &mut Session, args: Args) -> Result<(), Failure> {
    let filter = LogFilter {
        host: args.host,
        verdict: args.verdict,
        kind: args.kind,
        session: args.session,
        since: args.since,
        limit: args.limit,
    };
    let client = session.connect()?;
    let output = &mut session.output;
    if !output.json && output.terminal {
        let heading = line(&HEADINGS.map(str::to_owned));
        output.line(&output.paint(Colour::Dim, &heading))?;
        output.flush()?;
    }
    // Found newest first and read oldest first.
    let mut found = if args.newest_first { None } else { Some(Vec::new()) };
    let listed = client.stream(Request::Logs { filter, follow: args.follow }, args.follow, |item| {
        match (item, &mut found) {
            (Item::Searched { .. }, _) => return Ok(()),
            (Item::Listed, found) => print_found(output, found.take(), args.follow)?,
            (item @ Item::Record(_), Some(found)) => {
                found.push(item);
                return Ok(());
            }
            (
                item @ (Item::Record(_)
                | Item::Missed { .. }
                | Item::Body { .. }
                | Item::Rows { .. }
                | Item::Walked(_)),
                _,
            ) => {
                print(output, &item, args.follow)?;
            }
        }
        output.flush()
    });
    // What a search had found before it failed.
    print_found(output, found, args.follow)?;
    listed
}

fn print_found(output: &mut Output, found: Option<Vec<Item>>, following: bool) -> Result<(), Failure> {
    found.unwrap_or_default().iter().rev().try_for_each(|item| print(output, item, following))
}

fn print(output: &mut Output, item: &Item, following: bool) -> Result<(), Failure> {
    match item {
        Item::Record(record) if output.json => output.json(record),
        // People are shown each record once, when it is over.
        Item::Record(record) if following && record.state == State::Open => Ok(()),
        Item::Record(record) => {
            let row = line(&row(record));
            let row = match colour(record) {
                Some(colour) => output.paint(colour, &row),
                None => row,
            };
            output.line(&row)
        }
        Item::Missed { updates } if output.json => output.json(&serde_json::json!({ "missed": updates })),
        Item::Missed { updates } => {
            output.line(&format!("({updates} updates came too fast to be shown; `agentctl logs` has them)"))
        }
        Item::Searched { .. } | Item::Listed | Item::Body { .. } | Item::Rows { .. } | Item::Walked(_) => {
            Err(Failure::Unexpected)
        }
    }
}

const HEADINGS: [&str; 9] = ["id", "time", "verdict", "host", "what", "status", "bytes", "took", "process"];

/// Narrowest width of each column; the last is not padded. Wider text pushes its line to the right,
/// because cutting a host or a path would hide what matters.
const WIDTHS: [usize; 9] = [6, 24, 11, 28, 32, 10, 13, 7, 0];

/// One record in nine columns, escaped.
fn row(record: &Record) -> [String; 9] {
    let asked = record.question.as_ref().filter(|question| !question.name.is_empty());
    let host = match (&record.authority, &record.flow) {
        _ if asked.is_some() => asked.map(|question| question.name.clone()).unwrap_or_default(),
        (Some(authority), _) => authority.to_string(),
        (None, Some(flow)) => flow.original.0.to_string(),
        (None, None) => "-".to_owned(),
    };
    let what = match (&record.request, &record.note) {
        _ if asked.is_some() => asked.map(|question| answered(question, record.times)).unwrap_or_default(),
        (Some(request), _) => format!("{} {}", request.method, request.target),
        (None, Some(note)) => note.clone(),
        (None, None) => record.protocol.clone(),
    };
    let (up, down) = match (&record.request, &record.response) {
        (None, None) => (record.bytes_up, record.bytes_down),
        (request, response) => (
            request.as_ref().map_or(0, |head| head.body.total),
            response.as_ref().map_or(0, |head| head.body.total),
        ),
    };
    let bytes = match record.kind {
        Kind::Flow | Kind::Exchange => format!("{}/{}", size(up), size(down)),
        Kind::Kernel | Kind::Dns | Kind::Guard | Kind::Control => "-".to_owned(),
    };
    let process = record.subject.as_ref().map_or_else(
        || "-".to_owned(),
        |subject| format!("{} {}", subject.pid, subject.exe.as_deref().unwrap_or(&subject.comm)),
    );
    [
        record.id.to_string(),
        record.started.to_string(),
        record.verdict.as_ref().map_or("-", |verdict| verdict.action.as_str()).to_owned(),
        host,
        what,
        status(record),
        bytes,
        record.finished.map_or_else(|| "-".to_owned(), |end| took(end.since(record.started))),
        process,
    ]
    .map(|field| escape(&field))
}

/// The type of a question and the addresses that were given, and how often.
fn answered(question: &Question, times: u64) -> String {
    let addresses: Vec<String> = question.addresses.iter().take(4).map(ToString::to_string).collect();
    let more = if question.addresses.len() > addresses.len() { ", …" } else { "" };
    let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
    format!("{} {}{more}{times}", question.kind, addresses.join(", ")).trim_end().to_owned()
}

/// How it ended: the HTTP status, or the code of a DNS answer or of a failure, or the state.
fn status(record: &Record) -> String {
    let code = record.question.as_ref().map(|question| &question.code).filter(|code| !code.is_empty());
    match (&record.failure, &record.response) {
        (Some(failure), _) => failure.code.clone(),
        (None, Some(response)) => response.status.to_string(),
        (None, None) => code.cloned().unwrap_or_else(|| record.state.as_str().to_owned()),
    }
}

fn colour(record: &Record) -> Option<Colour> {
    match (record.state, record.verdict.as_ref().map(|verdict| verdict.action)) {
        (_, Some(Action::Deny)) | (State::Refused, _) => Some(Colour::Red),
        (State::Failed | State::Cancelled, _) => Some(Colour::Yellow),
        (State::Done, Some(Action::Allow)) if record.flags.is_empty() => Some(Colour::Green),
        (State::Done, Some(_)) => Some(Colour::Yellow),
        (State::Open, _) | (State::Done, None) => None,
    }
}

fn line(fields: &[String; 9]) -> String {
    let mut line = String::new();
    for (field, width) in fields.iter().zip(WIDTHS) {
        line.push_str(&format!("{field:<width$}  "));
    }
    line.truncate(line.trim_end().len());
    line
}

/// Bytes in the largest unit that leaves at least one.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => bytes.to_string(),
        10_000..=9_999_999 => format!("{}k", bytes / 1_000),
        10_000_000..=9_999_999_999 => format!("{}M", bytes / 1_000_000),
        _ => format!("{}G", bytes / 1_000_000_000),
    }
}

/// Microseconds for a person.
pub(super) fn took(us: u64) -> String {
    match us {
        0..=9_999_999 => format!("{}ms", us / 1_000),
        _ => format!("{}s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests;
