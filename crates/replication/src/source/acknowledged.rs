//! What followers have acknowledged: what floors, lag and remote durability are computed from.
//!
//! # Invariants
//!
//! 1. An offset speaks for a tenant only if the tenant is not in that follower's `detached`, and only while the stream
//!    is open or since it was.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber};
use tokio::sync::watch;

/// One follower group, as its acknowledgements show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// What it has applied of the stream.
    pub offset: FeedOffset,
    /// Where the tenants are that the offset does not speak for.
    pub detached: BTreeMap<TenantNumber, (Epoch, Revision)>,
    /// Nothing has been acknowledged since the stream began anew: nothing is known.
    pub all_detached: bool,
    /// Whether its stream is open.
    pub connected: bool,
}

impl Follower {
    fn new() -> Self {
        Self {
            offset: FeedOffset::ZERO,
            detached: BTreeMap::new(),
            all_detached: true,
            connected: false,
        }
    }
}

/// The followers of one home group, since this node began to lead it.
#[derive(Debug)]
pub struct Acknowledged {
    followers: Mutex<BTreeMap<GroupId, Follower>>,
    changed: watch::Sender<u64>,
}

impl Default for Acknowledged {
    fn default() -> Self {
        Self {
            followers: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Acknowledged {
    /// Returns what a follower group has acknowledged.
    pub fn of(&self, follower: GroupId) -> Option<Follower> {
        self.followers.lock().get(&follower).cloned()
    }

    /// Returns what each follower group has acknowledged.
    pub fn all(&self) -> Vec<(GroupId, Follower)> {
        self.followers
            .lock()
            .iter()
            .map(|(group, follower)| (*group, follower.clone()))
            .collect()
    }

    /// Returns a watch that changes with every acknowledgement.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Forgets everything: a new leader counts nothing before a stream is open.
    pub(crate) fn clear(&self) {
        self.followers.lock().clear();
    }

    pub(crate) fn change(&self, follower: GroupId, change: impl FnOnce(&mut Follower)) {
        change(self.followers.lock().entry(follower).or_insert_with(Follower::new));
        self.changed.send_modify(|count| *count += 1);
    }
}
