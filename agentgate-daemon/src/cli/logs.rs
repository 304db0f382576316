//! `agentctl logs`.

mod line;

use std::fmt::Write as _;

use super::{
    Failure, Session,
    output::{Output, complain},
    terminal::Colour,
};
use crate::{
    control::wire::{Item, LIMIT_CAP, LogFilter, Request},
    filter::{Filter, HELP, Help, Sort, shorthand},
    model::{State, Timestamp},
};

use line::Layout;
pub(super) use line::{size, took};

const EXAMPLES: &str = "\
Examples:
  agentctl logs 'host:*.github.com verdict:deny since:2h'
  agentctl logs --count 'status:5xx -host:*.internal'
  agentctl logs 'kind:exchange (agent:claude or agent:codex)' --sort duration
  agentctl logs -f 'flag:* -verdict:allow'
  agentctl show 4711                  one record in full, and its bodies
  agentctl audit export 'since:7d'    all of them, for a file";

/// The whole language: each field by an example.
fn language() -> String {
    let mut text = "\
Filters: conditions side by side must all hold; `or`, brackets, and `-` before
one to negate it. Values are whole, with * and ? as usual; one of several: a,b.

"
    .to_owned();
    for Help { example, what, values, .. } in HELP {
        let values = values.join(" ");
        let short = example.len().max(30) + what.len() + values.len() < 74;
        let gap = match values.as_str() {
            "" => "",
            _ if short => ": ",
            _ => ":\n                                   ",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {example:<30} {what}{gap}{values}");
    }
    text.push_str("  word wor* \"words in a row\"      in addresses, headers, notes, decoded bodies\n\n");
    text + EXAMPLES
}

#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n--help explains every field."), after_long_help = language())]
pub(super) struct Args {
    /// What to list, such as 'host:*.github.com verdict:deny since:2h'; all there is without one
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
    /// Whole lines, also where the terminal is narrower: paths are cut to it otherwise
    #[arg(short, long)]
    wide: bool,
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
    let layout = Layout::of(session.output.columns().filter(|_| !args.wide));
    let mut listing =
        Listing { output: &mut session.output, layout, following: args.follow, shown: 0, headed: false };
    // Found newest first and read oldest first, unless an order is asked for.
    let reversed = !args.newest_first && parsed.sort.is_none();
    let mut found = reversed.then(Vec::new);
    let mut all = true;
    let listed = client.stream(Request::Logs { filter, follow: args.follow }, args.follow, |item| {
        match (item, &mut found) {
            (Item::Searched { .. }, _) => return Ok(()),
            (Item::Unsearched { below }, _) => {
                complain(&format!("the records below {below} were not looked at; narrow the filter down"));
                all = false;
                return Ok(());
            }
            (Item::Listed, found) => {
                listing.print_found(found.take())?;
                listing.head()?;
            }
            (item @ Item::Record(_), Some(found)) => {
                found.push(item);
                return Ok(());
            }
            (item, _) => listing.print(&item)?,
        }
        listing.output.flush()
    });
    // What a search had found before it failed.
    listing.print_found(found)?;
    listing.output.flush()?;
    listed?;
    // Said to a person only, and beside what was asked for.
    if listing.output.terminal && !args.follow && !listing.output.json {
        let which = if reversed || args.newest_first { "newest" } else { "first" };
        match listing.shown {
            0 if all => complain("nothing on record matches"),
            0 => {}
            shown if shown == args.limit => {
                complain(&format!("the {which} {shown}; --limit shows more, --count says how many there are"))
            }
            _ => {}
        }
    }
    Ok(())
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

/// Where records are listed, and how far that came.
struct Listing<'o> {
    output: &'o mut Output,
    layout: Layout,
    following: bool,
    shown: usize,
    headed: bool,
}

impl Listing<'_> {
    fn print_found(&mut self, found: Option<Vec<Item>>) -> Result<(), Failure> {
        found.unwrap_or_default().iter().rev().try_for_each(|item| self.print(item))
    }

    /// The names of the columns, once, where somebody reads along: before the first record, or before what comes.
    fn head(&mut self) -> Result<(), Failure> {
        let wanted = self.output.terminal && !self.output.json && (self.shown > 0 || self.following);
        if self.headed || !wanted {
            return Ok(());
        }
        self.headed = true;
        self.output.line(&self.output.paint(Colour::Dim, &self.layout.heading()))
    }

    fn print(&mut self, item: &Item) -> Result<(), Failure> {
        match item {
            Item::Record(record) if self.output.json => {
                self.shown += 1;
                self.output.json(record)
            }
            // People are shown each record once, when it is over.
            Item::Record(record) if self.following && record.state == State::Open => Ok(()),
            Item::Record(record) => {
                self.shown += 1;
                self.head()?;
                let output = &self.output;
                let paint = |colour, text: &str| output.paint(colour, text);
                let line = self.layout.line(record, Timestamp::now(), &paint);
                self.output.line(&line)
            }
            Item::Missed { updates } if self.output.json => {
                self.output.json(&serde_json::json!({ "missed": updates }))
            }
            Item::Missed { updates } => self
                .output
                .line(&format!("({updates} updates came too fast to be shown; `agentctl logs` has them)")),
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
}

#[cfg(test)]
mod tests;
