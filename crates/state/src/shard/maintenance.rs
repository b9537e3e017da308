//! Maintenance: removes unreachable rows in bounded steps: versions below the retention floor, feed entries below
//! theirs, and discarded copies.
//!
//! ```text
//!   changes of a copy:   ... removed ... trimmed ... swept ... retention floor ... revision
//!                                         └ to trim ┘  └ to sweep ┘
//! ```
//!
//! Sweeping follows the log, so that the current versions of all replicas are the same rows: a command that looks at
//! a bounded number of them has the same result everywhere. Trimming is local to this node, and waits while a
//! snapshot is read: no result depends on whether it has happened.
//!
//! # Invariants
//!
//! 1. Which tombstones are current versions follows from the log alone.
//! 2. A step looks at the rows that it was given, and at the rest of the last change at most.

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
    CopyPrefix, Order, Rows, RowsMut, Unreadable,
    change::{self, Change, EFFECTS_MAX},
    current as current_row, feed, garbage, kind,
};

const _: () = assert!(
    TXN_STEPS_MAX <= EFFECTS_MAX && RANGE_KEYS_MAX <= EFFECTS_MAX && EXPIRED_MAX <= EFFECTS_MAX,
    "a change would have more effects than a step of maintenance is bounded by"
);

/// Bytes for which a row counts as one more: reading long values costs more than reading many.
const ROW_LEN: usize = 16 << 10;

/// Batch of changes that a step examines.
struct Step {
    changes: Vec<Change>,
    /// Cost in rows; at least one.
    rows: usize,
    /// Last sequence that the step has finished.
    through: Sequence,
}

impl Shard {
    /// Tells whether there are rows to remove.
    pub fn needs_maintenance(&self) -> bool {
        !self.to_trim.is_empty() || !self.garbage.is_empty() || self.feed_to_trim
    }

    /// Removes unreachable rows, looking at up to about this many.
    pub fn maintain(&mut self, rows: &mut dyn RowsMut, rows_max: usize) -> Result<(), Unreadable> {
        let mut left = rows_max;
        while left > 0 {
            let looked_at = if let Some(tenant) = self.to_trim.first().copied() {
                self.trim(rows, tenant, left)?
            } else if let Some(copy) = self.garbage.front().copied() {
                self.erase_rows(rows, copy, left)?
            } else if self.feed_to_trim {
                self.trim_feed(rows, left)?
            } else {
                break;
            };
            left = left.saturating_sub(looked_at);
        }
        Ok(())
    }

    /// Sweeps about this many of the changes between what was swept and the retention floor: removes the tombstones
    /// of deletes that nothing has replaced. Swept versions are removed at once, where that is allowed.
    pub(super) fn sweep(&mut self, rows: &mut dyn RowsMut, rows_max: usize, may_trim: bool) -> Result<(), Unreadable> {
        let mut left = rows_max;
        while left > 0
            && let Some(number) = self.to_sweep.first().copied()
        {
            left = left.saturating_sub(self.sweep_tenant(rows, number, left, may_trim)?);
        }
        Ok(())
    }

    fn sweep_tenant(
        &mut self,
        rows: &mut dyn RowsMut,
        number: TenantNumber,
        rows_max: usize,
        may_trim: bool,
    ) -> Result<usize, Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            self.to_sweep.remove(&number);
            return Ok(1);
        };
        let live = &mut tenant.record.live;
        let copy = self.prefix.copy(number, live.number);
        let mut floor = live.retention_floor.sequence();
        if planted::is(Bug::TrimmedAboveFloor) {
            floor = live.revision.sequence();
        }
        let step = step(rows, copy, live.swept, floor, rows_max)?;
        for change in step.changes.iter().filter(|change| change.value.is_none()) {
            let now = current(rows, copy, &change.key)?;
            if now.is_some_and(|now| (now.revision, now.effect) == (change.revision, change.effect)) {
                rows.delete(current_row::key(copy, &change.key));
            }
        }
        if may_trim && live.trimmed == live.swept {
            remove(rows, copy, &step.changes);
            live.trimmed = step.through;
        }
        live.swept = step.through;
        tenant.dirty = true;
        self.index_maintenance(number);
        Ok(step.rows)
    }

    /// Trims changes that were swept while nothing could be removed.
    fn trim(&mut self, rows: &mut dyn RowsMut, number: TenantNumber, rows_max: usize) -> Result<usize, Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            self.to_trim.remove(&number);
            return Ok(1);
        };
        let live = &mut tenant.record.live;
        let copy = self.prefix.copy(number, live.number);
        let step = step(rows, copy, live.trimmed, live.swept, rows_max)?;
        remove(rows, copy, &step.changes);
        live.trimmed = step.through;
        tenant.dirty = true;
        self.index_maintenance(number);
        Ok(step.rows)
    }

    fn trim_feed(&mut self, rows: &mut dyn RowsMut, rows_max: usize) -> Result<usize, Unreadable> {
        let start = self.prefix.range(kind::FEED).start;
        let end = feed::key(self.prefix, self.feed_floor.saturating_add(1));
        let keys = rows
            .range(&start..&end, Order::Ascending)
            .take(rows_max)
            .map(|row| row.map(|(key, _)| key))
            .collect::<Result<Vec<_>, _>>()?;
        let seen = keys.len();
        for key in keys {
            rows.delete(key);
        }
        self.feed_to_trim = seen == rows_max;
        Ok(seen + 1)
    }

    fn erase_rows(&mut self, rows: &mut dyn RowsMut, copy: CopyPrefix, rows_max: usize) -> Result<usize, Unreadable> {
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

/// Reads about this many rows of whole changes, after one sequence and up to another.
fn step(
    rows: &dyn Rows,
    copy: CopyPrefix,
    after: Sequence,
    up_to: Sequence,
    rows_max: usize,
) -> Result<Step, Unreadable> {
    let start = change::key(copy, after.next().unwrap_or(Sequence::MAX), 0);
    let end = change::key(copy, up_to.next().unwrap_or(Sequence::MAX), 0);
    let mut step = Step {
        changes: Vec::new(),
        rows: 1,
        through: up_to,
    };
    if start >= end {
        return Ok(step);
    }
    for row in rows.range(&start..&end, Order::Ascending) {
        let (key, value) = row?;
        let (sequence, effect) = change::parse_key(key)?;
        match step.changes.last().map(|last| last.revision.sequence()) {
            Some(last) if last < sequence && step.rows > rows_max => {
                step.through = last;
                break;
            }
            Some(_) | None => {
                step.rows += 1 + value.len() / ROW_LEN;
                step.changes.push(change::decode(sequence, effect, value)?);
            }
        }
    }
    Ok(step)
}

/// Removes what is unreachable once these changes are below the retention floor: what each of them replaced, and
/// deletes.
fn remove(rows: &mut dyn RowsMut, copy: CopyPrefix, changes: &[Change]) {
    for change in changes {
        if let Some((revision, effect)) = change.previous {
            rows.delete(change::key(copy, revision.sequence(), effect));
        }
        if change.value.is_none() {
            rows.delete(change::key(copy, change.revision.sequence(), change.effect));
        }
    }
}
