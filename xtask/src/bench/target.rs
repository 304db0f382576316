//! The targets, and whether they are met.

use serde::Serialize;

use super::{
    figure::{Figure, Metric},
    peer::Kind,
    results::{Results, Spread, median},
};

/// How a target came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The median meets it.
    Met,
    /// The median does not, but a round did: within what rounds differ by.
    Within,
    /// No round met it.
    Missed,
    /// Not measured in this run.
    Unknown,
}

/// One target of one kind of gate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) gate: Kind,
    /// In words.
    pub(crate) wanted: String,
    /// What it is compared with, in the unit of the result.
    pub(crate) bound: Option<f64>,
    pub(crate) result: Option<Spread>,
    pub(crate) outcome: Outcome,
}

impl Target {
    pub(crate) fn is_missed(&self) -> bool {
        self.outcome == Outcome::Missed
    }
}

/// Whether more or less is better.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

fn target(what: &str, gate: Kind, wanted: String, bound: Option<Bound>, result: Option<Spread>) -> Target {
    let outcome = match (bound, result) {
        (Some(Bound::AtLeast(bound)), Some(result)) => outcome(result.median >= bound, result.most >= bound),
        (Some(Bound::AtMost(bound)), Some(result)) => outcome(result.median <= bound, result.least <= bound),
        (None, _) | (_, None) => Outcome::Unknown,
    };
    let bound = bound.map(|bound| match bound {
        Bound::AtLeast(bound) | Bound::AtMost(bound) => bound,
    });
    Target { what: what.to_owned(), gate, wanted, bound, result, outcome }
}

fn outcome(median: bool, any: bool) -> Outcome {
    match (median, any) {
        (true, _) => Outcome::Met,
        (false, true) => Outcome::Within,
        (false, false) => Outcome::Missed,
    }
}

/// All targets, for each gate that was measured.
pub(crate) fn judge(results: &Results) -> Vec<Target> {
    let gates = Kind::ALL.into_iter().filter(|kind| kind.is_gate());
    let gates = gates.filter(|gate| results.cells.iter().any(|cell| cell.peer == *gate));
    gates.flat_map(|gate| of(results, gate)).collect()
}

fn of(results: &Results, gate: Kind) -> Vec<Target> {
    let mut all = Vec::new();
    let mut share = |what: &str, figure: Figure, metric, base: Kind, at_least: f64| {
        let wanted = format!("at least {at_least:.2} of {}", base.name());
        let result = results.ratio(figure, metric, gate, base);
        all.push(target(what, gate, wanted, Some(Bound::AtLeast(at_least)), result));
    };
    share("new connections, 16 at a time", Figure::New16, Metric::Rate, Kind::Tls, 1.8);
    // With `before-forward` every request waits for a disk; what that may cost is a target of its own.
    if gate != Kind::GateBeforeForward {
        share("HTTP/1.1 requests, 16 connections", Figure::Http1x16, Metric::Rate, Kind::Tls, 0.75);
        share("HTTP/1.1 requests, 64 connections", Figure::Http1x64, Metric::Rate, Kind::Tls, 0.75);
        share("HTTP/2 requests, 4 × 16", Figure::Http2x64, Metric::Rate, Kind::Tls, 0.60);
    }
    share("100 MiB down", Figure::Down, Metric::Speed, Kind::Tls, 1.0);
    share("100 MiB up", Figure::Up, Metric::Speed, Kind::Tls, 1.0);
    share("100 MiB down, passed through", Figure::Passthrough, Metric::Speed, Kind::Splice, 1.0);
    all.push(added(results, gate));
    all.push(event(results, gate, "delay of each event, p50", Metric::P50, 15.0));
    all.push(event(results, gate, "first event", Metric::First, 100.0));
    for (what, metric, most, unit) in [
        ("memory, idle with an empty store", Metric::Idle, 25.0, "MiB"),
        ("memory of an idle connection", Metric::Connection, 56.0, "KiB"),
    ] {
        let result = memory(results, metric, gate);
        all.push(target(what, gate, format!("at most {most} {unit}"), Some(Bound::AtMost(most)), result));
    }
    let result = results.ratio(Figure::Http1x16, Metric::Cpu, gate, Kind::Tls);
    let bound = Some(Bound::AtMost(1.7));
    all.push(target(
        "CPU per 10,000 requests, 16 connections",
        gate,
        "at most 1.7 of tls".into(),
        bound,
        result,
    ));
    all
}

/// Memory has rounds of its own.
fn memory(results: &Results, metric: Metric, gate: Kind) -> Option<Spread> {
    if results.error(Figure::Memory, gate).is_some() {
        return None;
    }
    let cells = results.cells.iter().filter(|cell| cell.figure == Figure::Memory && cell.peer == gate);
    let values: Vec<f64> = cells.filter_map(|cell| cell.values.get(&metric).copied()).collect();
    Spread::of(&values)
}

/// What one connection adds to p50, as microseconds beyond 1.3 times what the floor adds.
fn added(results: &Results, gate: Kind) -> Target {
    let figure = Figure::PinnedHttp1;
    let over = results.paired(figure, Metric::P50, [gate, Kind::Tls, Kind::Direct], |[gate, tls, direct]| {
        (gate - direct) - 1.3 * (tls - direct)
    });
    let sync = median(&results.fdatasync_us).unwrap_or_default();
    let (most, wanted) = if gate == Kind::GateBeforeForward {
        (1.5 * sync, format!("1.3 of what tls adds, and 1.5 fdatasync ({:.0} µs)", 1.5 * sync))
    } else {
        (0.0, "1.3 of what tls adds".to_owned())
    };
    target("added p50 at one connection: µs beyond", gate, wanted, Some(Bound::AtMost(most)), over)
}

/// How much later than by the floor an event arrives, in microseconds.
fn event(results: &Results, gate: Kind, what: &str, metric: Metric, most: f64) -> Target {
    let later = results.paired(Figure::Sse, metric, [gate, Kind::Tls], |[gate, tls]| gate - tls);
    let what = format!("{what}: µs later than by tls");
    target(&what, gate, format!("at most {most:.0} µs"), Some(Bound::AtMost(most)), later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met() {
        let spread = |median, least, most| Some(Spread { median, least, most });
        let judged = |bound, result| target("x", Kind::Gate, String::new(), Some(bound), result).outcome;
        assert_eq!(judged(Bound::AtLeast(1.0), spread(1.0, 0.9, 1.1)), Outcome::Met);
        assert_eq!(judged(Bound::AtLeast(1.0), spread(0.98, 0.9, 1.1)), Outcome::Within);
        assert_eq!(judged(Bound::AtLeast(1.0), spread(0.9, 0.8, 0.99)), Outcome::Missed);
        assert_eq!(judged(Bound::AtMost(15.0), spread(14.0, 2.0, 80.0)), Outcome::Met);
        assert_eq!(judged(Bound::AtMost(15.0), spread(16.0, 15.5, 80.0)), Outcome::Missed);
        assert_eq!(judged(Bound::AtMost(15.0), None), Outcome::Unknown);
    }
}
