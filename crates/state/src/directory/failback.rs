//! Failback: which tenants promotions have taken from a region, and where they are. It follows from the records of the
//! promotions that are kept.

use stead_types::{Epoch, RegionName, TenantNumber};

use super::{DirectoryView, ItemMove, Operations, PromotionItem, PromotionState, bulk_plan::returns_now};

/// Most finished promotions that are kept however old they are, the newest: they say which tenants return.
pub const PROMOTIONS_KEPT: usize = 16;

/// Returns the move that brings a tenant back to the region from which a promotion has taken it, to its group before. `None`
/// if the promotion took it from elsewhere, did not take it, or if it is not where the promotion has put it any more.
pub fn way_back(
    view: &DirectoryView,
    region: &RegionName,
    number: TenantNumber,
    item: &PromotionItem,
) -> Option<ItemMove> {
    if view.region_of(item.home)?.name != *region {
        return None;
    }
    let taken = taken(item)?;
    let tenant = returns_now(view, number, &taken)?;
    let is_same = item.epoch == Epoch::NONE || item.epoch == tenant.epoch;
    is_same.then_some(taken)
}

/// Returns the home before and the home that a promotion gave a tenant, if it did.
fn taken(item: &PromotionItem) -> Option<ItemMove> {
    let to = match &item.state {
        PromotionState::Promoted => item.decision.as_ref()?.home,
        PromotionState::Moved { to } => *to,
        PromotionState::Waiting { .. }
        | PromotionState::Moving
        | PromotionState::Fenced
        | PromotionState::Freezing
        | PromotionState::Blocked { .. }
        | PromotionState::Pulling { .. }
        | PromotionState::Activating
        | PromotionState::Replaced { .. }
        | PromotionState::Failed { .. } => return None,
    };
    (to != item.home).then_some(ItemMove {
        operation: item.operation,
        from: item.home,
        to,
        joined: false,
        time: item.times.ended,
    })
}

impl Operations {
    /// Returns the finished promotions that have taken tenants from a region which return now, the oldest first.
    pub fn promotions_to_undo(&self, view: &DirectoryView, region: &RegionName) -> Vec<u64> {
        let takes = |id: &u64| self.ways_back(view, region, *id).next().is_some();
        self.finished_promotions().filter(takes).collect()
    }

    /// Returns the moves that bring the tenants of a promotion back to a region, by tenant.
    pub fn ways_back<'a>(
        &'a self,
        view: &'a DirectoryView,
        region: &'a RegionName,
        id: u64,
    ) -> impl Iterator<Item = (TenantNumber, ItemMove)> + 'a {
        let items = self.promotions().from(id, TenantNumber::new(0));
        items.filter_map(move |(number, item)| Some((number, way_back(view, region, number, item)?)))
    }
}
