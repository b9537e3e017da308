//! Decision which tenants of a silent region are promoted by policy. Pure: from the view, from what the directory's leader
//! has seen of the region, and from a forecast of the promotion.
//!
//! # Invariants
//!
//! 1. No tenant of a region is promoted of which a voter has renewed its lease within the tenant's time, or within half a ttl
//!    if that is longer, as seen by one leader in one term: another leader begins to observe anew. Leases are renewed every
//!    quarter of the ttl.
//! 2. None is promoted unless a majority of the other regions' nodes cannot reach the region either.
//! 3. None is promoted that is being promoted, that may lose more than its policy says, or whose loss is not known.

use stead_types::{Durability, RegionName, TenantName};

use super::{
    DirectoryView, LeaseLoss, NAMED_MOVES_MAX, PromotionFacts, PromotionForecast, PromotionItem, PromotionPolicy,
    PromotionState, RegionLoss, Tenant, TenantState, region_loss::wait_ms,
};

/// Observation of a region by the directory's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionObservation {
    /// Time since a voter of any group of the region renewed its lease, or since the leader leads, in milliseconds.
    pub silent_ms: u64,
    /// Nodes of other regions, those that do not answer included.
    pub others: u64,
    /// Those of them that say that they reach no node of the region.
    pub unreached_by: u64,
}

impl RegionObservation {
    /// Tells whether a majority of the other regions' nodes cannot reach the region.
    pub fn is_agreed(&self) -> bool {
        2 * self.unreached_by > self.others
    }
}

/// Decision for the tenants of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionLossDecision {
    /// Tenants that are promoted now, by number.
    pub promote: Vec<TenantName>,
    /// Tenants that would be promoted now if their policy were not to observe, by number.
    pub observed: Vec<TenantName>,
    /// Tenants whose time is over and that are not promoted, with the reason, for people.
    pub withheld: Vec<(TenantName, String)>,
}

/// Returns the shortest time of a policy among the tenants of a region, in milliseconds; `None`: no tenant has one.
pub fn shortest_policy_ms(view: &DirectoryView, region: &RegionName) -> Option<u64> {
    let policies = of_region(view, region).filter_map(|tenant| tenant.on_region_loss().promotion());
    policies.map(|policy| policy.after_ms).min()
}

/// Returns the shortest time without a renewal that says something of a region, in milliseconds.
pub fn silence_min_ms(view: &DirectoryView) -> u64 {
    view.settings().lease_ttl_ms / 2
}

/// Decides which tenants of a region are promoted. `forecast` is of the promotion of the region, with `facts`, in which every
/// group of the region is silent.
pub fn decide(
    view: &DirectoryView,
    region: &RegionName,
    seen: RegionObservation,
    facts: &PromotionFacts,
    forecast: &PromotionForecast,
) -> RegionLossDecision {
    let mut decision = RegionLossDecision::default();
    let wait = wait_ms(view.settings().longest_lease_ttl_ms(facts.now));
    for tenant in of_region(view, region) {
        let Some(policy) = tenant.on_region_loss().promotion() else {
            continue;
        };
        let after_ms = policy.after_ms.max(silence_min_ms(view));
        if seen.silent_ms < after_ms || tenant.promoting.is_some() || tenant.state != TenantState::Active {
            continue;
        }
        let found = forecast.items.iter().find(|(number, _)| *number == tenant.number);
        // The home may acknowledge for so long after its last lease, and no longer.
        let ends = facts.now.saturating_sub(seen.silent_ms).saturating_add(wait);
        let refused = match found {
            Some((_, item)) => refusal(tenant, policy, seen, item, ends),
            None => Some("what a promotion would do with it is not known".to_owned()),
        };
        match (refused, tenant.on_region_loss()) {
            (Some(reason), _) => decision.withheld.push((tenant.name.clone(), reason)),
            (None, RegionLoss::Promote(_)) if decision.promote.len() < NAMED_MOVES_MAX => {
                decision.promote.push(tenant.name.clone());
            }
            (None, RegionLoss::Observe(_)) => decision.observed.push(tenant.name.clone()),
            // The next ones are promoted next.
            (None, RegionLoss::Promote(_) | RegionLoss::Alert) => {}
        }
    }
    decision
}

/// Returns the tenants whose home is in a region.
fn of_region<'a>(view: &'a DirectoryView, region: &'a RegionName) -> impl Iterator<Item = &'a Tenant> {
    let tenants = view.tenants_from(stead_types::TenantNumber::new(0));
    tenants
        .filter(move |tenant| view.region_of(tenant.home).is_some_and(|home| home.name == *region))
        .map(|tenant| &**tenant)
}

/// Returns why a tenant is not promoted; `None`: it may be.
fn refusal(
    tenant: &Tenant,
    policy: PromotionPolicy,
    seen: RegionObservation,
    item: &PromotionItem,
    ends: u64,
) -> Option<String> {
    let RegionObservation {
        others, unreached_by, ..
    } = seen;
    if !seen.is_agreed() {
        return Some(format!(
            "{unreached_by} of {others} nodes of other regions cannot reach the region: a majority must say so"
        ));
    }
    if tenant.on_lease_loss != LeaseLoss::Stop {
        return Some("it may go on without a lease".to_owned());
    }
    let decision = match (&item.state, &item.decision) {
        (PromotionState::Activating, Some(decision)) => decision,
        (PromotionState::Blocked { reason } | PromotionState::Failed { reason }, _) => return Some(reason.clone()),
        (_, _) => return Some("its copies cannot be compared now".to_owned()),
    };
    let Some(max) = policy.loss_ms_max else {
        let keeps = tenant.durability == Durability::Remote && !decision.lowers_durability;
        return (!keeps).then(|| {
            "its durability is not REMOTE, or would not be: acknowledged writes could be lost, and no max_loss is set".to_owned()
        });
    };
    let loss = decision.loss?;
    match loss.from {
        None => Some("how old the copy is that would be kept is not known".to_owned()),
        Some(from) if ends.saturating_sub(from) > max => Some(format!(
            "writes of {} ms could be lost, and max_loss is {max} ms",
            ends.saturating_sub(from)
        )),
        Some(_) => None,
    }
}
