//! What a person may ask of the bench.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{figure::Figure, peer::Kind};

/// Of `cargo xtask bench proxy`.
#[derive(Clone, Debug, Serialize, Deserialize, Args)]
pub(crate) struct ProxyOptions {
    /// Only nothing, the floor and the gate; fewer figures, shorter and fewer rounds
    #[arg(long)]
    quick: bool,
    /// Whom to measure; all that are to be had where none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// What to measure; all of it where nothing is named
    #[arg(long, value_enum, value_delimiter = ',')]
    figures: Vec<Figure>,
    /// Rounds: 5, or 3 with --quick
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds that a steady load is measured: 2, or 1 with --quick
    #[arg(long)]
    seconds: Option<f64>,
    /// Keep every process of every figure on one CPU
    #[arg(long)]
    pub(crate) pin: bool,
    /// Print JSON instead of a table, and leave docs/benchmarks.md as it is
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the table, and leave docs/benchmarks.md as it is
    #[arg(long)]
    pub(crate) dry: bool,
    /// End with exit code 1 where a target is missed
    #[arg(long)]
    pub(crate) check: bool,
}

impl ProxyOptions {
    /// Whom to measure, in the order of the table.
    pub(crate) fn peers(&self) -> Vec<Kind> {
        let quick = [Kind::Direct, Kind::Tls, Kind::GateBackpressure, Kind::GateBeforeForward];
        Kind::ALL
            .into_iter()
            .filter(|kind| {
                if !self.peers.is_empty() {
                    self.peers.contains(kind)
                } else {
                    !self.quick || quick.contains(kind)
                }
            })
            .collect()
    }

    /// What to measure, in the order of the tables.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        Figure::ALL
            .into_iter()
            .filter(|figure| {
                if !self.figures.is_empty() {
                    self.figures.contains(figure)
                } else {
                    !self.quick || figure.is_quick()
                }
            })
            .collect()
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 }).max(1)
    }

    /// Rounds of the memory figure, for which each peer is started anew.
    pub(crate) fn memory_rounds(&self) -> usize {
        self.rounds().min(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 2.0 })
    }
}

/// Of `cargo xtask bench profile`.
#[derive(Clone, Debug, Serialize, Deserialize, Args)]
pub(crate) struct ProfileOptions {
    /// The load
    #[arg(long, value_enum, default_value_t = Figure::Http1x16)]
    pub(crate) figure: Figure,
    /// Who is looked at: the gate, or a peer to compare it with
    #[arg(long, value_enum, default_value_t = Kind::GateBackpressure)]
    pub(crate) peer: Kind,
    /// Seconds
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Lines of each list
    #[arg(long, default_value_t = 40)]
    pub(crate) lines: usize,
    /// Keep perf's own file here, for `perf report`
    #[arg(long)]
    pub(crate) keep: Option<std::path::PathBuf>,
}
