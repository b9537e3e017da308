//! A group with its rows in memory.

use std::{cell::Cell, collections::BTreeMap, ops::Range};

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber, TenantTime};

use crate::{
    codec::{Entry, encode_entry},
    rows::{GroupPrefix, Order, Row, Rows, RowsMut, Unreadable, kind},
    shard::{
        ApplyResult, Shard,
        command::{
            Accept, Activate, Attach, BeginAttach, Chunk, ChunkContent, Create, Data, DataHeader, FeedRecords, Follow,
            Freeze, Relinquish, Seed, SeedWindows, Swap,
        },
        ownership::baton,
        read::TenantReader,
        record::{AttachNumber, LeaseLossPolicy, OperationId, Role, SeedNumber, TenantRecord},
    },
};

pub(super) const TENANT: TenantNumber = TenantNumber::new(5);
pub(super) const HOME: GroupId = GroupId::new(1);

/// Rows of a test, which count how many of them are read.
#[derive(Default)]
pub(super) struct CountingRows(BTreeMap<Bytes, Bytes>, Cell<usize>);

impl CountingRows {
    fn look(&self) {
        self.1.set(self.1.get() + 1);
    }

    /// Returns how many rows were read since the last call.
    pub(super) fn looked_at(&self) -> usize {
        self.1.take()
    }
}

impl Rows for CountingRows {
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

impl RowsMut for CountingRows {
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
    pub(super) rows: CountingRows,
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
        let rows = CountingRows::default();
        let shard = Shard::open(GroupPrefix { group, install: 1 }, &rows).unwrap();
        Self {
            shard,
            rows,
            index: 0,
            is_pinned: false,
        }
    }

    /// Returns a group that owns the tenant.
    pub(super) fn owner() -> Self {
        let mut group = Self::new(HOME);
        let create = Create {
            tenant: TENANT,
            version: version(1),
            policy: LeaseLossPolicy::Stop,
        };
        assert_eq!(group.apply(0, create.encode()), ApplyResult::Done);
        group
    }

    /// Returns a group that follows the tenant, and has started to attach it.
    pub(super) fn follower(of: &Self) -> Self {
        Self::follower_in(GroupId::new(2), of)
    }

    /// Returns this group as a follower of the tenant, which has started to attach it.
    pub(super) fn follower_in(group: GroupId, of: &Self) -> Self {
        let mut group = Self::new(group);
        let follow = Follow {
            tenant: TENANT,
            version: version(1),
            home: HOME,
            epoch: Epoch::FIRST,
            lineage: of.record().lineage.clone(),
        };
        assert_eq!(group.apply(0, follow.encode()), ApplyResult::Done);
        assert_eq!(group.begin_attach(), ApplyResult::Done);
        group
    }

    /// Starts another attempt to attach.
    pub(super) fn begin_attach(&mut self) -> ApplyResult {
        let record = self.record();
        let begin = BeginAttach {
            tenant: TENANT,
            home: record.home().unwrap(),
            incarnation: Incarnation::FIRST,
            epoch: record.epoch,
            version: record.view_version,
            number: record.attach.next(),
        };
        self.apply(0, begin.encode())
    }

    /// Completes the last attempt to attach.
    pub(super) fn attach(&mut self, of: &Self) -> ApplyResult {
        let attach = Attach {
            tenant: TENANT,
            home: of.shard.prefix().group,
            epoch: of.record().epoch,
            version: self.record().view_version,
            number: self.record().attach,
            position: Revision::ZERO,
            lineage: of.record().lineage.clone(),
        };
        self.apply(0, attach.encode())
    }

    /// Returns the command that hands the tenant over, as move 1, to an epoch.
    pub(super) fn relinquish(&self, to: GroupId, number: u32) -> Relinquish {
        Relinquish {
            tenant: TENANT,
            version: self.record().view_version,
            operation: OperationId(1),
            to,
            recorded_epoch: self.record().epoch,
            epoch: epoch(number),
        }
    }

    /// Returns the command by which this follower takes the tenant over from its home, in its current attempt.
    pub(super) fn accept(&self, home: &Self) -> Accept {
        let record = self.record();
        let head = DataHeader {
            tenant: TENANT,
            home: home.shard.prefix().group,
            epoch: record.epoch,
            version: record.view_version,
            attach: record.attach,
        };
        baton(home.record()).unwrap().accept(head, Incarnation::FIRST)
    }

    pub(super) fn apply(&mut self, time: u64, command: Bytes) -> ApplyResult {
        self.index += 1;
        let entry = Entry::parse(encode_entry(time, &[command])).unwrap();
        let before = self.revisions();
        let mut answers = self
            .shard
            .apply(&mut self.rows, self.index, entry, !self.is_pinned)
            .unwrap();
        self.check_changed(&before);
        answers.pop().unwrap()
    }

    /// Returns role and revision of each tenant.
    fn revisions(&self) -> BTreeMap<TenantNumber, (Role, Revision)> {
        let records = self.shard.records();
        records
            .map(|(tenant, record)| (tenant, (record.role, record.live.revision)))
            .collect()
    }

    /// Checks that the last entry has named the tenants that it changed: invariant 1 of `changed_tenants`.
    fn check_changed(&self, before: &BTreeMap<TenantNumber, (Role, Revision)>) {
        let named = self.shard.tenants_changed_after(self.index - 1).unwrap();
        for (tenant, now) in self.revisions() {
            assert!(
                before.get(&tenant) == Some(&now) || named.contains(&tenant),
                "{tenant} has changed"
            );
        }
    }

    /// Returns a group with the same state, independent of this one.
    pub(super) fn copied(&self) -> Self {
        let mut copy = self.copy();
        copy.shard = self.shard.clone();
        copy.reopen();
        copy
    }

    /// Writes everything to rows and reads it back.
    pub(super) fn reopen(&mut self) {
        self.shard.flush(&mut self.rows);
        self.shard = Shard::open(self.shard.prefix(), &self.rows).unwrap();
    }

    pub(super) fn maintain(&mut self) {
        while !self.shard.to_sweep.is_empty() {
            self.shard.sweep(&mut self.rows, 7, true).unwrap();
        }
        while self.shard.needs_maintenance() {
            self.shard.maintain(&mut self.rows, 7).unwrap();
        }
    }

    pub(super) fn record(&self) -> &TenantRecord {
        self.shard.record(TENANT).unwrap()
    }

    pub(super) fn reading(&self) -> TenantReader<'_> {
        self.shard.reading(&self.rows, TENANT).unwrap()
    }

    /// Returns the batch that a follower's first attempt gets after `after`.
    pub(super) fn data(&self, after: Revision, up_to: Sequence) -> Data {
        let head = DataHeader {
            tenant: TENANT,
            home: self.shard.prefix().group,
            epoch: self.record().epoch,
            version: version(1),
            attach: AttachNumber(1),
        };
        let records = self.records(after, up_to);
        Data { head, records }
    }

    /// Returns the batch that a follower gets for its current attempt.
    pub(super) fn data_for(&self, follower: &Self, after: Revision, up_to: Sequence) -> Data {
        let mut data = self.data(after, up_to);
        data.head.attach = follower.record().attach;
        data.head.version = follower.record().view_version;
        data
    }

    pub(super) fn records(&self, after: Revision, up_to: Sequence) -> FeedRecords {
        let found = self.reading().changes(after, up_to, usize::MAX).unwrap();
        let at_end = found.changes.last().map(|change| change.revision) == Some(self.record().live.revision);
        FeedRecords {
            digests: at_end.then_some(self.record().live.digests),
            changes: found.changes,
            retention_floor: self.record().live.retention_floor,
        }
    }

    /// Returns a group that has the same rows.
    pub(super) fn copy(&self) -> Self {
        let rows = CountingRows(self.rows.0.clone(), Cell::default());
        Self {
            shard: Shard::open(self.shard.prefix(), &rows).unwrap(),
            rows,
            index: self.index,
            is_pinned: self.is_pinned,
        }
    }

    /// Returns every row.
    pub(super) fn all_rows(&self) -> &BTreeMap<Bytes, Bytes> {
        &self.rows.0
    }

    /// Returns the rows of current versions, tombstones included.
    pub(super) fn current_rows(&self) -> Vec<(Bytes, Bytes)> {
        let rows = self.rows.0.iter().filter(|(key, _)| key[0] == kind::CURRENT);
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Returns the rows of idempotency windows.
    pub(super) fn client_rows(&self) -> BTreeMap<Bytes, Bytes> {
        let rows = self.rows.0.iter().filter(|(key, _)| key[0] == kind::CLIENT);
        rows.map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// Returns the follower's next seed.
    pub(super) fn next_seed(&self, follower: &Self) -> Seed {
        Seed {
            tenant: TENANT,
            home: HOME,
            epoch: self.record().epoch,
            version: follower.record().view_version,
            number: follower.record().seeds.next(),
            first: self.record().live.revision,
            lineage: self.record().lineage.clone(),
        }
    }

    /// Returns the begin of a seed of the follower's idempotency windows.
    pub(super) fn seed_windows(&self, follower: &Self, number: SeedNumber) -> SeedWindows {
        let seed = self.next_seed(follower);
        SeedWindows {
            tenant: seed.tenant,
            home: seed.home,
            epoch: seed.epoch,
            version: seed.version,
            number,
        }
    }

    /// Returns a chunk of the follower's current seed, as read now.
    pub(super) fn chunk(&self, follower: &Self, part: ChunkContent) -> Chunk {
        Chunk {
            tenant: TENANT,
            home: HOME,
            epoch: self.record().epoch,
            number: follower.record().seeds,
            read_at: self.record().live.revision,
            part,
        }
    }

    /// Returns the swap of the follower's seeded copy, as of now.
    pub(super) fn swap(&self, follower: &Self) -> Swap {
        Swap {
            tenant: TENANT,
            home: HOME,
            epoch: self.record().epoch,
            version: follower.record().view_version,
            number: follower.record().seeds,
            revision: self.record().live.revision,
            digests: self.record().live.digests,
        }
    }

    /// Returns the rows of the live copy, but for windows.
    pub(super) fn live_rows(&self) -> BTreeMap<Bytes, Bytes> {
        let copy = self.shard.prefix().copy(TENANT, self.record().live.number);
        let of = |kind| {
            let range = copy.range(kind);
            self.rows.0.range(range.start..range.end)
        };
        let rows = [kind::CURRENT, kind::CHANGE, kind::EXPIRY].into_iter().flat_map(of);
        rows.map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// Freezes the group for promotion 1 to an epoch, as of view 2.
    pub(super) fn freeze(&mut self, time: u64, number: u32) -> ApplyResult {
        let freeze = Freeze {
            tenant: TENANT,
            version: version(2),
            operation: OperationId(1),
            epoch: epoch(number),
            lineage: self.record().lineage.clone(),
        };
        self.apply(time, freeze.encode())
    }

    /// Makes the frozen group the owner at a position, as of view 3.
    pub(super) fn activate(&mut self, time: u64, kept: Revision) -> ApplyResult {
        let highest = self.record().live.time;
        self.activate_with(time, kept, highest)
    }

    /// Does that with the highest tenant time that is known.
    pub(super) fn activate_with(&mut self, time: u64, kept: Revision, highest: TenantTime) -> ApplyResult {
        let activate = Activate {
            tenant: TENANT,
            version: version(3),
            home: self.shard.prefix().group,
            epoch: self.record().promised,
            kept,
            time: highest,
            policy: LeaseLossPolicy::Stop,
            uncounted: Vec::new(),
        };
        self.apply(time, activate.encode())
    }

    /// Follows a home in the epoch that it owns.
    pub(super) fn follow(&mut self, home: &Self) -> ApplyResult {
        let follow = Follow {
            tenant: TENANT,
            version: home.record().view_version,
            home: home.shard.prefix().group,
            epoch: home.record().epoch,
            lineage: home.record().lineage.clone(),
        };
        self.apply(0, follow.encode())
    }

    /// Counts the rows of data.
    pub(super) fn data_rows(&self) -> usize {
        let data = [kind::CURRENT, kind::CHANGE, kind::CLIENT, kind::EXPIRY];
        self.rows.0.keys().filter(|key| data.contains(&key[0])).count()
    }
}
