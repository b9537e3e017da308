//! Applies commands about promotions.
//!
//! # Invariants
//!
//! 1. All tenants of a promotion by force are fenced by the one entry that begins it.
//! 2. What is next follows from the directory, and from what its leader tells of leases and of groups that are silent: a
//!    new leader goes on where the last one was.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{
    ADVANCED_MAX, ApplyContext, AuditContext, Directory, DirectoryOutcome, DirectoryResult, GRACEFUL_MS_MAX, LeaseLoss,
    Operation, OperationKind, OperationResult, PreviewedPromotion, Promotion, PromotionAdvance, PromotionCounts,
    PromotionItem, PromotionPreview, PromotionRejection, PromotionRequest, PromotionSelection, PromotionState,
    PromotionTimes, Rejection, StepName, Tenant,
    ownership::{self, PromotionPlan},
    promotion_plan::is_selected,
    recovery::forgotten_owners,
};
use crate::shard::record::OperationId;

/// Most promotions in flight.
pub const PROMOTIONS_MAX: usize = 16;

/// Beginning and end.
impl Directory {
    pub(super) fn begin_promotion(
        &mut self,
        context: &mut ApplyContext,
        by: AuditContext,
        request: PromotionRequest,
    ) -> DirectoryResult {
        self.view.settings().check_promotions(context.time)?;
        if request.graceful_ms > GRACEFUL_MS_MAX {
            return Err(PromotionRejection::GracefulTime(request.graceful_ms).into());
        }
        if self.operations.promotions().in_flight().count() >= PROMOTIONS_MAX {
            return Err(PromotionRejection::Full.into());
        }
        let pinned = self.pinned();
        if !self.operations.has_room(|id| pinned.contains(&id)) {
            return Err(Rejection::OperationsFull);
        }
        let preview = PromotionPreview::of(&self.view, &request)?;
        preview.check(&request)?;
        let id = self.put_promotion(context, by, request, preview);
        Ok(DirectoryOutcome::Operation(id))
    }

    /// Puts a promotion, which fences its tenants unless they are to be moved first, and returns its number.
    pub(super) fn put_promotion(
        &mut self,
        context: &mut ApplyContext,
        by: AuditContext,
        mut request: PromotionRequest,
        preview: PromotionPreview,
    ) -> u64 {
        // The items are the list.
        if let PromotionSelection::Tenants(names) = &mut request.selection {
            names.clear();
        }
        let is_graceful = request.graceful_ms > 0;
        let id = self.next_operation;
        self.next_operation += 1;
        let promotion = Promotion {
            graceful_until: if is_graceful {
                context.time.saturating_add(request.graceful_ms)
            } else {
                0
            },
            request,
            is_cancelled: false,
            fence: DirectoryVersion::ZERO,
            fenced: 0,
            lease_ttl_ms: 0,
            silent: BTreeSet::new(),
            cursor: if is_graceful { 0 } else { u64::MAX },
            skipped: preview.skipped,
            counts: PromotionCounts::default(),
            renewals: BTreeMap::new(),
        };
        self.operations.put(Operation {
            id,
            kind: OperationKind::Promotion(Box::new(promotion)),
            tenants: Vec::new(),
            by,
            created: context.time,
            steps: vec![context.step(StepName::Planned)],
            end: None,
        });
        context.operations.push(id);
        for previewed in preview.tenants {
            self.put_selected(context, id, previewed, is_graceful);
        }
        self.end_promotion(context, id);
        id
    }

    /// Puts the record of a tenant that is selected, and fences it unless it is to be moved first.
    fn put_selected(&mut self, context: &mut ApplyContext, id: u64, of: PreviewedPromotion, is_graceful: bool) {
        let reason = String::new();
        let state = if of.targets.is_empty() {
            let reason = PromotionRejection::NoTarget(of.name.clone()).to_string();
            PromotionState::Failed { reason }
        } else {
            PromotionState::Waiting { reason }
        };
        let is_due = !is_graceful && !state.is_over();
        let item = PromotionItem {
            name: of.name,
            home: of.home,
            operation: OperationId(0),
            epoch: Epoch::NONE,
            continues: false,
            state,
            reports: BTreeMap::new(),
            decision: None,
            times: PromotionTimes::default(),
            stopped_by: None,
        };
        if is_due {
            self.fence(context, id, of.tenant, item);
        } else {
            self.put_promotion_item(context, id, of.tenant, item);
        }
    }

    /// Fences a tenant for a promotion, which replaces what is in flight.
    fn fence(&mut self, context: &mut ApplyContext, id: u64, number: TenantNumber, mut item: PromotionItem) {
        let Some(mut tenant) = self.view.tenant(number).map(|tenant| Tenant::clone(tenant)) else {
            return;
        };
        let moving = tenant.moving.as_deref().map(|moving| moving.operation);
        let replaced = tenant
            .promoting
            .as_deref()
            .map(|promotion| (promotion.operation, promotion.of));
        let plan = PromotionPlan {
            replace: replaced.map(|(operation, _)| operation),
            of: id,
            fence: context.version,
            time: context.time,
        };
        let forgotten = match self.operations.promotion(id) {
            Some(promotion) if promotion.request.is_after_recovery() => forgotten_owners(&tenant, context.time),
            Some(_) | None => Vec::new(),
        };
        item.home = tenant.home;
        item.continues = tenant.on_lease_loss != LeaseLoss::Stop;
        match ownership::promote(&mut tenant, &plan) {
            Ok(promoting) => {
                item.operation = promoting.operation;
                item.epoch = promoting.epoch;
                // The time at which a planned move had caught up says nothing of the promotion.
                item.times = PromotionTimes {
                    fenced: context.time,
                    ..PromotionTimes::default()
                };
                item.state = PromotionState::Fenced;
                self.put_promotion_item(context, id, number, item);
                self.raise_fence(context, id);
            }
            Err(rejection) => {
                let reason = rejection.to_string();
                item.state = PromotionState::Failed { reason };
                item.times.ended = context.time;
                self.put_promotion_item(context, id, number, item);
                return;
            }
        }
        if let Some(promoting) = tenant.promoting.as_deref_mut().filter(|_| !forgotten.is_empty()) {
            // Those of an earlier recovery are among them.
            let known = promoting.replaced.iter().filter(|known| !known.is_forgotten()).copied();
            promoting.replaced = known.chain(forgotten).collect();
        }
        if let Some((_, before)) = replaced {
            self.end_promotion_item(context, before, number, PromotionState::Replaced { by: id });
            self.end_promotion(context, before);
        }
        if let Some(moving) = moving {
            let reason = format!("replaced by the promotion operations/{id}");
            self.finish(context, number, moving, OperationResult::Failed { reason });
        }
        self.change(context, tenant);
    }

    /// Records that the entry that is applied fences tenants of a promotion.
    fn raise_fence(&mut self, context: &ApplyContext, id: u64) {
        let ttl_ms = self.view.settings().longest_lease_ttl_ms(context.time);
        if let Some(promotion) = self.operations.promotion_mut(id) {
            promotion.fence = context.version;
            promotion.fenced = context.time;
            promotion.lease_ttl_ms = ttl_ms;
        }
    }

    /// Ends a promotion all of whose tenants are at an end.
    pub(super) fn end_promotion(&mut self, context: &mut ApplyContext, id: u64) {
        let is_open = self.operations.get(id).is_some_and(|operation| operation.end.is_none());
        let Some(promotion) = self.operations.promotion(id).filter(|_| is_open) else {
            return;
        };
        let counts = promotion.counts;
        if counts.in_flight() > 0 {
            return;
        }
        let result = if promotion.is_cancelled {
            OperationResult::Cancelled
        } else if counts.failed + counts.replaced > 0 {
            OperationResult::Failed {
                reason: format!(
                    "{} tenants were promoted, {} moved, {} not, {} taken over by another promotion: its report names them",
                    counts.promoted, counts.moved, counts.failed, counts.replaced
                ),
            }
        } else {
            OperationResult::Succeeded
        };
        self.operations.finish(id, context.end(result));
        context.operations.push(id);
    }

    /// Cancels a promotion that has fenced nothing yet: moves in flight are given up.
    pub(super) fn cancel_promotion(&mut self, context: &mut ApplyContext, id: u64) -> DirectoryResult {
        let Some(promotion) = self.operations.promotion_mut(id) else {
            return Err(Rejection::OperationUnknown(id));
        };
        if promotion.fenced > 0 {
            return Err(PromotionRejection::Fenced(id).into());
        }
        if promotion.is_cancelled {
            return Ok(DirectoryOutcome::Done);
        }
        promotion.is_cancelled = true;
        self.operations.record(id, context.step(StepName::AbortRequested));
        context.operations.push(id);
        let items = self.operations.promotions().from(id, TenantNumber::new(0));
        let items: Vec<(TenantNumber, PromotionState, OperationId)> = items
            .map(|(number, item)| (number, item.state.clone(), item.operation))
            .collect();
        for (number, state, operation) in items {
            match state {
                PromotionState::Waiting { .. } => {
                    let reason = "cancelled".to_owned();
                    self.end_promotion_item(context, id, number, PromotionState::Failed { reason });
                }
                PromotionState::Moving => self.abort_planned(context, number, operation),
                PromotionState::Fenced
                | PromotionState::Freezing
                | PromotionState::Blocked { .. }
                | PromotionState::Pulling { .. }
                | PromotionState::Activating
                | PromotionState::Promoted
                | PromotionState::Moved { .. }
                | PromotionState::Replaced { .. }
                | PromotionState::Failed { .. } => {}
            }
        }
        self.end_promotion(context, id);
        Ok(DirectoryOutcome::Done)
    }
}

/// Advances.
impl Directory {
    /// Does what the directory's leader tells. A command that comes late does nothing.
    pub(super) fn advance_promotion(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        action: PromotionAdvance,
    ) -> DirectoryResult {
        let is_open = self.operations.get(id).is_some_and(|operation| operation.end.is_none());
        if !is_open || self.operations.promotion(id).is_none() {
            return Ok(DirectoryOutcome::Done);
        }
        match action {
            PromotionAdvance::WaitOver { fence } => self.wait_over(context, id, fence),
            PromotionAdvance::Move(unreachable) => self.move_next(context, id, &unreachable),
            PromotionAdvance::GracefulOver => self.graceful_over(context, id),
            PromotionAdvance::Silent(groups) => self.groups_silent(context, id, groups),
            PromotionAdvance::Renewals(renewals) => self.record_renewals(context, id, renewals),
        }
        self.end_promotion(context, id);
        Ok(DirectoryOutcome::Done)
    }

    /// Lets the members of the next tenants freeze that were fenced by a version.
    fn wait_over(&mut self, context: &mut ApplyContext, id: u64, fence: DirectoryVersion) {
        let items = self.operations.promotions().open(id);
        let fenced = items.filter(|(_, item)| item.state == PromotionState::Fenced);
        let due = fenced.filter(|(number, _)| {
            let promoted = self.promoted_by(id, *number);
            promoted.is_some_and(|(_, promoting)| promoting.fence <= fence)
        });
        let due: Vec<TenantNumber> = due.map(|(number, _)| number).take(ADVANCED_MAX).collect();
        for number in due {
            self.begin_freezing(context, id, number);
        }
    }

    /// Records when the groups that may own tenants had renewed their leases the last time, once.
    fn record_renewals(&mut self, context: &mut ApplyContext, id: u64, renewals: Vec<(GroupId, u64)>) {
        if let Some(promotion) = self
            .operations
            .promotion_mut(id)
            .filter(|promotion| promotion.renewals.is_empty())
        {
            promotion.renewals = renewals.into_iter().collect();
            context.touch(id);
        }
    }

    /// Promotes the next tenants by force that have not moved in time.
    fn graceful_over(&mut self, context: &mut ApplyContext, id: u64) {
        let Some(promotion) = self.operations.promotion_mut(id) else {
            return;
        };
        if !promotion.is_graceful() || context.time < promotion.graceful_until {
            return;
        }
        promotion.cursor = u64::MAX;
        let (selection, replace) = (promotion.request.selection.clone(), promotion.request.replace);
        let is_named = matches!(selection, PromotionSelection::Tenants(_));
        let items = self.operations.promotions().open(id);
        let left =
            items.filter(|(_, item)| matches!(item.state, PromotionState::Waiting { .. } | PromotionState::Moving));
        let left = left.map(|(number, item)| (number, item.clone()));
        let left: Vec<(TenantNumber, PromotionItem)> = left.take(ADVANCED_MAX).collect();
        for (number, item) in left {
            let end = match self.view.tenant(number) {
                None => Some(PromotionState::Failed {
                    reason: "the tenant was erased".to_owned(),
                }),
                Some(tenant) => match (&selection, &tenant.promoting) {
                    (_, Some(other)) if !replace => Some(PromotionState::Replaced { by: other.of }),
                    (PromotionSelection::Tenants(_), _) if tenant.home == item.home => None,
                    (selection, _) if is_selected(&self.view, selection, tenant) && !is_named => None,
                    _ => Some(PromotionState::Moved { to: tenant.home }),
                },
            };
            match end {
                None => self.fence(context, id, number, item),
                Some(state) => self.end_promotion_item(context, id, number, state),
            }
        }
        context.touch(id);
    }

    /// Examines the next tenants with the groups that are silent.
    fn groups_silent(&mut self, context: &mut ApplyContext, id: u64, groups: Vec<GroupId>) {
        let Some(promotion) = self.operations.promotion_mut(id) else {
            return;
        };
        if promotion.fenced == 0 {
            return;
        }
        let silent = groups.into_iter().collect();
        if promotion.silent != silent {
            promotion.silent = silent;
            promotion.cursor = 0;
        }
        if promotion.cursor == u64::MAX {
            return;
        }
        let from = TenantNumber::new(promotion.cursor);
        let items = self.operations.promotions().from(id, from);
        let next: Vec<TenantNumber> = items.map(|(number, _)| number).take(ADVANCED_MAX).collect();
        let last = next.last().filter(|_| next.len() == ADVANCED_MAX);
        let cursor = last.map_or(u64::MAX, |last| last.get().saturating_add(1));
        if let Some(promotion) = self.operations.promotion_mut(id) {
            promotion.cursor = cursor;
        }
        context.touch(id);
        for number in next {
            self.examine_promoted(context, id, number);
        }
    }
}

/// Records.
impl Directory {
    /// Puts the record of a tenant of a promotion, and counts it.
    pub(super) fn put_promotion_item(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        number: TenantNumber,
        item: PromotionItem,
    ) {
        let before = self
            .operations
            .promotions()
            .get(id, number)
            .map(|item| item.state.clone());
        if before.as_ref() == Some(&item.state) && self.operations.promotions().get(id, number) == Some(&item) {
            return;
        }
        if let Some(promotion) = self.operations.promotion_mut(id) {
            if let Some(before) = &before {
                *promotion.counts.of(before) -= 1;
            }
            *promotion.counts.of(&item.state) += 1;
        }
        self.operations.put_promotion_item(id, number, item);
        context.promotion_items.push((id, number));
        context.touch(id);
    }

    /// Brings a tenant of a promotion to an end.
    pub(super) fn end_promotion_item(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        number: TenantNumber,
        state: PromotionState,
    ) {
        let Some(mut item) = self.operations.promotions().get(id, number).cloned() else {
            return;
        };
        item.state = state;
        item.times.ended = context.time;
        self.put_promotion_item(context, id, number, item);
    }
}

impl ApplyContext {
    /// Notes that an operation has changed.
    pub(super) fn touch(&mut self, id: u64) {
        if !self.operations.contains(&id) {
            self.operations.push(id);
        }
    }
}
