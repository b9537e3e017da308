//! Snapshot transfers of a group to followers: the log from their position on must stay until they are installed, or
//! the follower would need another one at once, and so on for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Snapshots being sent, by their index.
#[derive(Debug, Default)]
pub(crate) struct SnapshotTransfers(Mutex<BTreeMap<u64, u32>>);

/// Guard of one snapshot being sent; ends when dropped.
#[derive(Debug)]
pub(crate) struct SnapshotTransfer {
    transfers: Arc<SnapshotTransfers>,
    cut: u64,
}

impl SnapshotTransfers {
    /// Registers a snapshot at this index.
    pub(crate) fn begin(self: &Arc<Self>, cut: u64) -> SnapshotTransfer {
        *self.0.lock().entry(cut).or_default() += 1;
        SnapshotTransfer {
            transfers: self.clone(),
            cut,
        }
    }

    /// Returns the lowest index of the snapshots being sent.
    pub(crate) fn earliest(&self) -> Option<u64> {
        self.0.lock().keys().next().copied()
    }
}

impl Drop for SnapshotTransfer {
    fn drop(&mut self) {
        let mut cuts = self.transfers.0.lock();
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
}
