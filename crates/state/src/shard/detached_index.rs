//! Index of the tenants that are followed but not attached to their home's feed, by home.
//!
//! # Invariants
//!
//! 1. After each entry the index holds exactly the tenants with a home whose record is not attached.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{GroupId, TenantNumber};

use super::Shard;

/// Index of detached tenants.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct DetachedIndex {
    by_home: BTreeMap<GroupId, BTreeSet<TenantNumber>>,
    homes: BTreeMap<TenantNumber, GroupId>,
    changes: u64,
}

impl DetachedIndex {
    fn set(&mut self, tenant: TenantNumber, home: Option<GroupId>) {
        if self.homes.get(&tenant).copied() == home {
            return;
        }
        self.changes += 1;
        if let Some(old) = self.homes.remove(&tenant)
            && let Some(tenants) = self.by_home.get_mut(&old)
        {
            tenants.remove(&tenant);
        }
        if let Some(home) = home {
            self.homes.insert(tenant, home);
            self.by_home.entry(home).or_default().insert(tenant);
        }
    }
}

impl Shard {
    /// Returns the tenants of a home that this group follows and that are not attached to its feed.
    pub fn detached(&self, home: GroupId) -> impl Iterator<Item = TenantNumber> {
        self.detached.by_home.get(&home).into_iter().flatten().copied()
    }

    /// Returns the homes that have or had such tenants.
    pub fn homes_with_detached(&self) -> impl Iterator<Item = GroupId> {
        self.detached.by_home.keys().copied()
    }

    /// Returns a number that changes whenever a tenant is attached, detached, or follows another home.
    pub fn detachment_version(&self) -> u64 {
        self.detached.changes
    }

    /// Updates the index for a tenant's record.
    pub(super) fn index_detached(&mut self, tenant: TenantNumber) {
        let record = self.tenants.get(&tenant).map(|tenant| &tenant.record);
        let home = record
            .filter(|record| !self.is_attached(record))
            .and_then(|record| record.home());
        self.detached.set(tenant, home);
    }

    /// Updates the index for all records: the incarnation of a feed may have changed.
    pub(super) fn index_all_detached(&mut self) {
        let tenants: Vec<TenantNumber> = self.tenants.keys().copied().collect();
        for tenant in tenants {
            self.index_detached(tenant);
        }
    }
}
