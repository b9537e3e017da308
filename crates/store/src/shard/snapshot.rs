//! A snapshot: nothing is copied at the cut. What stands in memory is written to rows there; all rows are read
//! afterwards, page by page, as they were at the cut.
//!
//! ```text
//!   records, windows, streams   overwritten at checkpoints: what was there is kept (cuts)
//!   the feed                    up to the cut's entry
//!   changes                     copy by copy, up to the revisions of the cut's records
//! ```
//!
//! Rows travel without their place: kind, then what stands behind the install. Current versions do not travel: they
//! follow from the records and the changes, which come copy by copy in the order of their revisions.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use stead_state::{
    rows::{COPY_LEN, Order, PLACE_LEN, Place, Rows, Unreadable, change, feed, kind, tenant},
    shard::record::Record,
};
use stead_types::{
    Sequence, TenantNumber,
    planted::{self, Bug},
};

use super::{ShardMachine, cuts::Cut, machine::Held};
use crate::{
    chunks,
    group_rows::{GroupRows, failed},
    machine::{Failed, Snapshot},
    table::Table,
};

/// Most rows, and about how many bytes, that are read under one lock.
const PAGE_ROWS: usize = 1024;
const PAGE_LEN: usize = 256 << 10;

/// The kinds whose rows are overwritten, in the order of their keys; records first.
const OVERWRITTEN: [u8; 4] = [kind::TENANT, kind::CLIENT, kind::STREAM, kind::FEED_FLOOR];

/// Cuts a snapshot.
pub(super) fn cut(machine: &ShardMachine) -> Result<Snapshot, Failed> {
    let mut guard = machine.rows.change()?;
    let inner = &mut *guard;
    inner.state.flush(&mut inner.table);
    let place = inner.state.shard.place();
    let of_kind = |kind| Part::Overwritten(place.range(kind));
    let feed = (inner.state.shard.feed_floor(), inner.applied.index);
    let feed = feed.0.saturating_add(1)..feed.1.saturating_add(1);
    let mut parts: VecDeque<_> = OVERWRITTEN.map(of_kind).into();
    parts.push_back(Part::Lasting(feed::key(place, feed.start)..feed::key(place, feed.end)));
    let reader = Reader {
        rows: machine.rows.clone(),
        _pin: machine.pin.clone(),
        cut: inner.state.cuts.cut(place.range(kind::TENANT).start),
        place,
        copies: BTreeSet::new(),
        parts,
        page: VecDeque::new(),
    };
    let applied = inner.applied.clone();
    guard.commit();
    Ok(Snapshot {
        applied,
        chunks: Box::new(chunks::encode(reader)),
    })
}

/// Rows that are part of the snapshot.
enum Part {
    /// They may be overwritten meanwhile.
    Overwritten(Range<Bytes>),
    /// They stay while the snapshot is read.
    Lasting(Range<Bytes>),
}

/// Returns a key without group and install.
fn without_place(key: &[u8]) -> Bytes {
    [&key[..1], &key[PLACE_LEN..]].concat().into()
}

/// Returns the changes of a tenant's copies: two ranges of a copy being seeded, because it has what chunks brought and
/// what the feed brought, and nothing between.
fn changes_of(place: Place, tenant: TenantNumber, record: &Record) -> Vec<Part> {
    let range = |number, after: Sequence, up_to: Sequence| {
        let copy = place.copy(tenant, number);
        let start = change::key(copy, after.next().unwrap_or(Sequence::MAX), 0);
        let up_to = if planted::is(Bug::SnapshotCutLate) {
            Sequence::MAX
        } else {
            up_to
        };
        let end = change::key(copy, up_to.next().unwrap_or(Sequence::MAX), 0);
        Part::Lasting(start..end)
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
    cut: Arc<Cut>,
    place: Place,
    /// The copies that records name: windows of others are only there until maintenance comes to them.
    copies: BTreeSet<Bytes>,
    /// What is still to be read.
    parts: VecDeque<Part>,
    page: VecDeque<(Bytes, Bytes)>,
}

impl Reader {
    /// Reads more rows; false at the end.
    fn read(&mut self) -> Result<bool, Unreadable> {
        let Some(part) = self.parts.pop_front() else {
            return Ok(false);
        };
        let (page, rest) = {
            let inner = self.rows.read()?;
            match part {
                Part::Lasting(range) => {
                    let (page, rest) = page(&inner.table, range)?;
                    (page, rest.map(Part::Lasting))
                }
                Part::Overwritten(range) => {
                    let (page, rest) = self.overwritten(&inner.table, range)?;
                    (page, rest.map(Part::Overwritten))
                }
            }
        };
        if let Some(rest) = rest {
            self.parts.push_front(rest);
        }
        for (key, value) in page {
            self.take(key, value)?;
        }
        Ok(true)
    }

    /// Reads a page as it was at the cut.
    fn overwritten(&self, table: &Table, range: Range<Bytes>) -> Result<Page, Unreadable> {
        let end = range.end.clone();
        let (rows, rest) = page(table, range)?;
        let kept = self.cut.pass(rest.as_ref().map_or(&end, |rest| &rest.start))?;
        let mut rows: BTreeMap<_, _> = rows.into_iter().collect();
        for (key, old) in kept {
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
                    let copy = self.place.copy(number, state.number);
                    self.copies.insert(copy.key(kind::CLIENT, 0).finish());
                }
                self.parts.extend(changes_of(self.place, number, &record));
            }
            kind::CLIENT if planted::is(Bug::SnapshotWithoutWindows) => return Ok(()),
            kind::CLIENT if !self.copies.contains(&key[..COPY_LEN]) => return Ok(()),
            _ => {}
        }
        self.page.push_back((without_place(&key), value));
        Ok(())
    }
}

/// Some rows, and where those behind them are.
type Page = (Vec<(Bytes, Bytes)>, Option<Range<Bytes>>);

/// Reads the first rows of a range.
fn page(table: &Table, range: Range<Bytes>) -> Result<Page, Unreadable> {
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

impl Iterator for Reader {
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
