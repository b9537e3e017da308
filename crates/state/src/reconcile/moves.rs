//! Steps of planned moves, and of members that leave a replica set or return to it.

use std::time::Duration;

use stead_types::{Epoch, GroupId, TenantNumber};

use super::Step;
use crate::{
    directory::{
        DirectoryView, GroupReport, LeaseLoss, MemberState, MoveState, PromotionPhase, ReplicaSetMember, Tenant,
        TenantMove,
    },
    seed_pace::SeedFailure,
    shard::{
        command::{CancelHeir, Count, Heir, Refuse, Rejoin, Relinquish, SeedWindows, SetLeaseLossPolicy, Uncount},
        record::{LeaseLossPolicy, OperationId, Role, TenantRecord},
    },
};

/// Largest staleness of a copy that may become the heir, and of an heir that is handed the tenant.
pub const HEIR_STALENESS_MAX: Duration = Duration::from_secs(1);
/// Shortest lease of an heir that is handed the tenant: more than two round trips between any two regions.
pub const HEIR_LEASE_MIN: Duration = Duration::from_secs(2);

/// Facts that the leader of a group knows beside its view and its records.
pub struct LeaderFacts<'a> {
    /// Whether a lease counts that was asked for after the leadership began.
    pub has_lease: bool,
    /// Wall clock now, in milliseconds since 1970.
    pub wall: u64,
    /// Staleness of the group's copy of a tenant, if it is known.
    pub staleness: &'a dyn Fn(TenantNumber) -> Option<Duration>,
    /// Last message of a tenant's heir, if it is recent.
    pub heir: &'a dyn Fn(TenantNumber) -> Option<HeirReadiness>,
    /// Why the seed of a tenant to a group was given up, if it was.
    pub seed_failure: &'a dyn Fn(TenantNumber, GroupId) -> Option<SeedFailure>,
    /// Highest epoch of a tenant that another node has shown this leader, if it was above the owned one.
    pub epoch_seen: &'a dyn Fn(TenantNumber) -> Epoch,
    /// Whether the entry by which the home stopped counting a leaving member has been applied by a follower that stays,
    /// if one does.
    pub uncount_applied: &'a dyn Fn(TenantNumber, GroupId) -> bool,
    /// Wall clock, in milliseconds since 1970, at which the group's copy of a tenant was last proved fresh when the group
    /// froze for a promotion.
    pub fresh_as_of: &'a dyn Fn(TenantNumber, OperationId) -> Option<u64>,
    /// Whether the group has taken over what a third one has more of a tenant, as a promotion orders.
    pub has_pulled: &'a dyn Fn(TenantNumber, OperationId, GroupId) -> bool,
}

impl LeaderFacts<'_> {
    /// Facts of a leader that may not propose anything about ownership yet.
    pub const NONE: LeaderFacts<'static> = LeaderFacts {
        has_lease: false,
        wall: 0,
        staleness: &|_| None,
        heir: &|_| None,
        seed_failure: &|_, _| None,
        epoch_seen: &|_| Epoch::NONE,
        uncount_applied: &|_, _| false,
        fresh_as_of: &|_, _| None,
        has_pulled: &|_, _, _| false,
    };
}

/// Readiness of a move's heir, as it has told the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeirReadiness {
    /// The heir.
    pub group: GroupId,
    /// Number of the move.
    pub operation: OperationId,
    /// Time that the lease of its leader still lasts.
    pub lease: Duration,
    /// Staleness of its copy.
    pub staleness: Duration,
}

impl HeirReadiness {
    /// Tells whether a move's target can take the tenant over at once.
    fn is_ready_for(&self, planned: &TenantMove) -> bool {
        let is_target = self.group == planned.to && self.operation == planned.operation;
        is_target && self.lease >= HEIR_LEASE_MIN && self.staleness <= HEIR_STALENESS_MAX
    }
}

/// Tells whether the next step of a tenant in this group depends on facts that change without the view: it takes part in
/// a move, takes changes over in a promotion, or a member leaves its home.
pub fn waits_for_facts(tenant: &Tenant, group: GroupId) -> bool {
    if let Some(promotion) = tenant.promoting.as_deref() {
        return matches!(promotion.phase, PromotionPhase::Pulling { to, .. } if to == group);
    }
    let is_home = tenant.home == group;
    let moves = tenant
        .moving
        .as_deref()
        .is_some_and(|planned| is_home || planned.to == group);
    let leaves = || tenant.members.iter().any(|member| member.state == MemberState::Leaving);
    moves || (is_home && leaves())
}

/// Returns the report of a group that has taken a tenant over, until the directory has recorded it.
pub(super) fn taken_over(tenant: &Tenant, group: GroupId, record: &TenantRecord) -> Option<Step> {
    let epoch = record.owned()?;
    let planned = tenant.moving.as_deref()?;
    (planned.to == group && planned.epoch == epoch).then_some(Step::Report(GroupReport::Accepted {
        tenant: tenant.number,
        operation: planned.operation,
        epoch,
    }))
}

/// Returns the step of an owner that the directory records.
pub(super) fn owner(
    view: &DirectoryView,
    tenant: &Tenant,
    record: &TenantRecord,
    facts: &LeaderFacts<'_>,
) -> Option<Step> {
    let epoch = record.owned().filter(|epoch| *epoch == tenant.epoch)?;
    let moved = tenant.moving.as_deref().and_then(|planned| match planned.state {
        MoveState::Moving => {
            if let Some(failure) = (facts.seed_failure)(tenant.number, planned.to) {
                return Some(Step::Report(GroupReport::SeedFailed {
                    tenant: tenant.number,
                    operation: planned.operation,
                    failure,
                }));
            }
            let is_ready = (facts.heir)(tenant.number).is_some_and(|heir| heir.is_ready_for(planned));
            (facts.has_lease && is_ready).then_some(Step::Relinquish(Relinquish {
                tenant: tenant.number,
                version: view.version(),
                operation: planned.operation,
                to: planned.to,
                recorded_epoch: epoch,
                epoch: planned.epoch,
            }))
        }
        MoveState::Aborting if record.refused_up_to < planned.operation => Some(Step::Refuse(Refuse {
            tenant: tenant.number,
            version: view.version(),
            operation: planned.operation,
        })),
        MoveState::Aborting => Some(Step::Report(GroupReport::Refused {
            tenant: tenant.number,
            operation: planned.operation,
        })),
    });
    moved.or_else(|| lease_loss(view, tenant, record, facts)).or_else(|| {
        tenant
            .members
            .iter()
            .find_map(|member| count(view, tenant, record, *member, facts))
    })
}

/// Returns the step by which an owner takes over what it is to do without a lease, and tells that it stops.
fn lease_loss(view: &DirectoryView, tenant: &Tenant, record: &TenantRecord, facts: &LeaderFacts<'_>) -> Option<Step> {
    let is_stopping = tenant.on_lease_loss == LeaseLoss::Stopping;
    // The view may be older than what was heard; that of the next leader is not, since its leadership begins later.
    let policy = if (facts.epoch_seen)(tenant.number) > record.epoch {
        LeaseLossPolicy::Stop
    } else {
        tenant.on_lease_loss.wanted()
    };
    // Again if the tenant has changed since: the directory takes no report of an older view.
    if record.policy != policy || (is_stopping && record.view_version < tenant.version) {
        return Some(Step::SetLeaseLossPolicy(SetLeaseLossPolicy {
            tenant: tenant.number,
            version: view.version(),
            policy,
        }));
    }
    is_stopping.then_some(Step::Report(GroupReport::StopLogged {
        tenant: tenant.number,
        epoch: record.epoch,
        version: record.view_version,
    }))
}

/// Returns the step by which an owner stops counting a leaving member, or counts one again.
fn count(
    view: &DirectoryView,
    tenant: &Tenant,
    record: &TenantRecord,
    member: ReplicaSetMember,
    facts: &LeaderFacts<'_>,
) -> Option<Step> {
    let ReplicaSetMember { group, state } = member;
    let (tenant, changed, version) = (tenant.number, tenant.version, view.version());
    let is_counted = !record.uncounted.contains(&group);
    match state {
        // Again if the tenant has changed since: the directory takes no report of an older view.
        MemberState::Leaving if is_counted || record.view_version < changed => {
            Some(Step::Uncount(Uncount { tenant, version, group }))
        }
        MemberState::Leaving => {
            (facts.uncount_applied)(tenant, group).then_some(Step::Report(GroupReport::Uncounted {
                tenant,
                epoch: record.epoch,
                group,
                version: record.view_version,
                revision: record.live.revision,
            }))
        }
        MemberState::Staying if !is_counted => Some(Step::Count(Count { tenant, version, group })),
        MemberState::Staying | MemberState::Erasing | MemberState::Returning => None,
    }
}

/// Returns the step of a follower that follows the recorded home: as the target of a move, or as a member that returns.
pub(super) fn follower(
    view: &DirectoryView,
    tenant: &Tenant,
    group: GroupId,
    record: &TenantRecord,
    facts: &LeaderFacts<'_>,
) -> Option<Step> {
    let is_current = record.epoch == tenant.epoch && record.promised == tenant.epoch;
    let planned = tenant.moving.as_deref().filter(|planned| planned.to == group);
    match (record.role, planned) {
        (Role::Follower { .. }, Some(planned)) if is_current && planned.state == MoveState::Moving => {
            if record.live.rewound {
                // An heir has all outcomes: those that its rewind lost come from the home.
                let is_due = facts.has_lease && record.shadow.is_none() && view.settings().has_region_loss();
                return is_due.then_some(Step::SeedWindows(SeedWindows {
                    tenant: tenant.number,
                    home: tenant.home,
                    epoch: record.epoch,
                    version: view.version(),
                    number: record.seeds.next(),
                }));
            }
            let is_fresh = (facts.staleness)(tenant.number).is_some_and(|age| age <= HEIR_STALENESS_MAX);
            (facts.has_lease && is_fresh).then_some(Step::Heir(Heir {
                tenant: tenant.number,
                version: view.version(),
                operation: planned.operation,
                to: group,
                recorded_epoch: tenant.epoch,
                epoch: planned.epoch,
            }))
        }
        (Role::Heir { operation, .. }, Some(planned)) if planned.operation == operation => {
            let is_told = planned.heir_ready || planned.state == MoveState::Aborting;
            (!is_told).then_some(Step::Report(GroupReport::HeirReady {
                tenant: tenant.number,
                operation,
            }))
        }
        (Role::Heir { operation, .. }, _) if operation <= OperationId(tenant.op) => {
            Some(Step::CancelHeir(CancelHeir {
                tenant: tenant.number,
                version: view.version(),
                operation,
                last_operation: OperationId(tenant.op),
            }))
        }
        (Role::Follower { .. } | Role::Heir { .. }, _) => returning(view, tenant, group, record),
        (Role::Owner | Role::Relinquished { .. } | Role::Frozen { .. } | Role::Erased, _) => None,
    }
}

fn returning(view: &DirectoryView, tenant: &Tenant, group: GroupId, record: &TenantRecord) -> Option<Step> {
    let member = tenant.member(group)?;
    if member.state != MemberState::Returning {
        return None;
    }
    Some(if record.view_version < tenant.version {
        Step::Rejoin(Rejoin {
            tenant: tenant.number,
            version: view.version(),
        })
    } else {
        Step::Report(GroupReport::Rejoined {
            tenant: tenant.number,
            version: record.view_version,
        })
    })
}
