//! Pulls of a group that are complete: what its leader tells the directory of again.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use stead_state::shard::record::OperationId;
use stead_types::{GroupId, TenantNumber};

/// Pulls of this group that are complete.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<BTreeMap<TenantNumber, CompletePull>>);

/// A pull whose changes are all in the group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletePull {
    /// Number of the promotion.
    pub(crate) operation: OperationId,
    /// The group that the changes came from.
    pub(crate) from: GroupId,
}

impl Pulls {
    /// Returns the last complete pulls of some tenants.
    pub(crate) fn complete_among(&self, tenants: &BTreeSet<TenantNumber>) -> BTreeMap<TenantNumber, CompletePull> {
        let complete = self.0.lock();
        let known = tenants
            .iter()
            .filter_map(|tenant| Some((*tenant, *complete.get(tenant)?)));
        known.collect()
    }

    /// Records that a pull is complete.
    pub(crate) fn record(&self, tenant: TenantNumber, complete: CompletePull) {
        self.0.lock().insert(tenant, complete);
    }
}
