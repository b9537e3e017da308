//! Changes in the order of their revisions: what feed and watch are made of.

use stead_types::{Revision, Sequence, TenantTime};

use super::{Reading, Refused, Version, version_at};
use crate::{
    rows::{Order, Rows, Unreadable, change, feed},
    shard::Shard,
};

/// Some changes of a tenant, gapless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The changes, in their order; a change of many keys is never split.
    pub changes: Vec<change::Change>,
    /// Where to go on.
    pub next: Revision,
    /// Whether there are more.
    pub more: bool,
}

impl Reading<'_> {
    /// Returns the changes after a revision, up to `up_to` (or the copy's own), of about `len_max` bytes.
    pub fn changes(&self, after: Revision, up_to: Sequence, len_max: usize) -> Result<Changes, Refused> {
        // Where a read could be made, all changes since are kept.
        self.resolve(Some(after))?;
        let last = up_to.min(self.state().revision.sequence());
        let first = after.sequence().next().unwrap_or(Sequence::MAX);
        let mut found = Changes {
            changes: Vec::new(),
            next: after,
            more: false,
        };
        if first > last {
            return Ok(found);
        }
        let start = change::key(self.copy, first, 0);
        let end = change::key(self.copy, last.next().unwrap_or(Sequence::MAX), 0);
        let mut len = 0;
        for row in self.rows.range(&start..&end, Order::Ascending) {
            let (key, value) = row?;
            let (sequence, effect) = change::parse_key(key)?;
            if effect == 0 && len >= len_max {
                found.more = true;
                break;
            }
            len += value.len() + change::FEED_HEAD_LEN_MAX;
            let change = change::decode(sequence, effect, value)?;
            found.next = change.revision;
            found.changes.push(change);
        }
        Ok(found)
    }

    /// Returns the last change of those after a revision that were made before a time, or the revision if none was.
    pub fn last_before(&self, after: Revision, time: TenantTime) -> Result<Revision, Unreadable> {
        // Times do not go back, so it is found by halving: what is up to `low` was made before, what is behind `above`
        // was not. Most often that is so of the first one already.
        let mut low = after.max(self.state().floor).sequence().get();
        let mut above = self.state().revision.sequence().get();
        let (mut found, mut step) = (after, 1);
        while low < above {
            let middle = low + step.min((above - low).div_ceil(2));
            let sequence = Sequence::new(middle).expect("it is not above a sequence");
            match self.first_effect(sequence)? {
                Some(change) if change.time < time => (found, low) = (change.revision, middle),
                Some(_) => above = middle - 1,
                // What was removed is old.
                None => low = middle,
            }
            step = u64::MAX;
        }
        Ok(found)
    }

    /// Returns the revision of the change with a sequence: with the epoch that it was made in, which may be an earlier one
    /// than the owner's. What the floor has passed is named by the floor, what is not there yet by the last change.
    pub fn revision_of(&self, sequence: Sequence) -> Result<Revision, Unreadable> {
        let (floor, last) = (self.state().floor, self.state().revision);
        if sequence <= floor.sequence() {
            return Ok(floor);
        }
        if sequence >= last.sequence() {
            return Ok(last);
        }
        Ok(self.first_effect(sequence)?.map_or(floor, |change| change.revision))
    }

    fn first_effect(&self, sequence: Sequence) -> Result<Option<change::Change>, Unreadable> {
        let row = self.rows.get(&change::key(self.copy, sequence, 0))?;
        Ok(row.map(|row| change::decode(sequence, 0, row)).transpose()?)
    }

    /// Returns what a change replaced, while history has it.
    pub fn replaced_by(&self, change: &change::Change) -> Result<Option<Version>, Unreadable> {
        match change.previous {
            Some(at) => version_at(self.rows, self.copy, at),
            None => Ok(None),
        }
    }
}

impl Shard {
    /// Returns the entries after `after` that touched tenants of this home, up to `entries_max`, by Raft index.
    pub fn feed(&self, rows: &dyn Rows, after: u64, entries_max: usize) -> Result<Vec<(u64, feed::Feed)>, Unreadable> {
        let start = feed::key(self.place(), after.max(self.feed_floor).saturating_add(1));
        let end = self.place().range(crate::rows::kind::FEED).end;
        rows.range(&start..&end, Order::Ascending)
            .take(entries_max)
            .map(|row| {
                let (key, value) = row?;
                Ok((feed::parse_key(key)?, feed::decode(value)?))
            })
            .collect()
    }

    /// Returns the first and the last entry that the feed remembers.
    pub fn feed_ends(&self, rows: &dyn Rows) -> Result<Option<(u64, u64)>, Unreadable> {
        let mut range = self.place().range(crate::rows::kind::FEED);
        range.start = feed::key(self.place(), self.feed_floor.saturating_add(1));
        let end = |order| rows.range(&range.start..&range.end, order).next().transpose();
        let (Some((first, _)), Some((last, _))) = (end(Order::Ascending)?, end(Order::Descending)?) else {
            return Ok(None);
        };
        Ok(Some((feed::parse_key(first)?, feed::parse_key(last)?)))
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{Epoch, GroupId, TenantNumber};

    use super::*;
    use crate::{
        lineage::{Lineage, RUNS_MAX},
        rows::{Place, memory::MemoryRows},
        shard::{clients::Clients, record::Record},
    };

    #[test]
    fn where_history_is_too_old_to_tell_it_is_compacted() {
        let mut lineage = Lineage::starting(Epoch::FIRST);
        for number in 1..=RUNS_MAX as u64 {
            lineage.promoted_to(lineage.epoch().next().unwrap(), Sequence::new(number * 10).unwrap());
        }
        let mut record = Record::unknown();
        record.live.revision = Revision::new(lineage.epoch(), Sequence::new(1_000).unwrap());
        record.lineage = lineage;
        let group = GroupId::new(1);
        let reading = Reading {
            rows: &MemoryRows::default(),
            copy: Place { group, install: 0 }.copy(TenantNumber::new(7), 1),
            record: &record,
            clients: &Clients::default(),
            next_expiry: None,
        };
        let changes = |after: &str| reading.changes(after.parse().unwrap(), Sequence::MAX, 1);
        assert!(matches!(changes("1.5"), Err(Refused::Compacted { .. })));
        assert!(matches!(changes("1.25"), Err(Refused::Forked { .. })));
        assert!(changes("3.25").is_ok());
    }
}
