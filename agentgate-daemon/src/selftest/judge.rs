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
        let moved = attempt.needs_launch.filter(|_| host.bare && !host.lsm);
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
mod tests {
    use super::*;
    use crate::{
        model::{Action, Flag, Severity, Timestamp, Verdict as Judged},
        selftest::report::Family,
    };

    const PLAIN: Attempt = Attempt::new(Family::Tcp, "plain", "what", "by", |_| Ok(()));

    const HOST: Host = Host { launched: true, bare: false, lsm: false };

    fn sighting(question: bool) -> Sighting {
        let what = "TCP packet to 203.0.113.7:443".to_owned();
        Sighting { what, to: None, tokens: Vec::new(), question, during: 1 }
    }

    fn run(sightings: Vec<Sighting>, records: Vec<Record>) -> Run {
        Run { ended: Ended::Reported(Report::default()), sightings, records }
    }

    fn record(kind: Kind, rule: &str) -> Record {
        let verdict = Judged { action: Action::Deny, rule: rule.to_owned(), reason: String::new() };
        Record { verdict: Some(verdict), ..Record::new(kind, Timestamp(0)) }
    }

    #[test]
    fn what_arrives_is_leaked_whatever_else_is_known() {
        let control = run(vec![sighting(false)], vec![]);
        let guarded = run(vec![sighting(false)], vec![record(Kind::Flow, "mode:enforce")]);
        assert_eq!(verdict(&PLAIN, &control, &guarded, HOST).word(), "LEAKED");
        // Also when the control run shows nothing, and when the attempt died of it.
        let nothing = run(vec![], vec![]);
        assert_eq!(verdict(&PLAIN, &nothing, &guarded, HOST).word(), "LEAKED");
        let broken = Run { ended: Ended::Broken("signal 9".into()), ..guarded };
        assert_eq!(verdict(&PLAIN, &control, &broken, HOST).word(), "LEAKED");
        let mut reached = run(vec![], vec![]);
        reached.ended = Ended::Reported(Report { reached: Some("it".into()), ..Report::default() });
        assert_eq!(verdict(&PLAIN, &control, &reached, HOST).word(), "LEAKED");
    }

    #[test]
    fn without_an_arrival_outside_nothing_is_said() {
        let nothing = run(vec![], vec![]);
        let guarded = run(vec![], vec![record(Kind::Kernel, "kernel:udp")]);
        assert_eq!(verdict(&PLAIN, &nothing, &guarded, HOST).word(), "not testable here");
    }

    #[test]
    fn captured_and_blocked_by_their_records() {
        let control = run(vec![sighting(false)], vec![]);
        let by = |records| verdict(&PLAIN, &control, &run(vec![], records), HOST);
        let captured = by(vec![record(Kind::Kernel, "kernel:udp"), record(Kind::Flow, "mode:enforce")]);
        assert_eq!(captured, Verdict::Captured { by: "the gate (mode:enforce)".into() });
        let blocked = by(vec![record(Kind::Kernel, "kernel:udp")]);
        assert_eq!(blocked, Verdict::Blocked { by: "the kernel (kernel:udp)".into() });
        let mut broken = run(vec![], vec![]);
        broken.ended = Ended::Broken("ended by signal 11".into());
        assert_eq!(verdict(&PLAIN, &control, &broken, HOST).word(), "not testable here");
    }

    #[test]
    fn an_allowed_name_may_carry_data_only_under_a_flag() {
        let attempt = PLAIN.flagged();
        let control = run(vec![sighting(false)], vec![]);
        let asked = |flags| {
            let record = Record { flags, ..record(Kind::Dns, "allow:*.tunnel.example") };
            verdict(&attempt, &control, &run(vec![sighting(true)], vec![record]), HOST)
        };
        assert_eq!(asked(vec![]).word(), "LEAKED");
        assert_eq!(asked(vec![Flag::new("dns_tunnel", Severity::High, "")]).word(), "captured");
        // Elsewhere such a question is a leak.
        assert_eq!(verdict(&PLAIN, &control, &run(vec![sighting(true)], vec![]), HOST).word(), "LEAKED");
    }

    #[test]
    fn what_somebody_outside_sent_is_told_by_its_lack_of_a_token() {
        let attempt = PLAIN.marked();
        let token = || Sighting { tokens: vec!["agst".into()], ..sighting(false) };
        let control = run(vec![token()], vec![]);
        assert_eq!(verdict(&attempt, &control, &run(vec![sighting(false)], vec![]), HOST).word(), "blocked");
        assert_eq!(verdict(&attempt, &control, &run(vec![token()], vec![]), HOST).word(), "LEAKED");
    }

    #[test]
    fn the_lack_of_bpf_lsm_excuses_only_what_it_would_stop() {
        let attempt = PLAIN.needs_lsm("no hook sees it");
        let control = run(vec![sighting(false)], vec![]);
        let word = |attempt: &Attempt, lsm| verdict(attempt, &control, &control, Host { lsm, ..HOST }).word();
        assert_eq!(word(&attempt, false), "not defended");
        assert_eq!(word(&attempt, true), "LEAKED");
        assert_eq!(word(&PLAIN, false), "LEAKED");
    }

    #[test]
    fn the_lack_of_agentctl_run_excuses_only_what_it_would_stop() {
        let attempt = PLAIN.needs_launch("no program sees it");
        let control = run(vec![sighting(false)], vec![]);
        let word = |attempt: &Attempt, bare: bool, lsm| {
            verdict(attempt, &control, &control, Host { launched: !bare, bare, lsm }).word()
        };
        assert_eq!(word(&attempt, true, false), "not defended");
        assert_eq!(word(&attempt, true, true), "LEAKED");
        assert_eq!(word(&attempt, false, false), "LEAKED");
        assert_eq!(word(&PLAIN, true, false), "LEAKED");
        // With nothing guarded at all nothing is excused either.
        let unguarded = Host { launched: false, bare: false, lsm: false };
        assert_eq!(verdict(&attempt, &control, &control, unguarded).word(), "LEAKED");
    }

    #[test]
    fn only_what_is_documented_is_undefended() {
        let attempt = PLAIN.root().undefended("root can");
        let control = run(vec![sighting(false)], vec![]);
        let guarded = run(vec![sighting(false)], vec![]);
        assert_eq!(verdict(&attempt, &control, &guarded, HOST).word(), "not defended");
        assert_eq!(verdict(&attempt, &control, &run(vec![], vec![]), HOST).word(), "blocked");
    }
}
