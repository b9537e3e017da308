//! In-memory state of a data group, beside its rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stead_types::{FeedOffset, GroupId, Revision, Sequence, TenantNumber, TenantTime};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    changed_tenants::ChangedTenants,
    client_windows::ClientWindows,
    detached_index::DetachedIndex,
    handover_index::HandoverIndex,
    read::TenantReader,
    record::{ClientsLoaded, CopyState, Role, TenantRecord},
    tenant::LoadedTenant,
};
use crate::rows::{
    CopyPrefix, GroupPrefix, Order, Rows, RowsMut, Unreadable, expiry, feed::TouchedTenant, feed_floor, garbage, kind,
    stream, tenant, tenant as tenant_row,
};

/// All tenants of one data group on one node.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Shard {
    pub(super) prefix: GroupPrefix,
    pub(super) tenants: BTreeMap<TenantNumber, LoadedTenant>,
    pub(super) streams: BTreeMap<GroupId, FeedOffset>,
    pub(super) streams_dirty: bool,
    /// Discarded copies whose rows are being removed.
    pub(super) garbage: VecDeque<CopyPrefix>,
    /// Tenants whose retention floor is past what was swept; no others, so that every replica sweeps alike.
    pub(super) to_sweep: BTreeSet<TenantNumber>,
    /// Tenants with swept versions that are not removed yet.
    pub(super) to_trim: BTreeSet<TenantNumber>,
    /// Tenants whose live copy is being rewound.
    pub(super) to_rewind: BTreeSet<TenantNumber>,
    /// Tenants that have a fork.
    pub(super) forked: BTreeSet<TenantNumber>,
    /// Changes that rewinds have moved since the last entry began.
    pub(super) moved: Vec<MovedChanges>,
    /// Retention floor of the feed: entries up to this log index are no longer served.
    pub(super) feed_floor: u64,
    pub(super) feed_floor_dirty: bool,
    /// Whether rows at or below the feed's floor may remain.
    pub(super) feed_to_trim: bool,
    /// Tenants changed by the entry being applied.
    pub(super) touched: BTreeMap<TenantNumber, TouchedTenant>,
    /// Bytes written by the entry being applied.
    pub(super) touched_len: u64,
    pub(super) detached: DetachedIndex,
    pub(super) handovers: HandoverIndex,
    /// Number of outcomes in the windows of all tenants.
    pub(super) outcomes: usize,
    /// Owned tenants by the expiry time of their first expiring key.
    due: BTreeSet<(TenantTime, TenantNumber)>,
    pub(super) changed: ChangedTenants,
}

impl Shard {
    /// Opens the shard from its rows.
    pub fn open(prefix: GroupPrefix, rows: &dyn Rows) -> Result<Self, Unreadable> {
        let mut shard = Self {
            prefix,
            tenants: BTreeMap::new(),
            streams: BTreeMap::new(),
            streams_dirty: false,
            garbage: VecDeque::new(),
            to_sweep: BTreeSet::new(),
            to_trim: BTreeSet::new(),
            to_rewind: BTreeSet::new(),
            forked: BTreeSet::new(),
            moved: Vec::new(),
            feed_floor: feed_floor::read(rows, prefix)?,
            feed_floor_dirty: false,
            feed_to_trim: true,
            touched: BTreeMap::new(),
            touched_len: 0,
            detached: DetachedIndex::default(),
            handovers: HandoverIndex::default(),
            outcomes: 0,
            due: BTreeSet::new(),
            changed: ChangedTenants::default(),
        };
        each(rows, prefix, kind::TENANT, |key, value| {
            let (number, record) = (tenant::parse_key(key)?, tenant::decode(value)?);
            shard.load(rows, number, record)
        })?;
        each(rows, prefix, kind::STREAM, |key, value| {
            shard.streams.insert(stream::parse_key(key)?, stream::decode(value)?);
            Ok(())
        })?;
        each(rows, prefix, kind::GARBAGE, |key, _| {
            shard.garbage.push_back(garbage::parse_key(prefix, key)?);
            Ok(())
        })?;
        shard.index_all_detached();
        Ok(shard)
    }

    fn load(&mut self, rows: &dyn Rows, number: TenantNumber, record: TenantRecord) -> Result<(), Unreadable> {
        let clients = ClientWindows::open(rows, self.prefix.copy(number, record.live.number))?;
        let shadow_clients = match &record.shadow {
            Some(shadow) => ClientWindows::open(rows, self.prefix.copy(number, shadow.state.number))?,
            None => ClientWindows::default(),
        };
        let tenant = LoadedTenant {
            record,
            clients,
            shadow_clients,
            fork_clients: Vec::new(),
            next_expiry: None,
            dirty: false,
        };
        self.tenants.insert(number, tenant);
        self.index_maintenance(number);
        self.index_handover(number);
        self.outcomes += self.outcomes_of(number);
        self.find_due(rows, number)
    }

    /// Writes the state that changed since the last flush: to be called before a checkpoint.
    pub fn flush(&mut self, rows: &mut dyn RowsMut) {
        for (number, tenant) in self.tenants.iter_mut().filter(|(_, tenant)| tenant.dirty) {
            tenant.dirty = false;
            rows.put(tenant::key(self.prefix, *number), tenant::encode(&tenant.record));
            for (fork, mut clients) in std::mem::take(&mut tenant.fork_clients) {
                clients.flush(rows, self.prefix.copy(*number, fork));
            }
            let live = self.prefix.copy(*number, tenant.record.live.number);
            tenant.clients.flush(rows, live);
            if let Some(shadow) = &tenant.record.shadow {
                tenant
                    .shadow_clients
                    .flush(rows, self.prefix.copy(*number, shadow.state.number));
            }
        }
        if std::mem::take(&mut self.streams_dirty) {
            for (home, offset) in &self.streams {
                rows.put(stream::key(self.prefix, *home), stream::encode(*offset));
            }
        }
        if std::mem::take(&mut self.feed_floor_dirty) {
            rows.put(feed_floor::key(self.prefix), feed_floor::encode(self.feed_floor));
        }
    }

    /// Returns the key prefix of the group's rows.
    pub fn prefix(&self) -> GroupPrefix {
        self.prefix
    }

    /// Returns the record of a tenant.
    pub fn record(&self, tenant: TenantNumber) -> Option<&TenantRecord> {
        self.tenants.get(&tenant).map(|tenant| &tenant.record)
    }

    /// Returns all records, by tenant.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (TenantNumber, &TenantRecord)> {
        self.tenants.iter().map(|(number, tenant)| (*number, &tenant.record))
    }

    /// Returns the records from a tenant number on.
    pub fn records_from(&self, tenant: TenantNumber) -> impl Iterator<Item = (TenantNumber, &TenantRecord)> {
        self.tenants
            .range(tenant..)
            .map(|(number, tenant)| (*number, &tenant.record))
    }

    /// Returns the digest of some tenants, equal in all replicas that have applied the same entries: of their
    /// records, which include the digests of keys and outcomes, without local progress.
    pub fn digest(&self, is_asked: impl Fn(TenantNumber) -> bool) -> u128 {
        let asked = self.records().filter(|(tenant, _)| is_asked(*tenant));
        asked.fold(0, |sum: u128, (tenant, record)| {
            let row = tenant_row::encode(&record.without_own_progress());
            let mut item = Vec::with_capacity(8 + row.len());
            item.extend(tenant.get().to_be_bytes());
            item.extend(row);
            sum.wrapping_add(xxh3_128(&item))
        })
    }

    /// Returns the idempotency windows of a tenant's live copy.
    pub fn clients(&self, tenant: TenantNumber) -> Option<&ClientWindows> {
        self.tenants.get(&tenant).map(|tenant| &tenant.clients)
    }

    /// Returns the progress of loading the windows of a copy being seeded; `None` if none is being seeded.
    pub fn clients_loaded(&self, tenant: TenantNumber) -> Option<ClientsLoaded> {
        let held = self.tenants.get(&tenant)?;
        Some(held.record.shadow.as_ref()?.loaded_clients(&held.shadow_clients))
    }

    /// Returns the number of outcomes in the windows of all tenants.
    pub fn outcomes(&self) -> usize {
        self.outcomes
    }

    /// Returns the number of outcomes in the windows of a tenant's copies.
    pub(super) fn outcomes_of(&self, tenant: TenantNumber) -> usize {
        let held = self.tenants.get(&tenant);
        held.map_or(0, |held| held.clients.outcomes() + held.shadow_clients.outcomes())
    }

    /// Returns this group's offset in the feed of a home group.
    pub fn stream(&self, home: GroupId) -> FeedOffset {
        self.streams.get(&home).copied().unwrap_or(FeedOffset::ZERO)
    }

    /// Returns the retention floor of the feed, a log index.
    pub fn feed_floor(&self) -> u64 {
        self.feed_floor
    }

    /// Returns the offsets of all feeds, by home group.
    pub fn streams(&self) -> &BTreeMap<GroupId, FeedOffset> {
        &self.streams
    }

    /// Tells whether a tenant is attached to its home's feed in the current incarnation.
    pub fn is_attached(&self, record: &TenantRecord) -> bool {
        record.session.is_some_and(|session| {
            session.attached
                && record.home() == Some(session.home)
                && session.epoch == record.epoch
                && session.incarnation >= self.stream(session.home).incarnation
        })
    }

    /// Returns the owned tenants that may have expired keys, earliest expiry first.
    pub fn due(&self, now: TenantTime) -> impl Iterator<Item = TenantNumber> + '_ {
        self.due
            .iter()
            .take_while(move |(time, _)| *time <= now)
            .map(|(_, tenant)| *tenant)
    }

    /// Returns the owned tenant whose keys expire first, and a lower bound of that time.
    #[cfg(test)]
    pub(crate) fn first_due(&self) -> Option<(TenantTime, TenantNumber)> {
        self.due.first().copied()
    }

    pub(super) fn index_due(&mut self, tenant: TenantNumber, before: Option<TenantTime>, now: Option<TenantTime>) {
        if let Some(before) = before {
            self.due.remove(&(before, tenant));
        }
        if let Some(now) = now {
            self.due.insert((now, tenant));
        }
    }

    /// Updates the maintenance indexes of a tenant, and that of forks: after anything that moves its retention floor,
    /// replaces its live copy, or makes or drops a fork.
    pub(super) fn index_maintenance(&mut self, number: TenantNumber) {
        let record = self.tenants.get(&number).map(|tenant| &tenant.record);
        let (to_sweep, to_trim) = record.map_or((false, false), |record| {
            let live = &record.live;
            (live.swept < live.retention_floor.sequence(), live.trimmed < live.swept)
        });
        let to_rewind = record.is_some_and(|record| record.rewind.is_some());
        let is_forked = record.is_some_and(|record| !record.forks.is_empty());
        for (set, is_in) in [
            (&mut self.forked, is_forked),
            (&mut self.to_sweep, to_sweep),
            (&mut self.to_trim, to_trim),
            (&mut self.to_rewind, to_rewind),
        ] {
            if is_in {
                set.insert(number);
            } else {
                set.remove(&number);
            }
        }
    }

    /// Updates the indexes of a tenant that this group has become the owner of. The live copy may have come by the
    /// feed or a seed, so the first expiry is read from its rows.
    pub(super) fn index_owner(&mut self, rows: &dyn Rows, number: TenantNumber) -> Result<(), Unreadable> {
        self.index_detached(number);
        self.find_due(rows, number)
    }

    /// Reads the first expiry of a tenant from its rows, if this group owns it.
    fn find_due(&mut self, rows: &dyn Rows, number: TenantNumber) -> Result<(), Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            return Ok(());
        };
        let next = match tenant.record.owned() {
            Some(_) => expiry::next(rows, self.prefix.copy(number, tenant.record.live.number))?,
            None => None,
        };
        let before = std::mem::replace(&mut tenant.next_expiry, next);
        self.index_due(number, before, next);
        Ok(())
    }

    /// Removes a tenant from the expiry index: only an owner expires keys.
    pub(super) fn not_due(&mut self, number: TenantNumber) {
        if let Some(tenant) = self.tenants.get_mut(&number) {
            let before = tenant.next_expiry.take();
            self.index_due(number, before, None);
        }
    }

    /// Returns the tenants whose live copy is being rewound: entries go on with them, and where none come the group's
    /// leader is to propose [`super::command::ContinueRewind`].
    pub fn rewinding(&self) -> impl ExactSizeIterator<Item = TenantNumber> {
        self.to_rewind.iter().copied()
    }

    /// Takes the changes that the last entry has moved from live copies to forks: a snapshot that is being read finds them
    /// there.
    pub fn take_moved(&mut self) -> Vec<MovedChanges> {
        std::mem::take(&mut self.moved)
    }

    /// Returns a reader of a tenant's data as applied so far; `None` also while the copy is being rewound.
    pub fn reading<'a>(&'a self, rows: &'a dyn Rows, tenant: TenantNumber) -> Option<TenantReader<'a>> {
        let held = self.tenants.get(&tenant).filter(|held| held.record.rewind.is_none())?;
        Some(TenantReader {
            rows,
            copy: self.prefix.copy(tenant, held.record.live.number),
            record: &held.record,
            clients: &held.clients,
            next_expiry: held.next_expiry,
        })
    }

    /// Discards a copy: nothing reads it from here on, and its rows are removed in bounded steps.
    pub(super) fn discard(&mut self, rows: &mut dyn RowsMut, tenant: TenantNumber, state: &CopyState) {
        if state.number == 0 {
            return;
        }
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.fork_clients.retain(|(fork, _)| *fork != state.number);
        }
        let copy = self.prefix.copy(tenant, state.number);
        rows.put(garbage::key(copy), bytes::Bytes::new());
        self.garbage.push_back(copy);
    }

    /// Records a change of an owned tenant in the feed entry of the entry being applied.
    pub(super) fn touch(&mut self, tenant: TenantNumber, revision: Revision, len: usize) {
        self.touched_len += len as u64;
        let last = revision.sequence();
        let touched = self.touched.entry(tenant);
        let now = TouchedTenant {
            tenant,
            epoch: revision.epoch(),
            first: last,
            last,
        };
        touched
            .and_modify(|before| {
                *before = TouchedTenant {
                    first: before.first,
                    ..now
                }
            })
            .or_insert(now);
    }

    /// Takes the bytes and tenants of the feed entry of the entry being applied.
    pub(super) fn take_touched(&mut self) -> (u64, Vec<TouchedTenant>) {
        let touched = std::mem::take(&mut self.touched).into_values().collect();
        (std::mem::take(&mut self.touched_len), touched)
    }

    /// Tells whether a group may be read for a tenant: it is a member, and its copy neither suspect nor being rewound.
    pub fn is_readable(record: &TenantRecord) -> bool {
        record.role != Role::Erased && !record.suspect && record.rewind.is_none()
    }
}

/// Changes of a live copy that a rewind has moved to a fork: the same rows, under another copy number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedChanges {
    /// Copy that they were in.
    pub copy: CopyPrefix,
    /// Number of the copy that they are in.
    pub to: u32,
    /// Sequence before the first.
    pub after: Sequence,
    /// Last sequence.
    pub up_to: Sequence,
}

/// Calls `row` with each row of a kind.
fn each(
    rows: &dyn Rows,
    prefix: GroupPrefix,
    kind: u8,
    mut row: impl FnMut(bytes::Bytes, bytes::Bytes) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let range = prefix.range(kind);
    for found in rows.range(&range.start..&range.end, Order::Ascending) {
        let (key, value) = found?;
        row(key, value)?;
    }
    Ok(())
}
