//! Which tenants are followed but not attached to their home's stream: an index over the records, by home.
//!
//! # Invariants
//!
//! 1. After each entry the index holds exactly the tenants with a home whose record is not attached.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{GroupId, TenantNumber};

use super::Shard;

/// The index.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Detached {
    by_home: BTreeMap<GroupId, BTreeSet<TenantNumber>>,
    homes: BTreeMap<TenantNumber, GroupId>,
    changes: u64,
}

impl Detached {
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
    /// Returns the tenants of a home that this group follows and that are not attached to its stream.
    pub fn detached(&self, home: GroupId) -> impl Iterator<Item = TenantNumber> {
        self.detached.by_home.get(&home).into_iter().flatten().copied()
    }

    /// Returns the homes that have or had such tenants.
    pub fn homes_detached(&self) -> impl Iterator<Item = GroupId> {
        self.detached.by_home.keys().copied()
    }

    /// Returns a number that changes whenever a tenant is attached, detached, or followed elsewhere.
    pub fn detached_changes(&self) -> u64 {
        self.detached.changes
    }

    /// Brings the index up to date with a tenant's record.
    pub(super) fn index_detached(&mut self, tenant: TenantNumber) {
        let record = self.tenants.get(&tenant).map(|tenant| &tenant.record);
        let home = record
            .filter(|record| !self.is_attached(record))
            .and_then(|record| record.home());
        self.detached.set(tenant, home);
    }

    /// Brings the index up to date with all records: the incarnation of a stream may have changed.
    pub(super) fn index_all_detached(&mut self) {
        let tenants: Vec<TenantNumber> = self.tenants.keys().copied().collect();
        for tenant in tenants {
            self.index_detached(tenant);
        }
    }
}
