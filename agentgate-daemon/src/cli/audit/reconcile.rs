//! `agentctl audit reconcile`.

use super::super::{
    Failure, Session,
    terminal::{Colour, escape},
};
use crate::{
    control::wire::{Payload, Request},
    model::{Balance, BalanceRow},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Also read every record since the counters began, and compare with the sums kept of them
    #[arg(long)]
    recount: bool,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let Payload::Balance(balance) = session.ask(Request::Reconcile { recount: args.recount })? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        session.output.json(&balance)?;
    } else {
        for (line, fault) in lines(&balance) {
            let line = escape(&line);
            let line = if fault { session.output.paint(Colour::Red, &line) } else { line };
            session.output.line(&line)?;
        }
    }
    session.output.flush()?;
    if balance.balanced { Ok(()) } else { Err(Failure::Unbalanced) }
}

/// Lines, and whether each tells of a fault.
fn lines(balance: &Balance) -> Vec<(String, bool)> {
    let head = format!(
        "{:<32} {:<14} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10}",
        "SESSION", "WHAT", "KERNEL", "RECORDED", "ABANDONED", "DECLARED", "PENDING", "DIFFERENCE"
    );
    let mut lines = vec![(head, false)];
    let name = |row: &BalanceRow| row.name.clone().unwrap_or_else(|| format!("number {}", row.session));
    lines.extend(balance.rows.iter().map(|r| (line(&name(r), r), r.difference != 0)));
    if balance.left_out > 0 {
        lines.push((format!("and {} more that balance or are smaller", balance.left_out), false));
    }
    lines.extend(balance.total.iter().map(|r| (line("in all", r), r.difference != 0)));
    for epoch in &balance.earlier {
        let name = format!("before, {}", epoch.epoch);
        lines.extend(epoch.total.iter().map(|row| (line(&name, row), false)));
    }
    if balance.lost_events > 0 {
        lines.push((format!("{} events found the kernel's buffer full", balance.lost_events), false));
    }
    if balance.unbooked > 0 {
        let words =
            format!("{} events found no room in the kernel's books, so nothing is proven", balance.unbooked);
        lines.push((words, true));
    }
    for miscount in balance.miscounts.iter().flatten() {
        let words = format!(
            "the log was changed: session number {}, {}: {} {} by the sums, {} by the records",
            miscount.session, miscount.what, miscount.summed, miscount.column, miscount.counted
        );
        lines.push((words, true));
    }
    let verdict = if balance.balanced { "balanced" } else { "does not balance" };
    lines.push((verdict.to_owned(), !balance.balanced));
    lines
}

fn line(name: &str, row: &BalanceRow) -> String {
    format!(
        "{name:<32} {:<14} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10}",
        row.what, row.kernel, row.recorded, row.abandoned, row.declared, row.pending, row.difference
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Miscount, Timestamp};

    #[test]
    fn a_difference_and_a_miscount_stand_out() {
        let row = |difference| BalanceRow { what: "flows".into(), difference, ..BalanceRow::default() };
        let miscount =
            Miscount { session: 9, what: "udp".into(), column: "recorded".into(), summed: 20, counted: 1 };
        let mut balance = Balance {
            at: Timestamp(0),
            epoch: "boot/1".into(),
            rows: vec![row(0), row(0)],
            left_out: 0,
            total: vec![row(0)],
            lost_events: 2,
            unbooked: 0,
            miscounts: Some(Vec::new()),
            earlier: Vec::new(),
            balanced: true,
        };
        let faults = |balance: &Balance| lines(balance).iter().filter(|(_, fault)| *fault).count();
        assert_eq!(faults(&balance), 0);
        balance.rows.push(row(-3));
        balance.total = vec![row(3)];
        balance.miscounts = Some(vec![miscount]);
        balance.balanced = false;
        assert_eq!(faults(&balance), 4);
        balance.unbooked = 7;
        assert_eq!(faults(&balance), 5);
    }
}
