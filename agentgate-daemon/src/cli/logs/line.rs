//! A record as one line.

use crate::{
    cli::terminal::{Colour, escape},
    model::{Action, Kind, Question, Record, State, Timestamp},
};

const HEADINGS: [&str; 9] = ["id", "time", "verdict", "host", "what", "status", "bytes", "took", "process"];

/// Narrowest width of each column; the last is not padded. Wider text pushes its line to the right,
/// because cutting a host or a path would hide what matters.
const WIDTHS: [usize; 9] = [6, 24, 11, 28, 32, 10, 13, 7, 0];

/// Columns of a terminal from which on it gets whole lines.
const WHOLE: usize = 180;

/// The same of a line that is made to fit: id, time, verdict, how it ended, host. What was asked has the rest.
const FITTING: [(&str, usize); 5] = [("id", 6), ("time", 11), ("verdict", 7), ("status", 8), ("host", 20)];

/// How a line is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Everything, whole: for programs and for wide terminals.
    Whole,
    /// What matters, cut to so many columns; `show` has the rest.
    Fitting(usize),
}

/// Paints a text, escaped already, where there is colour.
type Paint<'p> = &'p dyn Fn(Colour, &str) -> String;

impl Layout {
    /// For a terminal of so many columns.
    pub(super) fn of(columns: Option<usize>) -> Self {
        columns.filter(|columns| *columns < WHOLE).map_or(Self::Whole, Self::Fitting)
    }

    /// The names of the columns.
    pub(super) fn heading(self) -> String {
        let line = match self {
            Self::Whole => padded(HEADINGS.into_iter().zip(WIDTHS), "  "),
            Self::Fitting(_) => padded(FITTING.into_iter().chain([("what", 0)]), " "),
        };
        line.trim_end().to_owned()
    }

    /// The line of a record. `now` decides whether a time has its date.
    pub(super) fn line(self, record: &Record, now: Timestamp, paint: Paint<'_>) -> String {
        match self {
            Self::Whole => whole(record, paint),
            Self::Fitting(columns) => fitting(record, now, columns, paint),
        }
    }
}

fn padded<'f>(fields: impl IntoIterator<Item = (&'f str, usize)>, gap: &str) -> String {
    fields.into_iter().map(|(field, width)| format!("{field:<width$}{gap}")).collect()
}

/// The verdict and how it ended carry the colour.
fn whole(record: &Record, paint: Paint<'_>) -> String {
    let fields = row(record);
    let mut line = String::new();
    for (at, (field, width)) in fields.iter().zip(WIDTHS).enumerate() {
        let field = format!("{field:<width$}");
        match colour(record).filter(|_| matches!(at, 2 | 5)) {
            Some(colour) => line.push_str(&paint(colour, &field)),
            None => line.push_str(&field),
        }
        line.push_str("  ");
    }
    line.truncate(line.trim_end().len());
    line
}

fn fitting(record: &Record, now: Timestamp, columns: usize, paint: Paint<'_>) -> String {
    let [id, _, verdict, host, what, ..] = row(record);
    // What everybody knows.
    let host = host.strip_suffix(":443").or(host.strip_suffix(":80")).unwrap_or(&host);
    let verdict = if verdict == "passthrough" { "pass".to_owned() } else { verdict };
    let what = match &record.failure {
        Some(failure) => format!("{}: {what}", escape(&failure.code)),
        None => what,
    };
    let ended = match (&record.failure, record.state) {
        (Some(_), state) => state.as_str().to_owned(),
        (None, _) => escape(&status(record)),
    };
    let [id_width, time_width, verdict_width, ended_width, host_width] = FITTING.map(|(_, width)| width);
    let mut line = padded([(id.as_str(), id_width), (clock(record.started, now).as_str(), time_width)], " ");
    for (field, width) in [(verdict, verdict_width), (ended, ended_width)] {
        let field = format!("{field:<width$}");
        line.push_str(&colour(record).map_or_else(|| field.clone(), |colour| paint(colour, &field)));
        line.push(' ');
    }
    let mut used = id_width.max(id.chars().count()) + time_width + verdict_width + ended_width + 4;
    // A note takes the place of the host that it has not.
    if host != "-" {
        let host = padded([(host, host_width)], " ");
        used += host.chars().count();
        line.push_str(&host);
    }
    line.push_str(&cut(&what, columns.saturating_sub(used)));
    line.truncate(line.trim_end().len());
    line
}

/// `text` in at most `columns`, with `…` for what is left out.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Time of day in UTC, or day and minute where it is not the day of `now`.
fn clock(at: Timestamp, now: Timestamp) -> String {
    let (text, now) = (at.to_string(), now.to_string());
    match (text.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((today, _))) if day == today => {
            time.split('.').next().unwrap_or(time).to_owned()
        }
        (Some((day, time)), _) => {
            format!("{} {}", day.get(5..).unwrap_or(day), time.get(..5).unwrap_or(time))
        }
        (None, _) => text,
    }
}

/// One record in nine columns, escaped.
pub(super) fn row(record: &Record) -> [String; 9] {
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

/// The colour of how it ended.
pub(super) fn colour(record: &Record) -> Option<Colour> {
    match (record.state, record.verdict.as_ref().map(|verdict| verdict.action)) {
        (_, Some(Action::Deny)) | (State::Refused, _) => Some(Colour::Red),
        (State::Failed | State::Cancelled, _) => Some(Colour::Yellow),
        (State::Done, Some(Action::Allow)) if record.flags.is_empty() => Some(Colour::Green),
        (State::Done, Some(_)) => Some(Colour::Yellow),
        (State::Open, _) | (State::Done, None) => None,
    }
}

/// Bytes in the largest unit that leaves at least one.
pub(in crate::cli) fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => bytes.to_string(),
        10_000..=9_999_999 => format!("{}k", bytes / 1_000),
        10_000_000..=9_999_999_999 => format!("{}M", bytes / 1_000_000),
        _ => format!("{}G", bytes / 1_000_000_000),
    }
}

/// Microseconds for a person.
pub(in crate::cli) fn took(us: u64) -> String {
    match us {
        0..=9_999_999 => format!("{}ms", us / 1_000),
        _ => format!("{}s", us / 1_000_000),
    }
}
