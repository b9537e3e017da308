//! Planned moves that a promotion tries before it uses force.

use stead_types::{NodeId, TenantNumber};

use super::{
    AT_ONCE_MAX, ApplyContext, Directory, MoveState, OperationResult, Promotion, PromotionSelection, PromotionState,
    Rejection, SourceAfterMove, Tenant,
    bulk_plan::{Goal, Planned, Planner},
    ownership,
};
use crate::shard::record::OperationId;

/// Most tenants that one entry examines to find the next ones.
const EXAMINED_MAX: usize = 10_000;

impl Promotion {
    /// Tells whether planned moves are tried, and not all tenants have come to an end by them.
    pub fn is_graceful(&self) -> bool {
        self.graceful_until > 0 && !self.is_cancelled && self.counts.waiting + self.counts.moving > 0
    }

    /// Returns how many tenants are to be moved next.
    pub(super) fn moves_next(&self) -> usize {
        let is_over = !self.is_graceful() || self.fenced > 0 || self.cursor == u64::MAX;
        let at_once = u64::from(AT_ONCE_MAX).saturating_sub(self.counts.moving);
        if is_over { 0 } else { at_once as usize }
    }
}

impl Directory {
    /// Plans the moves of the next tenants.
    pub(super) fn move_next(&mut self, context: &mut ApplyContext, id: u64, unreachable: &[NodeId]) {
        let Some(promotion) = self.operations.promotion(id) else {
            return;
        };
        let max = promotion.moves_next();
        if max == 0 {
            return;
        }
        let from = TenantNumber::new(promotion.cursor);
        let mut planner = Planner::new(&self.view, SourceAfterMove::Policy, unreachable, context.time);
        let mut cursor = u64::MAX;
        let mut planned = Vec::new();
        let (mut begun, mut examined) = (0, 0);
        for (number, item) in self.operations.promotions().from(id, from) {
            if begun == max || examined == EXAMINED_MAX {
                cursor = number.get();
                break;
            }
            examined += 1;
            if let (PromotionState::Waiting { .. }, Some(tenant)) = (&item.state, self.view.tenant(number)) {
                let outcome = plan(&mut planner, promotion, tenant);
                begun += usize::from(outcome.is_ok());
                planned.push((number, outcome));
            }
        }
        for (number, outcome) in planned {
            self.begin_planned(context, id, number, outcome);
        }
        if let Some(promotion) = self.operations.promotion_mut(id) {
            promotion.cursor = cursor;
        }
        context.touch(id);
    }

    fn begin_planned(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        number: TenantNumber,
        outcome: Result<Planned, Rejection>,
    ) {
        let Some(mut item) = self.operations.promotions().get(id, number).cloned() else {
            return;
        };
        match outcome {
            Ok((tenant, moving)) => {
                item.operation = moving.operation;
                item.state = PromotionState::Moving;
                self.put_promotion_item(context, id, number, item);
                self.change(context, tenant);
            }
            Err(rejection) => {
                let reason = rejection.to_string();
                item.state = PromotionState::Waiting { reason };
                self.put_promotion_item(context, id, number, item);
            }
        }
    }

    /// Records the end of a planned move: a tenant that was not moved is promoted once the time for moves is over.
    pub(super) fn end_planned(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        number: TenantNumber,
        result: OperationResult,
    ) {
        let is_cancelled = self
            .operations
            .promotion(id)
            .is_some_and(|promotion| promotion.is_cancelled);
        let state = match result {
            OperationResult::Succeeded => {
                let to = self
                    .operations
                    .promotions()
                    .get(id, number)
                    .and_then(|_| self.view.tenant(number));
                let Some(tenant) = to else { return };
                let to = tenant.moving.as_deref().map_or(tenant.home, |moving| moving.to);
                PromotionState::Moved { to }
            }
            OperationResult::Failed { reason } if is_cancelled => PromotionState::Failed { reason },
            OperationResult::Failed { reason } => PromotionState::Waiting { reason },
            OperationResult::Cancelled if is_cancelled => PromotionState::Failed {
                reason: "cancelled".to_owned(),
            },
            OperationResult::Cancelled => PromotionState::Waiting {
                reason: "its move was given up".to_owned(),
            },
        };
        self.record_moved_epoch(context, id, number, &state);
        if state.is_over() {
            self.end_promotion_item(context, id, number, state);
        } else if let Some(mut item) = self.operations.promotions().get(id, number).cloned() {
            item.state = state;
            self.put_promotion_item(context, id, number, item);
        }
        self.end_promotion(context, id);
    }

    /// Records the epoch in which a tenant was moved: a failback tells by it whether it was moved on since. From feature
    /// level 4 on, because older voters do not.
    fn record_moved_epoch(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        number: TenantNumber,
        state: &PromotionState,
    ) {
        let is_due = matches!(state, PromotionState::Moved { .. }) && self.view.settings().has_region_loss();
        let moving = self
            .view
            .tenant(number)
            .and_then(|tenant| tenant.moving.as_deref().copied());
        let item = self.operations.promotions().get(id, number).cloned();
        if let (true, Some(moving), Some(mut item)) = (is_due, moving, item) {
            item.epoch = moving.epoch;
            self.put_promotion_item(context, id, number, item);
        }
    }

    /// Gives up the planned move of a tenant.
    pub(super) fn abort_planned(&mut self, context: &mut ApplyContext, number: TenantNumber, operation: OperationId) {
        let Some(mut tenant) = self.view.tenant(number).map(|tenant| Tenant::clone(tenant)) else {
            return;
        };
        let before = tenant.moving.as_deref().map(|moving| moving.state);
        let aborted = ownership::abort_move(&mut tenant, operation);
        if aborted.is_ok() && before != Some(MoveState::Aborting) {
            self.change(context, tenant);
        }
    }
}

/// Plans the move of a tenant out of what is taken for lost.
fn plan(planner: &mut Planner<'_>, promotion: &Promotion, tenant: &Tenant) -> Result<Planned, Rejection> {
    if tenant.promoting.is_some() {
        return Err(Rejection::Promoting(tenant.name.clone()));
    }
    let home = planner.region_of(tenant.home);
    let goal = match (&promotion.request.to, &promotion.request.selection, &home) {
        (Some(to), _, _) => Goal::Into(to),
        (None, PromotionSelection::Region(region), _) => Goal::OutOf(region),
        (None, PromotionSelection::Group(_) | PromotionSelection::Tenants(_), Some(home)) => Goal::OutOf(home),
        (None, PromotionSelection::Group(group), None) => return Err(Rejection::GroupUnknown(*group)),
        (None, PromotionSelection::Tenants(_), None) => return Err(Rejection::GroupUnknown(tenant.home)),
    };
    planner.plan(tenant, goal)
}
