//! Tenants of all promotions that are kept, and which promotions are in flight.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::TenantNumber;

use super::PromotionItem;

/// Records of the tenants of promotions, by operation and tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionItems {
    items: BTreeMap<(u64, TenantNumber), PromotionItem>,
    /// Promotions that have not ended.
    in_flight: BTreeSet<u64>,
}

impl PromotionItems {
    /// Returns the record of a tenant of a promotion.
    pub fn get(&self, id: u64, tenant: TenantNumber) -> Option<&PromotionItem> {
        self.items.get(&(id, tenant))
    }

    /// Returns the records of a promotion from a tenant on, by tenant.
    pub fn from(&self, id: u64, from: TenantNumber) -> impl Iterator<Item = (TenantNumber, &PromotionItem)> {
        let all = (id, from)..=(id, TenantNumber::new(u64::MAX));
        self.items.range(all).map(|((_, tenant), item)| (*tenant, item))
    }

    /// Returns the numbers of the promotions that have not ended.
    pub fn in_flight(&self) -> impl Iterator<Item = u64> + '_ {
        self.in_flight.iter().copied()
    }

    /// Returns every record: the content of a snapshot.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&(u64, TenantNumber), &PromotionItem)> {
        self.items.iter()
    }

    pub(super) fn put(&mut self, id: u64, tenant: TenantNumber, item: PromotionItem) -> Option<PromotionItem> {
        self.items.insert((id, tenant), item)
    }

    pub(super) fn begin(&mut self, id: u64) {
        self.in_flight.insert(id);
    }

    pub(super) fn end(&mut self, id: u64) {
        self.in_flight.remove(&id);
    }

    /// Drops the records of a promotion, and returns its tenants.
    pub(super) fn remove(&mut self, id: u64) -> Vec<TenantNumber> {
        let tenants: Vec<TenantNumber> = self.from(id, TenantNumber::new(0)).map(|(tenant, _)| tenant).collect();
        for tenant in &tenants {
            self.items.remove(&(id, *tenant));
        }
        tenants
    }
}
