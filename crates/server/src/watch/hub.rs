//! Reads the newest changes of a tenant once, for all watches that have caught up.
//!
//! # Invariants
//!
//! 1. Whoever subscribes gets every batch behind the head it was told, or is told that some were missed.
//! 2. A hub lives as long as somebody is subscribed.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use stead_state::{
    rows::change::Change,
    shard::{Shard, read::Changes},
};
use stead_types::{GroupId, Revision, Sequence, TenantNumber};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{host::Hosted, supervisor::Spawner};

/// Batches that are kept for those who are a little behind; whoever is further behind reads history.
const BATCHES_MAX: usize = 32;
/// About how many bytes one read brings.
pub(super) const BATCH_LEN_MAX: usize = 256 << 10;

/// Changes that follow each other.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// The revision of the last one.
    pub(super) next: Revision,
}

/// What a subscriber holds.
pub(super) struct Subscription {
    pub(super) batches: broadcast::Receiver<Arc<Batch>>,
    /// Batches begin behind this one.
    pub(super) head: Revision,
}

struct Hub {
    /// Tells it from others of the same tenant, before and after it.
    number: u64,
    batches: broadcast::Sender<Arc<Batch>>,
    head: Revision,
}

/// The hubs of a node.
pub(crate) struct Hubs {
    hubs: Mutex<BTreeMap<(GroupId, TenantNumber), Hub>>,
    count: AtomicU64,
    spawner: Spawner,
}

impl Hubs {
    pub(super) fn new(spawner: Spawner) -> Self {
        Self {
            hubs: Mutex::default(),
            count: AtomicU64::new(0),
            spawner,
        }
    }

    /// Subscribes to a tenant's changes in a group; `now` is where its copy stands.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        key: (GroupId, TenantNumber),
        hosted: &Hosted,
        now: Revision,
    ) -> Subscription {
        let mut hubs = self.hubs.lock();
        let hub = hubs.entry(key).or_insert_with(|| {
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            let reader = Reader {
                hubs: self.clone(),
                key,
                number,
                hosted: hosted.clone(),
                head: now,
            };
            self.spawner.spawn("watch hub", |stop| reader.run(stop));
            Hub {
                number,
                batches: broadcast::Sender::new(BATCHES_MAX),
                head: now,
            }
        });
        Subscription {
            batches: hub.batches.subscribe(),
            head: hub.head,
        }
    }

    /// Hands a batch to all subscribers; false, and the hub is gone, if there are none.
    fn publish(&self, key: (GroupId, TenantNumber), number: u64, batch: Batch) -> bool {
        let mut hubs = self.hubs.lock();
        let Some(hub) = hubs.get_mut(&key).filter(|hub| hub.number == number) else {
            return false;
        };
        hub.head = batch.next;
        let is_heard = hub.batches.send(Arc::new(batch)).is_ok();
        if !is_heard {
            hubs.remove(&key);
        }
        is_heard
    }

    fn end(&self, key: (GroupId, TenantNumber), number: u64) {
        let mut hubs = self.hubs.lock();
        if hubs.get(&key).is_some_and(|hub| hub.number == number) {
            hubs.remove(&key);
        }
    }
}

/// The task of one hub.
struct Reader {
    hubs: Arc<Hubs>,
    key: (GroupId, TenantNumber),
    number: u64,
    hosted: Hosted,
    head: Revision,
}

impl Reader {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        tokio::select! {
            () = self.serve() => {}
            () = stop.cancelled() => {}
        }
        self.hubs.end(self.key, self.number);
        Ok(())
    }

    /// Ends when nobody listens any more, or the tenant cannot be read as it could before: each watch finds out by
    /// itself what that means for it.
    async fn serve(&mut self) {
        let mut applied = self.hosted.raft.applied();
        loop {
            applied.borrow_and_update();
            loop {
                let Some(found) = self.read() else { return };
                if found.changes.is_empty() {
                    break;
                }
                self.head = found.next;
                let (next, more) = (found.next, found.more);
                let changes = found.changes;
                if !self.hubs.publish(self.key, self.number, Batch { changes, next }) {
                    return;
                }
                if !more {
                    break;
                }
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    fn read(&self) -> Option<Changes> {
        self.hosted.reading(self.key.1, |reading| {
            let reading = reading.filter(|reading| Shard::is_readable(reading.record()))?;
            reading.changes(self.head, Sequence::MAX, BATCH_LEN_MAX).ok()
        })
    }
}
