//! Results of applied commands, on their way from a group's machine to its proposer.
//!
//! They do not travel through openraft: its response type is one for all groups, and the type of the results differs
//! between machines. So they wait here, by the index of their entry, until openraft reports the entry as applied.
//!
//! # Invariants
//!
//! 1. Results are kept only for entries whose proposer waits on this node, and before it is told of them: each is taken
//!    once, and no more are kept than entries are in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stead_store::machine::{CommittedEntry, Machine, MachineError};

/// Results of the commands of applied entries, by the index of the entry.
pub(crate) struct CommandResults<R>(Mutex<BTreeMap<u64, Vec<R>>>);

impl<R> Default for CommandResults<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> CommandResults<R> {
    /// Keeps the results of those entries whose indexes are in `awaited`, which is in ascending order.
    fn keep(&self, applied: impl Iterator<Item = (u64, Vec<R>)>, awaited: &[u64]) {
        let kept = applied.filter(|(index, _)| awaited.binary_search(index).is_ok());
        self.0.lock().extend(kept);
    }

    /// Takes the results of an entry; none if they were not kept.
    pub(crate) fn take(&self, index: u64) -> Vec<R> {
        self.0.lock().remove(&index).unwrap_or_default()
    }
}

/// Applies entries to a machine, and keeps the results of those with the given indexes, in ascending order.
pub(crate) type ApplyEntries = Arc<dyn Fn(Vec<CommittedEntry>, &[u64]) -> Result<(), MachineError> + Send + Sync>;

/// Returns the function that applies entries to a machine and keeps awaited results.
pub(crate) fn apply_entries<M: Machine + 'static>(
    machine: Arc<M>,
    results: Arc<CommandResults<M::CommandResult>>,
) -> ApplyEntries {
    Arc::new(move |entries, awaited| {
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
        let applied = machine.apply(entries)?;
        results.keep(indexes.into_iter().zip(applied), awaited);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invariant 1.
    #[test]
    fn only_awaited_results_are_kept_until_taken() {
        let results = CommandResults::default();
        let applied = (1..=4).map(|index| (index, vec![index * 10]));
        results.keep(applied, &[2, 4]);
        assert_eq!(
            [1, 2, 3, 4].map(|index| results.take(index)),
            [vec![], vec![20], vec![], vec![40]]
        );
        assert!(results.0.lock().is_empty());
    }
}
