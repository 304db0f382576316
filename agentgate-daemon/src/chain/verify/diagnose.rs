//! What happened between two signed links that do not fit what lies between them.
//!
//! Every entry comes with a link that nobody signed. Where whoever changed the log left those alone, they
//! say which entry it was. Where all were computed anew they say nothing: then the change is somewhere
//! between the two signed links, and the entries after them, which do fit again, tell by how many places
//! they moved whether entries were taken out or put in.

use super::super::{Checkpoint, Finding, Hash, What, next};

/// Places that entries are looked for on either side.
pub(super) const SHIFTS: i64 = 32;

/// An entry, as far as the chain is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The number that it comes with.
    pub(super) claimed: u64,
    /// The link that it comes with; none where only its digest is there.
    pub(super) prev: Option<Hash>,
    pub(super) digest: Hash,
    pub(super) record: u64,
}

pub(super) struct Diagnosis {
    /// How many of the entries are before the checkpoint.
    pub(super) cut: usize,
    /// Nothing where they fit after all.
    pub(super) finding: Option<Finding>,
    /// No link that came with an entry was of use.
    pub(super) relinked: bool,
}

/// The link after these.
pub(super) fn after(from: &Hash, items: &[Held]) -> Hash {
    items.iter().fold(*from, |link, item| next(&link, &item.digest))
}

/// Says what happened to the entries between `anchor` and `checkpoint`; `items` go on beyond it.
pub(super) fn run(
    anchor: (u64, Hash),
    items: &[Held],
    checkpoint: &Checkpoint,
    following: Option<&Checkpoint>,
    ended: bool,
) -> Diagnosis {
    let wanted = usize::try_from(checkpoint.entries - anchor.0).unwrap_or(usize::MAX);
    let links = links(&anchor.1, items);
    if let Some(cut) = cut(&anchor.1, &links, items, checkpoint, wanted, ended) {
        let segment = Segment { anchor, items: &items[..cut], links: &links, end: checkpoint.link, wanted };
        return Diagnosis { cut, finding: segment.finding(), relinked: false };
    }
    // No link that came with an entry is the signed one: by number, and by what fits after it.
    let shift = following.and_then(|following| shift(items, checkpoint, following, wanted));
    let shift = shift.unwrap_or_else(|| {
        let rest = following.is_none() && ended;
        let all = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if rest { all - i64::try_from(wanted).unwrap_or(i64::MAX) } else { 0 }
    });
    let cut = i64::try_from(wanted).unwrap_or(i64::MAX).saturating_add(shift).max(0);
    let cut = usize::try_from(cut).unwrap_or(0).min(items.len());
    let segment = Segment { anchor, items: &items[..cut], links: &links, end: checkpoint.link, wanted };
    Diagnosis { cut, finding: Some(segment.somewhere(shift, items.get(cut))), relinked: true }
}

/// The link before each, as it came, or as it follows.
fn links(anchor: &Hash, items: &[Held]) -> Vec<Hash> {
    let mut follows = *anchor;
    let mut links = Vec::with_capacity(items.len() + 1);
    for item in items {
        let link = item.prev.unwrap_or(follows);
        links.push(link);
        follows = next(&link, &item.digest);
    }
    links.push(follows);
    links
}

/// Where the checkpoint belongs, by a link that is its own.
fn cut(
    anchor: &Hash,
    links: &[Hash],
    items: &[Held],
    checkpoint: &Checkpoint,
    wanted: usize,
    ended: bool,
) -> Option<usize> {
    if items.get(..wanted).is_some_and(|items| after(anchor, items) == checkpoint.link) {
        return Some(wanted);
    }
    // Nothing comes after it, and as many as there should be come before.
    if items.len() == wanted && ended {
        return Some(wanted);
    }
    let before = (0..=items.len()).filter(|at| links.get(*at) == Some(&checkpoint.link));
    let leads = |at: &usize| next(&links[*at], &items[*at].digest) == checkpoint.link;
    let found: Vec<usize> = before.chain((0..items.len()).filter(leads).map(|at| at + 1)).collect();
    let nearest = found.iter().copied().min_by_key(|at| at.abs_diff(wanted))?;
    // As far off on either side: two changed places across it.
    let twin = 2 * wanted
        == nearest + found.iter().copied().find(|at| *at > wanted && nearest < wanted).unwrap_or(nearest);
    Some(if twin { wanted } else { nearest })
}

/// By how many places the entries after the checkpoint are off, if they are there.
fn shift(items: &[Held], checkpoint: &Checkpoint, following: &Checkpoint, wanted: usize) -> Option<i64> {
    let count = usize::try_from(following.entries.checked_sub(checkpoint.entries)?).ok()?;
    let mut shifts: Vec<i64> = (-SHIFTS..=SHIFTS).collect();
    shifts.sort_by_key(|shift| shift.abs());
    shifts.into_iter().find(|shift| {
        let from = i64::try_from(wanted).ok().and_then(|wanted| usize::try_from(wanted + shift).ok());
        let slice = from.and_then(|from| items.get(from..from.checked_add(count)?));
        slice.is_some_and(|slice| after(&checkpoint.link, slice) == following.link)
    })
}

/// The entries between two signed links.
struct Segment<'s> {
    anchor: (u64, Hash),
    items: &'s [Held],
    /// Before each of the items.
    links: &'s [Hash],
    end: Hash,
    /// How many there were.
    wanted: usize,
}

impl Segment<'_> {
    fn number(&self, at: usize) -> u64 {
        self.anchor.0 + at as u64
    }

    fn at(&self, what: What, at: usize, detail: impl Into<String>) -> Finding {
        let record = self.items.get(at).map_or(0, |item| item.record);
        Finding::new(what, detail).at(self.number(at), record)
    }

    /// The record before a place, in words.
    fn follows(&self, at: usize) -> String {
        let record = |at: usize| self.items.get(at).map(|item| item.record).filter(|id| *id != 0);
        match (at.checked_sub(1).and_then(record), record(at)) {
            (Some(before), Some(next)) => format!("between an entry of record {before} and one of {next}"),
            (Some(before), None) => format!("after an entry of record {before}"),
            (None, Some(next)) => format!("before an entry of record {next}"),
            (None, None) => "here".to_owned(),
        }
    }

    /// The link that the one after an entry must be.
    fn expected(&self, at: usize) -> Hash {
        if at + 1 < self.items.len() { self.links[at + 1] } else { self.end }
    }

    /// What happened, where links were left alone.
    fn finding(&self) -> Option<Finding> {
        let count = self.items.len();
        if count == self.wanted && after(&self.anchor.1, self.items) == self.end {
            return self.wrong_link();
        }
        // From the front as far as it fits.
        let (mut front, mut link) = (0, self.anchor.1);
        while front < count {
            let follows = next(&link, &self.items[front].digest);
            if self.links[front] != link || follows != self.expected(front) {
                break;
            }
            (front, link) = (front + 1, follows);
        }
        // From the end as far as it fits.
        let (mut back, mut until) = (count, self.end);
        while back > front
            && until != link
            && next(&self.links[back - 1], &self.items[back - 1].digest) == until
        {
            back -= 1;
            until = self.links[back];
        }
        let room = self.wanted.saturating_sub(front + (count - back));
        if front == back {
            let gone = self.wanted.saturating_sub(count);
            return Some(if gone > 0 { self.removed(front, gone) } else { self.somewhere(0, None) });
        }
        if room == 0 {
            return Some(self.inserted(front, back - front));
        }
        let (order, reached) = self.walk(front..back, link, until);
        let sorted = order.is_sorted();
        if reached && order.len() < back - front {
            let extra = (front..back).find(|at| !order.contains(at)).unwrap_or(front);
            return Some(self.inserted(extra, back - front - order.len()));
        }
        if reached && !sorted {
            let moved = order.iter().enumerate().find(|(at, from)| front + at != **from);
            return Some(self.moved(moved.map_or(front, |(at, _)| front + at)));
        }
        let stuck = (front..back).find(|at| !order.contains(at)).unwrap_or(front);
        if back - front > room {
            return Some(self.inserted(stuck, back - front - room));
        }
        if back - front < room {
            // The last that came with a link that fits is whole as far as can be told.
            let fits = self.links[stuck] == link || order.last().is_some_and(|last| last + 1 == stuck);
            return Some(self.removed(if fits { stuck + 1 } else { stuck }, room - (back - front)));
        }
        Some(self.altered(stuck, back))
    }

    /// Entries are whole and in their order: a link or a number that came with one is wrong.
    fn wrong_link(&self) -> Option<Finding> {
        let mut link = self.anchor.1;
        for (at, item) in self.items.iter().enumerate() {
            if item.prev.is_some_and(|prev| prev != link) {
                let words = "the link kept with this entry was altered; the entry itself is whole";
                return Some(self.at(What::Links, at, words));
            }
            link = next(&link, &item.digest);
        }
        let first = self.items.first()?;
        let off = first.claimed.wrapping_sub(self.anchor.0);
        let wrong =
            (0..self.items.len()).find(|at| self.items[*at].claimed != self.number(*at).wrapping_add(off))?;
        let words = "the number that came with this entry was altered; the entry itself is whole";
        Some(self.at(What::Links, wrong, words))
    }

    /// Follows the chain through entries in any order, by links that came with any of them.
    fn walk(&self, within: std::ops::Range<usize>, from: Hash, until: Hash) -> (Vec<usize>, bool) {
        let mut known: std::collections::HashSet<Hash> = self.links[within.clone()].iter().copied().collect();
        known.insert(until);
        let mut left: Vec<usize> = within.collect();
        let (mut order, mut link) = (Vec::new(), from);
        while link != until || order.is_empty() {
            let fits = |at: &usize| known.contains(&next(&link, &self.items[*at].digest));
            let Some(place) = left.iter().position(fits) else { return (order, false) };
            let at = left.remove(place);
            link = next(&link, &self.items[at].digest);
            order.push(at);
        }
        (order, true)
    }

    fn altered(&self, at: usize, back: usize) -> Finding {
        if self.belongs_elsewhere(at) {
            return self.moved(at);
        }
        let words = if back == self.items.len() && at + 1 == back && self.wanted > 1 {
            "it is another than the one that was signed; or, where the links were computed anew, one before \
             it since the last checkpoint is"
        } else {
            "it is another than the one that was signed"
        };
        self.at(What::Altered, at, words)
    }

    /// Whether an entry fits a place that is not the one where it is.
    fn belongs_elsewhere(&self, at: usize) -> bool {
        let Some((item, link)) = self.items.get(at).zip(self.links.get(at)) else { return false };
        let leads = next(link, &item.digest);
        let before = at.checked_sub(1).and_then(|at| Some((self.links.get(at)?, self.items.get(at)?)));
        let here = before.map_or(self.anchor.1, |(link, item)| next(link, &item.digest));
        *link != here && (leads == self.anchor.1 || self.links.contains(&leads))
    }

    fn removed(&self, at: usize, count: usize) -> Finding {
        let words = format!("{count} {} missing {}", is_are(count), self.follows(at));
        Finding::new(What::Removed, words).at(self.number(at), 0)
    }

    fn inserted(&self, at: usize, count: usize) -> Finding {
        let digest = self.items.get(at).map(|item| item.digest);
        let twin =
            self.items.iter().enumerate().find(|(other, item)| *other != at && Some(item.digest) == digest);
        let words = match twin {
            Some((other, _)) => format!("a copy of entry {}", self.number(other)),
            None if count > 1 => format!("{count} entries that were not written there"),
            None => "it was not written there".to_owned(),
        };
        self.at(What::Inserted, at, words)
    }

    fn moved(&self, at: usize) -> Finding {
        self.at(What::Moved, at, "it was written at another place: the order was changed from here on")
    }

    /// What happened, where the links say nothing: entries after it are off by `shift` places.
    fn somewhere(&self, shift: i64, next: Option<&Held>) -> Finding {
        let count = self.items.len();
        let forged = "the links since the last checkpoint were computed anew, so that which one is not known";
        if shift > 0 {
            let twin = (0..count).find(|at| {
                let digest = self.items[*at].digest;
                self.items[..*at].iter().any(|item| item.digest == digest)
            });
            if let Some(twin) = twin {
                return self.inserted(twin, 1);
            }
            let words = format!("{shift} {} put in before the next checkpoint; {forged}", were(shift));
            return self.range(What::Inserted, words);
        }
        let (jump, filled) = self.jump();
        if shift < 0 {
            let gone = shift.unsigned_abs();
            if let Some(at) = jump {
                let finding = self.removed(at, usize::try_from(gone).unwrap_or(usize::MAX));
                return Finding { detail: format!("{}, by the ids of records", finding.detail), ..finding };
            }
            let words = format!("{gone} {} taken out before the next checkpoint; {forged}", were(-shift));
            return self.range(What::Removed, words);
        }
        if let Some(at) = jump.filter(|_| filled) {
            return self.moved(at);
        }
        // Only the last does not lead to the signed link, and what follows knows that link: it alone.
        let last = count.checked_sub(1).filter(|_| {
            next.is_none_or(|next| next.prev == Some(self.end)) && self.consistent() && count == self.wanted
        });
        match last {
            Some(last) => self.altered(last, count),
            None => self.range(What::Altered, format!("an entry is another than was signed; {forged}")),
        }
    }

    fn range(&self, what: What, words: String) -> Finding {
        self.at(what, 0, words).up_to(self.number(self.wanted.max(1)) - 1)
    }

    /// Whether each link leads to the next, from the signed one on.
    fn consistent(&self) -> bool {
        let mut link = self.anchor.1;
        (0..self.items.len()).all(|at| {
            let fits = self.links[at] == link;
            link = next(&link, &self.items[at].digest);
            fits
        })
    }

    /// Where ids of records that begin leave one out, and whether that one comes later.
    fn jump(&self) -> (Option<usize>, bool) {
        let mut highest = None;
        let mut left_out: Option<(usize, u64)> = None;
        for (at, item) in self.items.iter().enumerate().filter(|(_, item)| item.record != 0) {
            match (highest, left_out) {
                (_, Some((jump, id))) if item.record == id => return (Some(jump), true),
                (Some(high), None) if item.record > high + 1 => left_out = Some((at, high + 1)),
                (Some(_) | None, _) => {}
            }
            highest = highest.max(Some(item.record));
        }
        (left_out.map(|(at, _)| at), false)
    }
}

fn is_are(count: usize) -> &'static str {
    if count == 1 { "entry is" } else { "entries are" }
}

fn were(count: i64) -> &'static str {
    if count == 1 { "entry was" } else { "entries were" }
}
