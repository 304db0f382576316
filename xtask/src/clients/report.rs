//! What a run of the suite found, as JSON between its processes and as a table for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};

use crate::lab::row::cut;

/// Longest line of a difference.
const WIDEST: usize = 300;

/// How one case ended in one place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    /// Exit code; -1 for a signal or a deadline that passed.
    pub(crate) code: i32,
    /// Requests that reached an origin.
    pub(crate) requests: usize,
    pub(crate) ms: u64,
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) client: String,
    pub(crate) case: String,
    pub(crate) version: String,
    pub(crate) direct: Option<Side>,
    pub(crate) gate: Option<Side>,
    /// What is not as it should be; empty when all is well.
    pub(crate) differences: Vec<String>,
    /// Why it was not run at all.
    pub(crate) missing: Option<String>,
}

impl Row {
    /// Run, and nothing differs.
    pub(crate) fn equal(&self) -> bool {
        self.missing.is_none() && self.differences.is_empty()
    }
}

/// All of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Both runs were direct.
    pub(crate) direct_only: bool,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn equal(&self) -> usize {
        self.rows.iter().filter(|row| row.equal()).count()
    }

    pub(crate) fn different(&self) -> usize {
        self.rows.iter().filter(|row| !row.differences.is_empty()).count()
    }

    /// Those not run, with why, each reason once.
    pub(crate) fn missing(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for reason in self.rows.iter().filter_map(|row| row.missing.as_deref()) {
            *reasons.entry(reason).or_insert(0) += 1;
        }
        reasons
    }

    /// How many cases were not run, of which clients, and why, on one line; `None` where all were.
    pub(crate) fn left_out(&self) -> Option<String> {
        let clients: BTreeSet<&str> =
            self.rows.iter().filter(|row| row.missing.is_some()).map(|row| row.client.as_str()).collect();
        let clients = Vec::from_iter(clients).join(", ");
        let reasons = self.missing();
        let cases: usize = reasons.values().sum();
        let reasons = reasons.into_keys().map(plain).collect::<Vec<_>>().join("; ");
        (cases > 0).then(|| format!("{cases} cases ({clients}): {reasons}"))
    }

    /// The table, the differences below it, and the closing line.
    pub(crate) fn table(&self) -> String {
        let second = if self.direct_only { "again" } else { "gate" };
        let heads = ["client", "version", "case", "direct", second, "equal?"].map(str::to_owned);
        let mut lines = vec![heads];
        lines.extend(self.rows.iter().map(cells));
        let mut widths = [0; 6];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (width, cell) in widths.iter().zip(line) {
                // Writing to a String does not fail.
                let _ok = write!(row, "{cell:width$}  ");
            }
            let _ok = writeln!(text, "{}", row.trim_end());
        }
        for row in self.rows.iter().filter(|row| !row.differences.is_empty()) {
            let _ok = writeln!(text, "\n{}: {}", row.client, row.case);
            for line in row.differences.iter().flat_map(|difference| difference.lines()) {
                let _ok = writeln!(text, "    {}", plain(line));
            }
        }
        for (reason, cases) in self.missing() {
            let _ok = writeln!(text, "not to be had, {cases} cases not run: {reason}");
        }
        let missing: usize = self.missing().values().sum();
        let _ok = writeln!(text, "{} equal, {} differ, {missing} not run", self.equal(), self.different());
        text
    }
}

/// A line that does nothing to a terminal and ends somewhere.
fn plain(line: &str) -> String {
    let shown =
        line.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] });
    cut(&shown.collect::<String>(), WIDEST)
}

fn cells(row: &Row) -> [String; 6] {
    let side = |side: &Option<Side>| match side {
        None => "-".to_owned(),
        Some(side) => format!("exit {}, {} req, {} ms", side.code, side.requests, side.ms),
    };
    let verdict = match (&row.missing, row.equal()) {
        (Some(_), _) => "not run",
        (None, true) => "yes",
        (None, false) => "NO",
    };
    [
        row.client.clone(),
        row.version.clone(),
        row.case.clone(),
        side(&row.direct),
        side(&row.gate),
        verdict.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shows() {
        let side = Some(Side { code: 0, requests: 2, ms: 30 });
        let row = Row {
            client: "curl".to_owned(),
            case: "get".to_owned(),
            version: "8".to_owned(),
            direct: side.clone(),
            gate: side,
            differences: Vec::new(),
            missing: None,
        };
        let differs = Row { differences: vec!["- a\n+ b".to_owned()], ..row.clone() };
        let gone = Row { missing: Some("no pip".to_owned()), direct: None, gate: None, ..row.clone() };
        let mut report = Report { direct_only: false, rows: vec![row, differs, gone] };
        assert_eq!((report.equal(), report.different(), report.missing()["no pip"]), (1, 1, 1));
        let text = report.table();
        for part in [
            "exit 0, 2 req, 30 ms  yes\n",
            "  NO\n",
            "not run\n",
            "    + b\n",
            "1 equal, 1 differ, 1 not run",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(report.left_out().as_deref(), Some("1 cases (curl): no pip"));
        report.rows.pop();
        assert_eq!(report.left_out(), None);
    }
}
