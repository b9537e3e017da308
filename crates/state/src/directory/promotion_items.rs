//! Tenants of all promotions that are kept, and which promotions are in flight.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::TenantNumber;

use super::PromotionItem;

/// Records of the tenants of promotions, by operation and tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionItems {
    items: BTreeMap<(u64, TenantNumber), PromotionItem>,
    /// Those that are not at an end.
    open: BTreeSet<(u64, TenantNumber)>,
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

    /// Returns the records of a promotion that are not at an end, by tenant.
    pub fn open(&self, id: u64) -> impl Iterator<Item = (TenantNumber, &PromotionItem)> {
        let all = (id, TenantNumber::new(0))..=(id, TenantNumber::new(u64::MAX));
        let open = self.open.range(all);
        open.filter_map(|key| Some((key.1, self.items.get(key)?)))
    }

    /// Returns the numbers of the promotions that have not ended.
    pub fn in_flight(&self) -> impl Iterator<Item = u64> + '_ {
        self.in_flight.iter().copied()
    }

    /// Returns the tenants whose durability a promotion that is kept has made `REGION`.
    pub fn lowered_durability(&self) -> BTreeSet<TenantNumber> {
        let lowered = self.items.iter().filter(|(_, item)| {
            item.decision
                .as_ref()
                .is_some_and(|decision| decision.lowers_durability)
        });
        lowered.map(|((_, tenant), _)| *tenant).collect()
    }

    /// Returns every record: the content of a snapshot.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&(u64, TenantNumber), &PromotionItem)> {
        self.items.iter()
    }

    pub(super) fn put(&mut self, id: u64, tenant: TenantNumber, item: PromotionItem) -> Option<PromotionItem> {
        if item.state.is_over() {
            self.open.remove(&(id, tenant));
        } else {
            self.open.insert((id, tenant));
        }
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
            self.open.remove(&(id, *tenant));
        }
        tenants
    }
}
