//! Reads changes in the order of their revisions: the source of feed and watch.

use stead_types::{Revision, Sequence, TenantTime};

use super::{ReadError, TenantReader, Version, version_at};
use crate::{
    lineage::RevisionStatus,
    rows::{Order, Rows, Unreadable, change, feed},
    shard::{Shard, record::TenantRecord},
};

/// Gapless page of a tenant's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesPage {
    /// The changes, in their order; a change of many keys is never split.
    pub changes: Vec<change::Change>,
    /// Revision that the next page continues after.
    pub next: Revision,
    /// Whether more changes follow.
    pub more: bool,
}

impl TenantReader<'_> {
    /// Returns the changes after a revision, up to `up_to` (or the copy's own revision), of about `len_max` bytes.
    pub fn changes(&self, after: Revision, up_to: Sequence, len_max: usize) -> Result<ChangesPage, ReadError> {
        // History has all changes since a revision that can be read.
        self.resolve(Some(after))?;
        let last = up_to.min(self.state().revision.sequence());
        let first = after.sequence().next().unwrap_or(Sequence::MAX);
        let mut found = ChangesPage {
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

    /// Returns the bytes of history after a sequence, and the last sequence that they include: at most `rows_max` rows
    /// are read, but for the rest of a change of many keys.
    pub fn history_len(&self, after: Sequence, rows_max: usize) -> Result<(u64, Sequence), Unreadable> {
        let last = self.state().revision.sequence();
        let (mut len, mut reached) = (0, after);
        let Some(first) = after.next().filter(|first| *first <= last) else {
            return Ok((len, reached));
        };
        let start = change::key(self.copy, first, 0);
        let end = change::key(self.copy, last.next().unwrap_or(Sequence::MAX), 0);
        for (rows, row) in self.rows.range(&start..&end, Order::Ascending).enumerate() {
            let (key, value) = row?;
            let (sequence, effect) = change::parse_key(key)?;
            if effect == 0 && rows >= rows_max {
                return Ok((len, reached));
            }
            len += (value.len() + change::FEED_HEAD_LEN_MAX) as u64;
            reached = sequence;
        }
        Ok((len, last))
    }

    /// Returns the last change after a revision that was made before a time, or the revision if there is none.
    pub fn last_before(&self, after: Revision, time: TenantTime) -> Result<Revision, Unreadable> {
        // Binary search, since times do not go back: changes up to `low` were made before, those after `above` were
        // not. Most often the first change is not.
        let mut low = after.max(self.state().retention_floor).sequence().get();
        let mut above = self.state().revision.sequence().get();
        let (mut found, mut step) = (after, 1);
        while low < above {
            let middle = low + step.min((above - low).div_ceil(2));
            let sequence = Sequence::new(middle).expect("it is not above a sequence");
            match self.first_effect(sequence)? {
                Some(change) if change.time < time => (found, low) = (change.revision, middle),
                Some(_) => above = middle - 1,
                // A removed change is old.
                None => low = middle,
            }
            step = u64::MAX;
        }
        Ok(found)
    }

    /// Returns the revision of the change with a sequence, with the epoch that it was made in, which may be earlier
    /// than the owner's. Below the retention floor it is the floor, after the last change the last change.
    pub fn revision_of(&self, sequence: Sequence) -> Result<Revision, Unreadable> {
        let (floor, last) = (self.state().retention_floor, self.state().revision);
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

    /// Returns the version that a change replaced, while history has it.
    pub fn replaced_version(&self, change: &change::Change) -> Result<Option<Version>, Unreadable> {
        match change.previous {
            Some(at) => version_at(self.rows, self.copy, at),
            None => Ok(None),
        }
    }
}

impl Shard {
    /// Returns the feed entries after `after`, up to `entries_max`, by log index.
    pub fn feed(
        &self,
        rows: &dyn Rows,
        after: u64,
        entries_max: usize,
    ) -> Result<Vec<(u64, feed::FeedEntry)>, Unreadable> {
        let start = feed::key(self.prefix(), after.max(self.feed_floor).saturating_add(1));
        let end = self.prefix().range(crate::rows::kind::FEED).end;
        rows.range(&start..&end, Order::Ascending)
            .take(entries_max)
            .map(|row| {
                let (key, value) = row?;
                let mut entry = feed::decode(value)?;
                // What a promotion has cut is in a fork, and its sequences are others' now.
                entry.touched.retain(|touched| !self.is_cut(touched));
                Ok((feed::parse_key(key)?, entry))
            })
            .collect()
    }

    fn is_cut(&self, touched: &feed::TouchedTenant) -> bool {
        let status = |record: &TenantRecord| record.lineage.status_of(touched.revision());
        matches!(
            self.record(touched.tenant).map(status),
            Some(RevisionStatus::Cut { .. })
        )
    }

    /// Returns the log indexes of the first and the last feed entry.
    pub fn feed_bounds(&self, rows: &dyn Rows) -> Result<Option<(u64, u64)>, Unreadable> {
        let mut range = self.prefix().range(crate::rows::kind::FEED);
        range.start = feed::key(self.prefix(), self.feed_floor.saturating_add(1));
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
        rows::{GroupPrefix, memory::MemoryRows},
        shard::client_windows::ClientWindows,
    };

    #[test]
    fn changes_in_closed_run_are_compacted() {
        let mut lineage = Lineage::starting(Epoch::FIRST);
        for number in 1..=RUNS_MAX as u64 {
            lineage.record_promotion(lineage.epoch().next().unwrap(), Sequence::new(number * 10).unwrap());
        }
        let mut record = TenantRecord::unknown();
        record.live.revision = Revision::new(lineage.epoch(), Sequence::new(1_000).unwrap());
        record.lineage = lineage;
        let group = GroupId::new(1);
        let reading = TenantReader {
            rows: &MemoryRows::default(),
            copy: GroupPrefix { group, install: 0 }.copy(TenantNumber::new(7), 1),
            record: &record,
            clients: &ClientWindows::default(),
            next_expiry: None,
        };
        let changes = |after: &str| reading.changes(after.parse().unwrap(), Sequence::MAX, 1);
        assert!(matches!(changes("1.5"), Err(ReadError::Compacted { .. })));
        assert!(matches!(changes("1.25"), Err(ReadError::Forked(_))));
        assert!(changes("3.25").is_ok());
    }
}
