//! Waiters for followers to apply changes of tenants, each woken once, by the acknowledgement that covers its change.

use std::collections::BTreeMap;

use stead_types::{Epoch, TenantNumber};
use tokio::sync::oneshot;

use crate::follower_progress::{ChangePosition, FollowerProgress};

/// Identifies one waiter among those of its tenant: in the order of log indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaiterKey {
    index: u64,
    number: u64,
}

/// A waiter for a change.
#[derive(Debug)]
struct AppliedWaiter {
    epoch: Epoch,
    change: ChangePosition,
    /// Dropped to wake the waiter.
    _wake: oneshot::Sender<()>,
}

/// Waiters, by tenant. There is one for each operation that waits, so that admission bounds them.
#[derive(Debug, Default)]
pub(crate) struct AppliedWaiters {
    tenants: BTreeMap<TenantNumber, BTreeMap<WaiterKey, AppliedWaiter>>,
    last_number: u64,
}

impl AppliedWaiters {
    /// Adds a waiter for a change of a tenant that its home made in an epoch. The receiver resolves when it is woken.
    pub(crate) fn add(
        &mut self,
        tenant: TenantNumber,
        epoch: Epoch,
        change: ChangePosition,
    ) -> (WaiterKey, oneshot::Receiver<()>) {
        let (wake, woken) = oneshot::channel();
        self.last_number += 1;
        let key = WaiterKey {
            index: change.offset.index,
            number: self.last_number,
        };
        let waiter = AppliedWaiter {
            epoch,
            change,
            _wake: wake,
        };
        self.tenants.entry(tenant).or_default().insert(key, waiter);
        (key, woken)
    }

    /// Removes a waiter, if it was not woken.
    pub(crate) fn remove(&mut self, tenant: TenantNumber, key: WaiterKey) {
        if let Some(waiters) = self.tenants.get_mut(&tenant) {
            waiters.remove(&key);
            if waiters.is_empty() {
                self.tenants.remove(&tenant);
            }
        }
    }

    /// Wakes those whose change a follower has applied. It looks at waiting tenants only, and at the earliest changes of
    /// each.
    pub(crate) fn wake(&mut self, follower: &FollowerProgress) {
        self.tenants.retain(|tenant, waiters| {
            while let Some(first) = waiters.first_entry() {
                let AppliedWaiter { epoch, change, .. } = first.get();
                if !follower.has_applied(*tenant, *epoch, change) {
                    break;
                }
                first.remove();
            }
            !waiters.is_empty()
        });
    }

    /// Returns the number of tenants with waiters.
    pub(crate) fn tenant_count(&self) -> usize {
        self.tenants.len()
    }
}
