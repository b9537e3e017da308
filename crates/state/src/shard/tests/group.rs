//! A group with its rows in memory.

use std::{cell::Cell, collections::BTreeMap, ops::Range};

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber};

use crate::{
    codec::{Entry, frame},
    rows::{Order, Place, Row, Rows, RowsMut, Unreadable, kind},
    shard::{
        Answer, Shard,
        command::{Attach, Create, Data, Follow},
        read::Reading,
        record::{OnLeaseLoss, Record},
    },
};

pub(super) const TENANT: TenantNumber = TenantNumber::new(5);
pub(super) const HOME: GroupId = GroupId::new(1);

/// Rows of a test, which count how many of them are looked at.
#[derive(Default)]
pub(super) struct MemoryRows(BTreeMap<Bytes, Bytes>, Cell<usize>);

impl MemoryRows {
    fn look(&self) {
        self.1.set(self.1.get() + 1);
    }

    /// Returns how many rows were looked at since the last time.
    pub(super) fn looked_at(&self) -> usize {
        self.1.take()
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.look();
        Ok(self.0.get(key).cloned())
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let rows = self.0.range::<[u8], _>((
            std::ops::Bound::Included(range.start),
            std::ops::Bound::Excluded(range.end),
        ));
        let rows = rows.inspect(|_| self.look());
        let rows = rows.map(|(key, value)| Ok((key.clone(), value.clone())));
        match order {
            Order::Ascending => Box::new(rows),
            Order::Descending => Box::new(rows.rev()),
        }
    }
}

impl RowsMut for MemoryRows {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.insert(key, value);
    }

    fn put_new(&mut self, key: Bytes, value: Bytes) {
        assert!(self.0.insert(key, value).is_none(), "a row that is new was there");
    }

    fn delete(&mut self, key: Bytes) {
        self.0.remove(&key);
    }
}

/// A shard and its rows.
pub(super) struct Group {
    pub(super) shard: Shard,
    pub(super) rows: MemoryRows,
    pub(super) index: u64,
    /// Whether a snapshot is being read, so that nothing may be removed.
    pub(super) is_pinned: bool,
}

pub(super) fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

pub(super) fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

pub(super) fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

impl Group {
    pub(super) fn new(group: GroupId) -> Self {
        let rows = MemoryRows::default();
        let shard = Shard::open(Place { group, install: 1 }, &rows).unwrap();
        Self {
            shard,
            rows,
            index: 0,
            is_pinned: false,
        }
    }

    /// A group that owns the tenant.
    pub(super) fn owner() -> Self {
        let mut group = Self::new(HOME);
        let create = Create {
            tenant: TENANT,
            version: version(1),
            policy: OnLeaseLoss::Stop,
        };
        assert_eq!(group.apply(0, create.encode()), Answer::Done);
        group
    }

    /// A group that follows the tenant.
    pub(super) fn follower(of: &Self) -> Self {
        let mut group = Self::new(GroupId::new(2));
        let follow = Follow {
            tenant: TENANT,
            version: version(1),
            home: HOME,
            epoch: Epoch::FIRST,
            lineage: of.record().lineage.clone(),
        };
        assert_eq!(group.apply(0, follow.encode()), Answer::Done);
        group
    }

    pub(super) fn attach(&mut self, of: &Self) -> Answer {
        let attach = Attach {
            tenant: TENANT,
            home: HOME,
            incarnation: Incarnation::FIRST,
            epoch: of.record().epoch,
            position: Revision::ZERO,
            lineage: of.record().lineage.clone(),
        };
        self.apply(0, attach.encode())
    }

    pub(super) fn apply(&mut self, time: u64, command: Bytes) -> Answer {
        self.index += 1;
        let entry = Entry::parse(frame(time, &[command])).unwrap();
        let mut answers = self
            .shard
            .apply(&mut self.rows, self.index, entry, !self.is_pinned)
            .unwrap();
        answers.pop().unwrap()
    }

    /// Writes everything to rows and reads it back.
    pub(super) fn reopen(&mut self) {
        self.shard.flush(&mut self.rows);
        self.shard = Shard::open(self.shard.place(), &self.rows).unwrap();
    }

    pub(super) fn maintain(&mut self) {
        while !self.shard.to_sweep.is_empty() {
            self.shard.sweep(&mut self.rows, 7, true).unwrap();
        }
        while self.shard.needs_maintenance() {
            self.shard.maintain(&mut self.rows, 7).unwrap();
        }
    }

    pub(super) fn record(&self) -> &Record {
        self.shard.record(TENANT).unwrap()
    }

    pub(super) fn reading(&self) -> Reading<'_> {
        self.shard.reading(&self.rows, TENANT).unwrap()
    }

    /// Returns what a follower at `after` is sent, in one batch.
    pub(super) fn data(&self, after: Revision, up_to: Sequence) -> Data {
        let found = self.reading().changes(after, up_to, usize::MAX).unwrap();
        let at_end = found.changes.last().map(|change| change.revision) == Some(self.record().live.revision);
        Data {
            tenant: TENANT,
            home: HOME,
            epoch: self.record().epoch,
            digests: at_end.then_some(self.record().live.digests),
            changes: found.changes,
            floor: self.record().live.floor,
        }
    }

    /// Returns a group that has the same rows.
    pub(super) fn copy(&self) -> Self {
        let rows = MemoryRows(self.rows.0.clone(), Cell::default());
        Self {
            shard: Shard::open(self.shard.place(), &rows).unwrap(),
            rows,
            index: self.index,
            is_pinned: self.is_pinned,
        }
    }

    /// Returns every row.
    pub(super) fn all_rows(&self) -> &BTreeMap<Bytes, Bytes> {
        &self.rows.0
    }

    /// Returns the current versions, tombstones too.
    pub(super) fn current_rows(&self) -> Vec<(Bytes, Bytes)> {
        let rows = self.rows.0.iter().filter(|(key, _)| key[0] == kind::CURRENT);
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Returns the rows of clients' windows.
    pub(super) fn client_rows(&self) -> BTreeMap<Bytes, Bytes> {
        let rows = self.rows.0.iter().filter(|(key, _)| key[0] == kind::CLIENT);
        rows.map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// Counts the rows of data.
    pub(super) fn data_rows(&self) -> usize {
        let data = [kind::CURRENT, kind::CHANGE, kind::CLIENT, kind::EXPIRY];
        self.rows.0.keys().filter(|key| data.contains(&key[0])).count()
    }
}
