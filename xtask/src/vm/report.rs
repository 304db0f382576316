//! What the guest tells on its serial console: lines that begin with a mark, between those of the kernel
//! and of systemd.
//!
//! `@@ ok SECONDS NAME`, `@@ FAIL SECONDS NAME`, `@@ skip 0 NAME`, each after the lines that the check
//! printed, as `  | …`; `  | @@ note TEXT` among those for what belongs into the table; and `@@ end` as the
//! last.

/// Lines of a failed check's own output that are shown.
const DETAILS: usize = 60;

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Ok,
    Fail,
    Skip,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    word: Word,
    name: String,
    details: Vec<String>,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    checks: Vec<Check>,
    notes: Vec<String>,
    /// Since the last check ended.
    details: Vec<String>,
    ended: bool,
    /// Why it is not complete.
    cut: Option<String>,
}

impl Report {
    /// Takes one line; gives what is to be shown of it at once.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        let line = line.trim_end();
        if let Some(note) = line.strip_prefix("  | @@ note ") {
            self.notes.push(note.to_owned());
            return None;
        }
        if let Some(detail) = line.strip_prefix("  | ") {
            self.details.push(detail.to_owned());
            return None;
        }
        let told = line.strip_prefix("@@ ")?;
        if told == "end" {
            self.ended = true;
            return None;
        }
        let mut words = told.splitn(3, ' ');
        let word = match words.next()? {
            "ok" => Word::Ok,
            "FAIL" => Word::Fail,
            "skip" => Word::Skip,
            _ => return None,
        };
        let (seconds, name) = (words.next()?, words.next()?);
        let details = std::mem::take(&mut self.details);
        self.checks.push(Check { word, name: name.to_owned(), details });
        let shown = match word {
            Word::Ok => "ok  ",
            Word::Fail => "FAIL",
            Word::Skip => "skip",
        };
        Some(format!("{shown} {name} ({seconds} s)"))
    }

    /// No more is to come: because of `why`, where that is not the ordinary end.
    pub(super) fn close(&mut self, why: Option<String>) {
        self.cut = match why {
            None if !self.ended => Some("the machine went off before the end of its checks".to_owned()),
            why => why,
        };
    }

    /// Checks passed, failed and skipped.
    pub(super) fn counts(&self) -> [usize; 3] {
        [Word::Ok, Word::Fail, Word::Skip]
            .map(|word| self.checks.iter().filter(|check| check.word == word).count())
    }

    /// What checks wanted to be shown, whether they passed or not.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What failed, line by line with what it printed; empty when all is well.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut show = |title: String, details: &[String]| {
            lines.push(title);
            let from = details.len().saturating_sub(DETAILS);
            lines.extend(details.iter().skip(from).map(|detail| format!("  | {detail}")));
        };
        for check in self.checks.iter().filter(|check| check.word == Word::Fail) {
            show(format!("FAIL {}", check.name), &check.details);
        }
        if let Some(why) = &self.cut {
            show(format!("FAIL {why}"), &self.details);
        } else if !self.checks.iter().any(|check| check.word == Word::Ok) {
            show("FAIL nothing was checked".to_owned(), &self.details);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.take(line);
        }
        report
    }

    #[test]
    fn a_whole_report_without_failures_is_well() {
        let mut report =
            told(&["[ 0.1] Linux", "  | active\r", "@@ ok 3 it starts\r", "@@ skip 0 more", "@@ end"]);
        report.close(None);
        assert_eq!(report.counts(), [1, 0, 1]);
        assert_eq!(report.failures(), Vec::<String>::new());
    }

    #[test]
    fn failures_are_shown_with_what_they_printed_and_nothing_else_is() {
        let mut report = told(&["  | fine", "@@ ok 1 one", "  | bad", "@@ FAIL 2 two", "@@ end"]);
        report.close(None);
        assert_eq!(report.failures(), ["FAIL two", "  | bad"]);
        assert!(report.notes().is_empty());
        let told = told(&["  | one", "  | @@ note 3 of 4", "@@ ok 1 one", "@@ end"]);
        assert_eq!(told.notes(), ["3 of 4"]);
    }

    #[test]
    fn an_end_too_early_is_a_failure() {
        let mut report = told(&["@@ ok 1 one", "  | half"]);
        report.close(None);
        assert_eq!(report.failures()[1], "  | half");
        let mut late = told(&["@@ ok 1 one", "@@ end"]);
        late.close(Some("too late".into()));
        assert_eq!(late.failures(), ["FAIL too late"]);
        let mut nothing = told(&["@@ end"]);
        nothing.close(None);
        assert_eq!(nothing.failures(), ["FAIL nothing was checked"]);
        assert_eq!(told(&["@@ what 1 two"]).counts(), [0, 0, 0]);
    }
}
