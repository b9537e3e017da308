//! Which snapshots of a group are on their way to followers: the log from their cut on must stay until they arrive, or
//! the follower needs another one at once, and so on for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The snapshots being sent, by their cut.
#[derive(Debug, Default)]
pub(crate) struct Transfers(Mutex<BTreeMap<u64, u32>>);

/// One snapshot being sent; ends when dropped.
#[derive(Debug)]
pub(crate) struct Transfer {
    transfers: Arc<Transfers>,
    cut: u64,
}

impl Transfers {
    /// Registers a snapshot that was cut at this index.
    pub(crate) fn begin(self: &Arc<Self>, cut: u64) -> Transfer {
        *self.0.lock().entry(cut).or_default() += 1;
        Transfer {
            transfers: self.clone(),
            cut,
        }
    }

    /// Returns the earliest cut that is being sent.
    pub(crate) fn earliest(&self) -> Option<u64> {
        self.0.lock().keys().next().copied()
    }
}

impl Drop for Transfer {
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
    fn the_earliest_snapshot_on_its_way_counts() {
        let transfers = Arc::new(Transfers::default());
        let (first, second, again) = (transfers.begin(5), transfers.begin(9), transfers.begin(5));
        drop(first);
        assert_eq!(transfers.earliest(), Some(5));
        drop(again);
        assert_eq!(transfers.earliest(), Some(9));
        drop(second);
        assert_eq!(transfers.earliest(), None);
    }
}
