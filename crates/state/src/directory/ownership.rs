//! Transitions of a tenant's ownership in the directory: moves, promotions, and members that leave.
//!
//! Pure: each function checks its guard against the tenant alone, then changes it; a failed guard changes nothing. The
//! caller stamps the record with the directory version of the change. What depends on regions, residency and other tenants is checked by the commands that call them, and the model in
//! `tests` calls the same functions.
//!
//! # Invariants
//!
//! 1. An epoch is handed out once: each is above [`Tenant::last_epoch`], also those of moves that were refused.
//! 2. At most one move or promotion is in flight; what it replaced is kept until the chosen group has activated it.
//! 3. A move ends by the record of its outcome only: the home's refusal, or the target's acceptance, also while
//!    aborting.
//! 4. The home, the target of a move, and the targets of moves that a promotion in flight has replaced are members
//!    that stay.

mod promotion;

use stead_types::{DirectoryVersion, Durability, Epoch, GroupId, Revision};

pub use self::promotion::{
    Activation, GroupFrozen, PromotionActivated, PromotionPlan, activate, begin_freezing, order_pull, promote,
    record_activated, record_frozen,
};
use super::{
    LeaseLoss, MemberState, MoveState, Rejection, ReplicaSetMember, SourceAfterMove, Tenant, TenantMove, TenantState,
};
use crate::shard::record::{LeaseLossPolicy, OperationId};

/// Plan of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovePlan {
    /// Group that is to be the home.
    pub to: GroupId,
    /// Part of the source afterwards.
    pub source: SourceAfterMove,
    /// Logged time.
    pub time: u64,
}

/// Report of a target that it has accepted the baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveAccepted {
    /// The reporting group.
    pub from: GroupId,
    /// Number of the move.
    pub operation: OperationId,
    /// Epoch that it owns now.
    pub epoch: Epoch,
}

/// Report of a home that it has refused a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveRefused {
    /// The reporting group.
    pub from: GroupId,
    /// Number of the move.
    pub operation: OperationId,
}

/// Report of a home that it no longer counts the acknowledgements of a leaving member, and that a follower that stays,
/// if there is one, has applied everything up to that entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberUncounted {
    /// The reporting group.
    pub from: GroupId,
    /// Epoch that it owns.
    pub epoch: Epoch,
    /// The leaving member.
    pub group: GroupId,
    /// Version of the view that the home's record has seen. One below the tenant's is of an earlier leaving.
    pub version: DirectoryVersion,
    /// Its last change, at or above the entry by which it stopped counting the member.
    pub revision: Revision,
}

/// Report of a returning member that its log has seen a view which shows it as a member again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRejoined {
    /// The reporting group.
    pub from: GroupId,
    /// Version of the view that its record has seen. One below the tenant's is of an earlier return.
    pub version: DirectoryVersion,
}

/// Report of a home that its log has the policy [`LeaseLossPolicy::Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLogged {
    /// The reporting group.
    pub from: GroupId,
    /// Epoch that it owns.
    pub epoch: Epoch,
    /// Version of the view that its record has seen. One below the tenant's is of an earlier change.
    pub version: DirectoryVersion,
}

/// Plans a move: hands out a number and an epoch, and makes the target a member.
///
/// # Errors
///
/// The tenant is not active, an operation is in flight, the target is the home already or still leaves from an earlier
/// time, or all epochs are used up.
pub fn plan_move(tenant: &mut Tenant, plan: &MovePlan) -> Result<TenantMove, Rejection> {
    if tenant.state != TenantState::Active {
        return Err(Rejection::NotActive(tenant.name.clone()));
    }
    check_idle(tenant)?;
    if plan.to == tenant.home {
        return Err(Rejection::AlreadyHome(tenant.name.clone()));
    }
    let member = tenant.member(plan.to);
    if member.is_some_and(|member| !member.state.stays()) {
        return Err(Rejection::TargetLeaving {
            tenant: tenant.name.clone(),
            group: plan.to,
        });
    }
    let joined = member.is_none();
    let planned = TenantMove {
        operation: OperationId(tenant.op + 1),
        to: plan.to,
        epoch: next_epoch(tenant)?,
        state: MoveState::Moving,
        source: plan.source,
        joined,
        heir_ready: false,
        started: plan.time,
    };
    if joined {
        add_member(tenant, plan.to);
    }
    tenant.op = planned.operation.0;
    tenant.last_epoch = planned.epoch;
    tenant.moving = Some(Box::new(planned));
    Ok(planned)
}

/// Asks for a move in flight to be given up. The move stays in flight until its outcome is known; asked twice, nothing
/// changes.
///
/// # Errors
///
/// The move is not in flight.
pub fn abort_move(tenant: &mut Tenant, operation: OperationId) -> Result<(), Rejection> {
    moving(tenant, operation)?.state = MoveState::Aborting;
    Ok(())
}

/// Records that the target of a move is the heir. Told twice, nothing changes.
///
/// # Errors
///
/// The move is not in flight, or another group is its target.
pub fn record_heir_ready(tenant: &mut Tenant, from: GroupId, operation: OperationId) -> Result<(), Rejection> {
    let moving = moving(tenant, operation)?;
    if moving.to != from {
        return Err(Rejection::StaleReport);
    }
    moving.heir_ready = true;
    Ok(())
}

/// Records that the target of a move has accepted the baton: it is the home from now on. Also while the move is being
/// aborted, because the source's log came first.
///
/// # Errors
///
/// The move is not in flight, or the report is not of its target in its epoch.
pub fn record_accepted(tenant: &mut Tenant, accepted: &MoveAccepted) -> Result<TenantMove, Rejection> {
    let ended = *moving(tenant, accepted.operation)?;
    if (ended.to, ended.epoch) != (accepted.from, accepted.epoch) {
        return Err(Rejection::StaleReport);
    }
    let source = tenant.home;
    tenant.moving = None;
    tenant.home = ended.to;
    tenant.epoch = ended.epoch;
    tenant.fence_epoch = tenant.fence_epoch.max(ended.epoch);
    tenant.lineage.record_move(ended.epoch);
    set_state(tenant, ended.to, MemberState::Staying);
    if ended.source == SourceAfterMove::Leave {
        set_state(tenant, source, MemberState::Leaving);
    }
    Ok(ended)
}

/// Records that the home has refused a move that was to be given up. A target that became a member for it leaves.
///
/// # Errors
///
/// The move is not in flight or not being aborted, or the report is not of the home.
pub fn record_refused(tenant: &mut Tenant, refused: &MoveRefused) -> Result<TenantMove, Rejection> {
    let ended = *moving(tenant, refused.operation)?;
    if refused.from != tenant.home || ended.state != MoveState::Aborting {
        return Err(Rejection::StaleReport);
    }
    tenant.moving = None;
    if ended.joined {
        set_state(tenant, ended.to, MemberState::Leaving);
    }
    Ok(ended)
}

/// Begins the removal of a member: it is still consulted until the home no longer counts it.
///
/// # Errors
///
/// The group is not a member that stays, or the tenant needs it: it is the home, the target of a move, or the last
/// follower of a tenant with durability `REMOTE`.
pub fn leave(tenant: &mut Tenant, group: GroupId) -> Result<(), Rejection> {
    if !tenant.has(group) {
        return Err(Rejection::NotMember {
            tenant: tenant.name.clone(),
            group,
        });
    }
    if tenant.needs(group) {
        return Err(Rejection::MemberNeeded {
            tenant: tenant.name.clone(),
            group,
        });
    }
    let stays = tenant.follower_groups().any(|follower| follower != group);
    if tenant.durability == Durability::Remote && !stays {
        return Err(Rejection::RemoteAlone);
    }
    set_state(tenant, group, MemberState::Leaving);
    Ok(())
}

/// Takes a leaving member back, as long as it has not been told to erase the tenant.
///
/// # Errors
///
/// The group is not a leaving member.
pub fn take_back(tenant: &mut Tenant, group: GroupId) -> Result<(), Rejection> {
    if tenant
        .member(group)
        .is_none_or(|member| member.state != MemberState::Leaving)
    {
        return Err(Rejection::NotMember {
            tenant: tenant.name.clone(),
            group,
        });
    }
    set_state(tenant, group, MemberState::Returning);
    Ok(())
}

/// Records that the home no longer counts a leaving member: it is no longer consulted, and must erase the tenant. Where no
/// follower stays, nobody but the home holds what was acknowledged on its account: up to where is kept.
///
/// # Errors
///
/// The report is not of the home in its epoch, the member is not leaving or left after the report, or a promotion is in
/// flight, which consults the member.
pub fn record_uncounted(tenant: &mut Tenant, uncounted: &MemberUncounted) -> Result<(), Rejection> {
    let of_home = (uncounted.from, uncounted.epoch) == (tenant.home, tenant.epoch);
    let member = tenant.member(uncounted.group);
    let leaves = member.is_some_and(|member| member.state == MemberState::Leaving);
    if !of_home || !leaves || uncounted.version < tenant.version {
        return Err(Rejection::StaleReport);
    }
    if tenant.promoting.is_some() {
        return Err(Rejection::Promoting(tenant.name.clone()));
    }
    set_state(tenant, uncounted.group, MemberState::Erasing);
    if tenant.follower_groups().next().is_none() {
        tenant.remote_floor.raise(uncounted.revision.sequence());
    }
    Ok(())
}

/// Records that a returning member's log has seen that it is one: the home counts it again.
///
/// # Errors
///
/// The member is not returning, or returned after the report.
pub fn record_rejoined(tenant: &mut Tenant, rejoined: &MemberRejoined) -> Result<(), Rejection> {
    let member = tenant.member(rejoined.from);
    let returns = member.is_some_and(|member| member.state == MemberState::Returning);
    if !returns || rejoined.version < tenant.version {
        return Err(Rejection::StaleReport);
    }
    set_state(tenant, rejoined.from, MemberState::Staying);
    Ok(())
}

/// Removes a member that has erased the tenant.
///
/// # Errors
///
/// The group is not a member that must erase the tenant.
pub fn record_erased(tenant: &mut Tenant, from: GroupId) -> Result<(), Rejection> {
    if tenant
        .member(from)
        .is_none_or(|member| member.state != MemberState::Erasing)
    {
        return Err(Rejection::StaleReport);
    }
    tenant.members = tenant
        .members
        .iter()
        .filter(|member| member.group != from)
        .copied()
        .collect();
    Ok(())
}

/// Changes what the home does without a lease, as an operator asks.
pub fn set_lease_loss(tenant: &mut Tenant, policy: LeaseLossPolicy) {
    tenant.on_lease_loss = match (policy, tenant.on_lease_loss) {
        (LeaseLossPolicy::Continue, _) => LeaseLoss::Continue,
        (LeaseLossPolicy::Stop, LeaseLoss::Stop) => LeaseLoss::Stop,
        (LeaseLossPolicy::Stop, LeaseLoss::Continue | LeaseLoss::Stopping) => LeaseLoss::Stopping,
    };
}

/// Records that the home has the policy in its log: it stops without a lease from now on.
///
/// # Errors
///
/// The home is not asked to, or the report is not of the home in its epoch, or older than the tenant's last change.
pub fn record_stop_logged(tenant: &mut Tenant, logged: &StopLogged) -> Result<(), Rejection> {
    let of_home = (logged.from, logged.epoch) == (tenant.home, tenant.epoch);
    if tenant.on_lease_loss != LeaseLoss::Stopping || !of_home || logged.version < tenant.version {
        return Err(Rejection::StaleReport);
    }
    tenant.on_lease_loss = LeaseLoss::Stop;
    Ok(())
}

fn check_idle(tenant: &Tenant) -> Result<(), Rejection> {
    if tenant.promoting.is_some() {
        return Err(Rejection::Promoting(tenant.name.clone()));
    }
    if tenant.moving.is_some() {
        return Err(Rejection::AlreadyMoving(tenant.name.clone()));
    }
    Ok(())
}

fn moving(tenant: &mut Tenant, operation: OperationId) -> Result<&mut TenantMove, Rejection> {
    let moving = tenant.moving.as_deref_mut();
    moving
        .filter(|moving| moving.operation == operation)
        .ok_or(Rejection::OperationOver)
}

/// Returns the next epoch to hand out. The highest one is the fence of tenants that are not active.
fn next_epoch(tenant: &Tenant) -> Result<Epoch, Rejection> {
    let next = tenant.last_epoch.next();
    next.filter(|epoch| *epoch < Epoch::MAX)
        .ok_or_else(|| Rejection::EpochsExhausted(tenant.name.clone()))
}

fn add_member(tenant: &mut Tenant, group: GroupId) {
    let mut members = tenant.members.to_vec();
    members.push(ReplicaSetMember::staying(group));
    members.sort_unstable_by_key(|member| member.group);
    tenant.members = members.into();
}

fn set_state(tenant: &mut Tenant, group: GroupId, state: MemberState) {
    for member in tenant.members.iter_mut().filter(|member| member.group == group) {
        member.state = state;
    }
}
