//! One group goes, with all that nobody else needs of it.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable as _;

use super::{
    super::{
        StoreError,
        bodies::Place,
        canonical::{Glance, Malformed},
        chain, group, packed,
        tables::{BODIES_FROM, DROPPED, DROPPED_ID, SpanRow},
        write::Batch,
    },
    Pruned, Why, number,
};
use crate::{chain::Pruned as What, model::Timestamp};

/// A group that goes, with what is in it.
struct Going {
    number: u64,
    content: Vec<u8>,
    entries: Vec<group::Entry>,
}

impl Going {
    fn seen(&self, entry: &group::Entry) -> Result<Glance<'_>, Malformed> {
        Glance::at(self.encoded(entry))
    }

    fn encoded(&self, entry: &group::Entry) -> &[u8] {
        self.content.get(entry.record.clone()).unwrap_or_default()
    }
}

impl Batch<'_, '_> {
    /// Signs statements of what went in this transaction, so that the chain of what is left holds.
    pub(super) fn state(&mut self, gone: &Pruned, bodies_before: u64) -> Result<(), StoreError> {
        let (low, high) = gone.ids.unwrap_or_default();
        let (earliest, latest) = gone.times.unwrap_or_default();
        let bodies_from = number(&self.meta, BODIES_FROM)?;
        let prune = |what, to, records, reason: &str| chain::Gone {
            what,
            to,
            records,
            first: low.0,
            last: high.0,
            earliest,
            latest,
            reason: format!("retention by {reason}"),
        };
        if gone.entries > 0 {
            let reason = gone.why.map_or("age", Why::as_str);
            self.chain.prune(0, prune(What::Entries, gone.first, gone.records, reason))?;
        }
        if bodies_from > bodies_before.max(gone.first) {
            self.chain
                .prune(bodies_before.max(gone.first), prune(What::Bodies, bodies_from, 0, "age of bodies"))?;
        }
        Ok(())
    }

    fn unpacked(&self, number: u64) -> Result<Result<Going, Malformed>, StoreError> {
        let content = packed::get(&self.groups, number)?;
        let content = content.unwrap_or(Err(Malformed("its group is not there")));
        Ok(content.and_then(|content| Ok(Going { number, entries: group::entries(&content)?, content })))
    }

    /// Takes the oldest group out, which is not the one under way. Ids of records that are over go to `gone`.
    pub(super) fn prune(
        &mut self,
        group: u64,
        epoch_first: u64,
        pruned: &mut Pruned,
        gone: &mut Vec<u64>,
    ) -> Result<(), StoreError> {
        match self.unpacked(group)? {
            Ok(going) => self.prune_records(&going, epoch_first, pruned, gone)?,
            Err(why) => {
                tracing::error!(group, %why, "a group of the audit log that cannot be read is pruned");
                self.prune_damaged(group, pruned, gone)?;
            }
        }
        self.packer.remove(&mut self.groups, group)?;
        let next = self.groups.range((group, 0)..)?.next().transpose()?;
        let next = next.map_or(self.tail.number, |(key, _)| key.value().0);
        pruned.entries += next - group;
        pruned.first = next;
        if number(&self.meta, BODIES_FROM)? < next {
            self.meta.insert(BODIES_FROM, next)?;
        }
        pruned.bodies_from = number(&self.meta, BODIES_FROM)?;
        Ok(())
    }

    fn prune_records(
        &mut self,
        going: &Going,
        epoch_first: u64,
        pruned: &mut Pruned,
        gone: &mut Vec<u64>,
    ) -> Result<(), StoreError> {
        let last: BTreeMap<u64, usize> =
            going.entries.iter().enumerate().map(|(at, entry)| (entry.id, at)).collect();
        let mut homes = BTreeMap::new();
        let (mut moved, mut strayed) = (Vec::new(), Vec::new());
        let mut carried = Vec::new();
        for (id, at) in last {
            let Some(entry) = going.entries.get(at) else { continue };
            let home = self.index.span_of(id)?;
            if let Some((first, row)) = home.filter(|(_, row)| row.1 == going.number) {
                homes.insert(first, row);
            }
            let late = self.index.ends.get(id)?.map(|group| group.value());
            let stays = late.or(home.map(|(_, row)| row.1)).filter(|group| *group > going.number);
            if let Some(group) = stays {
                if let Some((_, row)) = home.filter(|(_, row)| row.1 == going.number) {
                    moved.push((id, group, row));
                }
            } else if self.index.underway.get(id)?.is_some() {
                carried.push(entry);
            } else {
                self.index.ends.remove(id)?;
                let seen = going.seen(entry).unwrap_or_default();
                if id >= epoch_first {
                    self.tallies.pruned(&seen)?;
                }
                pruned.over(id, seen.started);
                self.add_to(DROPPED, 1)?;
                gone.push(id);
            }
        }
        for (first, row) in &homes {
            self.index.spans.remove(first)?;
            self.drop_up_to(row.0)?;
            // Records within whose first entries came later: an import may have them in any order.
            for late in self.index.ends.range(*first..=row.0)? {
                let (id, group) = late?;
                if group.value() > going.number && !moved.iter().any(|(moved, ..)| *moved == id.value()) {
                    strayed.push((id.value(), group.value(), *row));
                }
            }
        }
        moved.append(&mut strayed);
        for (id, group, row) in moved {
            self.index.move_to(id, group, row)?;
        }
        for entry in carried {
            let mut places = entry.places;
            self.bodies.keep_known(&mut places)?;
            self.carry(going.encoded(entry), places)?;
            pruned.carried += 1;
        }
        self.free_packs(going, true, pruned)
    }

    /// Takes out what leads to the records of a group that cannot be read.
    fn prune_damaged(
        &mut self,
        group: u64,
        pruned: &mut Pruned,
        gone: &mut Vec<u64>,
    ) -> Result<(), StoreError> {
        let mut homes = Vec::new();
        for row in self.index.spans.iter()? {
            let (first, row) = row?;
            if row.value().1 == group {
                homes.push((first.value(), row.value()));
            }
        }
        for (first, row) in homes {
            self.index.spans.remove(first)?;
            self.drop_up_to(row.0)?;
            for id in first..=row.0 {
                let late = self.index.ends.get(id)?.map(|group| group.value());
                if let Some(late) = late.filter(|late| *late > group) {
                    self.index.move_to(id, late, row)?;
                } else {
                    self.index.ends.remove(id)?;
                    self.index.underway.remove(id)?;
                    pruned.over(id, Timestamp(row.3));
                    self.add_to(DROPPED, 1)?;
                    gone.push(id);
                }
            }
        }
        for pack in self.index.uses.take_up_to(group)? {
            pruned.packs += u64::from(self.bodies.remove(self.packer, pack, None)?);
        }
        self.bodies.forget_contents()
    }

    /// Takes a group's bodies out, but for those that later groups refer to.
    pub(super) fn drop_bodies(&mut self, group: u64, pruned: &mut Pruned) -> Result<(), StoreError> {
        if let Ok(going) = self.unpacked(group)? {
            // What is under way needs its body yet, and is carried on with it when its group goes.
            self.free_packs(&going, false, pruned)?;
        }
        let next = self.groups.range((group + 1, 0)..)?.next().transpose()?;
        let next = next.map_or(self.tail.number, |(key, _)| key.value().0);
        self.meta.insert(BODIES_FROM, next)?;
        pruned.bodies_from = next;
        Ok(())
    }

    /// Takes out the packs that no group after this one refers to; without `all` not those of records under
    /// way.
    fn free_packs(&mut self, going: &Going, all: bool, pruned: &mut Pruned) -> Result<(), StoreError> {
        let mut needed = BTreeSet::new();
        for entry in going.entries.iter().filter(|_| !all) {
            if self.index.underway.get(entry.id)?.is_some() {
                needed.extend(entry.places.iter().flatten().map(|place| place.pack));
            }
        }
        for entry in &going.entries {
            let digests = going.seen(entry).map(|seen| seen.digests).unwrap_or_default();
            for (place, digest) in entry.places.into_iter().zip(digests) {
                let Some(Place { pack, .. }) = place else { continue };
                if needed.contains(&pack) || self.index.uses.last(pack)? != Some(going.number) {
                    continue;
                }
                self.index.uses.remove(pack)?;
                let gone = self.bodies.remove(self.packer, pack, digest.as_ref())?;
                pruned.packs += u64::from(gone);
            }
        }
        Ok(())
    }

    pub(super) fn add_to(&mut self, name: &'static str, by: u64) -> Result<(), StoreError> {
        let sum = number(&self.meta, name)?.saturating_add(by);
        self.meta.insert(name, sum)?;
        Ok(())
    }

    fn drop_up_to(&mut self, id: u64) -> Result<(), StoreError> {
        if number(&self.meta, DROPPED_ID)? < id {
            self.meta.insert(DROPPED_ID, id)?;
        }
        Ok(())
    }
}

impl super::super::index::Index<'_> {
    /// The span that has this id.
    fn span_of(&self, id: u64) -> Result<Option<(u64, SpanRow)>, StoreError> {
        let row = self.spans.range(..=id)?.next_back().transpose()?;
        let row = row.map(|(first, row)| (first.value(), row.value()));
        Ok(row.filter(|(_, row)| row.0 >= id))
    }

    /// A record's beginning goes; its last entry is in `group`. `row` is that of the span it was in.
    fn move_to(&mut self, id: u64, group: u64, row: SpanRow) -> Result<(), StoreError> {
        let (_, _, earliest, latest, present) = row;
        self.ends.remove(id)?;
        self.spans.insert(id, (id, group, earliest, latest, present))?;
        if self.underway.get(id)?.is_some() {
            self.underway.insert(id, id)?;
        }
        Ok(())
    }
}
