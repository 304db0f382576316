//! The verdict on an attempt, from what was seen of its two runs. Pure.

use super::{
    evidence::Sighting,
    orders::{Report, Stop},
    report::Verdict,
    suite::Attempt,
    tried::describe,
};
use crate::model::{Kind, Record};

/// How an attempt's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a report.
    Reported(Report),
    /// `agentctl run` refused to start it; what it said.
    NotStarted(String),
    /// By a signal of this number, or without a report.
    Broken(String),
}

/// One run and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) ended: Ended,
    pub(super) sightings: Vec<Sighting>,
    pub(super) records: Vec<Record>,
}

impl Run {
    fn report(&self) -> Option<&Report> {
        match &self.ended {
            Ended::Reported(report) => Some(report),
            Ended::NotStarted(_) | Ended::Broken(_) => None,
        }
    }

    /// What shows that it arrived; nothing where it did not.
    fn arrival(&self, may_ask: bool, marked: bool) -> Option<String> {
        let excused =
            |sighting: &Sighting| may_ask && sighting.question || marked && sighting.tokens.is_empty();
        let counted = |sighting: &&Sighting| !excused(sighting);
        let wire = self.sightings.iter().find(counted).map(|sighting| sighting.what.clone());
        wire.or_else(|| self.report().and_then(|report| report.reached.clone()))
    }

    /// Why it went no further, as the attempt saw it.
    fn last(&self) -> Option<String> {
        match &self.ended {
            Ended::NotStarted(said) => Some(format!("agentctl run: {said}")),
            Ended::Broken(how) => Some(how.clone()),
            Ended::Reported(report) => {
                report.stop.as_ref().map(describe).or_else(|| report.saw.last().cloned())
            }
        }
    }
}

/// What was in force during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// The layers of `agentctl run`.
    pub(super) launched: bool,
    /// It is guarded without them.
    pub(super) bare: bool,
    /// The kernel runs BPF LSM programs.
    pub(super) lsm: bool,
}

/// Judges an attempt by its run outside, which shows what an arrival looks like, and the one inside.
pub(super) fn verdict(attempt: &Attempt, control: &Run, guarded: &Run, host: Host) -> Verdict {
    if let Ended::Broken(how) = &guarded.ended
        && guarded.arrival(false, attempt.marked).is_none()
        && !how.contains("SIGSYS")
    {
        return Verdict::Untestable { because: format!("the attempt itself failed: {how}") };
    }
    if let Some(seen) = guarded.arrival(attempt.flagged, attempt.marked) {
        let without_lsm = attempt.needs_lsm.filter(|_| !host.lsm);
        let moved = attempt.needs_launch.filter(|_| host.bare && (attempt.past_lsm || !host.lsm));
        return match attempt.undefended.or(without_lsm).or(moved) {
            Some(because) => {
                let told = detection(&guarded.records);
                Verdict::Undefended { seen, because: format!("{because}; {told}") }
            }
            None => Verdict::Leaked { seen },
        };
    }
    if attempt.flagged && guarded.sightings.iter().any(|sighting| sighting.question) {
        return flagged(guarded);
    }
    if control.arrival(false, attempt.marked).is_none() {
        let why = control.last().unwrap_or_else(|| "nothing arrived".to_owned());
        return Verdict::Untestable { because: format!("outside the guarded cgroup it fails too: {why}") };
    }
    if let Some(by) = judged(guarded) {
        return Verdict::Captured { by };
    }
    Verdict::Blocked { by: stopper(guarded, host.launched) }
}

/// Data may leave in a name that policy allows, but not without a flag.
fn flagged(run: &Run) -> Verdict {
    let flags = run.records.iter().filter(|record| record.kind == Kind::Dns).flat_map(|record| &record.flags);
    match flags.map(|flag| flag.code.clone()).next() {
        Some(code) => Verdict::Captured { by: format!("the gate's resolver, flag {code}") },
        None => Verdict::Leaked { seen: "an allowed name carried data out without a flag".to_owned() },
    }
}

/// The record of the gate's judgement, if there is one.
fn judged(run: &Run) -> Option<String> {
    let kinds = [Kind::Exchange, Kind::Flow, Kind::Dns];
    let record = kinds.iter().find_map(|kind| run.records.iter().find(|record| record.kind == *kind));
    if let Some(record) = record {
        return Some(format!("the gate ({})", rule(record)));
    }
    run.report().is_some_and(|report| report.judged).then(|| "the gate (it answered 403 or 421)".to_owned())
}

/// The layer that stopped what did not reach the gate.
fn stopper(run: &Run, launched: bool) -> String {
    if let Ended::NotStarted(said) = &run.ended {
        return format!("agentctl run, which does not start it: {said}");
    }
    if let Some(record) = run.records.iter().find(|record| record.kind == Kind::Kernel) {
        return format!("the kernel ({})", rule(record));
    }
    if let Some(record) = run.records.iter().find(|record| record.kind == Kind::Guard) {
        return format!("the sentry ({})", record.note.as_deref().unwrap_or("recorded"));
    }
    let last = run.last();
    let stopped = run.report().and_then(|report| report.stop.as_ref());
    match (stopped, last) {
        (Some(Stop::Absent(what)), _) => what.clone(),
        (Some(Stop::Refused { .. }), Some(last)) if launched => {
            format!("seccomp of agentctl run or the kernel, without a record ({last})")
        }
        (_, Some(last)) => format!("the kernel, without a record ({last})"),
        (_, None) => "silence: no call failed and nothing arrived".to_owned(),
    }
}

fn rule(record: &Record) -> String {
    match (&record.verdict, &record.question) {
        (Some(verdict), _) => verdict.rule.clone(),
        (None, Some(question)) => format!("{} {}", question.name, question.code),
        (None, None) => record.note.clone().unwrap_or_else(|| record.kind.as_str().to_owned()),
    }
}

/// What tells of something that is not stopped.
fn detection(records: &[Record]) -> String {
    let guard = records.iter().find(|record| record.kind == Kind::Guard);
    let flag = records.iter().flat_map(|record| &record.flags).next();
    match (guard, flag) {
        (Some(record), _) => format!("recorded: {}", record.note.as_deref().unwrap_or("guard")),
        (None, Some(flag)) => format!("flagged: {}", flag.code),
        (None, None) => "no record tells of it".to_owned(),
    }
}

#[cfg(test)]
mod tests;
