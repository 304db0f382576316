//! `agentctl logs`.

use super::{
    Failure, Session,
    output::{Output, complain},
    terminal::{Colour, escape},
};
use crate::{
    control::wire::{Item, LIMIT_CAP, LogFilter, Request},
    filter::{Filter, Sort, shorthand},
    model::{Action, Kind, Question, Record, State, Timestamp},
};

const LANGUAGE: &str = "\
Filters: conditions side by side must all hold, `or` and brackets as usual, `-` before one negates it.
  host:api.example.com  host:*.github.com,example.com   session:run-u2.service  agent:claude  exe:*/node
  verdict:deny  status:5xx  status:>=400  method:post  kind:exchange  state:failed  flag:*  code:origin_*
  rule:mode:*  protocol:http/2  path:/v1/*  url:https://*/login*  id:100..200  parent:17  pid:4242
  since:2h  until:2026-11-20T08:00:00Z  duration:>2s  bytes:>1MiB  sort:newest|oldest|duration|bytes
  pii:email  model:claude-*  tool:bash  cost:>0.10  fact.NAME:VALUE
  word  wor*  \"words in a row\"    in addresses, headers, notes and decoded bodies

Examples:
  agentctl logs 'host:*.github.com verdict:deny since:2h'
  agentctl logs --count 'status:5xx -host:*.internal'
  agentctl logs 'kind:exchange (agent:claude or agent:codex) sort:duration' --limit 10
  agentctl logs -f 'flag:* -verdict:allow'";

#[derive(Debug, clap::Args)]
#[command(after_help = LANGUAGE)]
pub(super) struct Args {
    /// What to list, such as 'host:*.github.com verdict:deny since:2h'; see below
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Say how many there are, and nothing else
    #[arg(short, long, conflicts_with_all = ["follow", "newest_first", "sort"])]
    count: bool,
    /// newest, oldest, duration or bytes: the longest and largest first
    #[arg(long, value_parser = sort)]
    sort: Option<Sort>,
    /// Part of a host name, or a pattern with *
    #[arg(long)]
    host: Option<String>,
    /// allow, deny or passthrough
    #[arg(long, value_parser = |text: &str| condition("verdict", text))]
    verdict: Option<String>,
    /// flow, exchange, kernel, dns, guard or control
    #[arg(long, value_parser = |text: &str| condition("kind", text))]
    kind: Option<String>,
    /// Session, as `show` names it
    #[arg(long)]
    session: Option<String>,
    /// 2h, 30m, 1d, or a time as in 2026-11-20T08:00:00Z
    #[arg(long, value_parser = |text: &str| condition("since", text))]
    since: Option<String>,
    /// The same
    #[arg(long, value_parser = |text: &str| condition("until", text))]
    until: Option<String>,
    /// At most so many, at most 1000
    #[arg(long, default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Print each match as it is found, which is newest first: for a search through a long log
    #[arg(long, conflicts_with_all = ["follow", "sort"])]
    newest_first: bool,
}

/// A condition on one field, checked.
fn condition(field: &str, value: &str) -> Result<String, String> {
    let text = shorthand::exact(field, value);
    match Filter::parse(&text, Timestamp::now()) {
        Ok(_) if !text.is_empty() => Ok(text),
        Ok(_) => Err("it is empty".to_owned()),
        Err(error) => Err(error.hint),
    }
}

fn sort(text: &str) -> Result<Sort, String> {
    Sort::parse(text).ok_or_else(|| "newest, oldest, duration or bytes".to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=LIMIT_CAP).contains(n)).ok_or_else(|| format!("1 to {LIMIT_CAP}"))
}

/// All that was given as one filter.
fn filter(args: &Args) -> Result<(String, Filter), Failure> {
    let host = shorthand::part("host", args.host.as_deref().unwrap_or_default());
    let session = shorthand::exact("session", args.session.as_deref().unwrap_or_default());
    let sort = args.sort.map(|sort| shorthand::exact("sort", sort.as_str())).unwrap_or_default();
    let given = |given: &Option<String>| given.clone().unwrap_or_default();
    let typed = args.filter.join(" ");
    let invalid = |text: &str, error: &crate::filter::FilterError| {
        Failure::Invalid(Some(format!(
            "the filter, {error}\n  {}",
            error.pointed(text).replace('\n', "\n  ")
        )))
    };
    let now = Timestamp::now();
    // Alone first, so that a fault is shown where it was typed.
    Filter::parse(&typed, now).map_err(|error| invalid(&typed, &error))?;
    let parts = [
        given(&args.verdict),
        given(&args.kind),
        host,
        session,
        given(&args.since),
        given(&args.until),
        typed,
        sort,
    ];
    let text = shorthand::joined(parts.iter().map(String::as_str));
    let filter = Filter::parse(&text, now).map_err(|error| invalid(&text, &error))?;
    Ok((text, filter))
}

pub(super) fn run(session: &mut Session, args: Args) -> Result<(), Failure> {
    let (text, parsed) = filter(&args)?;
    let filter = LogFilter { text, limit: args.limit, ..LogFilter::default() };
    if args.count {
        return count(session, filter);
    }
    let sort = parsed.sort.unwrap_or_default();
    if args.follow && sort != Sort::Newest {
        let message = "what comes is in the order in which it comes: leave `sort:` or `--follow` out";
        return Err(Failure::Invalid(Some(message.to_owned())));
    }
    let client = session.connect()?;
    let output = &mut session.output;
    if !output.json && output.terminal {
        let heading = line(&HEADINGS.map(str::to_owned));
        output.line(&output.paint(Colour::Dim, &heading))?;
        output.flush()?;
    }
    // Found newest first and read oldest first, unless an order is asked for.
    let reversed = !args.newest_first && parsed.sort.is_none();
    let mut found = reversed.then(Vec::new);
    let listed = client.stream(Request::Logs { filter, follow: args.follow }, args.follow, |item| {
        match (item, &mut found) {
            (Item::Searched { .. }, _) => return Ok(()),
            (Item::Unsearched { below }, _) => {
                complain(&format!("the records below {below} were not looked at; narrow the filter down"));
                return Ok(());
            }
            (Item::Listed, found) => print_found(output, found.take(), args.follow)?,
            (item @ Item::Record(_), Some(found)) => {
                found.push(item);
                return Ok(());
            }
            (item, _) => {
                print(output, &item, args.follow)?;
            }
        }
        output.flush()
    });
    // What a search had found before it failed.
    print_found(output, found, args.follow)?;
    listed
}

/// `logs --count`.
fn count(session: &mut Session, filter: LogFilter) -> Result<(), Failure> {
    let client = session.connect()?;
    let output = &mut session.output;
    client.stream(Request::Count { filter }, false, |item| {
        if matches!(item, Item::Searched { .. }) {
            return Ok(());
        }
        let Item::Counted { count, unreadable } = item else { return Err(Failure::Unexpected) };
        if output.json {
            output.json(&serde_json::json!({ "count": count, "unreadable": unreadable }))?;
            return output.flush();
        }
        if unreadable > 0 {
            complain(&format!("{unreadable} records cannot be read: whether they match is not known"));
        }
        output.line(&count.to_string())?;
        output.flush()
    })
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
        Item::Searched { .. }
        | Item::Listed
        | Item::Body { .. }
        | Item::Verifying { .. }
        | Item::Verified(_)
        | Item::Text { .. }
        | Item::Upkeep(_)
        | Item::Counted { .. }
        | Item::Unsearched { .. }
        | Item::Rows { .. }
        | Item::Walked(_) => Err(Failure::Unexpected),
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
