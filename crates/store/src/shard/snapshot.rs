//! Snapshot of a shard: nothing is copied at the cut. The memory is written to rows there; all rows are read
//! afterwards, page by page, as they were at the cut.
//!
//! ```text
//!   records, windows, streams   overwritten at checkpoints: preimages are saved (snapshot_cuts)
//!   the feed                    up to the cut's entry
//!   changes                     copy by copy, up to the revisions of the cut's records; those of the tail of a copy that is
//!                               rewound meanwhile are read from the fork that they were moved to
//! ```
//!
//! Keys travel without group and install: the kind, then the rest. Current versions do not travel: they follow from the
//! records and the changes, which come copy by copy in the order of their revisions.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use stead_state::{
    rows::{COPY_PREFIX_LEN, GROUP_PREFIX_LEN, GroupPrefix, Order, Rows, Unreadable, change, feed, kind, tenant},
    shard::record::TenantRecord,
};
use stead_types::{
    Sequence, TenantNumber,
    planted::{self, Bug},
};

use super::{ShardMachine, machine::MachineState, snapshot_cuts::SnapshotCut};
use crate::{
    chunks,
    group_rows::{GroupRows, failed},
    machine::{MachineError, Snapshot},
    table::Table,
};

/// Most rows, and the approximate bytes, that are read under one lock.
const PAGE_ROWS: usize = 1024;
const PAGE_LEN: usize = 256 << 10;

/// Kinds whose rows are overwritten, in the order of their keys; records first.
const MUTABLE_KINDS: [u8; 4] = [kind::TENANT, kind::CLIENT, kind::STREAM, kind::FEED_FLOOR];

/// Takes a snapshot of a machine.
pub(super) fn cut(machine: &ShardMachine) -> Result<Snapshot, MachineError> {
    let mut guard = machine.rows.change()?;
    let inner = &mut *guard;
    inner.state.flush(&mut inner.table);
    let prefix = inner.state.shard.prefix();
    let of_kind = |kind| RowRange::Mutable(prefix.range(kind));
    let feed = (inner.state.shard.feed_floor(), inner.applied.index);
    let feed = feed.0.saturating_add(1)..feed.1.saturating_add(1);
    let mut ranges: VecDeque<_> = MUTABLE_KINDS.map(of_kind).into();
    ranges.push_back(RowRange::Immutable(
        feed::key(prefix, feed.start)..feed::key(prefix, feed.end),
    ));
    let reader = SnapshotReader {
        rows: machine.rows.clone(),
        _pin: machine.pin.clone(),
        cut: inner.state.cuts.cut(prefix.range(kind::TENANT).start),
        prefix,
        copies: BTreeSet::new(),
        ranges,
        page: VecDeque::new(),
    };
    let applied = inner.applied.clone();
    guard.commit();
    Ok(Snapshot {
        applied,
        chunks: Box::new(chunks::encode(reader)),
    })
}

/// Range of rows that are part of the snapshot.
enum RowRange {
    /// The rows may be overwritten meanwhile.
    Mutable(Range<Bytes>),
    /// The rows stay while the snapshot is read.
    Immutable(Range<Bytes>),
}

/// Returns a key without group and install.
fn without_prefix(key: &[u8]) -> Bytes {
    [&key[..1], &key[GROUP_PREFIX_LEN..]].concat().into()
}

/// Returns the ranges of the changes of a tenant's copies: two ranges for a copy being seeded, because it has the
/// changes of the seed's chunks and those of the feed, and none between.
fn changes_of(prefix: GroupPrefix, tenant: TenantNumber, record: &TenantRecord) -> Vec<RowRange> {
    let range = |number, after: Sequence, up_to: Sequence| {
        let copy = prefix.copy(tenant, number);
        let start = change::key(copy, after.next().unwrap_or(Sequence::MAX), 0);
        let up_to = if planted::is(Bug::SnapshotCutLate) {
            Sequence::MAX
        } else {
            up_to
        };
        let end = change::key(copy, up_to.next().unwrap_or(Sequence::MAX), 0);
        RowRange::Immutable(start..end)
    };
    let forks = record.forks.iter().map(|fork| &fork.copy);
    let forks = forks.map(|state| (state.number, state.revision.sequence()));
    let mut ranges: Vec<_> = std::iter::once((record.live.number, record.live_rows_end()))
        .chain(forks)
        .map(|(number, up_to)| range(number, Sequence::ZERO, up_to))
        .collect();
    if let Some(shadow) = record.shadow.as_ref().filter(|shadow| !shadow.windows_only) {
        let seed = shadow.seed.sequence();
        ranges.push(range(shadow.state.number, Sequence::ZERO, shadow.loaded.min(seed)));
        ranges.push(range(shadow.state.number, seed, shadow.state.revision.sequence()));
    }
    ranges
}

/// Iterator over the rows of a snapshot.
struct SnapshotReader {
    rows: Arc<GroupRows<MachineState>>,
    /// Keeps maintenance from removing rows that are still to be read.
    _pin: Arc<()>,
    cut: Arc<SnapshotCut>,
    prefix: GroupPrefix,
    /// The copies that records name: windows of others only exist until maintenance removes them.
    copies: BTreeSet<Bytes>,
    /// Ranges that are still to be read.
    ranges: VecDeque<RowRange>,
    page: VecDeque<(Bytes, Bytes)>,
}

impl SnapshotReader {
    /// Reads more rows; false at the end.
    fn read(&mut self) -> Result<bool, Unreadable> {
        let Some(range) = self.ranges.pop_front() else {
            return Ok(false);
        };
        let (page, rest) = {
            let inner = self.rows.read()?;
            match range {
                RowRange::Immutable(range) => {
                    let (page, rest) = self.moved(&inner.table, range)?;
                    (page, rest.map(RowRange::Immutable))
                }
                RowRange::Mutable(range) => {
                    let (page, rest) = self.overwritten(&inner.table, range)?;
                    (page, rest.map(RowRange::Mutable))
                }
            }
        };
        if let Some(rest) = rest {
            self.ranges.push_front(rest);
        }
        for (key, value) in page {
            self.take(key, value)?;
        }
        Ok(true)
    }

    /// Reads a page of rows that are never overwritten, though a rewind may have moved them since the cut.
    fn moved(&self, table: &Table, range: Range<Bytes>) -> Result<RowPage, Unreadable> {
        let Some(located) = self.cut.locate(&range)? else {
            return page(table, range);
        };
        let (rows, rest) = page(table, located.stored.clone())?;
        let rows = rows.into_iter().map(|(key, row)| (located.key_at_cut(&key), row));
        let next = match rest {
            Some(rest) => located.key_at_cut(&rest.start),
            None => located.end.clone(),
        };
        Ok((rows.collect(), (next < range.end).then_some(next..range.end)))
    }

    /// Reads a page as it was at the cut.
    fn overwritten(&self, table: &Table, range: Range<Bytes>) -> Result<RowPage, Unreadable> {
        let end = range.end.clone();
        let (rows, rest) = page(table, range)?;
        let preimages = self.cut.pass(rest.as_ref().map_or(&end, |rest| &rest.start))?;
        let mut rows: BTreeMap<_, _> = rows.into_iter().collect();
        for (key, old) in preimages {
            match old {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        Ok((rows.into_iter().collect(), rest))
    }

    fn take(&mut self, key: Bytes, value: Bytes) -> Result<(), Unreadable> {
        match key[0] {
            kind::TENANT => {
                let (number, record) = (tenant::parse_key(key.clone())?, tenant::decode(value.clone())?);
                for state in record.copies() {
                    let copy = self.prefix.copy(number, state.number);
                    self.copies.insert(copy.key(kind::CLIENT, 0).finish());
                }
                self.ranges.extend(changes_of(self.prefix, number, &record));
            }
            kind::CLIENT if planted::is(Bug::SnapshotWithoutWindows) => return Ok(()),
            kind::CLIENT if !self.copies.contains(&key[..COPY_PREFIX_LEN]) => return Ok(()),
            _ => {}
        }
        self.page.push_back((without_prefix(&key), value));
        Ok(())
    }
}

/// Page of rows, and the range of those after it.
type RowPage = (Vec<(Bytes, Bytes)>, Option<Range<Bytes>>);

/// Reads the first rows of a range.
fn page(table: &Table, range: Range<Bytes>) -> Result<RowPage, Unreadable> {
    let (mut rows, mut len) = (Vec::new(), 0);
    if range.start >= range.end {
        return Ok((rows, None));
    }
    for row in table.range(&range.start..&range.end, Order::Ascending) {
        let (key, value) = row?;
        if rows.len() == PAGE_ROWS || len >= PAGE_LEN {
            return Ok((rows, Some(key..range.end)));
        }
        len += key.len() + value.len();
        rows.push((key, value));
    }
    Ok((rows, None))
}

impl Iterator for SnapshotReader {
    type Item = chunks::Row;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.pop_front() {
                return Some(Ok(row));
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(unreadable) => return Some(Err(failed("reading a snapshot")(unreadable))),
            }
        }
    }
}
