//! Removes rows that nothing reads any more, in bounded steps: versions below the floor, and discarded copies.
//!
//! It is this node's own affair: no answer depends on whether it has happened.

use stead_types::{
    Sequence, TenantNumber,
    limits::TXN_STEPS_MAX,
    planted::{self, Bug},
};

use super::{
    Shard,
    append::current,
    command::{EXPIRED_MAX, RANGE_KEYS_MAX},
};
use crate::rows::{
    Copy, Order, RowsMut, Unreadable,
    change::{self, EFFECTS_MAX},
    current as current_row, garbage, kind,
};

const _: () = assert!(
    TXN_STEPS_MAX <= EFFECTS_MAX && RANGE_KEYS_MAX <= EFFECTS_MAX && EXPIRED_MAX <= EFFECTS_MAX,
    "a revision with more effects would never be trimmed"
);

impl Shard {
    /// Tells whether there is anything to remove.
    pub fn needs_maintenance(&self) -> bool {
        !self.to_trim.is_empty() || !self.garbage.is_empty()
    }

    /// Looks at up to about this many rows and removes what is no longer read.
    pub fn maintain(&mut self, rows: &mut dyn RowsMut, rows_max: usize) -> Result<(), Unreadable> {
        let mut left = rows_max;
        while left > 0 {
            if let Some(tenant) = self.to_trim.first().copied() {
                left = left.saturating_sub(self.trim(rows, tenant, left)?);
            } else if let Some(copy) = self.garbage.front().copied() {
                left = left.saturating_sub(self.erase_rows(rows, copy, left)?);
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Goes through the changes up to the floor: what each of them replaced is no longer read, nor is a tombstone that
    /// nothing has replaced.
    fn trim(&mut self, rows: &mut dyn RowsMut, number: TenantNumber, rows_max: usize) -> Result<usize, Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            self.to_trim.remove(&number);
            return Ok(1);
        };
        let live = &mut tenant.record.live;
        let copy = self.place.copy(number, live.number);
        let mut floor = live.floor.sequence();
        if planted::is(Bug::TrimmedAboveFloor) {
            floor = live.revision.sequence();
        }
        let start = change::key(copy, live.trimmed.next().unwrap_or(Sequence::MAX), 0);
        let end = change::key(copy, floor.next().unwrap_or(Sequence::MAX), 0);
        // A change of which not all effects are seen is looked at again, so a step must hold the largest change.
        let rows_max = rows_max.max(EFFECTS_MAX + 1);
        let found = rows
            .range(&start..&end, Order::Ascending)
            .take(rows_max)
            .collect::<Result<Vec<_>, _>>()?;
        let seen = found.len();
        for (key, value) in found {
            let (sequence, effect) = change::parse_key(key.clone())?;
            let change = change::decode(sequence, effect, value)?;
            if let Some((revision, effect)) = change.previous {
                rows.delete(change::key(copy, revision.sequence(), effect));
            }
            if change.value.is_none() {
                let now = current(rows, copy, &change.key)?;
                if now.is_some_and(|now| (now.revision, now.effect) == (change.revision, change.effect)) {
                    rows.delete(current_row::key(copy, &change.key));
                    rows.delete(key);
                }
            }
            if !change.more {
                live.trimmed = sequence;
            }
        }
        if seen < rows_max {
            live.trimmed = floor;
            self.to_trim.remove(&number);
        }
        tenant.dirty = true;
        Ok(seen + 1)
    }

    fn erase_rows(&mut self, rows: &mut dyn RowsMut, copy: Copy, rows_max: usize) -> Result<usize, Unreadable> {
        let mut erased = 0;
        for kind in [kind::CURRENT, kind::CHANGE, kind::CLIENT, kind::EXPIRY] {
            let range = copy.range(kind);
            let keys = rows
                .range(&range.start..&range.end, Order::Ascending)
                .take(rows_max - erased)
                .map(|row| row.map(|(key, _)| key))
                .collect::<Result<Vec<_>, _>>()?;
            erased += keys.len();
            for key in keys {
                rows.delete(key);
            }
            if erased == rows_max {
                return Ok(erased);
            }
        }
        rows.delete(garbage::key(copy));
        self.garbage.pop_front();
        Ok(erased + 1)
    }
}
