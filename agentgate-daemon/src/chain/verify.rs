//! Checks a log as it goes by, from wherever it comes.
//!
//! While all is well, what is kept is what came since the last checkpoint. Where a checkpoint does not
//! hold, the verifier reads on to the one after it before [`diagnose`] says what happened, and goes on from
//! the signed link: one change is one finding, however much comes after it.

mod diagnose;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Checkpoint, Finding, Hash, INTERVAL, KeyReport, KeyStatement, LogId, Prune, Pruned, PublicKey, Report,
    What, digest, first, next, record_of, text::Hex,
};
use diagnose::Held;

/// Entries that are kept without a checkpoint that holds.
const HELD: usize = 8192;
/// Statements of pruning that a report holds.
const PRUNES: usize = 16;
/// Checkpoints that are waited for before one that does not hold is looked into.
const AHEAD: usize = 2;

/// What is believed from the start.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Keys. Where there are none, the first of the log is believed.
    pub keys: Vec<PublicKey>,
    /// Checkpoints that were kept elsewhere: the log must be at least that long, and have these links.
    pub checkpoints: Vec<Checkpoint>,
}

/// What else says which link comes before an entry.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Elsewhere(Checkpoint),
    Key(Hash),
}

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    report: Report,
    trust: Trust,
    log: LogId,
    keys: Vec<(KeyStatement, bool)>,
    /// Whether all entries are to be there.
    whole: bool,
    marks: BTreeMap<u64, Vec<Mark>>,
    /// A number and the link before it, that are signed or follow from the log's id.
    anchor: (u64, Hash),
    /// What came since.
    held: Vec<Held>,
    /// The link after all that is held, where all of it fits.
    link: Hash,
    fits: bool,
    /// What entries say of their numbers, beyond what is so.
    offset: i64,
    /// Checkpoints that do not fit, with how many entries were held when they came.
    pending: Vec<(usize, Checkpoint)>,
    /// Entries before this one may have lost their bodies.
    bodies_from: u64,
    /// Entries were let go of uncovered.
    let_go: bool,
    unknown: Vec<PublicKey>,
    /// Numbers of checkpoints that came and were not believed.
    refused: BTreeSet<u64>,
    /// Number of the first checkpoint that holds and did not stand in its place.
    displaced: Option<u64>,
    /// Links were computed anew: that those kept are wrong is no news.
    relinked: bool,
}

impl Verifier {
    /// A verifier of the log with this id. With `whole`, every entry is to come.
    #[must_use]
    pub fn new(trust: Trust, log: LogId, keys: &[KeyStatement], whole: bool) -> Self {
        let start = (0, first(&log));
        let key_given = !trust.keys.is_empty();
        let report = Report { whole: true, log: Some(log), key_given, ..Report::default() };
        let mut verifier = Self {
            report,
            trust,
            log,
            keys: Vec::new(),
            whole,
            marks: BTreeMap::new(),
            anchor: start,
            held: Vec::new(),
            link: start.1,
            fits: true,
            offset: 0,
            pending: Vec::new(),
            bodies_from: 0,
            let_go: false,
            unknown: Vec::new(),
            refused: BTreeSet::new(),
            displaced: None,
            relinked: false,
        };
        verifier.take_keys(keys);
        verifier.take_elsewhere(false);
        verifier
    }

    /// Which keys are to be believed: those given and what they vouch for, in either direction.
    fn take_keys(&mut self, keys: &[KeyStatement]) {
        let mut links = Vec::with_capacity(keys.len());
        for (at, statement) in keys.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| keys.get(at));
            self.check_statement(before, statement);
            links.push(statement.is_signed(&self.log) && statement.is_vouched(&self.log));
        }
        let given = |key: &PublicKey| self.trust.keys.contains(key);
        let mut trusted: Vec<bool> = keys
            .iter()
            .enumerate()
            .map(|(at, key)| {
                let believed = at == 0 && self.trust.keys.is_empty();
                (believed || given(&key.key)) && key.is_signed(&self.log)
            })
            .collect();
        for at in 1..keys.len() {
            if links[at] && trusted[at - 1] {
                trusted[at] = true;
            }
        }
        for at in (1..keys.len()).rev() {
            if links[at] && trusted[at] {
                trusted[at - 1] = true;
            }
        }
        for (statement, trusted) in keys.iter().zip(trusted) {
            self.take_key(statement, trusted);
        }
        if keys.is_empty() {
            self.add(Finding::new(What::Statement, "the log names no key"));
        }
    }

    fn check_statement(&mut self, before: Option<&KeyStatement>, statement: &KeyStatement) {
        if !statement.is_signed(&self.log) {
            let words = format!("statement of key {} does not bear its signature", statement.key);
            self.add(Finding::new(What::Statement, words).at(statement.entries, 0));
        }
        if before.map(|before| before.key) != statement.previous
            || before.is_some_and(|before| before.entries > statement.entries)
        {
            let words = format!("statement of key {} does not follow the one before it", statement.key);
            self.add(Finding::new(What::Statement, words).at(statement.entries, 0));
        }
    }

    fn take_key(&mut self, statement: &KeyStatement, trusted: bool) {
        self.report.keys.push(KeyReport { key: statement.key, from: statement.entries, trusted });
        self.keys.push((*statement, trusted));
        self.marks.entry(statement.entries).or_default().push(Mark::Key(statement.link));
    }

    /// A key that began to sign after the log was begun to be read. It is believed where it was given, or
    /// where one that is believed vouches for it: what came before it is not judged again.
    pub fn key(&mut self, statement: &KeyStatement) {
        let before = self.keys.last().copied();
        self.check_statement(before.as_ref().map(|(before, _)| before), statement);
        if statement.entries < self.place() {
            let words = format!("statement of key {} stands after entries that it signs", statement.key);
            self.add(Finding::new(What::Statement, words).at(statement.entries, 0));
        }
        let vouched = statement.is_vouched(&self.log)
            && before
                .is_some_and(|(before, trusted)| trusted && Some(before.key) == statement.previous);
        let trusted = statement.is_signed(&self.log) && (vouched || self.trust.keys.contains(&statement.key));
        self.take_key(statement, trusted);
        self.take_elsewhere(false);
        if self.fits {
            self.compare_marks();
        }
    }

    /// Checkpoints kept elsewhere, of keys that the log names: others wait for it to name more, until it
    /// `ended`.
    fn take_elsewhere(&mut self, ended: bool) {
        for kept in std::mem::take(&mut self.trust.checkpoints) {
            if !kept.is_signed(&self.log) {
                let words = "a checkpoint kept elsewhere is not of this log, or was altered";
                self.add(Finding::new(What::Signature, words).at(kept.entries, 0));
            } else if !ended && !self.keys.iter().any(|(statement, _)| statement.key == kept.key) {
                self.trust.checkpoints.push(kept);
            } else if self.believes(&kept.key, kept.entries) {
                self.marks.entry(kept.entries).or_default().push(Mark::Elsewhere(kept));
            }
        }
    }

    /// Number of the entry that comes next.
    fn place(&self) -> u64 {
        self.anchor.0 + self.held.len() as u64
    }

    /// Whether this key may have signed something of so many entries; says so where not.
    fn believes(&mut self, key: &PublicKey, entries: u64) -> bool {
        self.believes_then(key, entries, entries)
    }

    /// The same of something signed when the log had from `entries` to `most` entries.
    fn believes_then(&mut self, key: &PublicKey, entries: u64, most: u64) -> bool {
        let at = self.keys.iter().position(|(statement, _)| statement.key == *key);
        let Some((at, (statement, trusted))) = at.and_then(|at| Some((at, *self.keys.get(at)?))) else {
            self.unknown_key(*key, entries, "that the log does not name");
            return false;
        };
        if !trusted {
            let words = if self.report.key_given {
                "that no key given vouches for"
            } else {
                "that the first key does not vouch for"
            };
            self.unknown_key(*key, entries, words);
            return false;
        }
        let until = self.keys.get(at + 1).map_or(u64::MAX, |(next, _)| next.entries);
        if statement.entries > most || entries > until {
            let words = format!("signed by key {key}, which was not in use there");
            self.add(Finding::new(What::Signature, words).at(entries, 0));
            return false;
        }
        true
    }

    fn unknown_key(&mut self, key: PublicKey, entries: u64, which: &str) {
        if !self.unknown.contains(&key) && self.unknown.len() < HELD {
            self.unknown.push(key);
            let words = format!("what follows is signed by key {key}, {which}");
            self.add(Finding::new(What::UnknownKey, words).at(entries, 0));
        }
    }

    /// A finding of who feeds the verifier.
    pub fn add(&mut self, finding: Finding) {
        self.report.add(finding);
    }

    /// Something worth knowing.
    pub fn note(&mut self, note: impl Into<String>) {
        self.report.notes.push(note.into());
    }

    /// A body is the one that was captured.
    pub fn body_holds(&mut self) {
        self.report.bodies += 1;
    }

    /// Bodies of entries before this one may be gone.
    #[must_use]
    pub fn bodies_from(&self) -> u64 {
        self.bodies_from
    }

    /// The log begins after what this statement says is gone. Statements come in their order, before all
    /// else.
    pub fn pruned(&mut self, prune: &Prune) {
        if !prune.is_signed(&self.log) {
            let words = "a statement of what was pruned does not bear its signature";
            return self.add(Finding::new(What::Statement, words).at(prune.from, prune.first));
        }
        // What is taken out may be older than the key.
        if !self.believes_then(&prune.key, prune.to, u64::MAX) {
            return;
        }
        match prune.what {
            Pruned::Bodies => self.bodies_from = self.bodies_from.max(prune.to),
            Pruned::Entries => {
                if (prune.from, prune.from_link) != self.anchor || prune.to < prune.from {
                    let words = "a statement of what was pruned does not follow the one before it";
                    self.add(Finding::new(What::Statement, words).at(prune.from, prune.first));
                }
                self.go_on_from(prune.to, prune.to_link);
                self.report.first = prune.to;
                self.bodies_from = self.bodies_from.max(prune.to);
            }
        }
        if self.report.pruned.len() >= PRUNES {
            self.report.pruned.remove(0);
        }
        self.report.pruned.push(prune.clone());
    }

    /// A checkpoint, before the entry of its number.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        if self.refused.len() < HELD {
            self.refused.insert(checkpoint.entries);
        }
        if !checkpoint.is_signed(&self.log) {
            let words = "a checkpoint does not bear its signature";
            return self.add(Finding::new(What::Signature, words).at(checkpoint.entries, 0));
        }
        if self.believes(&checkpoint.key, checkpoint.entries) {
            self.refused.remove(&checkpoint.entries);
            self.hold_to(checkpoint);
        }
    }

    fn hold_to(&mut self, checkpoint: &Checkpoint) {
        let reached = self.place();
        if self.pending.is_empty()
            && self.fits
            && (checkpoint.entries, checkpoint.link) == (reached, self.link)
        {
            self.miss_due();
            self.cover(self.held.len());
            self.report.checkpoints += 1;
            self.report.last = Some(*checkpoint);
            return self.go_on_from(checkpoint.entries, checkpoint.link);
        }
        if !self.whole && self.held.is_empty() && checkpoint.entries > self.anchor.0 {
            self.report.checkpoints += 1;
            self.report.last = Some(*checkpoint);
            self.offset = 0;
            return self.go_on_from(checkpoint.entries, checkpoint.link);
        }
        if checkpoint.entries <= self.anchor.0 {
            let words = if checkpoint.entries == self.anchor.0 && checkpoint.link != self.anchor.1 {
                "two signed statements of the same entries differ: the log was written anew with its key"
            } else {
                "a checkpoint comes after entries that it does not speak of"
            };
            return self.add(Finding::new(What::Checkpoint, words).at(checkpoint.entries, 0));
        }
        self.pending.push((self.held.len(), *checkpoint));
        if self.pending.len() > AHEAD {
            self.look_into(false);
        }
    }

    /// The next entry: the number and the link before it that it comes with.
    pub fn entry(&mut self, n: u64, prev: Hash, entry: &[u8]) {
        self.push(Held { claimed: n, prev: Some(prev), digest: digest(entry), record: record_of(entry) });
    }

    /// Entries that are left out.
    pub fn skipped(&mut self, n: u64, digests: &[u8]) {
        let (digests, rest) = digests.as_chunks::<32>();
        if !rest.is_empty() {
            self.add(Finding::new(What::Unreadable, "digests have 32 bytes each").at(n, 0));
        }
        if self.whole {
            let words = "entries are left out of what is said to be all";
            self.add(Finding::new(What::Removed, words).at(n, 0));
        }
        for (claimed, digest) in (n..).zip(digests) {
            self.push(Held { claimed, prev: None, digest: Hex(*digest), record: 0 });
        }
    }

    fn push(&mut self, held: Held) {
        let n = self.place();
        if self.fits {
            self.fits = n.checked_add_signed(self.offset) == Some(held.claimed)
                && held.prev.is_none_or(|prev| prev == self.link);
            if self.fits {
                self.link = next(&self.link, &held.digest);
            }
        }
        self.held.push(held);
        if self.fits {
            self.compare_marks();
        }
        // Far enough beyond the next checkpoint to tell by how many places entries were moved.
        let seen = self.pending.get(AHEAD - 1).map(|(at, _)| at + diagnose::SHIFTS as usize);
        if seen.is_some_and(|seen| self.held.len() > seen) {
            return self.look_into(false);
        }
        if self.held.len() >= HELD {
            if self.pending.is_empty() {
                self.let_go();
            } else {
                self.look_into(false);
            }
        }
    }

    /// Lets go of entries that no checkpoint has covered, so that memory stays bounded.
    fn let_go(&mut self) {
        let reached = self.place();
        if !self.fits {
            let assumed = Checkpoint {
                entries: reached,
                link: diagnose::after(&self.anchor.1, &self.held),
                time: crate::model::Timestamp(0),
                key: Hex([0; 32]),
                signature: Hex([0; 64]),
            };
            if let Some(finding) = diagnose::run(self.anchor, &self.held, &assumed, None, false).finding {
                self.add(finding);
            }
            self.link = assumed.link;
        }
        self.let_go = true;
        self.go_on_from(reached, self.link);
    }

    /// Says which checkpoints should have come among what is held.
    fn miss_due(&mut self) {
        let after = (self.anchor.0 / INTERVAL + 1) * INTERVAL;
        let end = self.anchor.0 + self.held.len() as u64;
        for n in (after..end).step_by(INTERVAL as usize) {
            if !self.refused.contains(&n) {
                let words = "the checkpoint that is due here is missing";
                self.add(Finding::new(What::Checkpoint, words).at(n, 0));
            }
        }
    }

    fn cover(&mut self, count: usize) {
        let skipped = self.held.iter().take(count).filter(|held| held.prev.is_none()).count();
        self.report.skipped += skipped as u64;
        self.report.entries += (count.min(self.held.len()) - skipped) as u64;
    }

    fn go_on_from(&mut self, n: u64, link: Hash) {
        self.anchor = (n, link);
        self.held.clear();
        self.link = link;
        self.fits = true;
        self.compare_marks();
    }

    /// Compares what else is said of the place that was reached.
    fn compare_marks(&mut self) {
        let n = self.place();
        for mark in self.marks.remove(&n).unwrap_or_default() {
            match mark {
                Mark::Elsewhere(kept) if kept.link == self.link => self.report.kept_elsewhere += 1,
                Mark::Elsewhere(kept) => {
                    let words = format!(
                        "a checkpoint kept elsewhere, of {}, says that other entries came before: the log \
                         was written anew",
                        kept.time
                    );
                    self.add(Finding::new(What::Altered, words).at(0, 0).up_to(n.saturating_sub(1)));
                }
                Mark::Key(link) if link != self.link => {
                    let words = "the statement of a key says that other entries came before";
                    self.add(Finding::new(What::Statement, words).at(n, 0));
                }
                Mark::Key(_) => {}
            }
        }
    }

    /// Says what happened before the first checkpoint that does not hold, and goes on after it.
    fn look_into(&mut self, ended: bool) {
        let (came, checkpoint) = self.pending.remove(0);
        let after = self.pending.first().map(|(_, checkpoint)| checkpoint);
        let found = diagnose::run(self.anchor, &self.held, &checkpoint, after, ended);
        if found.finding.is_none() && came != found.cut {
            self.displaced.get_or_insert(checkpoint.entries);
        }
        if let Some(finding) = found.finding.filter(|found| !self.relinked || found.what != What::Links) {
            self.add(finding);
        }
        self.relinked |= found.relinked;
        self.cover(found.cut);
        self.report.checkpoints += 1;
        self.report.last = Some(checkpoint);
        let rest = self.held.split_off(found.cut.min(self.held.len()));
        if let Some(next) = rest.first() {
            self.offset = next.claimed.cast_signed().wrapping_sub(checkpoint.entries.cast_signed());
        }
        // What is said of places before is not known to be wrong.
        self.marks = self.marks.split_off(&checkpoint.entries);
        self.go_on_from(checkpoint.entries, checkpoint.link);
        let pending = std::mem::take(&mut self.pending);
        let mut pending = pending.into_iter().peekable();
        for (at, held) in (found.cut..).zip(rest) {
            while let Some((_, checkpoint)) = pending.next_if(|(before, _)| *before <= at) {
                self.hold_to(&checkpoint);
            }
            self.push(held);
        }
        for (_, checkpoint) in pending {
            self.hold_to(&checkpoint);
        }
    }

    /// All has come. `expected` is how many entries the source says there are.
    #[must_use]
    pub fn finish(mut self, expected: Option<u64>) -> Report {
        while !self.pending.is_empty() {
            self.look_into(true);
        }
        self.take_elsewhere(true);
        let end = self.place();
        self.report.end = end;
        if let Some(held) = self.held.first() {
            let words =
                "no checkpoint covers what comes from here on: it was added, or the last was taken out";
            let finding = Finding::new(What::Unsigned, words).at(self.anchor.0, held.record);
            self.add(finding.up_to(end - 1));
        } else if self.let_go {
            self.add(Finding::new(What::Unsigned, "no checkpoint covers the entries"));
        }
        if let Some(expected) = expected.filter(|expected| *expected != end) {
            let words = format!("{end} entries are there, and {expected} are said to be");
            let what = if expected > end { What::Truncated } else { What::Inserted };
            self.add(Finding::new(what, words).at(end.min(expected), 0));
        }
        for (n, marks) in std::mem::take(&mut self.marks).split_off(&(end + 1)) {
            for mark in marks {
                let words = match mark {
                    Mark::Elsewhere(kept) => {
                        format!("a checkpoint kept elsewhere, of {}, counts {n} entries", kept.time)
                    }
                    Mark::Key(_) => format!("the statement of a key counts {n} entries"),
                };
                if self.whole {
                    let words = format!("the log ends after {end}: {words}");
                    self.add(Finding::new(What::Truncated, words).at(end, 0).up_to(n - 1));
                }
            }
        }
        // Where anything else was found it may follow from that.
        if let Some(n) = self.displaced.filter(|_| self.report.whole) {
            let words = "the checkpoint stands among other entries than those that it speaks of";
            self.add(Finding::new(What::Checkpoint, words).at(n, 0));
        }
        if !self.report.key_given {
            let note = "no key was given: the log's own first key was believed. Compare it with one that was \
                        kept elsewhere";
            self.note(note);
        }
        self.report
    }
}
