//! What a run says: tables for people, JSON for programs.

use std::{fmt::Write as _, fs};

use anyhow::Context as _;
use serde_json::json;

use super::{
    figure::{Figure, Metric},
    install,
    peer::Kind,
    results::{Results, Spread, median},
    target::{Outcome, Target},
};

/// Between these lines the tables stand; the rest of the file is a person's.
const BEGIN: &str = "<!-- written by `cargo xtask bench proxy`: begin -->";
const END: &str = "<!-- written by `cargo xtask bench proxy`: end -->";
const FILE: &str = "docs/benchmarks.md";

/// Everything, cells and all.
pub(crate) fn json(results: &Results, targets: &[Target]) -> serde_json::Value {
    json!({ "results": results, "targets": targets })
}

/// The tables.
pub(crate) fn markdown(results: &Results, targets: &[Target]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = write_all(&mut text, results, targets);
    text
}

fn write_all(text: &mut String, results: &Results, targets: &[Target]) -> std::fmt::Result {
    let versions = &results.versions;
    writeln!(
        text,
        "{}, Linux {}, {} × {}, {} MiB; stores on {}, fdatasync {:.0} µs. Medians of {} rounds, {} s a \
         steady load, {:.0} min in all{}.\n",
        versions.date,
        versions.kernel,
        versions.cpus,
        versions.cpu,
        versions.memory_mib,
        versions.disk,
        median(&results.fdatasync_us).unwrap_or_default(),
        results.rounds,
        results.seconds,
        results.took_seconds / 60.0,
        if results.pinned { "; everybody on one CPU throughout" } else { "" },
    )?;
    let programs = versions.programs.iter().map(|(name, version)| format!("{name} {version}"));
    writeln!(text, "{}.\n", programs.collect::<Vec<_>>().join("; "))?;
    for note in &results.notes {
        writeln!(text, "- {}", one_line(note))?;
    }
    if !results.notes.is_empty() {
        writeln!(text)?;
    }
    writeln!(text, "### Targets\n")?;
    writeln!(text, "| target | of | wanted | result (least to most) | |\n| --- | --- | --- | --- | --- |")?;
    for target in targets {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            target.what,
            target.gate.name(),
            target.wanted,
            target.result.map_or_else(|| "-".to_owned(), |spread| spread_of(spread, 2)),
            match target.outcome {
                Outcome::Met => "met",
                Outcome::Within => "within the spread",
                Outcome::Missed => "**missed**",
                Outcome::Unknown => "not measured",
            },
        )?;
    }
    for figure in Figure::ALL {
        let peers = results.peers(figure);
        if !peers.is_empty() {
            write_figure(text, results, figure, &peers)?;
        }
    }
    Ok(())
}

fn write_figure(text: &mut String, results: &Results, figure: Figure, peers: &[Kind]) -> std::fmt::Result {
    let metrics = figure.metrics();
    let base = figure.against();
    let mut heads: Vec<String> = vec![figure.name()];
    heads.extend(metrics.iter().map(|metric| metric.title().to_owned()));
    let leading = metrics.first().copied().unwrap_or(Metric::Rate);
    if figure.is_delay() {
        heads.push(format!("added {}", leading.title()));
        heads.push(format!("× what {} adds", base.name()));
    } else if figure != Figure::Memory {
        heads.push("× direct".to_owned());
        heads.push(format!("× {} (least to most)", base.name()));
    }
    writeln!(text, "\n### {}\n\n| {} |", figure.title(), heads.join(" | "))?;
    writeln!(text, "|{}", " --- |".repeat(heads.len()))?;
    for peer in peers.iter().copied() {
        let mut row = vec![peer.name().to_owned()];
        if let Some(error) = results.error(figure, peer) {
            row.push(format!("failed: {}", one_line(error)));
            row.resize(heads.len(), String::new());
        } else {
            row.extend(
                metrics.iter().map(|metric| shown(value(results, figure, *metric, peer), metric.digits())),
            );
            if figure.is_delay() {
                let added = results.added(figure, leading, peer);
                row.push(added.map_or_else(dash, |spread| spread_of(spread, 1)));
                row.push(times(results, figure, leading, peer, base));
            } else if figure != Figure::Memory {
                row.push(shown(results.ratio(figure, leading, peer, Kind::Direct), 2));
                let ratio = results.ratio(figure, leading, peer, base);
                row.push(ratio.map_or_else(dash, |spread| spread_of(spread, 2)));
            }
        }
        writeln!(text, "| {} |", row.join(" | "))?;
    }
    Ok(())
}

fn value(results: &Results, figure: Figure, metric: Metric, peer: Kind) -> Option<Spread> {
    results.spread(figure, metric, peer)
}

/// How often what the floor adds a peer adds.
fn times(results: &Results, figure: Figure, metric: Metric, peer: Kind, base: Kind) -> String {
    let of = |[peer, base, direct]: [f64; 3]| (peer - direct) / (base - direct);
    results
        .paired(figure, metric, [peer, base, Kind::Direct], of)
        .map_or_else(dash, |spread| spread_of(spread, 2))
}

fn shown(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(dash, |spread| number(spread.median, digits))
}

fn dash() -> String {
    "-".to_owned()
}

fn spread_of(spread: Spread, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    format!("{} ({} to {})", number(median, digits), number(least, digits), number(most, digits))
}

/// With commas between thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    format!("{}{grouped}{rest}", if value < 0.0 && !zero { "-" } else { "" })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}

/// Puts the tables into the file, in place of those of the run before.
pub(crate) fn write(tables: &str) -> anyhow::Result<()> {
    let path = install::workspace().join(FILE);
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    fs::write(&path, replaced(&old, tables)?).with_context(|| path.display().to_string())?;
    eprintln!("written: {FILE}");
    Ok(())
}

fn replaced(old: &str, tables: &str) -> anyhow::Result<String> {
    let (before, rest) = old.split_once(BEGIN).with_context(|| format!("{FILE} has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{FILE} has no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(1_234_567.8, 0), "1,234,568");
        assert_eq!(number(999.96, 1), "1,000.0");
        assert_eq!(number(-12.34, 1), "-12.3");
        assert_eq!(number(-0.001, 2), "0.00");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let old = format!("# Ours\n{BEGIN}\nold\n{END}\nours too\n");
        let new = replaced(&old, "\nnew\n").unwrap();
        assert_eq!(new, format!("# Ours\n{BEGIN}\n\nnew\n\n{END}\nours too\n"));
        assert!(replaced("no marks", "new").is_err());
    }
}
