//! Reads the newest changes of tenants once, for all watches that have caught up.
//!
//! ```text
//!  apply ─> Reader, one a group: reads each change of a watched tenant once ─> Hub, one a tenant: its newest batches
//!                                              Watcher: asks for the batch behind its place ─┘
//! ```
//!
//! # Invariants
//!
//! 1. Whoever subscribes gets every change behind its place, or is told that its place is no longer kept.
//! 2. A hub lives as long as somebody is subscribed, a group's reader as long as the group has hubs.
//! 3. The batches of all hubs together have [`KEPT_LEN_MAX`] bytes at most, whoever is slow to take them: the oldest go
//!    first.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
};

use parking_lot::Mutex;
use stead_replication::Views;
use stead_state::{
    directory::State as TenantState,
    rows::change::Change,
    shard::{Shard, read::Changes},
};
use stead_types::{DirectoryVersion, GroupId, Revision, Sequence, TenantNumber};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{host::Hosted, supervisor::Spawner};

/// About how many bytes one read brings.
pub(super) const BATCH_LEN_MAX: usize = 256 << 10;
/// Bytes of batches that a node keeps for those who are a little behind; whoever is further behind reads history.
const KEPT_LEN_MAX: usize = 32 << 20;
/// What a batch takes beside its changes, and a change beside its key and value.
const OVERHEAD_LEN: usize = 256;

type Key = (GroupId, TenantNumber);

/// Changes that follow each other.
#[derive(Debug)]
pub(super) struct Batch {
    /// It begins behind this revision.
    after: Revision,
    pub(super) changes: Vec<Change>,
    /// The revision of the last one.
    next: Revision,
}

impl Batch {
    fn len(&self) -> usize {
        let len: usize = self.changes.iter().map(|change| change.len() + OVERHEAD_LEN).sum();
        len + OVERHEAD_LEN
    }
}

/// What a hub has for a subscriber.
#[derive(Debug)]
pub(super) enum Next {
    /// Its next changes are in here, perhaps behind some that it has.
    Batch(Arc<Batch>),
    /// Nothing happened since.
    Nothing,
    /// Its place is no longer kept, or the hub has ended: history tells which, and what that means.
    Gone,
}

struct Hub {
    /// Tells it from others of the same tenant, before and after it.
    number: u64,
    subscribers: usize,
    /// The newest, without gaps.
    batches: VecDeque<Arc<Batch>>,
    /// Everything up to here was read.
    head: watch::Sender<Revision>,
}

impl Hub {
    fn behind(&self, place: Revision) -> Next {
        let at = self.batches.partition_point(|batch| batch.next <= place);
        match self.batches.get(at) {
            Some(batch) if batch.after <= place => Next::Batch(batch.clone()),
            None if *self.head.borrow() <= place => Next::Nothing,
            Some(_) | None => Next::Gone,
        }
    }
}

/// Where a hub is, for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    key: Key,
    number: u64,
    head: Revision,
}

#[derive(Default)]
struct Kept {
    hubs: BTreeMap<Key, Hub>,
    /// Whose batches they are, the oldest first.
    order: VecDeque<Key>,
    /// Bytes of all batches.
    len: usize,
    /// Wakes the readers that run.
    readers: BTreeMap<GroupId, Arc<Notify>>,
    count: u64,
}

impl Kept {
    /// Subscribes somebody who has everything up to a revision; `None` if what is behind it is no longer kept.
    fn subscribe(&mut self, key: Key, place: Revision) -> Option<(u64, watch::Receiver<Revision>)> {
        let count = &mut self.count;
        let hub = self.hubs.entry(key).or_insert_with(|| {
            *count += 1;
            Hub {
                number: *count,
                subscribers: 0,
                batches: VecDeque::new(),
                head: watch::Sender::new(place),
            }
        });
        if matches!(hub.behind(place), Next::Gone) {
            return None;
        }
        hub.subscribers += 1;
        Some((hub.number, hub.head.subscribe()))
    }

    fn hub(&mut self, key: Key, number: u64) -> Option<&mut Hub> {
        self.hubs.get_mut(&key).filter(|hub| hub.number == number)
    }

    fn leave(&mut self, key: Key, number: u64) {
        let Some(hub) = self.hub(key, number) else { return };
        hub.subscribers -= 1;
        if hub.subscribers == 0 {
            self.end(key, number);
        }
    }

    fn end(&mut self, key: Key, number: u64) {
        if self.hub(key, number).is_none() {
            return;
        }
        if let Some(hub) = self.hubs.remove(&key) {
            self.len -= hub.batches.iter().map(|batch| batch.len()).sum::<usize>();
            self.order.retain(|of| *of != key);
        }
        if let Some(reader) = self.readers.get(&key.0) {
            reader.notify_one();
        }
    }

    /// Takes in what was read; false if the hub has ended.
    fn publish(&mut self, (key, number): (Key, u64), batch: Batch) -> bool {
        let (len, next) = (batch.len(), batch.next);
        let Some(hub) = self.hub(key, number) else { return false };
        hub.batches.push_back(Arc::new(batch));
        self.order.push_back(key);
        self.len += len;
        while self.len > KEPT_LEN_MAX {
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

    /// Returns where a group's hubs are; without any its reader ends.
    fn heads(&mut self, group: GroupId) -> Option<Vec<At>> {
        let all = (group, TenantNumber::new(0))..=(group, TenantNumber::new(u64::MAX));
        let at = |(key, hub): (&Key, &Hub)| At {
            key: *key,
            number: hub.number,
            head: *hub.head.borrow(),
        };
        let heads: Vec<At> = self.hubs.range(all).map(at).collect();
        if heads.is_empty() {
            self.readers.remove(&group);
            return None;
        }
        Some(heads)
    }
}

/// The hubs of a node.
pub(crate) struct Hubs {
    kept: Mutex<Kept>,
    views: Views,
    spawner: Spawner,
}

impl Hubs {
    pub(super) fn new(views: Views, spawner: Spawner) -> Self {
        Self {
            kept: Mutex::default(),
            views,
            spawner,
        }
    }

    /// Subscribes to a tenant's changes in a group, behind a place; `None` if the place is no longer kept.
    pub(super) fn subscribe(self: &Arc<Self>, key: Key, hosted: &Hosted, place: Revision) -> Option<Subscription> {
        let mut kept = self.kept.lock();
        let (number, head) = kept.subscribe(key, place)?;
        let group = key.0;
        let wake = kept.readers.entry(group).or_insert_with(|| {
            let reader = Reader {
                hubs: self.clone(),
                group,
                hosted: hosted.clone(),
                wake: Arc::default(),
                seen: self.views.version(),
            };
            let wake = reader.wake.clone();
            self.spawner.spawn("watch hubs", |stop| reader.run(stop));
            wake
        });
        // It may have looked for the last time before there was this hub.
        wake.notify_one();
        Some(Subscription {
            hubs: self.clone(),
            key,
            number,
            head,
        })
    }
}

/// What a subscriber holds: nothing of what the hub keeps.
pub(super) struct Subscription {
    hubs: Arc<Hubs>,
    key: Key,
    number: u64,
    head: watch::Receiver<Revision>,
}

impl Subscription {
    /// Returns what comes behind a place.
    pub(super) fn behind(&mut self, place: Revision) -> Next {
        self.head.borrow_and_update();
        let mut kept = self.hubs.kept.lock();
        let hub = kept.hub(self.key, self.number);
        hub.map_or(Next::Gone, |hub| hub.behind(place))
    }

    /// Waits until there is more, or the hub has ended.
    pub(super) async fn moved(&mut self) {
        // An error: it has ended.
        self.head.changed().await.ok();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hubs.kept.lock().leave(self.key, self.number);
    }
}

/// The task of one group's hubs.
struct Reader {
    hubs: Arc<Hubs>,
    group: GroupId,
    hosted: Hosted,
    /// A hub was added, or has ended.
    wake: Arc<Notify>,
    /// Which tenants are disabled was looked up at this version.
    seen: DirectoryVersion,
}

impl Reader {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        tokio::select! {
            () = self.serve() => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    /// Ends with its group's last hub.
    async fn serve(&mut self) {
        let mut applied = self.hosted.raft.applied();
        let mut versions = self.hubs.views.watch();
        loop {
            applied.borrow_and_update();
            let version = *versions.borrow_and_update();
            let Some(heads) = self.hubs.kept.lock().heads(self.group) else {
                return;
            };
            self.end_disabled(&heads, version);
            for at in self.moved(heads) {
                self.read(at).await;
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                changed = versions.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
            }
        }
    }

    /// Ends hubs of tenants that are not served any more: their watches find that out then.
    fn end_disabled(&mut self, heads: &[At], version: DirectoryVersion) {
        if version == self.seen {
            return;
        }
        let touched = self.hubs.views.touched_since(self.seen);
        let touched = |at: &&At| touched.as_ref().is_none_or(|touched| touched.contains(&at.key.1));
        for at in heads.iter().filter(touched) {
            if !is_active(&self.hubs.views, at.key.1) {
                self.hubs.kept.lock().end(at.key, at.number);
            }
        }
        self.seen = version;
    }

    /// Returns those behind which something has happened; compared as of one state.
    fn moved(&self, mut heads: Vec<At>) -> Vec<At> {
        // Of rows that are closed all hubs end: each of their watches finds out why.
        let _closed = self.hosted.machine.read(|view| {
            heads.retain(|at| {
                let record = view.record(at.key.1).filter(|record| Shard::is_readable(record));
                record.is_none_or(|record| record.live.revision != at.head)
            });
        });
        heads
    }

    /// Reads what has happened. A hub whose tenant cannot be read as it could before ends: each of its watches finds
    /// out by itself what that means.
    async fn read(&self, at: At) {
        let (mut after, mut more) = (at.head, true);
        while more {
            let Some(found) = self.changes(at.key.1, after) else {
                return self.hubs.kept.lock().end(at.key, at.number);
            };
            let Changes { changes, next, .. } = found;
            more = !changes.is_empty()
                && self
                    .hubs
                    .kept
                    .lock()
                    .publish((at.key, at.number), Batch { after, changes, next })
                && found.more;
            after = next;
            tokio::task::yield_now().await;
        }
    }

    fn changes(&self, tenant: TenantNumber, after: Revision) -> Option<Changes> {
        let changes = self.hosted.readable(tenant, |reading| {
            reading?.changes(after, Sequence::MAX, BATCH_LEN_MAX).ok()
        });
        changes.ok().flatten()
    }
}

/// Tells whether a tenant may be watched.
pub(super) fn is_active(views: &Views, tenant: TenantNumber) -> bool {
    views.read(|view| {
        view.tenant(tenant)
            .is_some_and(|tenant| tenant.state == TenantState::Active)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::change_fixture::change, *};

    const KEY: Key = (GroupId::new(1), TenantNumber::new(7));
    const OTHER: Key = (GroupId::new(1), TenantNumber::new(8));

    fn revision(sequence: u64) -> Revision {
        format!("1.{sequence}").parse().unwrap()
    }

    /// One change behind a revision.
    fn batch(after: u64, len: usize) -> Batch {
        Batch {
            after: revision(after),
            changes: vec![change(&revision(after + 1).to_string(), "a", Some(len))],
            next: revision(after + 1),
        }
    }

    fn found(kept: &Kept, key: Key, place: u64) -> String {
        match kept.hubs.get(&key).map(|hub| hub.behind(revision(place))) {
            Some(Next::Batch(batch)) => format!("{} to {}", batch.after, batch.next),
            Some(Next::Nothing) => "nothing".into(),
            Some(Next::Gone) => "gone".into(),
            None => "no hub".into(),
        }
    }

    #[test]
    fn a_subscriber_finds_what_is_behind_its_place_or_that_it_is_gone() {
        // Invariant 1.
        let mut kept = Kept::default();
        let (number, head) = kept.subscribe(KEY, revision(5)).unwrap();
        assert_eq!(found(&kept, KEY, 5), "nothing");
        for after in 5..8 {
            assert!(kept.publish((KEY, number), batch(after, 10)));
        }
        assert_eq!(*head.borrow(), revision(8));
        let found = |place| found(&kept, KEY, place);
        assert_eq!(
            [4, 5, 7, 8, 9].map(found),
            ["gone", "1.5 to 1.6", "1.7 to 1.8", "nothing", "nothing"]
        );
        assert!(kept.subscribe(KEY, revision(4)).is_none());
        assert!(!kept.publish((KEY, number + 1), batch(8, 10)), "of a hub before it");
    }

    #[test]
    fn what_is_kept_is_bounded_however_slow_its_readers_are() {
        // Invariant 3.
        let mut kept = Kept::default();
        let (slow, _head) = kept.subscribe(OTHER, revision(0)).unwrap();
        assert!(kept.publish((OTHER, slow), batch(0, 10)));
        let (number, _head) = kept.subscribe(KEY, revision(0)).unwrap();
        for after in 0..100 {
            assert!(kept.publish((KEY, number), batch(after, 1 << 20)));
            assert!(kept.len <= KEPT_LEN_MAX);
        }
        assert_eq!(found(&kept, OTHER, 0), "gone", "its reader must go to history");
        assert_eq!(found(&kept, KEY, 0), "gone");
        assert_eq!(found(&kept, KEY, 99), "1.99 to 1.100");
        assert!(kept.publish((KEY, number), batch(100, KEPT_LEN_MAX)));
        assert_eq!((kept.len, kept.order.len()), (0, 0));
        assert_eq!(found(&kept, KEY, 100), "gone", "it alone is too much");
    }

    #[test]
    fn a_hub_ends_with_its_last_subscriber_and_a_reader_with_its_last_hub() {
        // Invariant 2.
        let mut kept = Kept::default();
        kept.readers.insert(KEY.0, Arc::default());
        let (number, _first) = kept.subscribe(KEY, revision(0)).unwrap();
        let (again, _second) = kept.subscribe(KEY, revision(0)).unwrap();
        assert_eq!(number, again);
        assert!(kept.publish((KEY, number), batch(0, 10)));
        kept.leave(KEY, number);
        assert_eq!(kept.heads(KEY.0).map(|heads| heads.len()), Some(1));
        kept.leave(KEY, number);
        assert_eq!((kept.len, kept.order.len()), (0, 0));
        let (newer, _third) = kept.subscribe(KEY, revision(1)).unwrap();
        kept.leave(KEY, number);
        assert_ne!(newer, number);
        assert_eq!(kept.heads(KEY.0).map(|heads| heads.len()), Some(1), "another hub's");
        kept.leave(KEY, newer);
        assert_eq!(kept.heads(KEY.0), None);
        assert!(kept.readers.is_empty());
    }
}
