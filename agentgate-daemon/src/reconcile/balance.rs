//! The arithmetic: numbers of windows into findings and rows. Pure.

use std::collections::{BTreeMap, HashMap};

use agentgate_common::{
    tally::{Booked, window, window_end},
    verdict::{DNS_PORT, Denial, Passage, REPLACED},
};

use crate::{
    model::{BalanceRow, Flow},
    store::tally::{CLOSED, Class, Column, TallyRow},
};

/// How long after the end of a window its numbers may still change: a program that has taken the time and
/// not counted yet, because it was interrupted in between.
const MARGIN_NS: u64 = 1_000_000_000;

/// As the kernel numbers a connection that was tied to the listener.
const LISTENER: u8 = Passage::Listener as u8;

/// Window, session and class.
pub(super) type Key = (u32, u64, Class);

/// What is said of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) kernel: u64,
    pub(super) recorded: u64,
    pub(super) abandoned: u64,
    pub(super) declared: u64,
    pub(super) pending: u64,
}

impl Numbers {
    /// What nothing accounts for.
    fn difference(&self) -> i64 {
        let accounted = [self.recorded, self.abandoned, self.declared, self.pending];
        let sum = accounted.into_iter().fold(0_u64, u64::saturating_add);
        i64::try_from(i128::from(self.kernel) - i128::from(sum)).unwrap_or(i64::MIN)
    }
}

/// What the kernel counted that the log is to hold.
pub(super) fn kernel_counts(booked: &[(Booked, u64)]) -> Vec<(u32, u64, Class, u64)> {
    let mut sums: BTreeMap<Key, u64> = BTreeMap::new();
    for (Booked { session, window, outcome }, count) in booked {
        let class = match u8::try_from(*outcome) {
            Ok(LISTENER) => Class::Flows,
            Ok(denial) if Denial::from_u8(denial).is_some() => Class::Refused(denial),
            Ok(_) | Err(_) => continue,
        };
        *sums.entry((*window, *session, class)).or_insert(0) += count;
    }
    sums.into_iter().map(|((window, session, class), count)| (window, session, class, count)).collect()
}

/// Connections whose place another took, by window and session.
pub(super) fn replaced(booked: &[(Booked, u64)]) -> HashMap<(u32, u64), u64> {
    let theirs = booked.iter().filter(|(key, _)| key.outcome == u32::from(REPLACED));
    theirs.map(|(key, count)| ((key.window, key.session), *count)).collect()
}

/// Everything that is known, by key.
pub(super) fn gather(
    counters: &[(u32, u64, Class, u64)],
    waiting: &[Flow],
    carried: &HashMap<(u64, u32), u64>,
    rows: &[TallyRow],
) -> HashMap<Key, Numbers> {
    let mut found: HashMap<Key, Numbers> = HashMap::new();
    for row in rows {
        let numbers = found.entry((row.window, row.session, row.class)).or_default();
        match row.column {
            Column::Kernel => numbers.kernel = row.count,
            Column::Recorded => numbers.recorded = row.count,
            Column::Abandoned => numbers.abandoned = row.count,
            Column::Declared => numbers.declared = row.count,
        }
    }
    // In place of what was kept of the same: that is older.
    for (window, session, class, count) in counters {
        found.entry((*window, *session, *class)).or_default().kernel = *count;
    }
    for flow in waiting.iter().filter(|flow| is_of_listener(flow)) {
        found.entry((window(flow.connected_ns), flow.session, Class::Flows)).or_default().pending += 1;
    }
    for ((session, window), count) in carried {
        found.entry((*window, *session, Class::Flows)).or_default().pending += count;
    }
    found
}

/// Whether a flow is one of the listener's: the others in the same map ask the gate's DNS server.
pub(super) fn is_of_listener(flow: &Flow) -> bool {
    flow.original.0.port() != DNS_PORT
}

/// Whether a difference in this window can only be one.
fn is_settled(window: u32, class: Class, now: u64, told_until: u64) -> bool {
    if window == CLOSED {
        return true;
    }
    let end = window_end(window) + MARGIN_NS;
    // A refusal is on record once everything up to then has been told.
    now > end && (class == Class::Flows || told_until > end)
}

/// A number that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) key: Key,
    pub(super) missing: u64,
    /// Nothing of its window is on its way any more, so what does not explain it now never will.
    pub(super) over: bool,
}

/// What a look found in the windows that are over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Windows without difference.
    pub(super) balanced: Vec<u32>,
    pub(super) missing: Vec<Finding>,
    pub(super) surplus: Vec<(Key, u64)>,
}

/// Windows that are over; differences only where the last look saw the same, which `seen` remembers.
///
/// What is on its way is on its way, for a minute where it never arrives: that holds up the closing of its
/// window, and not what is missing besides. A surplus is only one when nothing is on its way, because a
/// connection that moves on while the numbers are read is counted where it was and where it is.
pub(super) fn find(
    numbers: &HashMap<Key, Numbers>,
    now: u64,
    told_until: u64,
    seen: &mut HashMap<Key, i64>,
) -> Findings {
    let mut windows: BTreeMap<u32, Vec<(Key, Numbers)>> = BTreeMap::new();
    for (key, numbers) in numbers.iter().filter(|((window, ..), _)| *window != CLOSED) {
        windows.entry(key.0).or_default().push((*key, *numbers));
    }
    let before = std::mem::take(seen);
    let mut found = Findings::default();
    for (window, keys) in windows {
        let settled = |(window, _, class): &Key| is_settled(*window, *class, now, told_until);
        let over = keys.iter().all(|(key, numbers)| numbers.pending == 0 && settled(key));
        let mut balanced = true;
        for (key, numbers) in keys {
            let difference = numbers.difference();
            if difference == 0 || !settled(&key) {
                continue;
            }
            balanced = false;
            if before.get(&key) != Some(&difference) {
                seen.insert(key, difference);
            } else if difference > 0 {
                found.missing.push(Finding { key, missing: difference.unsigned_abs(), over });
            } else if over {
                found.surplus.push((key, difference.unsigned_abs()));
            }
        }
        if over && balanced {
            found.balanced.push(window);
        }
    }
    found
}

/// The table, by session and class.
pub(super) fn rows(numbers: &HashMap<Key, Numbers>, now: u64, told_until: u64) -> Vec<BalanceRow> {
    let mut sums: BTreeMap<(u64, Class), BalanceRow> = BTreeMap::new();
    for ((window, session, class), numbers) in numbers.iter().filter(|((.., class), _)| *class != Class::Ring)
    {
        let row = sums.entry((*session, *class)).or_insert_with(|| BalanceRow {
            session: *session,
            what: class.code().to_owned(),
            ..BalanceRow::default()
        });
        row.kernel += numbers.kernel;
        row.recorded += numbers.recorded;
        row.abandoned += numbers.abandoned;
        row.declared += numbers.declared;
        row.pending += numbers.pending;
        let difference = numbers.difference();
        match u64::try_from(difference) {
            // Not settled: it is on its way.
            Ok(missing) if !is_settled(*window, *class, now, told_until) => row.pending += missing,
            Ok(_) | Err(_) => row.difference += difference,
        }
    }
    sums.into_values().collect()
}

/// The table by class.
pub(super) fn total(rows: &[BalanceRow]) -> Vec<BalanceRow> {
    let mut sums: BTreeMap<&str, BalanceRow> = BTreeMap::new();
    for row in rows {
        let empty = || BalanceRow { what: row.what.clone(), ..BalanceRow::default() };
        sums.entry(&row.what).or_insert_with(empty).add(row);
    }
    sums.into_values().collect()
}
