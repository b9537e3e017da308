//! Snapshot transfers of a group to followers: the log from their position on must stay until they are installed, or
//! the follower would need another one at once, and so on for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Snapshots being sent.
#[derive(Debug, Default)]
pub(crate) struct SnapshotTransfers {
    /// How many, by their index.
    cuts: Mutex<BTreeMap<u64, u32>>,
    /// Whether so much log is held for one of them that it may be dropped before that is installed.
    is_urgent: AtomicBool,
}

/// Guard of one snapshot being sent; ends when dropped.
#[derive(Debug)]
pub(crate) struct SnapshotTransfer {
    transfers: Arc<SnapshotTransfers>,
    cut: u64,
}

impl SnapshotTransfers {
    /// Registers a snapshot at this index.
    pub(crate) fn begin(self: &Arc<Self>, cut: u64) -> SnapshotTransfer {
        *self.cuts.lock().entry(cut).or_default() += 1;
        SnapshotTransfer {
            transfers: self.clone(),
            cut,
        }
    }

    /// Returns the lowest index of the snapshots being sent.
    pub(crate) fn earliest(&self) -> Option<u64> {
        self.cuts.lock().keys().next().copied()
    }

    /// Notes the index up to which the log would be too much to hold for a snapshot at ease.
    pub(crate) fn note_too_much(&self, upto: Option<u64>) {
        let is_behind = self.earliest().is_some_and(|cut| upto.is_some_and(|upto| cut < upto));
        self.is_urgent.store(is_behind, Ordering::Relaxed);
    }

    /// Tells whether snapshots have to be sent as fast as possible.
    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent.load(Ordering::Relaxed)
    }
}

impl Drop for SnapshotTransfer {
    fn drop(&mut self) {
        let mut cuts = self.transfers.cuts.lock();
        if let Some(count) = cuts.get_mut(&self.cut) {
            *count -= 1;
            if *count == 0 {
                cuts.remove(&self.cut);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_snapshot_transfer_holds_the_purge() {
        let transfers = Arc::new(SnapshotTransfers::default());
        let (first, second, again) = (transfers.begin(5), transfers.begin(9), transfers.begin(5));
        drop(first);
        assert_eq!(transfers.earliest(), Some(5));
        drop(again);
        assert_eq!(transfers.earliest(), Some(9));
        drop(second);
        assert_eq!(transfers.earliest(), None);
    }

    #[test]
    fn snapshot_is_urgent_while_too_much_log_is_held_for_it() {
        let transfers = Arc::new(SnapshotTransfers::default());
        transfers.note_too_much(Some(9));
        assert!(!transfers.is_urgent(), "none is sent");
        let snapshot = transfers.begin(5);
        for (upto, is_urgent) in [(None, false), (Some(5), false), (Some(6), true)] {
            transfers.note_too_much(upto);
            assert_eq!(transfers.is_urgent(), is_urgent, "{upto:?}");
        }
        drop(snapshot);
        transfers.note_too_much(Some(9));
        assert!(!transfers.is_urgent());
    }
}
