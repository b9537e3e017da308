//! Room on the disks of voters as last reported, and the check of writes against it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use stead_replication::RoomCheck;
use stead_state::disk_room::{self, ShortOfRoom, VoterRoom};
use stead_types::{Error, ErrorKind, NodeId};
use tokio::{sync::Notify, time::Instant};

/// Name of the limit for which writes are refused.
pub(crate) const LIMIT: &str = "disk reserve";

/// Time for which another voter's report counts.
const REPORT_AGE_MAX: Duration = Duration::from_secs(10);

/// Free space that stands for "not known".
const UNKNOWN: u64 = u64::MAX;

/// Free disk space of this node and of other voters.
pub(crate) struct DiskRoom {
    node: NodeId,
    reserve: u64,
    own: AtomicU64,
    others: Mutex<BTreeMap<NodeId, VoterReport>>,
    is_other_short: AtomicBool,
    became_short: Notify,
}

/// Another voter's free bytes, and when they were reported.
#[derive(Clone, Copy, Debug)]
struct VoterReport {
    free: u64,
    at: Instant,
}

impl DiskRoom {
    /// Returns the room of a node with this reserve, before the first look.
    pub(crate) fn new(node: NodeId, reserve: u64) -> Self {
        Self {
            node,
            reserve,
            own: AtomicU64::new(UNKNOWN),
            others: Mutex::default(),
            is_other_short: AtomicBool::new(false),
            became_short: Notify::new(),
        }
    }

    /// Returns the bytes that are kept free.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Returns this node's free bytes; `None` where they are not known.
    pub(crate) fn own(&self) -> VoterRoom {
        let free = self.own.load(Ordering::Relaxed);
        VoterRoom {
            node: self.node,
            free: (free != UNKNOWN).then_some(free),
        }
    }

    /// Sets this node's free bytes.
    pub(super) fn set_own(&self, free: u64) {
        let before = self.own.swap(free, Ordering::Relaxed);
        if free < self.reserve && self.reserve <= before {
            self.became_short.notify_one();
        }
    }

    /// Waits until this node has less than the reserve, which it had before.
    pub(super) async fn became_short(&self) {
        self.became_short.notified().await;
    }

    /// Sets another node's free bytes.
    pub(super) fn set_other(&self, node: NodeId, free: u64) {
        let at = Instant::now();
        let mut others = self.others.lock();
        others.insert(node, VoterReport { free, at });
        let is_short = others.values().any(|report| report.free < self.reserve);
        self.is_other_short.store(is_short, Ordering::Relaxed);
    }

    /// Returns what is known of the other ones of these voters.
    pub(super) fn others(&self, voters: impl IntoIterator<Item = NodeId>) -> Vec<VoterRoom> {
        let reports = self.others.lock();
        let now = Instant::now();
        let room = |node: NodeId| VoterRoom {
            node,
            free: reports
                .get(&node)
                .filter(|report| now - report.at < REPORT_AGE_MAX)
                .map(|report| report.free),
        };
        voters
            .into_iter()
            .filter(|voter| *voter != self.node)
            .map(room)
            .collect()
    }

    /// Tells whether any disk that is known lacks the reserve. Cheap, for each write.
    pub(crate) fn may_be_short(&self) -> bool {
        self.own.load(Ordering::Relaxed) < self.reserve || self.is_other_short.load(Ordering::Relaxed)
    }

    /// Tells whether a group with these voters takes writes that need room, on its leader.
    ///
    /// # Errors
    ///
    /// `QUOTA_EXCEEDED`, with the voter that has the least room.
    pub(crate) fn check(&self, voters: impl IntoIterator<Item = NodeId>) -> Result<(), Error> {
        let others = self.others(voters);
        disk_room::check_writes(self.reserve, self.own(), &others).map_err(|short| self.refusal(short))
    }

    /// Returns [`DiskRoom::check`] as a function, for replication.
    pub(crate) fn as_check(self: &Arc<Self>) -> RoomCheck {
        let room = self.clone();
        Arc::new(move |voters| room.check(voters))
    }

    fn refusal(&self, ShortOfRoom { node, free }: ShortOfRoom) -> Error {
        let (free, reserve) = (free >> 20, self.reserve >> 20);
        let message = format!(
            "disk of node {node} has {free} MiB free, below the disk reserve of {reserve} MiB: nothing happened; reads and \
             deletes go on, free disk space there or delete keys"
        );
        let limit = LIMIT.to_owned();
        Error::new(ErrorKind::QuotaExceeded { limit }, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn voters() -> impl Iterator<Item = NodeId> {
        (1..=3).map(NodeId::new)
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_names_node_value_and_limit() {
        let room = DiskRoom::new(NodeId::new(1), 256 * MIB);
        assert_eq!(room.check(voters()), Ok(()), "nothing is known yet");
        room.set_own(300 * MIB);
        room.set_other(NodeId::new(2), 400 * MIB);
        room.set_other(NodeId::new(3), 7 * MIB);
        assert_eq!(room.check(voters()), Ok(()));
        room.set_own(255 * MIB);
        let error = room.check(voters()).unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::QuotaExceeded {
                limit: "disk reserve".into()
            }
        );
        assert!(
            error
                .message
                .starts_with("disk of node n3 has 7 MiB free, below the disk reserve of 256 MiB: nothing happened"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn old_report_does_not_count() {
        let room = DiskRoom::new(NodeId::new(1), 256 * MIB);
        room.set_own(300 * MIB);
        room.set_other(NodeId::new(2), 0);
        room.set_other(NodeId::new(3), 0);
        assert!(room.check(voters()).is_err());
        tokio::time::advance(REPORT_AGE_MAX).await;
        assert_eq!(room.check(voters()), Ok(()));
    }
}
