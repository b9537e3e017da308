//! Index of the tenants that are about to be handed over: those that this group is the heir of, and those that it has
//! relinquished.
//!
//! # Invariants
//!
//! 1. After each entry the index holds exactly the tenants whose role is heir or relinquished.

use std::collections::BTreeMap;

use stead_types::{GroupId, TenantNumber};

use super::{Shard, record::Role};

/// Index of tenants in a handover.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct HandoverIndex {
    /// Home of each tenant that this group is the heir of.
    heirs: BTreeMap<TenantNumber, GroupId>,
    /// Heir of each tenant that this group has relinquished.
    relinquished: BTreeMap<TenantNumber, GroupId>,
}

impl Shard {
    /// Returns the tenants that this group is the heir of, with their homes.
    pub fn heirs(&self) -> impl Iterator<Item = (TenantNumber, GroupId)> {
        self.handovers.heirs.iter().map(|(tenant, home)| (*tenant, *home))
    }

    /// Returns the tenants that this group has relinquished, with their heirs.
    pub fn relinquished(&self) -> impl Iterator<Item = (TenantNumber, GroupId)> {
        self.handovers.relinquished.iter().map(|(tenant, to)| (*tenant, *to))
    }

    /// Updates the index for a tenant's record.
    pub(super) fn index_handover(&mut self, tenant: TenantNumber) {
        let index = &mut self.handovers;
        index.heirs.remove(&tenant);
        index.relinquished.remove(&tenant);
        match self.tenants.get(&tenant).map(|tenant| tenant.record.role) {
            Some(Role::Heir { home, .. }) => drop(index.heirs.insert(tenant, home)),
            Some(Role::Relinquished { to, .. }) => drop(index.relinquished.insert(tenant, to)),
            Some(Role::Owner | Role::Follower { .. } | Role::Frozen { .. } | Role::Erased) | None => {}
        }
    }
}
