//! Applies commands and reports about moves of tenants, and about members that leave.

use stead_types::{GroupId, Incarnation, NodeId, TenantNumber};

use super::{
    ApplyContext, AuditContext, BulkMove, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, DirectoryView,
    Followers, GroupReport, MoveRequest, MoveState, MoveTarget, Operation, OperationEnd, OperationKind,
    OperationResult, OperationStep, OperationTenant, PromotionState, Rejection, SourceAfterMove, StepName, Tenant,
    TenantMove, TenantState, TopologyRejection,
    ownership::{self, MemberRejoined, MemberUncounted, MoveAccepted, MovePlan, MoveRefused, StopLogged},
    placement,
    promotion_steps::FreezeReportTimes,
};
use crate::{seed_pace::SeedFailure, shard::record::OperationId};

/// Commands.
impl Directory {
    pub(super) fn move_tenant(
        &mut self,
        context: &mut ApplyContext,
        by: AuditContext,
        request: &MoveRequest,
    ) -> DirectoryResult {
        self.view.settings().check_moves()?;
        let mut tenant = self.named(&request.name, request.etag)?;
        let plan = MovePlan {
            to: target(&self.view, &tenant, &request.to)?,
            source: request.source,
            time: context.time,
        };
        let from = tenant.home;
        let planned = self::plan(&self.view, &mut tenant, plan, &request.unreachable)?;
        let pinned = self.pinned();
        if !self.operations.has_room(|id| pinned.contains(&id)) {
            return Err(Rejection::OperationsFull);
        }
        let id = self.next_operation;
        self.next_operation += 1;
        let operation = Operation {
            id,
            kind: OperationKind::Move {
                from,
                to: planned.to,
                epoch: planned.epoch,
            },
            tenants: vec![OperationTenant {
                tenant: tenant.number,
                name: tenant.name.clone(),
                operation: planned.operation,
            }],
            by,
            created: context.time,
            steps: vec![context.step(StepName::Planned)],
            end: None,
        };
        self.operations.put(operation);
        context.operations.push(id);
        self.change(context, tenant);
        Ok(DirectoryOutcome::Operation(id))
    }

    pub(super) fn abort_move(&mut self, context: &mut ApplyContext, id: u64) -> DirectoryResult {
        let operation = self.operations.get(id).ok_or(Rejection::OperationUnknown(id))?;
        match &operation.end {
            Some(end) if end.result == OperationResult::Succeeded => return Err(Rejection::OperationSucceeded(id)),
            // What the caller wants has happened already.
            Some(_) => return Ok(DirectoryOutcome::Done),
            None => {}
        }
        if let OperationKind::BulkMove(bulk) = &operation.kind {
            let bulk = BulkMove::clone(bulk);
            return self.cancel_bulk_move(context, id, bulk);
        }
        if matches!(operation.kind, OperationKind::Promotion(_)) {
            return self.cancel_promotion(context, id);
        }
        if matches!(operation.kind, OperationKind::Topology(_)) {
            return self.cancel_topology_change(context, id);
        }
        let of = operation.tenants.first().ok_or(Rejection::OperationOver)?;
        let number = of.operation;
        let tenant = self.view.tenant(of.tenant).ok_or(Rejection::OperationOver)?;
        let mut tenant = Tenant::clone(tenant);
        let before = tenant.moving.as_deref().map(|moving| moving.state);
        ownership::abort_move(&mut tenant, number)?;
        if before != Some(MoveState::Aborting) {
            self.record_step(context, tenant.number, number, StepName::AbortRequested);
            self.change(context, tenant);
        }
        Ok(DirectoryOutcome::Done)
    }

    /// Ends the operation of a tenant that is being erased: every member erases, the target of a move too.
    pub(super) fn end_by_erase(&mut self, context: &mut ApplyContext, tenant: &mut Tenant) {
        if let Some(moving) = tenant.moving.take() {
            let reason = "the tenant was erased".to_owned();
            self.finish(
                context,
                tenant.number,
                moving.operation,
                OperationResult::Failed { reason },
            );
        }
        if let Some(promotion) = tenant.promoting.take() {
            let reason = "the tenant was erased".to_owned();
            self.end_promotion_item(context, promotion.of, tenant.number, PromotionState::Failed { reason });
            self.end_promotion(context, promotion.of);
        }
    }
}

/// Reports.
impl Directory {
    pub(super) fn report(
        &mut self,
        context: &mut ApplyContext,
        from: GroupId,
        incarnation: Incarnation,
        reports: &[GroupReport],
    ) -> DirectoryResult {
        let group = self.view.group(from);
        if group.is_none_or(|group| group.incarnation != incarnation) {
            return Err(Rejection::StaleIncarnation);
        }
        for report in reports {
            self.take_report(context, from, report);
        }
        Ok(DirectoryOutcome::Done)
    }

    /// Takes a report. One that is late or repeated is ignored.
    fn take_report(&mut self, context: &mut ApplyContext, from: GroupId, report: &GroupReport) {
        let Some(tenant) = self.view.tenant(report.tenant()) else {
            return;
        };
        let tenant = Tenant::clone(tenant);
        match *report {
            GroupReport::Erased(_) => self.erased(context, tenant, from),
            GroupReport::Accepted { operation, epoch, .. } => {
                let accepted = MoveAccepted { from, operation, epoch };
                self.accepted(context, tenant, &accepted);
            }
            GroupReport::Refused { operation, .. } => self.refused(context, tenant, &MoveRefused { from, operation }),
            GroupReport::HeirReady { operation, .. } => self.heir_ready(context, tenant, from, operation),
            GroupReport::SeedFailed { operation, failure, .. } => {
                self.seed_failed(context, tenant, from, operation, failure);
            }
            GroupReport::Uncounted {
                epoch,
                group,
                version,
                revision,
                ..
            } => {
                let mut tenant = tenant;
                let uncounted = MemberUncounted {
                    from,
                    epoch,
                    group,
                    version,
                    revision,
                };
                if ownership::record_uncounted(&mut tenant, &uncounted).is_ok() {
                    // A follower in the home's own region holds nothing that a loss of that region leaves.
                    if self.view.settings().has_region_loss() && !placement::has_other_region(&self.view, &tenant) {
                        tenant.remote_floor.raise(revision.sequence());
                    }
                    self.change(context, tenant);
                }
            }
            GroupReport::StopLogged { epoch, version, .. } => {
                let mut tenant = tenant;
                let logged = StopLogged { from, epoch, version };
                if ownership::record_stop_logged(&mut tenant, &logged).is_ok() {
                    self.change(context, tenant);
                }
            }
            GroupReport::Rejoined { version, .. } => {
                let mut tenant = tenant;
                if ownership::record_rejoined(&mut tenant, &MemberRejoined { from, version }).is_ok() {
                    self.change(context, tenant);
                }
            }
            GroupReport::Frozen {
                ref report,
                fresh_as_of,
                reported,
                ..
            } => {
                let times = FreezeReportTimes { fresh_as_of, reported };
                self.frozen(context, tenant, from, report, times);
            }
            GroupReport::Activated { operation, epoch, .. } => self.activated(context, tenant, from, operation, epoch),
        }
    }

    /// Removes a member that has erased a tenant.
    fn erased(&mut self, context: &mut ApplyContext, mut tenant: Tenant, from: GroupId) {
        if ownership::record_erased(&mut tenant, from).is_ok() {
            self.record_erasure(context, &tenant, from);
            self.without_member(context, tenant);
        }
    }

    /// Removes a member whose nodes are lost. That is no erasure: its disks may still hold the tenant.
    pub(super) fn give_up_member(&mut self, context: &mut ApplyContext, mut tenant: Tenant, lost: GroupId) {
        if ownership::record_erased(&mut tenant, lost).is_ok() {
            self.without_member(context, tenant);
        }
    }

    /// Records a tenant that a member has left.
    fn without_member(&mut self, context: &mut ApplyContext, mut tenant: Tenant) {
        if tenant.members.is_empty() {
            context.push(&mut self.view, DirectoryChange::TenantGone(tenant.number));
            return;
        }
        if tenant.state != TenantState::Deleting {
            // The group may become a member again, now that its old copy is erased.
            tenant.members = placement::members(&self.view, &tenant);
        }
        self.change(context, tenant);
    }

    fn accepted(&mut self, context: &mut ApplyContext, mut tenant: Tenant, accepted: &MoveAccepted) {
        let source = tenant.home;
        let Ok(ended) = ownership::record_accepted(&mut tenant, accepted) else {
            return;
        };
        settle(&self.view, &mut tenant, source, &ended);
        self.record_step(context, tenant.number, ended.operation, StepName::Recorded);
        self.finish(context, tenant.number, ended.operation, OperationResult::Succeeded);
        self.change(context, tenant);
    }

    fn refused(&mut self, context: &mut ApplyContext, mut tenant: Tenant, refused: &MoveRefused) {
        let Ok(ended) = ownership::record_refused(&mut tenant, refused) else {
            return;
        };
        tenant.members = placement::members(&self.view, &tenant);
        let operation = self.operations.in_flight(tenant.number, ended.operation);
        let failure = operation.and_then(|operation| {
            let item = self.operations.item(operation.id, tenant.number);
            operation.seed_failure().or_else(|| item?.seed_failure)
        });
        let result = failure.map_or(OperationResult::Cancelled, |failure| OperationResult::Failed {
            reason: failure.to_string(),
        });
        self.record_step(context, tenant.number, ended.operation, StepName::Refused);
        self.finish(context, tenant.number, ended.operation, result);
        self.change(context, tenant);
    }

    fn heir_ready(&mut self, context: &mut ApplyContext, mut tenant: Tenant, from: GroupId, operation: OperationId) {
        let before = tenant.clone();
        let recorded = ownership::record_heir_ready(&mut tenant, from, operation);
        if recorded.is_ok() && tenant != before {
            self.record_step(context, tenant.number, operation, StepName::HeirReady);
            self.record_leg_ready(context, tenant.number, operation);
            self.change(context, tenant);
        }
    }

    /// Gives a move up whose target cannot be seeded, unless it is given up already: the home then refuses it.
    fn seed_failed(
        &mut self,
        context: &mut ApplyContext,
        mut tenant: Tenant,
        from: GroupId,
        operation: OperationId,
        failure: SeedFailure,
    ) {
        let state = tenant.moving.as_deref().map(|moving| moving.state);
        let is_due = tenant.home == from && state == Some(MoveState::Moving);
        if is_due && ownership::abort_move(&mut tenant, operation).is_ok() {
            self.record_step(context, tenant.number, operation, StepName::SeedFailed(failure));
            self.record_seed_failure(context, tenant.number, operation, failure);
            self.change(context, tenant);
        }
    }

    fn record_step(
        &mut self,
        context: &mut ApplyContext,
        tenant: TenantNumber,
        operation: OperationId,
        name: StepName,
    ) {
        let step = context.step(name);
        let of = self.operations.in_flight(tenant, operation).map(|of| of.id);
        // A bulk move or a promotion has too many tenants for the steps of each.
        let is_of_many = |id: u64| self.operations.bulk_move(id).is_some() || self.operations.promotion(id).is_some();
        if let Some(id) = of.filter(|id| !is_of_many(*id)) {
            self.operations.record(id, step);
            context.operations.push(id);
        }
    }

    /// Records in the tenant of a bulk move why its seed was given up.
    fn record_seed_failure(
        &mut self,
        context: &mut ApplyContext,
        tenant: TenantNumber,
        operation: OperationId,
        failure: SeedFailure,
    ) {
        let of = self.operations.in_flight(tenant, operation).map(|of| of.id);
        let item = of.and_then(|id| Some((id, self.operations.item(id, tenant)?.clone())));
        if let Some((id, mut item)) = item {
            item.seed_failure = Some(failure);
            self.put_item(context, id, tenant, item);
        }
    }

    pub(super) fn finish(
        &mut self,
        context: &mut ApplyContext,
        tenant: TenantNumber,
        operation: OperationId,
        result: OperationResult,
    ) {
        let Some(id) = self.operations.in_flight(tenant, operation).map(|of| of.id) else {
            return;
        };
        if self.operations.bulk_move(id).is_some() {
            self.end_bulk_item(context, id, tenant, &result);
        } else if self.operations.promotion(id).is_some() {
            self.end_planned(context, id, tenant, result);
        } else {
            self.operations.finish(id, context.end(result));
            context.operations.push(id);
        }
    }
}

impl ApplyContext {
    pub(super) fn step(&self, name: StepName) -> OperationStep {
        OperationStep { name, time: self.time }
    }

    pub(super) fn end(&self, result: OperationResult) -> OperationEnd {
        OperationEnd {
            result,
            time: self.time,
        }
    }
}

/// Checks a move against regions, policy and the nodes that answer, and plans it.
pub(super) fn plan(
    view: &DirectoryView,
    tenant: &mut Tenant,
    plan: MovePlan,
    unreachable: &[NodeId],
) -> Result<TenantMove, Rejection> {
    let plan = check_plan(view, tenant, plan)?;
    let from = tenant.home;
    let planned = ownership::plan_move(tenant, &plan)?;
    if !is_reachable(view, from, unreachable) {
        return Err(Rejection::HomeUnreachable(from));
    }
    if !is_reachable(view, plan.to, unreachable) {
        return Err(Rejection::TargetUnreachable(plan.to));
    }
    check_after_move(view, tenant)?;
    Ok(planned)
}

/// Returns the group that a request names.
fn target(view: &DirectoryView, tenant: &Tenant, to: &MoveTarget) -> Result<GroupId, Rejection> {
    match to {
        MoveTarget::Region(region) if view.region_of(tenant.home).is_some_and(|home| home.name == *region) => {
            Err(Rejection::AlreadyHome(tenant.name.clone()))
        }
        MoveTarget::Region(region) => placement::target(view, tenant, region),
        MoveTarget::OtherGroup => {
            let beside = placement::beside(view, tenant, |group| view.load(group).homes);
            beside.ok_or_else(|| match view.region_of(tenant.home) {
                Some(region) => Rejection::OnlyGroup(region.name.clone()),
                None => Rejection::GroupUnknown(tenant.home),
            })
        }
        MoveTarget::Group(group) => {
            let region = view.region_of(*group);
            region.map(|_| *group).ok_or(Rejection::GroupUnknown(*group))
        }
    }
}

/// Checks a plan against regions and policy. A source in the target's region leaves: no group follows there.
fn check_plan(view: &DirectoryView, tenant: &Tenant, plan: MovePlan) -> Result<MovePlan, Rejection> {
    let region = view.region_of(plan.to).ok_or(Rejection::GroupUnknown(plan.to))?;
    if let Some(change) = view
        .group(plan.to)
        .filter(|group| group.is_forming())
        .and_then(|group| group.change.as_ref())
    {
        let (group, operation) = (plan.to, change.operation);
        return Err(TopologyRejection::GroupForming { group, operation }.into());
    }
    placement::admitted(view, &tenant.residency, &region.name)?;
    let is_inside = view.region_of(tenant.home) == Some(region);
    if !is_inside {
        placement::open(view, &region.name)?;
    }
    match plan.source {
        SourceAfterMove::Follow if is_inside && plan.to != tenant.home => {
            Err(Rejection::SourceInRegion(tenant.name.clone()))
        }
        SourceAfterMove::Policy if is_inside => Ok(MovePlan {
            source: SourceAfterMove::Leave,
            ..plan
        }),
        SourceAfterMove::Leave if !is_inside && tenant.followers == Followers::AllAdmitted => {
            Err(Rejection::SourceFollows(tenant.name.clone()))
        }
        SourceAfterMove::Follow | SourceAfterMove::Policy | SourceAfterMove::Leave => Ok(plan),
    }
}

/// Checks that a tenant whose move is in flight fits its policy afterwards too: the record of a move cannot be refused.
pub(super) fn check_after_move(view: &DirectoryView, tenant: &Tenant) -> Result<(), Rejection> {
    let Some(moving) = tenant.moving.as_deref() else {
        return Ok(());
    };
    let region = view.region_of(moving.to).ok_or(Rejection::GroupUnknown(moving.to))?;
    placement::admitted(view, &tenant.residency, &region.name)?;
    let mut after = tenant.clone();
    let accepted = MoveAccepted {
        from: moving.to,
        operation: moving.operation,
        epoch: moving.epoch,
    };
    let ended = ownership::record_accepted(&mut after, &accepted)?;
    settle(view, &mut after, tenant.home, &ended);
    placement::check_durability(view, &after)
}

/// Adjusts the policy and the members of a tenant to its new home: its region does not follow any more, and the source's
/// follows where the move says so.
fn settle(view: &DirectoryView, tenant: &mut Tenant, source: GroupId, ended: &TenantMove) {
    let name = |group| view.region_of(group).map(|region| region.name.clone());
    let (home, left) = (name(tenant.home), name(source));
    if let Followers::Named(regions) = &tenant.followers {
        let mut regions = regions.to_vec();
        regions.retain(|region| Some(region) != home.as_ref());
        let follows = left.filter(|left| ended.source == SourceAfterMove::Follow && !regions.contains(left));
        regions.extend(follows);
        tenant.followers = Followers::Named(regions.into());
    }
    tenant.members = placement::members(view, tenant);
}

/// Tells whether a majority of a group's voters is not among the unreachable nodes.
pub(super) fn is_reachable(view: &DirectoryView, group: GroupId, unreachable: &[NodeId]) -> bool {
    let Some(group) = view.group(group) else {
        return false;
    };
    let silent = group.voters.iter().filter(|voter| unreachable.contains(voter)).count();
    2 * (group.voters.len() - silent) > group.voters.len()
}
