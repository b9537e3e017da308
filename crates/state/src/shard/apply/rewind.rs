//! Rewinds a live copy to the fork point: its tail moves to the fork, the newest change first, and each key goes back to
//! the version before.
//!
//! ```text
//!   live copy   ... base ... fork point | moved back, newest first <── next | moved
//!   fork             base (copied)      |                                     tail
//! ```
//!
//! Steps follow the log, so that all replicas have the same rows and a command's guard has the same result everywhere. The
//! copy is not read meanwhile, and commands about its tenant fail.
//!
//! # Invariants
//!
//! 1. After each step rows, counters, digest of keys and expiry index are those of a copy whose last change is `next`.
//! 2. A fork has each change that was undone, and of each key the version at the fork point, unless that was a delete
//!    below the retention floor.
//! 3. A step looks at the rows that it was given, and at the rest of the last change at most.

use bytes::Bytes;
use stead_types::{Revision, Sequence, TenantNumber};

use super::super::{
    Shard,
    append::undo,
    record::{Tail, TenantRecord},
    shard::MovedChanges,
    tenant::LoadedTenant,
};
use crate::{
    codec::Malformed,
    lineage::Lineage,
    rows::{
        CopyPrefix, GroupPrefix, Order, Rows, RowsMut, Unreadable,
        change::{self, Change},
    },
};

/// Rows of tails that are moved with each entry, whatever it is about.
pub(super) const ROWS_PER_ENTRY: usize = if cfg!(test) { 3 } else { 256 };
/// Rows that are moved for each [`ContinueRewind`](crate::shard::command::ContinueRewind).
pub(super) const ROWS_PER_STEP: usize = if cfg!(test) { 2 } else { 1_024 };
/// Bytes for which a row counts as one more.
const ROW_LEN: usize = 16 << 10;

const CHAIN: Malformed = Malformed {
    what: "chain of versions",
};

/// Returns the change at which a record's lineage leaves another, where the live copy can be rewound to it.
pub(super) fn fork_revision(
    rows: &dyn Rows,
    prefix: GroupPrefix,
    number: TenantNumber,
    record: &TenantRecord,
    lineage: &Lineage,
) -> Result<Option<Revision>, Unreadable> {
    change_revision(rows, prefix, number, record, record.lineage.fork_point(lineage))
}

/// Returns the change of the live copy with a sequence before its last, where versions as of it are kept. The retention
/// floor decides: rows below it may be gone in one replica and still be there in another.
pub(super) fn change_revision(
    rows: &dyn Rows,
    prefix: GroupPrefix,
    number: TenantNumber,
    record: &TenantRecord,
    sequence: Sequence,
) -> Result<Option<Revision>, Unreadable> {
    let live = &record.live;
    let floor = live.retention_floor;
    if sequence == Sequence::ZERO || sequence >= live.revision.sequence() || sequence < floor.sequence() {
        return Ok(None);
    }
    if sequence == floor.sequence() {
        return Ok(Some(floor));
    }
    let row = rows.get(&change::key(prefix.copy(number, live.number), sequence, 0))?;
    let change = row.map(|row| change::decode(sequence, 0, row)).transpose()?;
    Ok(change.map(|change| change.revision))
}

/// Changes that a step undoes, newest first, with the rows that they are moved as.
struct Step {
    changes: Vec<(Change, Bytes)>,
    rows: usize,
    /// Last sequence that stays.
    next: Sequence,
}

impl Shard {
    /// Goes on with rewinds, looking at up to about this many rows.
    pub(super) fn rewind(&mut self, rows: &mut dyn RowsMut, rows_max: usize) -> Result<(), Unreadable> {
        let mut left = rows_max;
        while left > 0
            && let Some(number) = self.to_rewind.first().copied()
        {
            left = left.saturating_sub(self.rewind_tenant(rows, number, left)?);
        }
        Ok(())
    }

    fn rewind_tenant(
        &mut self,
        rows: &mut dyn RowsMut,
        number: TenantNumber,
        rows_max: usize,
    ) -> Result<usize, Unreadable> {
        let prefix = self.prefix;
        let Some(tenant) = self.tenants.get_mut(&number) else {
            self.to_rewind.remove(&number);
            return Ok(1);
        };
        let record = &mut tenant.record;
        let (point, live) = (record.live.revision.sequence(), prefix.copy(number, record.live.number));
        let Some(mut rewind) = record.rewind else {
            self.to_rewind.remove(&number);
            return Ok(1);
        };
        let step = step(rows, live, point, rewind.next, rows_max)?;
        let moved = MovedChanges {
            copy: live,
            to: rewind.fork,
            after: step.next,
            up_to: rewind.next,
        };
        let (len, is_exact) = undo_step(rows, tenant, live, prefix.copy(number, rewind.fork), &step)?;
        let record = &mut tenant.record;
        if let Some(fork) = record.forks.iter_mut().find(|fork| fork.copy.number == rewind.fork)
            && let Some(Tail { len: all, .. }) = &mut fork.tail
        {
            *all += len;
        }
        rewind.next = step.next;
        rewind.lacks_outcomes |= !is_exact;
        tenant.dirty = true;
        if rewind.next > point {
            record.rewind = Some(rewind);
        } else {
            // An owner's windows have raised edges instead.
            record.live.rewound = rewind.lacks_outcomes && record.owned().is_none();
            record.rewind = None;
            self.index_maintenance(number);
            self.index_owner(rows, number)?;
        }
        self.moved.push(moved);
        Ok(step.rows)
    }
}

/// Reads about this many rows of whole changes above the fork point, from the last one down.
fn step(
    rows: &dyn Rows,
    live: CopyPrefix,
    point: Sequence,
    next: Sequence,
    rows_max: usize,
) -> Result<Step, Unreadable> {
    let start = change::key(live, point.next().unwrap_or(Sequence::MAX), 0);
    let end = change::key(live, next.next().unwrap_or(Sequence::MAX), 0);
    let mut step = Step {
        changes: Vec::new(),
        rows: 1,
        next: point,
    };
    if start >= end {
        return Ok(step);
    }
    for row in rows.range(&start..&end, Order::Descending) {
        let (key, value) = row?;
        let (sequence, effect) = change::parse_key(key)?;
        let before = step.changes.last().map(|(change, _)| change.revision.sequence());
        if before.is_some_and(|before| sequence < before) && step.rows > rows_max {
            step.next = sequence;
            break;
        }
        step.rows += 1 + value.len() / ROW_LEN;
        step.changes
            .push((change::decode(sequence, effect, value.clone())?, value));
    }
    Ok(step)
}

/// Undoes the changes of a step and moves them to the fork. Returns their bytes, and whether the idempotency windows are
/// again what they were before.
fn undo_step(
    rows: &mut dyn RowsMut,
    tenant: &mut LoadedTenant,
    live: CopyPrefix,
    fork: CopyPrefix,
    step: &Step,
) -> Result<(u64, bool), Unreadable> {
    let state = &mut tenant.record.live;
    let point = state.revision.sequence();
    let (mut len, mut is_exact) = (0, true);
    for (change, row) in &step.changes {
        let before = version_before(rows, live, state.swept, change)?;
        if let Some(base) = before.as_ref().filter(|base| base.revision.sequence() <= point) {
            let key = change::key(fork, base.revision.sequence(), base.effect);
            rows.put_new(key, change::encode(base));
        }
        undo(rows, live, state, change, before.as_ref());
        is_exact &= tenant.clients.undo_outcome(state, change);
        let (sequence, effect) = (change.revision.sequence(), change.effect);
        rows.put_new(change::key(fork, sequence, effect), row.clone());
        rows.delete(change::key(live, sequence, effect));
        len += (row.len() + change::FEED_HEAD_LEN_MAX) as u64;
    }
    Ok((len, is_exact))
}

/// Reads the version of its key that a change replaced. A delete that has been swept counts as none: where nothing had
/// replaced it, its tombstone would be gone.
fn version_before(
    rows: &dyn Rows,
    live: CopyPrefix,
    swept: Sequence,
    change: &Change,
) -> Result<Option<Change>, Unreadable> {
    let Some((revision, effect)) = change.previous else {
        return Ok(None);
    };
    let sequence = revision.sequence();
    if sequence <= swept && change.follows_delete() {
        return Ok(None);
    }
    let row = rows.get(&change::key(live, sequence, effect))?.ok_or(CHAIN)?;
    Ok(Some(change::decode(sequence, effect, row)?))
}
