//! The verifiable form of the log: lines that `agentctl audit verify` proves without the store.
//!
//! Work goes from one signed checkpoint to the next. Where something between two of them is wanted, all of
//! that piece is there: entries that are wanted, and of the others their digests; else nothing of it is. Each
//! line is given on as it is made, so that memory is that of one piece without bodies and of one entry with
//! them.

use serde::{Deserialize, Serialize};

use super::pages::{From, Turned, Wanted};
use crate::{
    chain::{Base64, Bodies, Checkpoint, Line, LogId, digest},
    filter::Expression,
    store::{
        StoreError,
        signed::{Run, Signed},
    },
};

/// What an export has that is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Had {
    pub log: LogId,
    /// How many statements of keys.
    pub keys: u64,
    /// Its last.
    pub checkpoint: Checkpoint,
}

/// An export under way.
#[derive(Clone, Debug)]
pub struct Chained {
    from: From,
    wanted: Wanted,
    /// What was asked for, in words.
    filter: String,
    next: u64,
    begun: bool,
    /// What is to be compared with the log first.
    had: Option<Had>,
    /// Statements of keys that were given.
    keys: usize,
    /// Whether the last line is the checkpoint at `next`.
    joined: bool,
    entries: u64,
}

impl Chained {
    /// From entry `next` on. Beginnings of records are entries as all others.
    #[must_use]
    pub fn new(from: From, wanted: Wanted, filter: String, next: u64) -> Self {
        let wanted = Wanted { open: true, ..wanted };
        Self { from, wanted, filter, next, begun: false, had: None, keys: 0, joined: false, entries: 0 }
    }

    /// Goes on with an export that was cut off, behind its last checkpoint. `filter` is what it was made with.
    #[must_use]
    pub fn resumed(from: From, wanted: Wanted, filter: String, had: Had) -> Self {
        let keys = usize::try_from(had.keys).unwrap_or(usize::MAX);
        let made = Self::new(from, wanted, filter, had.checkpoint.entries);
        Self { begun: true, joined: true, had: Some(had), keys, ..made }
    }

    /// The same of another place: that which is written to, as its tables have it.
    #[must_use]
    pub fn of(self, from: From) -> Self {
        Self { from, ..self }
    }

    /// Gives the lines up to the next checkpoint to `each`.
    ///
    /// # Errors
    /// [`StoreError`] where the log cannot be read, where it is not the one that an export is to be gone on
    /// with, and where what comes next was pruned after the export was begun; and what `each` gives.
    pub fn step<E: std::convert::From<StoreError>>(
        &mut self,
        mut each: impl FnMut(&Line) -> Result<(), E>,
    ) -> Result<Turned, E> {
        let mut signed = self.from.signed()?;
        if !self.begun {
            let all = matches!(&self.wanted.filter.expression, Expression::All(parts) if parts.is_empty());
            let whole = all && self.next <= signed.first();
            each(&Line::Log(signed.head(self.filter.clone(), whole)))?;
            (self.begun, self.keys) = (true, signed.keys().len());
        } else if self.next < signed.first() {
            // What is before it and what is behind it make no whole.
            return Err(PRUNED.into());
        }
        if let Some(had) = self.had {
            let fits = had.log == signed.log() && self.keys <= signed.keys().len();
            if !fits || signed.link_before(self.next)? != Some(had.checkpoint.link) {
                return Err(OTHER.into());
            }
            self.had = None;
        }
        let mut turned = Turned { next: self.next, end: signed.walk.end(), ..Turned::default() };
        if turned.next < signed.first() {
            turned.pruned = signed.first() - turned.next;
            turned.next = signed.first();
            self.joined = false;
        }
        let Some(after) = signed.after(turned.next)? else {
            // Nothing that is signed is beyond.
            turned.end = turned.next;
            self.next = turned.next;
            return Ok(turned);
        };
        let run = signed.run(turned.next, after.entries)?;
        turned.unreadable = run.unreadable;
        let mut taken = Vec::with_capacity(run.entries.len());
        for (entry, _) in &run.entries {
            match self.wanted.takes(&mut signed.walk, entry) {
                Ok(found) => taken.push(found),
                // It is there none the less: whoever verifies is to see it.
                Err(StoreError::Malformed { .. }) => {
                    turned.unreadable += 1;
                    taken.push(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if taken.contains(&true) {
            for statement in signed.keys().iter().skip(self.keys) {
                each(&Line::Key(*statement))?;
            }
            self.keys = signed.keys().len();
            self.begin(&signed, turned.next, &mut each)?;
            turned.rows = self.give(&mut signed, &run, &taken, &mut each)?;
            each(&Line::Checkpoint(after))?;
            self.joined = true;
        } else {
            self.joined = false;
        }
        self.entries += turned.rows;
        turned.next = after.entries;
        self.next = turned.next;
        Ok(turned)
    }

    /// Leads from something signed, or from the beginning of the log, to entry `n`.
    fn begin<E: std::convert::From<StoreError>>(
        &self,
        signed: &Signed,
        n: u64,
        each: &mut impl FnMut(&Line) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.joined {
            return Ok(());
        }
        let from = match signed.before(n)? {
            Some(before) if n > signed.first() => {
                let from = before.entries;
                each(&Line::Checkpoint(before))?;
                from
            }
            Some(_) | None => {
                for prune in signed.prunes() {
                    each(&Line::Pruned(prune.clone()))?;
                }
                signed.first()
            }
        };
        let run = signed.run(from, n)?;
        let digests = run.entries.iter().flat_map(|(entry, _)| digest(&entry.encoded).0).collect::<Vec<u8>>();
        if digests.is_empty() { Ok(()) } else { each(&Line::Skipped { n: from, digests: Base64(digests) }) }
    }

    /// The entries of a piece; returns how many.
    fn give<E: std::convert::From<StoreError>>(
        &self,
        signed: &mut Signed,
        run: &Run,
        taken: &[bool],
        each: &mut impl FnMut(&Line) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut rows = 0;
        let mut skipped: Option<(u64, Vec<u8>)> = None;
        for ((entry, prev), taken) in run.entries.iter().zip(taken) {
            if !taken {
                let (_, digests) = skipped.get_or_insert_with(|| (entry.n, Vec::new()));
                digests.extend_from_slice(&digest(&entry.encoded).0);
                continue;
            }
            if let Some((n, digests)) = skipped.take() {
                each(&Line::Skipped { n, digests: Base64(digests) })?;
            }
            let bodies = if self.wanted.bodies {
                let [request, response] =
                    signed.walk.bodies(entry)?.map(|body| body.map(|body| Base64(body.to_vec())));
                (request.is_some() || response.is_some()).then(|| Box::new(Bodies { request, response }))
            } else {
                None
            };
            rows += 1;
            each(&Line::Entry {
                n: entry.n,
                prev: *prev,
                entry: Base64(entry.encoded.clone()),
                record: Box::new(entry.record()?),
                bodies,
            })?;
        }
        match skipped {
            Some((n, digests)) => each(&Line::Skipped { n, digests: Base64(digests) }).map(|()| rows),
            None => Ok(rows),
        }
    }

    /// The last line.
    #[must_use]
    pub fn end(&self) -> Line {
        Line::End { entries: self.entries, next: Some(self.next.to_string()) }
    }
}

const PRUNED: StoreError = StoreError::Resumed(
    "what comes next in this export was pruned meanwhile: it ends here, and what is left begins one of its own",
);
const OTHER: StoreError = StoreError::Resumed(
    "the log does not go on from what the export has: it is another log, or was restored from before",
);

#[cfg(test)]
mod tests;
