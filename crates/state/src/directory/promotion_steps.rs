//! Steps of a promotion that reports of groups, and the end of a wait, lead to.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{Durability, Epoch, GroupId, TenantNumber};

use super::{
    ApplyContext, Choice, Chosen, Consultation, Directory, DirectoryView, Followers, FrozenReport, LossWindow,
    PromotionDecision, PromotionItem, PromotionPhase, PromotionRequest, PromotionState, Tenant, choose,
    is_fenced_by_logs,
    ownership::{self, Activation, GroupFrozen, PromotionActivated},
    placement,
    promotion_plan::{home_region, targets},
};
use crate::shard::{ownership::FreezeReport, record::OperationId};

/// A tenant that is promoted: its record, that in the operation, and the operation.
struct Promoted {
    id: u64,
    tenant: Tenant,
    item: PromotionItem,
}

/// Wall clocks of a group's report that it is frozen, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreezeReportTimes {
    /// Time at which its copy was last proved fresh.
    pub(super) fresh_as_of: Option<u64>,
    /// Time of the report; `None`: of an earlier version.
    pub(super) reported: Option<u64>,
}

/// Reports.
impl Directory {
    /// Takes the report of a group that it is frozen.
    pub(super) fn frozen(
        &mut self,
        context: &mut ApplyContext,
        mut tenant: Tenant,
        from: GroupId,
        report: &FreezeReport,
        times: FreezeReportTimes,
    ) {
        let frozen = GroupFrozen {
            from,
            operation: report.operation,
            epoch: report.epoch,
        };
        let before = tenant.clone();
        if ownership::record_frozen(&mut tenant, &frozen).is_err() {
            return;
        }
        let Some(mut promoted) = self.promoted(tenant) else {
            return;
        };
        let known = promoted.item.reports.get(&from);
        // A frozen group's history only grows: a report that says less, or the same, is late or repeated.
        if known.is_some_and(|known| report.revision <= known.report.revision) {
            return;
        }
        let frozen = FrozenReport {
            report: report.clone(),
            fresh_as_of: times.fresh_as_of.max(known.and_then(|known| known.fresh_as_of)),
            time: context.time,
        };
        promoted.item.reports.insert(from, frozen);
        let id = promoted.id;
        if let Some(promotion) = self.operations.promotion_mut(id)
            && promotion.silent.remove(&from)
        {
            // Tenants that were examined without it are examined again.
            promotion.cursor = 0;
            context.touch(id);
        }
        if is_fenced_by_logs(&promoted.tenant, &promoted.item.reports) {
            freeze(context, &mut promoted);
        }
        // Before the wait is over an owner may go on to acknowledge.
        if promoted.item.times.waited > 0 {
            promoted.item.stopped_by = promoted.item.stopped_by.max(times.reported);
        }
        self.choose_next(context, promoted, &before);
        self.end_promotion(context, id);
    }

    /// Takes the report of a new home that it owns the tenant.
    pub(super) fn activated(
        &mut self,
        context: &mut ApplyContext,
        mut tenant: Tenant,
        from: GroupId,
        operation: OperationId,
        epoch: Epoch,
    ) {
        let activated = PromotionActivated { from, operation, epoch };
        let Ok(promotion) = ownership::record_activated(&mut tenant, &activated) else {
            return;
        };
        tenant.members = placement::members(&self.view, &tenant);
        let number = tenant.number;
        self.change(context, tenant);
        self.end_promotion_item(context, promotion.of, number, PromotionState::Promoted);
        self.end_promotion(context, promotion.of);
    }

    /// Lets the members of a tenant freeze: no lease below its fence counts any more.
    pub(super) fn begin_freezing(&mut self, context: &mut ApplyContext, id: u64, number: TenantNumber) {
        let Some(tenant) = self.promoted_by(id, number).map(|(tenant, _)| tenant.clone()) else {
            return;
        };
        let before = tenant.clone();
        if let Some(mut promoted) = self.promoted(tenant) {
            freeze(context, &mut promoted);
            self.choose_next(context, promoted, &before);
        }
    }

    /// Examines a tenant of a promotion again, because others are silent than before.
    pub(super) fn examine_promoted(&mut self, context: &mut ApplyContext, id: u64, number: TenantNumber) {
        let Some(tenant) = self.promoted_by(id, number).map(|(tenant, _)| tenant.clone()) else {
            return;
        };
        let before = tenant.clone();
        if let Some(promoted) = self.promoted(tenant) {
            self.choose_next(context, promoted, &before);
        }
    }

    fn promoted(&self, tenant: Tenant) -> Option<Promoted> {
        let id = tenant.promoting.as_deref()?.of;
        let item = self.operations.promotions().get(id, tenant.number)?.clone();
        Some(Promoted { id, tenant, item })
    }
}

/// Choice.
impl Directory {
    /// Decides what is next for a tenant whose members freeze, and stores what has changed.
    fn choose_next(&mut self, context: &mut ApplyContext, mut of: Promoted, before: &Tenant) {
        let phase = of.tenant.promoting.as_deref().map(|promotion| promotion.phase);
        match phase {
            Some(PromotionPhase::Freezing | PromotionPhase::Pulling { .. }) => self.take_choice(context, &mut of),
            Some(PromotionPhase::Fenced | PromotionPhase::Activating { .. }) | None => {}
        }
        let number = of.tenant.number;
        self.put_promotion_item(context, of.id, number, of.item);
        if of.tenant != *before {
            self.change(context, of.tenant);
        }
    }

    fn take_choice(&self, context: &ApplyContext, of: &mut Promoted) {
        let Some(promotion) = self.operations.promotion(of.id) else {
            return;
        };
        match choice(
            &self.view,
            &promotion.request,
            &promotion.silent,
            &of.tenant,
            &of.item.reports,
        ) {
            Choice::Wait(_) => {
                if !matches!(of.item.state, PromotionState::Pulling { .. }) {
                    of.item.state = PromotionState::Freezing;
                }
            }
            Choice::Blocked(reason) => of.item.state = PromotionState::Blocked { reason },
            Choice::Pull { from, to } => {
                let operation = of.item.operation;
                if ownership::order_pull(&mut of.tenant, operation, from, to).is_ok() {
                    of.item.state = PromotionState::Pulling { from, to };
                }
            }
            Choice::Activate(chosen) => self.activate(context, of, &promotion.request, *chosen),
        }
    }

    /// Records the new home, and what may be lost.
    fn activate(&self, context: &ApplyContext, of: &mut Promoted, request: &PromotionRequest, chosen: Chosen) {
        let old_home = of.tenant.home;
        let activation = Activation {
            operation: of.item.operation,
            home: chosen.home,
            lineage: chosen.lineage,
            kept: chosen.kept,
            time: chosen.time,
        };
        let mut tenant = of.tenant.clone();
        if let Err(rejection) = ownership::activate(&mut tenant, &activation) {
            let reason = format!("group {} cannot be the home: {rejection}", chosen.home.get());
            of.item.state = PromotionState::Blocked { reason };
            return;
        }
        settle(&self.view, &mut tenant, old_home);
        let lowers_durability = self.must_lower(&tenant, request, &of.item.reports);
        if lowers_durability {
            tenant.durability = Durability::Region;
        }
        of.tenant = tenant;
        // Logged time may be behind wall clocks, which the other bound is of: it stands still without a leader.
        let ends = of.item.times.waited.max(of.item.stopped_by.unwrap_or(0));
        // A home that goes on without a lease and has not frozen acknowledges until it hears of the fence.
        let goes_on = of.item.continues && !of.item.reports.contains_key(&old_home);
        let loss = (!chosen.is_drained).then(|| LossWindow {
            from: chosen
                .fresh_as_of
                .map(|fresh| if goes_on { fresh } else { fresh.min(ends) }),
            to: (!goes_on).then_some(ends),
        });
        of.item.decision = Some(PromotionDecision {
            home: chosen.home,
            kept: chosen.kept,
            reason: chosen.reason,
            loss,
            lowers_durability,
        });
        of.item.times.chosen = context.time;
        of.item.state = PromotionState::Activating;
    }

    /// Tells whether a tenant with a new home gets durability `REGION`: no follower outside its region has answered, and
    /// the operator accepts that; or its policy leaves none.
    fn must_lower(
        &self,
        tenant: &Tenant,
        request: &PromotionRequest,
        reports: &BTreeMap<GroupId, FrozenReport>,
    ) -> bool {
        if tenant.durability != Durability::Remote {
            return false;
        }
        let region = |group: GroupId| self.view.region_of(group).map(|region| &region.name);
        let counts = |group: &GroupId| region(*group) != region(tenant.home) && reports.contains_key(group);
        let is_accepted = request.durability == Some(Durability::Region);
        is_accepted && !tenant.follower_groups().any(|group| counts(&group))
            || placement::check_durability(&self.view, tenant).is_err()
    }
}

/// Decides what is next for a tenant, from the view and what groups have reported.
pub(super) fn choice(
    view: &DirectoryView,
    request: &PromotionRequest,
    silent: &BTreeSet<GroupId>,
    tenant: &Tenant,
    reports: &BTreeMap<GroupId, FrozenReport>,
) -> Choice {
    let home_region = match request.is_after_recovery() {
        true => Vec::new(),
        false => home_region(view, tenant),
    };
    choose(&Consultation {
        tenant,
        reports,
        silent,
        home_region: &home_region,
        targets: &targets(view, request, tenant),
        allow_loss: request.allow_loss,
    })
}

/// Records that nobody can serve a tenant below its fence, once.
fn freeze(context: &ApplyContext, of: &mut Promoted) {
    if ownership::begin_freezing(&mut of.tenant, of.item.operation).is_ok() {
        of.item.times.waited = context.time;
        of.item.state = PromotionState::Freezing;
    }
}

/// Adjusts the policy and the members of a tenant to its new home: its region does not follow any more, and that of the
/// old home does.
fn settle(view: &DirectoryView, tenant: &mut Tenant, old_home: GroupId) {
    let name = |group| view.region_of(group).map(|region| region.name.clone());
    let (home, left) = (name(tenant.home), name(old_home));
    if let Followers::Named(regions) = &tenant.followers
        && home != left
    {
        let mut regions = regions.to_vec();
        regions.retain(|region| Some(region) != home.as_ref());
        regions.extend(left.filter(|left| !regions.contains(left)));
        tenant.followers = Followers::Named(regions.into());
    }
    tenant.members = placement::members(view, tenant);
}
