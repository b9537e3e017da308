//! Reconciler of a group: the steps that bring its records to the state that the directory prescribes: `(view,
//! records) -> steps`.
//!
//! Level-triggered: nothing is remembered between calls, so after a crash everything is computed again. A step that
//! is already under way is proposed again; its guard rejects the second one. Only the leader of a group calls this,
//! under the conditions that PROTOCOL sets for proposing.
//!
//! # Invariants
//!
//! 1. Applied and reported often enough, with a view that no longer changes, the steps end: then the group owns and
//!    follows what the directory says, holds nothing else, and the directory waits for no report of it.
//! 2. A step carries the version of the view that it was derived from, and none is derived from a view that is older
//!    than what the record has seen.
//! 3. Nothing is erased because a view does not know it, unless the tenant was known to the same directory before.

mod moves;
mod promotion;
#[cfg(test)]
mod promotion_test;
#[cfg(test)]
mod reconcile_test;

use bytes::Bytes;
pub use moves::{HEIR_LEASE_MIN, HEIR_STALENESS_MAX, HeirReadiness, LeaderFacts, waits_for_facts};
use stead_types::{Epoch, TenantNumber};

use self::promotion::PromotionStep;
use crate::{
    directory::{DirectoryView, GroupReport, MemberState, Tenant, TenantState},
    shard::{
        Shard,
        command::{
            Activate, CancelHeir, ContinueRewind, Count, Create, Erase, Follow, Freeze, Heir, Refuse, Rejoin,
            Relinquish, SeedWindows, SetLeaseLossPolicy, Uncount,
        },
        record::{Role, TenantRecord},
    },
};

/// Most tenants that one [`page`] examines.
pub const LOOKS_MAX: usize = 10_000;
/// Most steps of one [`page`]: what one log entry takes.
pub const STEPS_MAX: usize = 1_000;

/// One reconciliation step for one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose that this group is the first home of a new tenant.
    Create(Create),
    /// Propose to follow another home.
    Follow(Follow),
    /// Propose to erase the tenant from this group.
    Erase(Erase),
    /// Propose to be the heir of a move.
    Heir(Heir),
    /// Propose to load idempotency windows anew, to be the heir of a move.
    SeedWindows(SeedWindows),
    /// Propose to be a follower again, because the move is over.
    CancelHeir(CancelHeir),
    /// Propose to hand the tenant over.
    Relinquish(Relinquish),
    /// Propose to refuse a move that is being aborted.
    Refuse(Refuse),
    /// Propose to stop counting the acknowledgements of a leaving member.
    Uncount(Uncount),
    /// Propose to count the acknowledgements of a member again.
    Count(Count),
    /// Propose to stay a member.
    Rejoin(Rejoin),
    /// Propose what this group, the home, does without a lease.
    SetLeaseLossPolicy(SetLeaseLossPolicy),
    /// Propose to take part in a promotion.
    Freeze(Freeze),
    /// Propose to own the tenant at the end of a promotion.
    Activate(Activate),
    /// Propose to go on with the rewind of the tenant's copy.
    ContinueRewind(ContinueRewind),
    /// Report to the directory.
    Report(GroupReport),
}

impl Step {
    /// Returns the tenant of the step.
    pub fn tenant(&self) -> TenantNumber {
        match self {
            Self::Create(create) => create.tenant,
            Self::Follow(follow) => follow.tenant,
            Self::Erase(erase) => erase.tenant,
            Self::Heir(heir) => heir.tenant,
            Self::SeedWindows(seed) => seed.tenant,
            Self::CancelHeir(cancel) => cancel.tenant,
            Self::Relinquish(relinquish) => relinquish.tenant,
            Self::Refuse(refuse) => refuse.tenant,
            Self::Uncount(uncount) => uncount.tenant,
            Self::Count(count) => count.tenant,
            Self::Rejoin(rejoin) => rejoin.tenant,
            Self::SetLeaseLossPolicy(set) => set.tenant,
            Self::Freeze(freeze) => freeze.tenant,
            Self::Activate(activate) => activate.tenant,
            Self::ContinueRewind(rewind) => rewind.tenant,
            Self::Report(report) => report.tenant(),
        }
    }

    /// Returns the command to propose to the group, if it is one.
    pub fn command(&self) -> Option<Bytes> {
        match self {
            Self::Create(create) => Some(create.encode()),
            Self::Follow(follow) => Some(follow.encode()),
            Self::Erase(erase) => Some(erase.encode()),
            Self::Heir(heir) => Some(heir.encode()),
            Self::SeedWindows(seed) => Some(seed.encode()),
            Self::CancelHeir(cancel) => Some(cancel.encode()),
            Self::Relinquish(relinquish) => Some(relinquish.encode()),
            Self::Refuse(refuse) => Some(refuse.encode()),
            Self::Uncount(uncount) => Some(uncount.encode()),
            Self::Count(count) => Some(count.encode()),
            Self::Rejoin(rejoin) => Some(rejoin.encode()),
            Self::SetLeaseLossPolicy(set) => Some(set.encode()),
            Self::Freeze(freeze) => Some(freeze.encode()),
            Self::Activate(activate) => Some(activate.encode()),
            Self::ContinueRewind(rewind) => Some(rewind.encode()),
            Self::Report(_) => None,
        }
    }

    /// Returns the report to the directory, if it is one.
    pub fn report(&self) -> Option<GroupReport> {
        match self {
            Self::Report(report) => Some(report.clone()),
            Self::Create(_)
            | Self::Follow(_)
            | Self::Erase(_)
            | Self::Heir(_)
            | Self::SeedWindows(_)
            | Self::CancelHeir(_)
            | Self::Relinquish(_)
            | Self::Refuse(_)
            | Self::Uncount(_)
            | Self::Count(_)
            | Self::Rejoin(_)
            | Self::SetLeaseLossPolicy(_)
            | Self::Freeze(_)
            | Self::Activate(_)
            | Self::ContinueRewind(_) => None,
        }
    }
}

/// A page of a full reconciliation pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPage {
    /// Steps of the page.
    pub steps: Vec<Step>,
    /// First tenant of the next page; `None` at the end of the pass.
    pub next: Option<TenantNumber>,
}

/// Returns the steps for the tenants from a number on: those of the view and those that the group has records of.
pub fn page(view: &DirectoryView, shard: &Shard, from: TenantNumber, facts: &LeaderFacts<'_>) -> StepPage {
    let mut known = view.tenants_from(from).map(|tenant| tenant.number).peekable();
    let mut held = shard.records_from(from).map(|(number, _)| number).peekable();
    let mut steps = Vec::new();
    for looks in 0.. {
        let Some(number) = known.peek().into_iter().chain(held.peek()).min().copied() else {
            break;
        };
        if looks == LOOKS_MAX || steps.len() == STEPS_MAX {
            return StepPage {
                steps,
                next: Some(number),
            };
        }
        known.next_if_eq(&number);
        held.next_if_eq(&number);
        steps.extend(step(view, shard, number, facts));
    }
    StepPage { steps, next: None }
}

/// Returns the step for one tenant: called after a change of it in the view, of its record, or of the facts.
pub fn step(view: &DirectoryView, shard: &Shard, number: TenantNumber, facts: &LeaderFacts<'_>) -> Option<Step> {
    let record = shard.record(number);
    // Until it has ended, every other command about the tenant fails.
    if record.is_some_and(|record| record.rewind.is_some()) {
        return Some(Step::ContinueRewind(ContinueRewind { tenant: number }));
    }
    if record.is_some_and(|record| record.view_version > view.version()) {
        return None;
    }
    let Some(tenant) = view.tenant(number) else {
        return forgotten(view, number, record?);
    };
    let group = shard.prefix().group;
    match promotion::step(view, tenant, group, record, facts) {
        PromotionStep::Due(step) => return Some(*step),
        PromotionStep::Wait => return None,
        PromotionStep::Other => {}
    }
    if let Some(report) = record.and_then(|record| moves::taken_over(tenant, group, record)) {
        return Some(report);
    }
    match tenant.member(group).map(|member| member.state) {
        Some(MemberState::Erasing) => Some(leave(view, tenant, record)?),
        None => record
            .filter(|record| record.role != Role::Erased)
            .and_then(|record| follow_and_erase(view, tenant, record)),
        Some(MemberState::Staying | MemberState::Returning) if tenant.home == group => {
            own(view, tenant, record).or_else(|| moves::owner(view, tenant, record?, facts))
        }
        Some(MemberState::Staying | MemberState::Returning) => {
            follow(view, tenant, record).or_else(|| moves::follower(view, tenant, group, record?, facts))
        }
        // It is still consulted: what it holds follows the home, but it does not begin.
        Some(MemberState::Leaving) => record.and_then(|record| follow(view, tenant, Some(record))),
    }
}

fn own(view: &DirectoryView, tenant: &Tenant, record: Option<&TenantRecord>) -> Option<Step> {
    // A later epoch begins with a baton or a promotion, never with an empty group.
    (record.is_none() && tenant.lineage.runs().len() == 1 && tenant.epoch == Epoch::FIRST).then(|| {
        Step::Create(Create {
            tenant: tenant.number,
            version: view.version(),
            policy: tenant.on_lease_loss.wanted(),
        })
    })
}

fn follow(view: &DirectoryView, tenant: &Tenant, record: Option<&TenantRecord>) -> Option<Step> {
    let due = record.is_none_or(|record| tenant.epoch > record.epoch && tenant.epoch >= record.promised);
    due.then(|| {
        Step::Follow(Follow {
            tenant: tenant.number,
            version: view.version(),
            home: tenant.home,
            epoch: tenant.epoch,
            lineage: tenant.lineage.clone(),
        })
    })
}

fn leave(view: &DirectoryView, tenant: &Tenant, record: Option<&TenantRecord>) -> Option<Step> {
    match record {
        Some(record) if record.role != Role::Erased => follow_and_erase(view, tenant, record),
        Some(_) | None => Some(Step::Report(GroupReport::Erased(tenant.number))),
    }
}

/// Returns the step of a group that is to hold nothing of a tenant. It follows the recorded home first: what a promotion
/// has cut is in a fork then, which is not erased unless it is named.
fn follow_and_erase(view: &DirectoryView, tenant: &Tenant, record: &TenantRecord) -> Option<Step> {
    let deleted = tenant.state == TenantState::Deleting;
    if !deleted && let Some(step) = follow(view, tenant, Some(record)) {
        return Some(step);
    }
    // Only an operator who names a fork may lose it.
    let may = record.forks.is_empty() && (deleted || record.role != Role::Owner);
    may.then(|| {
        Step::Erase(Erase {
            tenant: tenant.number,
            version: view.version(),
            deleted,
            forks: Vec::new(),
            recorded: (!deleted && view.settings().has_moves()).then_some(tenant.epoch),
        })
    })
}

/// Returns the step for a record of a tenant that the view does not know: every member had reported, and then an old
/// proposal was applied.
fn forgotten(view: &DirectoryView, number: TenantNumber, record: &TenantRecord) -> Option<Step> {
    // Invariant 3: a directory that was recovered from a lost majority may have forgotten tenants that live.
    let known_before = record.view_version.incarnation == view.version().incarnation;
    let may = known_before && record.role != Role::Erased && record.forks.is_empty();
    may.then(|| {
        Step::Erase(Erase {
            tenant: number,
            version: view.version(),
            deleted: true,
            forks: Vec::new(),
            recorded: None,
        })
    })
}
