//! One case: a command, and what the agent, the origin and the log should then show.

use std::time::Instant;

use fake_internet::Snapshot;

use super::{
    agent::{self, Ended},
    inside::Lab,
    log::{Pattern, Record},
    row::{Row, cut},
};

/// Which side of the gate a command runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Inside,
    Outside,
}

/// What should have arrived at an origin since the case began.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    site: &'static str,
    requests: Option<usize>,
    connections: Option<usize>,
    datagrams: Option<usize>,
    version: Option<&'static str>,
}

/// A look at everything, for what the table cannot say: gives what differs.
pub(crate) type Look = fn(&Seen<'_>) -> Vec<String>;

/// What a [`Look`] gets.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) ended: &'a Ended,
    pub(crate) arrivals: &'a Snapshot,
    pub(crate) records: &'a [Record],
}

/// A command with expectations.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    place: Place,
    command: Vec<String>,
    fails: bool,
    says: Vec<&'static str>,
    expected: Option<Expected>,
    log: Option<Pattern>,
    look: Option<Look>,
    shows: Option<&'static str>,
}

impl Case {
    fn new(name: &'static str, place: Place, command: &[&str]) -> Self {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Self {
            name,
            place,
            command,
            fails: false,
            says: Vec::new(),
            expected: None,
            log: None,
            look: None,
            shows: None,
        }
    }

    /// A command inside the guarded cgroup. `{root}` stands for the file with the internet's root,
    /// `{dashboard}` for the dashboard's port.
    pub(crate) fn inside(name: &'static str, command: &[&str]) -> Self {
        Self::new(name, Place::Inside, command)
    }

    /// A command outside it.
    pub(crate) fn outside(name: &'static str, command: &[&str]) -> Self {
        Self::new(name, Place::Outside, command)
    }

    /// The command should end with an error. Otherwise it should end with 0.
    pub(crate) fn fails(mut self) -> Self {
        self.fails = true;
        self
    }

    /// The command should print this.
    pub(crate) fn says(mut self, text: &'static str) -> Self {
        self.says.push(text);
        self
    }

    fn expected(&mut self, site: &'static str) -> &mut Expected {
        self.expected.insert(Expected { site, ..self.expected.unwrap_or_default() })
    }

    /// So many requests should have reached the site.
    pub(crate) fn requests(mut self, site: &'static str, n: usize) -> Self {
        self.expected(site).requests = Some(n);
        self
    }

    /// The request should have reached the site in this version.
    pub(crate) fn version(mut self, site: &'static str, version: &'static str) -> Self {
        self.expected(site).version = Some(version);
        self
    }

    /// Nothing at all should have reached the site.
    pub(crate) fn nothing_at(mut self, site: &'static str) -> Self {
        let none = Some(0);
        *self.expected(site) =
            Expected { site, requests: none, connections: none, datagrams: none, version: None };
        self
    }

    /// A record like this should exist.
    pub(crate) fn logs(mut self, pattern: Pattern) -> Self {
        self.log = Some(pattern);
        self
    }

    /// The line of its output that holds this is shown in the table; otherwise the last one.
    pub(crate) fn shows(mut self, text: &'static str) -> Self {
        self.shows = Some(text);
        self
    }

    /// And whatever else.
    pub(crate) fn look(mut self, look: Look) -> Self {
        self.look = Some(look);
        self
    }

    /// Runs it and compares.
    ///
    /// # Errors
    /// When it cannot be run at all; what differs is in the row.
    pub(crate) async fn run(&self, lab: &Lab) -> anyhow::Result<Row> {
        let began = Instant::now();
        let root = lab.root_pem.display().to_string();
        let port = lab.dashboard_port.to_string();
        let filled = |word: &String| word.replace("{root}", &root).replace("{dashboard}", &port);
        let words: Vec<String> = self.command.iter().map(filled).collect();
        let mark = if lab.daemon.is_some() { lab.newest().await? } else { 0 };
        let before = lab.internet.journal.snapshot();
        let ended = match self.place {
            Place::Inside => agent::finish(lab.inside(&words)).await?,
            Place::Outside => agent::finish(lab.outside(&words)?).await?,
        };
        let records = match (&lab.daemon, &self.log) {
            (None, _) => Vec::new(),
            (Some(_), Some(pattern)) => lab.records_with(mark, pattern).await?,
            (Some(_), None) => lab.records(mark).await?,
        };
        let arrivals = since(&before, lab.internet.journal.snapshot());
        let mut row = Row::new(self.name, &spoken(&self.command));
        self.compare_agent(&ended, &mut row);
        self.compare_origin(&arrivals, &mut row);
        self.compare_log(&ended, &records, &mut row);
        if let Some(look) = self.look {
            row.differs.extend(look(&Seen { ended: &ended, arrivals: &arrivals, records: &records }));
        }
        if !row.ok() {
            row.details = format!(
                "exit {} after {:?}\nstdout: {}\nstderr: {}\nrecords: {}",
                ended.code,
                ended.took,
                cut(&ended.stdout, 1500),
                cut(&ended.stderr, 1500),
                records.iter().map(Record::summary).collect::<Vec<_>>().join("\n         "),
            );
        }
        row.took = began.elapsed();
        Ok(row)
    }

    fn compare_agent(&self, ended: &Ended, row: &mut Row) {
        let said = ended.said();
        let chosen = self.shows.and_then(|text| said.lines().find(|line| line.contains(text)));
        let last = |text: &str| text.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned);
        let line = chosen.map(str::to_owned).or_else(|| last(&ended.stdout)).or_else(|| last(&ended.stderr));
        let line = cut(line.unwrap_or_default().trim_start_matches(['*', ' ']), 90);
        row.agent = format!("exit {}: {line}", ended.code);
        let failed = ended.code != 0;
        row.expect(failed == self.fails, || format!("the command ended with {}", ended.code));
        for text in &self.says {
            row.expect(ended.said().contains(text), || format!("the command did not say {text:?}"));
        }
    }

    fn compare_origin(&self, arrivals: &Snapshot, row: &mut Row) {
        let Some(want) = self.expected else { return };
        let requests = arrivals.requests_to(want.site).count();
        let connections = arrivals.connections_to(want.site).count();
        let datagrams = arrivals.datagrams_to(want.site).count();
        let version = arrivals.requests_to(want.site).next_back().map(|r| r.version.clone());
        row.origin = match (requests, connections, datagrams) {
            (0, 0, 0) => "nothing".to_owned(),
            (0, 0, n) => format!("datagrams: {n}"),
            (0, n, _) => format!("connections: {n}, no request"),
            (n, _, _) => format!("requests: {n}, {}", version.clone().unwrap_or_default()),
        };
        let counted = [
            ("requests", want.requests, requests),
            ("connections", want.connections, connections),
            ("datagrams", want.datagrams, datagrams),
        ];
        for (what, want_n, n) in counted {
            row.expect(want_n.is_none_or(|want_n| want_n == n), || {
                format!("{} saw {n} {what}, not {}", want.site, want_n.unwrap_or_default())
            });
        }
        row.expect(want.version.is_none() || want.version == version.as_deref(), || {
            format!("{} saw {}", want.site, version.unwrap_or_default())
        });
    }

    fn compare_log(&self, ended: &Ended, records: &[Record], row: &mut Row) {
        if let Some(pattern) = &self.log {
            let found = records.iter().find(|record| pattern.matches(record));
            match found {
                Some(record) => {
                    let who = record.who();
                    row.log = format!("{}; {}", record.summary(), who.as_deref().unwrap_or("nobody"));
                    // A call refused in the kernel may be over before procfs can name its process, and of a
                    // stranger at the listener nothing is known.
                    let nameless = record.kind == "kernel" || record.is_of_stranger();
                    row.expect(who.is_some() || nameless, || {
                        "the record does not name pid, executable and session".to_owned()
                    });
                }
                None => row.differs.push(format!("no record matches {pattern:?}")),
            }
        } else if self.place == Place::Outside {
            let its = records.iter().find(|record| record.pid() == Some(ended.pid));
            row.log = its.map_or("nothing".to_owned(), Record::summary);
            row.expect(its.is_none(), || "a command outside the cgroup was recorded".to_owned());
        }
    }
}

/// Entries of `now` that `before` does not have: the journal only grows.
pub(crate) fn since(before: &Snapshot, now: Snapshot) -> Snapshot {
    Snapshot {
        connections: now.connections.into_iter().skip(before.connections.len()).collect(),
        requests: now.requests.into_iter().skip(before.requests.len()).collect(),
        messages: now.messages.into_iter().skip(before.messages.len()).collect(),
        datagrams: now.datagrams.into_iter().skip(before.datagrams.len()).collect(),
        queries: now.queries.into_iter().skip(before.queries.len()).collect(),
    }
}

/// A command as one would say it: a script's text, curl's output format and most of a long value are
/// left out.
fn spoken(command: &[String]) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut words = command.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-w" | "-o" => {
                words.next();
            }
            "-sS" | "-sSN" => {}
            word if word.contains('\n') => said.push("…".to_owned()),
            word if word.starts_with("http") => said.push(word.to_owned()),
            word => said.push(cut(word, 24)),
        }
    }
    said.join(" ")
}
