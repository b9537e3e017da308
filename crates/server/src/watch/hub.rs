//! Hubs: fan-out of each tenant's newest changes to all watches that have caught up. Each change is read once.
//!
//! ```text
//!  apply ─> HubReader, one a group: reads each change of a watched tenant once ─> Hub, one a tenant: newest batches
//!                                        Watcher: asks for the batch after its position ─┘
//! ```
//!
//! # Invariants
//!
//! 1. A subscriber gets every change after its position, or is told that the changes after its position are no longer
//!    kept.
//! 2. A hub lives as long as it has subscribers, a group's reader as long as the group has hubs.
//! 3. The batches of all hubs together have [`BUFFERED_LEN_MAX`] bytes at most, however slow
//!    subscribers are: the oldest go first.
//! 4. A reader looks at the hubs of tenants that entries have named since it looked last, and at new hubs; at all hubs
//!    only where it is not known which tenants those are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    ops::RangeInclusive,
    sync::Arc,
};

use parking_lot::Mutex;
use stead_replication::SharedDirectoryView;
use stead_state::{
    directory::TenantState,
    rows::change::Change,
    shard::{Shard, read::ChangesPage},
};
use stead_types::{DirectoryVersion, GroupId, Revision, Sequence, TenantNumber};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{host::HostedGroup, supervisor::Spawner};

/// Approximate bytes of one read.
pub(super) const BATCH_LEN_MAX: usize = 256 << 10;
/// Most bytes of batches that a node keeps for watches that are a little behind; a watch further behind reads history.
const BUFFERED_LEN_MAX: usize = 32 << 20;
/// Memory overhead of a batch, and of each change.
const OVERHEAD_LEN: usize = 256;

pub(super) type HubKey = (GroupId, TenantNumber);

/// Consecutive changes of a tenant.
#[derive(Debug)]
pub(super) struct Batch {
    /// Revision before the first change.
    pub(super) after: Revision,
    pub(super) changes: Vec<Change>,
    /// Revision of the last change.
    pub(super) next: Revision,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        let len: usize = self.changes.iter().map(|change| change.len() + OVERHEAD_LEN).sum();
        len + OVERHEAD_LEN
    }
}

/// Next batch of a subscriber.
#[derive(Debug)]
pub(super) enum NextBatch {
    /// A batch with its next changes, perhaps after some that it has.
    Batch(Arc<Batch>),
    /// There are no changes after its position.
    UpToDate,
    /// The changes after its position are no longer kept, or the hub is closed: history tells which, and what that
    /// means.
    Evicted,
}

struct Hub {
    /// Number that distinguishes it from earlier and later hubs of the same tenant.
    number: u64,
    subscribers: usize,
    /// The newest batches, without gaps.
    batches: VecDeque<Arc<Batch>>,
    /// Revision up to which changes were read.
    head: watch::Sender<Revision>,
}

impl Hub {
    fn batch_after(&self, position: Revision) -> NextBatch {
        let at = self.batches.partition_point(|batch| batch.next <= position);
        match self.batches.get(at) {
            Some(batch) if batch.after <= position => NextBatch::Batch(batch.clone()),
            None if *self.head.borrow() <= position => NextBatch::UpToDate,
            Some(_) | None => NextBatch::Evicted,
        }
    }
}

/// Position of a hub, for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HubHead {
    key: HubKey,
    number: u64,
    head: Revision,
}

#[derive(Default)]
struct HubSet {
    hubs: BTreeMap<HubKey, Hub>,
    /// Hubs that their reader has not looked at: changes may have been applied before the hub existed.
    added: BTreeSet<HubKey>,
    /// Hub of each batch, the oldest batch first.
    order: VecDeque<HubKey>,
    /// Bytes of all batches.
    len: usize,
    /// Wakes the running readers, by group.
    readers: BTreeMap<GroupId, Arc<Notify>>,
    last_number: u64,
}

impl HubSet {
    /// Adds a subscriber that has everything up to a revision; `None` if the changes after it are no longer kept.
    fn subscribe(&mut self, key: HubKey, position: Revision) -> Option<(u64, watch::Receiver<Revision>)> {
        let (last_number, added) = (&mut self.last_number, &mut self.added);
        let hub = self.hubs.entry(key).or_insert_with(|| {
            *last_number += 1;
            added.insert(key);
            Hub {
                number: *last_number,
                subscribers: 0,
                batches: VecDeque::new(),
                head: watch::Sender::new(position),
            }
        });
        if matches!(hub.batch_after(position), NextBatch::Evicted) {
            return None;
        }
        hub.subscribers += 1;
        Some((hub.number, hub.head.subscribe()))
    }

    fn hub(&mut self, key: HubKey, number: u64) -> Option<&mut Hub> {
        self.hubs.get_mut(&key).filter(|hub| hub.number == number)
    }

    fn unsubscribe(&mut self, key: HubKey, number: u64) {
        let Some(hub) = self.hub(key, number) else { return };
        hub.subscribers -= 1;
        if hub.subscribers == 0 {
            self.close(key, number);
        }
    }

    fn close(&mut self, key: HubKey, number: u64) {
        if self.hub(key, number).is_none() {
            return;
        }
        if let Some(hub) = self.hubs.remove(&key) {
            self.added.remove(&key);
            if !hub.batches.is_empty() {
                self.len -= hub.batches.iter().map(|batch| batch.len()).sum::<usize>();
                self.order.retain(|of| *of != key);
            }
        }
        if let Some(reader) = self.readers.get(&key.0) {
            reader.notify_one();
        }
    }

    /// Adds a batch; false if the hub is closed.
    fn publish(&mut self, key: HubKey, number: u64, batch: Batch) -> bool {
        let (len, next) = (batch.len(), batch.next);
        let Some(hub) = self.hub(key, number) else { return false };
        hub.batches.push_back(Arc::new(batch));
        self.order.push_back(key);
        self.len += len;
        while self.len > BUFFERED_LEN_MAX {
            self.drop_oldest();
        }
        if let Some(hub) = self.hub(key, number) {
            hub.head.send_replace(next);
        }
        true
    }

    fn drop_oldest(&mut self) {
        let hub = self.order.pop_front().and_then(|key| self.hubs.get_mut(&key));
        let oldest = hub.and_then(|hub| hub.batches.pop_front());
        self.len -= oldest.map_or(0, |batch| batch.len());
    }

    /// Tells whether a group has hubs; without any its reader ends, and is forgotten.
    fn keep_reader(&mut self, group: GroupId) -> bool {
        let has_hubs = self.hubs.range(keys_of(group)).next().is_some();
        if !has_hubs {
            self.readers.remove(&group);
        }
        has_hubs
    }

    /// Returns the positions of a group's hubs: those of some tenants, or all.
    fn heads(&self, group: GroupId, of: Option<&BTreeSet<TenantNumber>>) -> Vec<HubHead> {
        let at = |(key, hub): (&HubKey, &Hub)| HubHead {
            key: *key,
            number: hub.number,
            head: *hub.head.borrow(),
        };
        match of {
            Some(tenants) => {
                let found = |tenant: &TenantNumber| self.hubs.get_key_value(&(group, *tenant)).map(at);
                tenants.iter().filter_map(found).collect()
            }
            None => self.hubs.range(keys_of(group)).map(at).collect(),
        }
    }

    /// Returns the positions of a group's hubs that may have new changes: of the `changed` tenants, or of all where
    /// these are not known, and of hubs that were not looked at yet (invariant 4).
    fn take_unread(&mut self, group: GroupId, changed: Option<BTreeSet<TenantNumber>>) -> Vec<HubHead> {
        let added: Vec<HubKey> = self.added.range(keys_of(group)).copied().collect();
        for key in &added {
            self.added.remove(key);
        }
        let of = changed.map(|mut changed| {
            changed.extend(added.into_iter().map(|(_, tenant)| tenant));
            changed
        });
        self.heads(group, of.as_ref())
    }
}

/// Returns the keys of all hubs that a group can have.
fn keys_of(group: GroupId) -> RangeInclusive<HubKey> {
    (group, TenantNumber::new(0))..=(group, TenantNumber::new(u64::MAX))
}

/// The hubs of a node.
pub(crate) struct Hubs {
    set: Mutex<HubSet>,
    directory_view: SharedDirectoryView,
    spawner: Spawner,
}

impl Hubs {
    pub(super) fn new(directory_view: SharedDirectoryView, spawner: Spawner) -> Self {
        Self {
            set: Mutex::default(),
            directory_view,
            spawner,
        }
    }

    /// Subscribes to a tenant's changes in a group after a position; `None` if those are no longer kept.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        key: HubKey,
        hosted: &HostedGroup,
        position: Revision,
    ) -> Option<Subscription> {
        let mut set = self.set.lock();
        let (number, head) = set.subscribe(key, position)?;
        let group = key.0;
        let wake = set.readers.entry(group).or_insert_with(|| {
            let reader = HubReader {
                hubs: self.clone(),
                group,
                hosted: hosted.clone(),
                wake: Arc::default(),
                seen: None,
                view_version: self.directory_view.version(),
            };
            let wake = reader.wake.clone();
            self.spawner.spawn("watch hubs", |stop| reader.run(stop));
            wake
        });
        // The reader may have checked for the last time before this hub existed.
        wake.notify_one();
        Some(Subscription {
            hubs: self.clone(),
            key,
            number,
            head,
        })
    }
}

/// A subscription to a hub. It holds no changes.
pub(super) struct Subscription {
    hubs: Arc<Hubs>,
    key: HubKey,
    number: u64,
    head: watch::Receiver<Revision>,
}

impl Subscription {
    /// Returns the batch after a position.
    pub(super) fn batch_after(&mut self, position: Revision) -> NextBatch {
        self.head.borrow_and_update();
        let mut set = self.hubs.set.lock();
        let hub = set.hub(self.key, self.number);
        hub.map_or(NextBatch::Evicted, |hub| hub.batch_after(position))
    }

    /// Waits until there are more changes, or the hub is closed.
    pub(super) async fn changed(&mut self) {
        // An error means that the hub is closed.
        self.head.changed().await.ok();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hubs.set.lock().unsubscribe(self.key, self.number);
    }
}

/// Task that reads changes for one group's hubs.
struct HubReader {
    hubs: Arc<Hubs>,
    group: GroupId,
    hosted: HostedGroup,
    /// Notified when a hub was added or closed.
    wake: Arc<Notify>,
    /// Index of the last entry whose tenants were looked at.
    seen: Option<u64>,
    /// Directory version at which disabled tenants were looked up.
    view_version: DirectoryVersion,
}

impl HubReader {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        tokio::select! {
            () = self.serve() => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    /// Runs until the group has no hub.
    async fn serve(&mut self) {
        let mut applied = self.hosted.raft.applied();
        let mut versions = self.hubs.directory_view.watch();
        loop {
            applied.borrow_and_update();
            let version = *versions.borrow_and_update();
            if !self.hubs.set.lock().keep_reader(self.group) {
                return;
            }
            self.close_disabled(version);
            for at in self.changed_hubs() {
                self.read(at).await;
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                changed = versions.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
            }
        }
    }

    /// Closes the hubs of tenants that are no longer active, so that their watches check the tenant.
    fn close_disabled(&mut self, version: DirectoryVersion) {
        if version == self.view_version {
            return;
        }
        let touched = self.hubs.directory_view.tenants_changed_since(self.view_version);
        let heads = self.hubs.set.lock().heads(self.group, touched.as_ref());
        for at in heads {
            if !is_tenant_active(&self.hubs.directory_view, at.key.1) {
                self.hubs.set.lock().close(at.key, at.number);
            }
        }
        self.view_version = version;
    }

    /// Returns the hubs with new changes, all compared in one read.
    fn changed_hubs(&mut self) -> Vec<HubHead> {
        let since = self.hosted.machine.read(|view| {
            let changed = self.seen.and_then(|seen| view.shard().tenants_changed_after(seen));
            (changed, view.applied())
        });
        let Ok((changed, applied)) = since else {
            // If the rows are closed all hubs are closed: each of their watches finds out why.
            return self.hubs.set.lock().take_unread(self.group, None);
        };
        self.seen = Some(applied);
        let mut heads = self.hubs.set.lock().take_unread(self.group, changed);
        let _closed = self.hosted.machine.read(|view| {
            heads.retain(|at| {
                let record = view.record(at.key.1).filter(|record| Shard::is_readable(record));
                record.is_none_or(|record| record.live.revision != at.head)
            });
        });
        heads
    }

    /// Reads the new changes of a hub. A hub whose tenant can no longer be read is closed: each of its watches finds
    /// out by itself what that means.
    async fn read(&self, at: HubHead) {
        let (mut after, mut more) = (at.head, true);
        while more {
            let Some(found) = self.changes(at.key.1, after) else {
                return self.hubs.set.lock().close(at.key, at.number);
            };
            let ChangesPage { changes, next, .. } = found;
            more = !changes.is_empty()
                && self
                    .hubs
                    .set
                    .lock()
                    .publish(at.key, at.number, Batch { after, changes, next })
                && found.more;
            after = next;
            tokio::task::yield_now().await;
        }
    }

    fn changes(&self, tenant: TenantNumber, after: Revision) -> Option<ChangesPage> {
        let changes = self.hosted.read_if_readable(tenant, |reading| {
            reading?.changes(after, Sequence::MAX, BATCH_LEN_MAX).ok()
        });
        changes.ok().flatten()
    }
}

/// Tells whether a tenant may be watched.
pub(super) fn is_tenant_active(directory_view: &SharedDirectoryView, tenant: TenantNumber) -> bool {
    directory_view.read(|view| {
        view.tenant(tenant)
            .is_some_and(|tenant| tenant.state == TenantState::Active)
    })
}

#[cfg(test)]
#[path = "hub_test.rs"]
mod hub_test;
