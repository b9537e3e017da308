//! Facts about tenants that a group's leader keeps beside its view and its records: freshness, heirs, acknowledgements.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stead_state::{
    directory::{MemberState, Tenant},
    reconcile::{HeirReadiness, LeaderFacts, waits_for_facts},
    seed_pace::SeedFailure,
    shard::record::OperationId,
};
use stead_types::{FeedOffset, GroupId, TenantNumber};

use crate::{
    completed_pulls::PullOrigin,
    epochs_seen::EpochsSeen,
    follower_progress::ChangePosition,
    group_context::{GroupContext, is_elsewhere},
};

/// Facts of one leadership.
pub(crate) struct FactSource {
    context: Arc<GroupContext>,
    /// Last change of the tenant when a leaving member was first seen to be counted no longer.
    uncounted_at: Mutex<BTreeMap<(TenantNumber, GroupId), ChangePosition>>,
    /// How fresh the copy of a tenant was when it was frozen last.
    frozen: Mutex<BTreeMap<TenantNumber, FrozenCopy>>,
}

/// Freshness of a copy when it was frozen.
#[derive(Clone, Copy, Debug)]
struct FrozenCopy {
    operation: OperationId,
    /// Wall clock at which the copy had everything that was acknowledged, if that was proved.
    fresh_as_of: Option<u64>,
}

/// Facts about some tenants, as of one moment.
pub(crate) struct CollectedFacts {
    has_lease: bool,
    wall: u64,
    epochs_seen: EpochsSeen,
    tenants: BTreeMap<TenantNumber, TenantFacts>,
    frozen: BTreeMap<TenantNumber, FrozenCopy>,
    /// Pulls of which the directory is to hear.
    pulled: BTreeMap<TenantNumber, PullOrigin>,
}

#[derive(Default)]
struct TenantFacts {
    staleness: Option<Duration>,
    heir: Option<HeirReadiness>,
    /// Why the seed of the target of a move was given up.
    seed_failure: Option<(GroupId, SeedFailure)>,
    /// Leaving members whose uncounting a follower has applied.
    uncounted: BTreeSet<GroupId>,
}

impl FactSource {
    pub(crate) fn new(context: Arc<GroupContext>) -> Self {
        Self {
            context,
            uncounted_at: Mutex::default(),
            frozen: Mutex::default(),
        }
    }

    /// Takes note of how fresh the copy of a tenant is that is being promoted: once it is frozen, or its home's stream is
    /// gone, nothing proves it any more.
    pub(crate) fn record_freshness(&self, tenant: TenantNumber, operation: OperationId) {
        let context = &self.context;
        let now = (context.wall)();
        // Whatever an owner acknowledges is in its log before it is frozen.
        let owns = context.machine.read(|held| {
            let record = held.record(tenant);
            record.is_some_and(|record| record.owned().is_some())
        });
        let age = match owns {
            Ok(true) => Some(Duration::ZERO),
            Ok(false) => context.freshness.proof_age_below_fence(tenant),
            Err(_) => None,
        };
        let proved = age.map(|age| now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        let mut frozen = self.frozen.lock();
        let before = frozen.get(&tenant).and_then(|before| before.fresh_as_of);
        let fresh_as_of = proved.or(before);
        frozen.insert(tenant, FrozenCopy { operation, fresh_as_of });
    }

    /// Takes note of how fresh the copies are of those of some tenants that are being promoted.
    fn record_promoted(&self, tenants: &BTreeSet<TenantNumber>) {
        let promoted: Vec<_> = self.context.directory_view.read(|view| {
            let operation = |tenant: &TenantNumber| Some(view.tenant(*tenant)?.promoting.as_deref()?.operation);
            let promoted = tenants.iter().filter_map(|tenant| Some((*tenant, operation(tenant)?)));
            promoted.collect()
        });
        for (tenant, operation) in promoted {
            self.record_freshness(tenant, operation);
        }
    }

    /// Returns those of some tenants whose next step depends on facts.
    pub(crate) fn waiting(&self, tenants: impl Iterator<Item = TenantNumber>) -> BTreeSet<TenantNumber> {
        let group = self.context.id();
        self.context.directory_view.read(|view| {
            let waits = |tenant: &TenantNumber| {
                view.tenant(*tenant)
                    .is_some_and(|tenant| waits_for_facts(tenant, group))
            };
            tenants.filter(waits).collect()
        })
    }

    /// Collects the facts about some tenants.
    pub(crate) fn collect(&self, tenants: &BTreeSet<TenantNumber>) -> CollectedFacts {
        let waiting = self.waiting(tenants.iter().copied());
        self.record_promoted(tenants);
        CollectedFacts {
            has_lease: self.context.lease().is_some(),
            wall: (self.context.wall)(),
            epochs_seen: self.context.epochs_seen.clone(),
            tenants: waiting.into_iter().map(|tenant| (tenant, self.facts(tenant))).collect(),
            frozen: self.frozen_among(tenants),
            pulled: self.context.pulls.due_among(tenants),
        }
    }

    fn frozen_among(&self, tenants: &BTreeSet<TenantNumber>) -> BTreeMap<TenantNumber, FrozenCopy> {
        let frozen = self.frozen.lock();
        let known = tenants
            .iter()
            .filter_map(|tenant| Some((*tenant, *frozen.get(tenant)?)));
        known.collect()
    }

    fn facts(&self, number: TenantNumber) -> TenantFacts {
        let context = &self.context;
        let Some(tenant) = context.directory_view.read(|view| view.tenant(number).cloned()) else {
            return TenantFacts::default();
        };
        let takes_over = tenant
            .moving
            .as_deref()
            .is_some_and(|planned| planned.to == context.id());
        TenantFacts {
            staleness: takes_over.then(|| context.freshness.staleness(number)).flatten(),
            heir: context.heirs.readiness(number),
            seed_failure: tenant.moving.as_deref().and_then(|planned| {
                let failure = context.seeds.failure(number, planned.to, tenant.version)?;
                Some((planned.to, failure))
            }),
            uncounted: self.uncounted(&tenant),
        }
    }

    /// Returns the leaving members that the home no longer counts, where a follower that stays, if one does, has applied
    /// everything that the tenant had when the home stopped counting them.
    fn uncounted(&self, tenant: &Tenant) -> BTreeSet<GroupId> {
        let context = &self.context;
        let number = tenant.number;
        let leaves = |group: &GroupId| {
            let member = tenant.member(*group);
            member.is_some_and(|member| member.state == MemberState::Leaving)
        };
        let record = context.machine.read(|held| held.record(number).cloned());
        let record = record.ok().flatten().filter(|_| tenant.home == context.id());
        let gone: BTreeSet<GroupId> = record
            .iter()
            .flat_map(|record| record.uncounted.iter().copied().filter(leaves))
            .collect();
        let mut since = self.uncounted_at.lock();
        // A member that leaves once more is uncounted anew.
        since.retain(|(of, group), _| *of != number || gone.contains(group));
        let Some(record) = record else {
            return BTreeSet::new();
        };
        let last = ChangePosition {
            revision: record.live.revision,
            offset: FeedOffset {
                incarnation: context.group.incarnation(),
                index: record.live.index,
            },
        };
        let followers = context
            .directory_view
            .read(|view| followers_to_rely_on(tenant, |group| is_elsewhere(view, context.id(), group)));
        let is_applied = |change: &ChangePosition| {
            let has_applied = |follower: &GroupId| {
                let progress = context.acknowledgements.of(*follower);
                progress.is_some_and(|progress| progress.has_applied(number, record.epoch, change))
            };
            followers.is_empty() || followers.iter().any(has_applied)
        };
        gone.into_iter()
            .filter(|group| is_applied(since.entry((number, *group)).or_insert(last)))
            .collect()
    }
}

/// Returns the followers of a tenant on which acknowledgements may rest once a member has left: those in other regions
/// than the home, or all where there is none.
fn followers_to_rely_on(tenant: &Tenant, is_elsewhere: impl Fn(GroupId) -> bool) -> Vec<GroupId> {
    let elsewhere: Vec<GroupId> = tenant.follower_groups().filter(|group| is_elsewhere(*group)).collect();
    if elsewhere.is_empty() {
        tenant.follower_groups().collect()
    } else {
        elsewhere
    }
}

impl CollectedFacts {
    /// Calls a function with the facts.
    pub(crate) fn with<T>(&self, use_facts: impl FnOnce(&LeaderFacts<'_>) -> T) -> T {
        let of = |tenant: TenantNumber| self.tenants.get(&tenant);
        use_facts(&LeaderFacts {
            has_lease: self.has_lease,
            wall: self.wall,
            staleness: &|tenant| of(tenant)?.staleness,
            heir: &|tenant| of(tenant)?.heir,
            seed_failure: &|tenant, group| {
                let failed = of(tenant)?.seed_failure.filter(|(to, _)| *to == group);
                failed.map(|(_, failure)| failure)
            },
            epoch_seen: &|tenant| self.epochs_seen.of(tenant),
            uncount_applied: &|tenant, group| of(tenant).is_some_and(|facts| facts.uncounted.contains(&group)),
            fresh_as_of: &|tenant, operation| {
                let copy = self.frozen.get(&tenant).filter(|copy| copy.operation == operation);
                copy?.fresh_as_of
            },
            has_pulled: &|tenant, operation, from| self.pulled.get(&tenant) == Some(&PullOrigin { operation, from }),
        })
    }
}
