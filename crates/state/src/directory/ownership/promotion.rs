//! Transitions of a promotion in the directory, one for each change of its phase.

use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, TenantTime};

use super::{next_epoch, set_state};
use crate::{
    directory::{MemberState, PromotionPhase, Rejection, RemoteFloor, Tenant, TenantPromotion, TenantState},
    lineage::Lineage,
    shard::record::OperationId,
};

/// Plan of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromotionPlan {
    /// The promotion in flight that this one replaces.
    pub replace: Option<OperationId>,
    /// Number in the cluster of the operation that it belongs to.
    pub of: u64,
    /// Directory version of this change, which is the fence.
    pub fence: DirectoryVersion,
    /// Logged time.
    pub time: u64,
}

/// Report of a group that it is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFrozen {
    /// The reporting group.
    pub from: GroupId,
    /// Number of the promotion.
    pub operation: OperationId,
    /// Epoch that the group is frozen for.
    pub epoch: Epoch,
}

/// Choice that completes a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Number of the promotion.
    pub operation: OperationId,
    /// The chosen group.
    pub home: GroupId,
    /// The chosen group's own lineage.
    pub lineage: Lineage,
    /// Last change that is taken over.
    pub kept: Revision,
    /// Highest tenant time that a frozen group has reported.
    pub time: TenantTime,
}

/// Report of the chosen group that it owns the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromotionActivated {
    /// The reporting group.
    pub from: GroupId,
    /// Number of the promotion.
    pub operation: OperationId,
    /// Epoch that it owns now.
    pub epoch: Epoch,
}

/// Begins a promotion: fences the tenant below a new epoch, and replaces a move in flight.
///
/// # Errors
///
/// The tenant is being erased, another promotion is in flight than the one that the plan replaces, or all epochs are used
/// up.
pub fn promote(tenant: &mut Tenant, plan: &PromotionPlan) -> Result<TenantPromotion, Rejection> {
    if tenant.state == TenantState::Deleting {
        return Err(Rejection::NotActive(tenant.name.clone()));
    }
    let in_flight = tenant.promoting.as_ref().map(|promotion| promotion.operation);
    if in_flight != plan.replace {
        return Err(match in_flight {
            Some(_) => Rejection::Promoting(tenant.name.clone()),
            None => Rejection::OperationOver,
        });
    }
    let epoch = next_epoch(tenant)?;
    let before = tenant.promoting.take().map(|promotion| promotion.replaced);
    let moving = tenant.moving.take().map(|moving| *moving);
    let replaced = before.into_iter().flatten().chain(moving);
    let promotion = TenantPromotion {
        operation: OperationId(tenant.op + 1),
        of: plan.of,
        epoch,
        fence: plan.fence,
        phase: PromotionPhase::Fenced,
        reported: Box::new([]),
        replaced: replaced.collect(),
        started: plan.time,
    };
    tenant.op = promotion.operation.0;
    tenant.last_epoch = epoch;
    tenant.fence_epoch = epoch;
    tenant.promoting = Some(Box::new(promotion.clone()));
    Ok(promotion)
}

/// Records that the directory has the freeze report of a group. Told twice, nothing changes.
///
/// # Errors
///
/// The promotion is not in flight, its new home is recorded already, or the group is not a member that is consulted.
pub fn record_frozen(tenant: &mut Tenant, frozen: &GroupFrozen) -> Result<(), Rejection> {
    if !tenant.consults(frozen.from) {
        return Err(Rejection::StaleReport);
    }
    let promotion = choosing(tenant, frozen.operation)?;
    if promotion.epoch != frozen.epoch {
        return Err(Rejection::StaleReport);
    }
    if !promotion.has_reported(frozen.from) {
        let mut reported = promotion.reported.to_vec();
        reported.push(frozen.from);
        reported.sort_unstable();
        promotion.reported = reported.into();
    }
    Ok(())
}

/// Records that nobody can serve below the fence any more, so that every member freezes.
///
/// # Errors
///
/// The promotion is not in flight, or beyond this.
pub fn begin_freezing(tenant: &mut Tenant, operation: OperationId) -> Result<(), Rejection> {
    let promotion = choosing(tenant, operation)?;
    if promotion.phase != PromotionPhase::Fenced {
        return Err(Rejection::StaleReport);
    }
    promotion.phase = PromotionPhase::Freezing;
    Ok(())
}

/// Orders a frozen group to take over what another one has more. It may be ordered again, of others.
///
/// # Errors
///
/// The promotion is not in flight, groups may serve below the fence yet, the new home is recorded already, or one of the
/// two has not reported that it is frozen.
pub fn order_pull(tenant: &mut Tenant, operation: OperationId, from: GroupId, to: GroupId) -> Result<(), Rejection> {
    let promotion = choosing(tenant, operation)?;
    let is_fenced = promotion.phase == PromotionPhase::Fenced;
    if is_fenced || from == to || !promotion.has_reported(from) || !promotion.has_reported(to) {
        return Err(Rejection::StaleReport);
    }
    promotion.phase = PromotionPhase::Pulling { from, to };
    Ok(())
}

/// Records the new home: the chosen group, with its own lineage up to what is taken over. The promotion stays in flight
/// until that group has reported that it owns the tenant.
///
/// # Errors
///
/// The promotion is not in flight, groups may serve below the fence yet, the new home is recorded already, or the chosen
/// group is not a frozen member whose lineage is below the promotion's epoch.
pub fn activate(tenant: &mut Tenant, activation: &Activation) -> Result<(), Rejection> {
    let (home, kept) = (activation.home, activation.kept);
    if !tenant.consults(home) {
        return Err(Rejection::NotMember {
            tenant: tenant.name.clone(),
            group: home,
        });
    }
    let promotion = choosing(tenant, activation.operation)?;
    let epoch = promotion.epoch;
    let is_fenced = promotion.phase == PromotionPhase::Fenced;
    if is_fenced || !promotion.has_reported(home) || activation.lineage.epoch() >= epoch {
        return Err(Rejection::StaleReport);
    }
    promotion.phase = PromotionPhase::Activating {
        kept,
        time: activation.time,
    };
    tenant.home = home;
    tenant.epoch = epoch;
    tenant.lineage = activation.lineage.clone();
    tenant.lineage.record_promotion(epoch, kept.sequence());
    if kept.sequence() < tenant.remote_floor.sequence() {
        // What it stood for is cut.
        tenant.remote_floor = RemoteFloor::default();
    }
    set_state(tenant, home, MemberState::Staying);
    Ok(())
}

/// Records that the chosen group owns the tenant: the promotion is over, and members that were only targets of replaced
/// moves leave.
///
/// # Errors
///
/// The promotion is not in flight or has no new home yet, or the report is not of that home in its epoch.
pub fn record_activated(tenant: &mut Tenant, activated: &PromotionActivated) -> Result<TenantPromotion, Rejection> {
    let is_home = (activated.from, activated.epoch) == (tenant.home, tenant.epoch);
    let is_due = |promotion: &TenantPromotion| {
        let is_chosen = matches!(promotion.phase, PromotionPhase::Activating { .. });
        promotion.operation == activated.operation && is_chosen && is_home
    };
    let promotion = tenant.promoting.take_if(|promotion| is_due(promotion));
    let promotion = promotion.ok_or(Rejection::StaleReport)?;
    for replaced in &promotion.replaced {
        if replaced.joined && replaced.to != tenant.home && tenant.has(replaced.to) {
            set_state(tenant, replaced.to, MemberState::Leaving);
        }
    }
    Ok(*promotion)
}

/// Returns a promotion in flight whose new home is not recorded yet.
fn choosing(tenant: &mut Tenant, operation: OperationId) -> Result<&mut TenantPromotion, Rejection> {
    let promotion = tenant.promoting.as_deref_mut();
    let promotion = promotion.filter(|promotion| promotion.operation == operation);
    let promotion = promotion.ok_or(Rejection::OperationOver)?;
    match promotion.phase {
        PromotionPhase::Fenced | PromotionPhase::Freezing | PromotionPhase::Pulling { .. } => Ok(promotion),
        PromotionPhase::Activating { .. } => Err(Rejection::StaleReport),
    }
}
