//! Epochs of tenants that other nodes have shown, where they are above what a group of this node owns.
//!
//! An owner that goes on without a lease ends that as soon as it hears of a later epoch (protocol.md "Leases",
//! on_lease_loss): in a feed session, or in a call that another node forwards on account of it. This is one node's memory;
//! [`crate::lease_loss`] has the group's log note it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use stead_state::shard::record::TenantRecord;
use stead_types::{Epoch, TenantNumber};
use tokio::sync::watch;

/// Highest epochs that other nodes have shown; clones share them. Bounded by the tenants of this node's groups.
#[derive(Clone, Debug, Default)]
pub struct EpochsSeen(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    epochs: Mutex<BTreeMap<TenantNumber, Epoch>>,
    changed: watch::Sender<()>,
}

impl EpochsSeen {
    /// Records an epoch that another node has shown, if it is above the record's: an heir may own that one later.
    pub fn see(&self, tenant: TenantNumber, epoch: Epoch, record: &TenantRecord) {
        if record.epoch == Epoch::NONE || epoch <= record.epoch {
            return;
        }
        let mut seen = self.0.epochs.lock();
        let highest = seen.entry(tenant).or_insert(Epoch::NONE);
        if *highest < epoch {
            *highest = epoch;
            drop(seen);
            self.0.changed.send_replace(());
            if record.owned().is_none() {
                return;
            }
            tracing::warn!(
                %tenant, %epoch, owned = %record.epoch,
                "another node knows a later epoch of a tenant that this node owns: it is served under a lease only"
            );
        }
    }

    /// Returns the highest epoch of a tenant that another node has shown; [`Epoch::NONE`] if none was above the owned one.
    pub fn of(&self, tenant: TenantNumber) -> Epoch {
        self.0.epochs.lock().get(&tenant).copied().unwrap_or(Epoch::NONE)
    }
}

impl EpochsSeen {
    /// Returns all of them.
    pub(crate) fn all(&self) -> Vec<(TenantNumber, Epoch)> {
        self.0
            .epochs
            .lock()
            .iter()
            .map(|(tenant, epoch)| (*tenant, *epoch))
            .collect()
    }

    /// Returns a watch that changes with each epoch that is above those seen before.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use stead_state::shard::record::Role;
    use stead_types::GroupId;

    use super::*;

    #[test]
    fn only_epochs_above_owned_one_are_kept() {
        let (seen, tenant) = (EpochsSeen::default(), TenantNumber::new(7));
        let epoch = |number| Epoch::new(number).unwrap();
        let owner = TenantRecord {
            role: Role::Owner,
            epoch: epoch(3),
            ..TenantRecord::unknown()
        };
        seen.see(tenant, epoch(3), &owner);
        assert_eq!(seen.of(tenant), Epoch::NONE);
        seen.see(tenant, epoch(5), &TenantRecord::unknown());
        assert_eq!(seen.of(tenant), Epoch::NONE, "it is not there");
        seen.see(tenant, epoch(5), &owner);
        seen.see(tenant, epoch(4), &owner);
        assert_eq!(seen.of(tenant), epoch(5));
        let heir = TenantRecord {
            role: Role::Follower { home: GroupId::new(2) },
            ..owner
        };
        let other = TenantNumber::new(8);
        seen.see(other, epoch(4), &heir);
        assert_eq!(seen.of(other), epoch(4), "it may own the epoch that it follows");
    }
}
