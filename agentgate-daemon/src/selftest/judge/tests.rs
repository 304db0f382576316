//! Verdicts on made-up runs.

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
