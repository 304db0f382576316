//! All cells of a run, and what is made of them: medians over rounds, and ratios taken round by round.

use serde::Serialize;

use super::{
    cell::Cell,
    figure::{Figure, Metric},
    options::ProxyOptions,
    peer::Kind,
    versions::Versions,
};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) versions: Versions,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) pinned: bool,
    pub(crate) took_seconds: f64,
    /// p50 of each round.
    pub(crate) fdatasync_us: Vec<f64>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    pub(crate) cells: Vec<Cell>,
}

/// A median with the least and the most of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of some numbers; `None` of none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values)?, least, most })
    }
}

/// The middle one, or the mean of both.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((*sorted.get(half.checked_sub(1)?)? + upper) / 2.0)
}

impl Results {
    pub(crate) fn new(options: &ProxyOptions, versions: Versions) -> Self {
        Self {
            versions,
            rounds: options.rounds(),
            seconds: options.seconds(),
            pinned: options.pin,
            took_seconds: 0.0,
            fdatasync_us: Vec::new(),
            notes: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// Tells something once.
    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            eprintln!("note: {text}");
            self.notes.push(text);
        }
    }

    /// The peers of a figure that were tried, in the order of the table.
    pub(crate) fn peers(&self, figure: Figure) -> Vec<Kind> {
        let tried = |kind: &Kind| self.cells.iter().any(|cell| cell.figure == figure && cell.peer == *kind);
        Kind::ALL.into_iter().filter(tried).collect()
    }

    /// The first error of a peer in a figure. Such a figure has no numbers: what failed once is not measured.
    pub(crate) fn error(&self, figure: Figure, peer: Kind) -> Option<&str> {
        let cells = self.cells.iter().filter(|cell| cell.figure == figure && cell.peer == peer);
        cells.filter_map(|cell| cell.error.as_deref()).next()
    }

    /// The number of one round.
    fn value(&self, figure: Figure, peer: Kind, metric: Metric, round: usize) -> Option<f64> {
        let cell = self
            .cells
            .iter()
            .find(|cell| cell.figure == figure && cell.peer == peer && cell.round == round)?;
        cell.values.get(&metric).copied()
    }

    /// Round by round: what `of` makes of the numbers of these peers, in rounds that have them all.
    pub(crate) fn paired<const N: usize>(
        &self,
        figure: Figure,
        metric: Metric,
        peers: [Kind; N],
        of: impl Fn([f64; N]) -> f64,
    ) -> Option<Spread> {
        if peers.iter().any(|peer| self.error(figure, *peer).is_some()) {
            return None;
        }
        let mut made = Vec::new();
        for round in 0..self.rounds {
            let mut values = [0.0; N];
            let mut all = true;
            for (value, peer) in values.iter_mut().zip(peers) {
                match self.value(figure, peer, metric, round) {
                    Some(found) => *value = found,
                    None => all = false,
                }
            }
            if all {
                made.push(of(values));
            }
        }
        Spread::of(&made)
    }

    /// A number over all rounds.
    pub(crate) fn spread(&self, figure: Figure, metric: Metric, peer: Kind) -> Option<Spread> {
        self.paired(figure, metric, [peer], |[value]| value)
    }

    /// How often a number is another's.
    pub(crate) fn ratio(&self, figure: Figure, metric: Metric, peer: Kind, to: Kind) -> Option<Spread> {
        self.paired(figure, metric, [peer, to], |[value, base]| value / base)
    }

    /// What it adds to direct.
    pub(crate) fn added(&self, figure: Figure, metric: Metric, peer: Kind) -> Option<Spread> {
        self.paired(figure, metric, [peer, Kind::Direct], |[value, base]| value - base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(Spread::of(&[2.0, 9.0, 4.0]), Some(Spread { median: 4.0, least: 2.0, most: 9.0 }));
    }

    fn cell(peer: Kind, round: usize, rate: f64, error: Option<&str>) -> Cell {
        let values = [(Metric::Rate, rate)].into();
        Cell { figure: Figure::New16, peer, round, values, error: error.map(str::to_owned) }
    }

    fn results(cells: Vec<Cell>) -> Results {
        Results {
            versions: Versions::default(),
            rounds: 3,
            seconds: 1.0,
            pinned: false,
            took_seconds: 0.0,
            fdatasync_us: Vec::new(),
            notes: Vec::new(),
            cells,
        }
    }

    /// Rounds in which one of the two is absent say nothing of their ratio.
    #[test]
    fn ratios_are_of_the_same_round() {
        let cells = vec![
            cell(Kind::Tls, 0, 100.0, None),
            cell(Kind::Tls, 1, 10.0, None),
            cell(Kind::Gate, 1, 20.0, None),
            cell(Kind::Gate, 2, 500.0, None),
        ];
        let ratio = results(cells).ratio(Figure::New16, Metric::Rate, Kind::Gate, Kind::Tls);
        assert_eq!(ratio, Some(Spread { median: 2.0, least: 2.0, most: 2.0 }));
    }

    #[test]
    fn one_error_fails_the_figure() {
        let cells = vec![cell(Kind::Gate, 0, 100.0, None), cell(Kind::Gate, 1, 90.0, Some("status 502"))];
        let results = results(cells);
        assert_eq!(results.spread(Figure::New16, Metric::Rate, Kind::Gate), None);
        assert_eq!(results.error(Figure::New16, Kind::Gate), Some("status 502"));
    }
}
