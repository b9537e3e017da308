//! The state of a group: what is held in memory beside the rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber, TenantTime};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    clients::Clients,
    detached::Detached,
    read::Reading,
    record::{ClientsLoaded, CopyState, Record, Role},
    tenant::Tenant,
};
use crate::rows::{
    Copy, Order, Place, Rows, RowsMut, Unreadable, expiry, feed::Touched, feed_floor, garbage, kind, stream, tenant,
    tenant as tenant_row,
};

/// All tenants of one group on one node.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Shard {
    pub(super) place: Place,
    pub(super) tenants: BTreeMap<TenantNumber, Tenant>,
    pub(super) streams: BTreeMap<GroupId, FeedOffset>,
    pub(super) streams_dirty: bool,
    /// Copies being erased.
    pub(super) garbage: VecDeque<Copy>,
    /// Tenants whose floor has moved past what was swept; no others, so that every replica sweeps alike.
    pub(super) to_sweep: BTreeSet<TenantNumber>,
    /// Tenants of which something is swept and not removed yet.
    pub(super) to_trim: BTreeSet<TenantNumber>,
    /// Rows of the feed up to this entry are forgotten.
    pub(super) feed_floor: u64,
    pub(super) feed_floor_dirty: bool,
    /// Whether some of them may be left to be removed.
    pub(super) feed_to_trim: bool,
    /// What the entry being applied has touched so far.
    pub(super) touched: BTreeMap<TenantNumber, Touched>,
    /// Bytes that it has written.
    pub(super) touched_len: u64,
    pub(super) detached: Detached,
    /// Outcomes of all tenants.
    pub(super) outcomes: usize,
    /// Owned tenants by the time at which a key of theirs expires first.
    due: BTreeSet<(TenantTime, TenantNumber)>,
}

impl Shard {
    /// Reads the state that the rows hold.
    pub fn open(place: Place, rows: &dyn Rows) -> Result<Self, Unreadable> {
        let mut shard = Self {
            place,
            tenants: BTreeMap::new(),
            streams: BTreeMap::new(),
            streams_dirty: false,
            garbage: VecDeque::new(),
            to_sweep: BTreeSet::new(),
            to_trim: BTreeSet::new(),
            feed_floor: feed_floor::read(rows, place)?,
            feed_floor_dirty: false,
            feed_to_trim: true,
            touched: BTreeMap::new(),
            touched_len: 0,
            detached: Detached::default(),
            outcomes: 0,
            due: BTreeSet::new(),
        };
        each(rows, place, kind::TENANT, |key, value| {
            let (number, record) = (tenant::parse_key(key)?, tenant::decode(value)?);
            shard.load(rows, number, record)
        })?;
        each(rows, place, kind::STREAM, |key, value| {
            shard.streams.insert(stream::parse_key(key)?, stream::decode(value)?);
            Ok(())
        })?;
        each(rows, place, kind::GARBAGE, |key, _| {
            shard.garbage.push_back(garbage::parse_key(place, key)?);
            Ok(())
        })?;
        shard.index_all_detached();
        Ok(shard)
    }

    fn load(&mut self, rows: &dyn Rows, number: TenantNumber, record: Record) -> Result<(), Unreadable> {
        let clients = Clients::open(rows, self.place.copy(number, record.live.number))?;
        let shadow_clients = match &record.shadow {
            Some(shadow) => Clients::open(rows, self.place.copy(number, shadow.state.number))?,
            None => Clients::default(),
        };
        let tenant = Tenant {
            record,
            clients,
            shadow_clients,
            fork_clients: Vec::new(),
            next_expiry: None,
            dirty: false,
        };
        self.tenants.insert(number, tenant);
        self.index_maintenance(number);
        self.outcomes += self.outcomes_of(number);
        self.find_due(rows, number)
    }

    /// Writes what is held in memory and has changed: to be called before a checkpoint.
    pub fn flush(&mut self, rows: &mut dyn RowsMut) {
        for (number, tenant) in self.tenants.iter_mut().filter(|(_, tenant)| tenant.dirty) {
            tenant.dirty = false;
            rows.put(tenant::key(self.place, *number), tenant::encode(&tenant.record));
            for (fork, mut clients) in std::mem::take(&mut tenant.fork_clients) {
                clients.flush(rows, self.place.copy(*number, fork));
            }
            let live = self.place.copy(*number, tenant.record.live.number);
            tenant.clients.flush(rows, live);
            if let Some(shadow) = &tenant.record.shadow {
                tenant
                    .shadow_clients
                    .flush(rows, self.place.copy(*number, shadow.state.number));
            }
        }
        if std::mem::take(&mut self.streams_dirty) {
            for (home, offset) in &self.streams {
                rows.put(stream::key(self.place, *home), stream::encode(*offset));
            }
        }
        if std::mem::take(&mut self.feed_floor_dirty) {
            rows.put(feed_floor::key(self.place), feed_floor::encode(self.feed_floor));
        }
    }

    /// Returns the group and install whose rows these are.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Returns the record of a tenant.
    pub fn record(&self, tenant: TenantNumber) -> Option<&Record> {
        self.tenants.get(&tenant).map(|tenant| &tenant.record)
    }

    /// Returns all records, by tenant.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (TenantNumber, &Record)> {
        self.tenants.iter().map(|(number, tenant)| (*number, &tenant.record))
    }

    /// Returns the records from a tenant on.
    pub fn records_from(&self, tenant: TenantNumber) -> impl Iterator<Item = (TenantNumber, &Record)> {
        self.tenants
            .range(tenant..)
            .map(|(number, tenant)| (*number, &tenant.record))
    }

    /// Returns the digest of some tenants, equal in all replicas that have applied the same entries: of all that their
    /// records say, the digests of keys and outcomes among it, but for what each replica does at its own time.
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

    /// Returns the remembered outcomes of a tenant's live copy.
    pub fn clients(&self, tenant: TenantNumber) -> Option<&Clients> {
        self.tenants.get(&tenant).map(|tenant| &tenant.clients)
    }

    /// Returns which windows of a copy being seeded have been brought; `None` if none is being seeded.
    pub fn clients_loaded(&self, tenant: TenantNumber) -> Option<ClientsLoaded> {
        let held = self.tenants.get(&tenant)?;
        Some(held.record.shadow.as_ref()?.loaded_clients(&held.shadow_clients))
    }

    /// Returns how many outcomes of all tenants are remembered.
    pub fn outcomes(&self) -> usize {
        self.outcomes
    }

    /// Returns how many outcomes of a tenant are remembered, in all its copies.
    pub(super) fn outcomes_of(&self, tenant: TenantNumber) -> usize {
        let held = self.tenants.get(&tenant);
        held.map_or(0, |held| held.clients.outcomes() + held.shadow_clients.outcomes())
    }

    /// Returns how far this group has the stream of a home group.
    pub fn stream(&self, home: GroupId) -> FeedOffset {
        self.streams.get(&home).copied().unwrap_or(FeedOffset::ZERO)
    }

    /// Returns up to which entry the feed is forgotten.
    pub fn feed_floor(&self) -> u64 {
        self.feed_floor
    }

    /// Returns the offsets of all streams, by home group.
    pub fn streams(&self) -> &BTreeMap<GroupId, FeedOffset> {
        &self.streams
    }

    /// Tells whether a tenant is attached to its home's stream as it is now.
    pub fn is_attached(&self, record: &Record) -> bool {
        record.session.is_some_and(|session| {
            session.attached
                && record.home() == Some(session.home)
                && session.epoch == record.epoch
                && session.incarnation >= self.stream(session.home).incarnation
        })
    }

    /// Returns the owned tenants that may have keys whose time is over, those with the oldest first.
    pub fn due(&self, now: TenantTime) -> impl Iterator<Item = TenantNumber> + '_ {
        self.due
            .iter()
            .take_while(move |(time, _)| *time <= now)
            .map(|(_, tenant)| *tenant)
    }

    /// Returns the owned tenant whose keys expire first, and when: not before this time.
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

    /// Notes whether there is something to sweep or to remove of a tenant: after anything that moves its floor or
    /// replaces its live copy.
    pub(super) fn index_maintenance(&mut self, number: TenantNumber) {
        let live = self.tenants.get(&number).map(|tenant| &tenant.record.live);
        let (to_sweep, to_trim) = live.map_or((false, false), |live| {
            (live.swept < live.floor.sequence(), live.trimmed < live.swept)
        });
        for (set, is_in) in [(&mut self.to_sweep, to_sweep), (&mut self.to_trim, to_trim)] {
            if is_in {
                set.insert(number);
            } else {
                set.remove(&number);
            }
        }
    }

    /// Makes this group the owner of a tenant, in an epoch: the only way to that role. The live copy may have come by the
    /// feed or a seed, so when its first key expires is found in its rows.
    pub(super) fn become_owner(
        &mut self,
        rows: &dyn Rows,
        number: TenantNumber,
        epoch: Epoch,
    ) -> Result<(), Unreadable> {
        if let Some(tenant) = self.tenants.get_mut(&number) {
            let record = &mut tenant.record;
            record.role = Role::Owner;
            record.epoch = epoch;
            record.promised = record.promised.max(epoch);
            record.session = None;
            tenant.dirty = true;
        }
        self.index_detached(number);
        self.find_due(rows, number)
    }

    /// Works out from its rows when a tenant's first key expires, if this group owns it.
    fn find_due(&mut self, rows: &dyn Rows, number: TenantNumber) -> Result<(), Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            return Ok(());
        };
        let next = match tenant.record.owned() {
            Some(_) => expiry::next(rows, self.place.copy(number, tenant.record.live.number))?,
            None => None,
        };
        let before = std::mem::replace(&mut tenant.next_expiry, next);
        self.index_due(number, before, next);
        Ok(())
    }

    /// Stops looking for keys whose time is over: that is for an owner to do.
    pub(super) fn not_due(&mut self, number: TenantNumber) {
        if let Some(tenant) = self.tenants.get_mut(&number) {
            let before = tenant.next_expiry.take();
            self.index_due(number, before, None);
        }
    }

    /// Gives access to a tenant's data, as of what has been applied.
    pub fn reading<'a>(&'a self, rows: &'a dyn Rows, tenant: TenantNumber) -> Option<Reading<'a>> {
        let held = self.tenants.get(&tenant)?;
        Some(Reading {
            rows,
            copy: self.place.copy(tenant, held.record.live.number),
            record: &held.record,
            clients: &held.clients,
            next_expiry: held.next_expiry,
        })
    }

    /// Drops a copy: nothing reads it from here on, its rows go in bounded steps.
    pub(super) fn discard(&mut self, rows: &mut dyn RowsMut, tenant: TenantNumber, state: &CopyState) {
        if state.number == 0 {
            return;
        }
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.fork_clients.retain(|(fork, _)| *fork != state.number);
        }
        let copy = self.place.copy(tenant, state.number);
        rows.put(garbage::key(copy), bytes::Bytes::new());
        self.garbage.push_back(copy);
    }

    /// Notes a change of a tenant that this group owns, for the feed.
    pub(super) fn touch(&mut self, tenant: TenantNumber, revision: Revision, len: usize) {
        self.touched_len += len as u64;
        let last = revision.sequence();
        let touched = self.touched.entry(tenant);
        let now = Touched {
            tenant,
            epoch: revision.epoch(),
            first: last,
            last,
        };
        touched
            .and_modify(|before| {
                *before = Touched {
                    first: before.first,
                    ..now
                }
            })
            .or_insert(now);
    }

    /// Takes what the entry has touched.
    pub(super) fn take_touched(&mut self) -> (u64, Vec<Touched>) {
        let touched = std::mem::take(&mut self.touched).into_values().collect();
        (std::mem::take(&mut self.touched_len), touched)
    }

    /// Tells whether a group may be asked for a tenant's data at all: it is a member and its copy is sound.
    pub fn is_readable(record: &Record) -> bool {
        record.role != Role::Erased && !record.suspect
    }
}

/// Calls `row` with each row of a kind.
fn each(
    rows: &dyn Rows,
    place: Place,
    kind: u8,
    mut row: impl FnMut(bytes::Bytes, bytes::Bytes) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let range = place.range(kind);
    for found in rows.range(&range.start..&range.end, Order::Ascending) {
        let (key, value) = found?;
        row(key, value)?;
    }
    Ok(())
}
