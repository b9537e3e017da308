//! A snapshot: what stands in memory is copied at the cut, changes are read afterwards, up to the cut's revisions.
//!
//! Rows travel without their place: kind, then what stands behind the install. Current versions do not travel: they
//! follow from the changes, which come copy by copy in the order of their revisions.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use stead_state::{
    rows::{Copy, Order, PLACE_LEN, Place, Rows, Unreadable, change, kind},
    shard::{Shard, record::Record},
};
use stead_types::{
    Sequence, TenantNumber,
    planted::{self, Bug},
};

use super::{ShardMachine, machine::Held};
use crate::{
    chunks,
    group_rows::{GroupRows, failed},
    machine::{Failed, Snapshot},
};

/// Most rows, and about how many bytes, that are read under one lock.
const PAGE_ROWS: usize = 1024;
const PAGE_LEN: usize = 256 << 10;

/// The unversioned kinds.
const COPIED: [u8; 4] = [kind::TENANT, kind::CLIENT, kind::STREAM, kind::FEED];

/// Cuts a snapshot.
pub(super) fn cut(machine: &ShardMachine) -> Result<Snapshot, Failed> {
    let mut guard = machine.rows.write();
    let inner = &mut *guard;
    inner.state.shard.flush(&mut inner.table);
    let copied = copy_rows(inner.state.shard.place(), &inner.table).map_err(failed("cutting a snapshot"))?;
    let copies = copies(&inner.state.shard);
    let reader = Reader {
        rows: machine.rows.clone(),
        _pin: machine.pin.clone(),
        copied: copied.into(),
        copies,
    };
    Ok(Snapshot {
        applied: inner.applied.clone(),
        chunks: Box::new(chunks::encode(reader)),
    })
}

fn copy_rows(place: Place, rows: &dyn Rows) -> Result<Vec<(Bytes, Bytes)>, Unreadable> {
    let mut copied = Vec::new();
    for kind in COPIED {
        if kind == kind::CLIENT && planted::is(Bug::SnapshotWithoutWindows) {
            continue;
        }
        let range = place.range(kind);
        for row in rows.range(&range.start..&range.end, Order::Ascending) {
            let (key, value) = row?;
            copied.push((without_place(&key), value));
        }
    }
    Ok(copied)
}

/// Returns a key without group and install.
fn without_place(key: &[u8]) -> Bytes {
    [&key[..1], &key[PLACE_LEN..]].concat().into()
}

/// Changes of one copy that are part of the snapshot: two ranges, because a copy being seeded has what chunks brought
/// and what the feed brought, and nothing between.
struct Range {
    copy: Copy,
    /// Behind this one.
    after: Sequence,
    /// Up to this one.
    up_to: Sequence,
    /// Where it goes on within a change.
    from: Option<Bytes>,
}

fn copies(shard: &Shard) -> VecDeque<Range> {
    let mut ranges = VecDeque::new();
    for (tenant, record) in shard.records() {
        ranges.extend(copies_of(shard.place(), tenant, record));
    }
    ranges
}

fn copies_of(place: Place, tenant: TenantNumber, record: &Record) -> Vec<Range> {
    let range = |number, after, up_to| Range {
        copy: place.copy(tenant, number),
        after,
        up_to: if planted::is(Bug::SnapshotCutLate) {
            Sequence::MAX
        } else {
            up_to
        },
        from: None,
    };
    let whole = std::iter::once(&record.live).chain(record.forks.iter().map(|fork| &fork.copy));
    let mut ranges: Vec<_> = whole
        .map(|state| range(state.number, Sequence::ZERO, state.revision.sequence()))
        .collect();
    if let Some(shadow) = &record.shadow {
        let seed = shadow.seed.sequence();
        ranges.push(range(shadow.state.number, Sequence::ZERO, shadow.loaded.min(seed)));
        ranges.push(range(shadow.state.number, seed, shadow.state.revision.sequence()));
    }
    ranges
}

/// Reads the rows of a snapshot.
struct Reader {
    rows: Arc<GroupRows<Held>>,
    /// Keeps maintenance from removing what is still to be read.
    _pin: Arc<()>,
    copied: VecDeque<(Bytes, Bytes)>,
    copies: VecDeque<Range>,
}

impl Reader {
    /// Returns more changes, or none at the end.
    fn page(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, Unreadable> {
        let Some(range) = self.copies.front_mut() else {
            return Ok(None);
        };
        let start = match range.from.take() {
            Some(from) => from,
            None => change::key(range.copy, range.after.next().unwrap_or(Sequence::MAX), 0),
        };
        let end = change::key(range.copy, range.up_to.next().unwrap_or(Sequence::MAX), 0);
        let inner = self.rows.read();
        let (mut page, mut len) = (Vec::new(), 0);
        for row in inner.table.range(&start..&end, Order::Ascending) {
            let (key, value) = row?;
            if page.len() == PAGE_ROWS || len >= PAGE_LEN {
                range.from = Some(key);
                break;
            }
            len += key.len() + value.len();
            page.push((without_place(&key), value));
        }
        if range.from.is_none() {
            self.copies.pop_front();
        }
        Ok(Some(page))
    }
}

impl Iterator for Reader {
    type Item = chunks::Row;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.copied.pop_front() {
                return Some(Ok(row));
            }
            match self.page() {
                Ok(Some(page)) => self.copied.extend(page),
                Ok(None) => return None,
                Err(unreadable) => return Some(Err(failed("reading a snapshot")(unreadable))),
            }
        }
    }
}
