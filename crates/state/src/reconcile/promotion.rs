//! Steps of promotions: members freeze and report, and the chosen group activates.
//!
//! None of them needs a lease: a freeze only takes rights away, and what an activated group may serve is decided by the
//! serving check. All need a view that shows the phase that they belong to.

use stead_types::GroupId;

use super::{LeaderFacts, Step};
use crate::{
    directory::{DirectoryView, GroupReport, MemberState, PromotionPhase, Tenant, TenantPromotion},
    shard::{
        command::{Activate, Freeze},
        ownership::freeze_report,
        record::{PreviousRole, Role, TenantRecord},
    },
};

/// Part of a group in a promotion, at the phase that its view shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PromotionStep {
    /// This step is due.
    Due(Box<Step>),
    /// Nothing is due, and nothing else may be done meanwhile.
    Wait,
    /// The promotion asks nothing of this group: the other rules say what is due.
    Other,
}

/// Returns what a promotion in flight asks of a group.
pub(super) fn step(
    view: &DirectoryView,
    tenant: &Tenant,
    group: GroupId,
    record: Option<&TenantRecord>,
    facts: &LeaderFacts<'_>,
) -> PromotionStep {
    let Some(promotion) = tenant.promoting.as_deref() else {
        return PromotionStep::Other;
    };
    let is_member = tenant
        .member(group)
        .is_some_and(|member| member.state != MemberState::Erasing);
    if !is_member {
        return PromotionStep::Other;
    }
    let step = match &promotion.phase {
        PromotionPhase::Fenced if !freezes_at_once(promotion, tenant.home == group, record) => {
            return PromotionStep::Other;
        }
        PromotionPhase::Fenced | PromotionPhase::Freezing | PromotionPhase::Pulling { .. } => {
            match frozen(view, tenant, promotion, record, facts) {
                Some(Step::Report(_)) if !is_report_due(tenant, promotion, group, facts) => None,
                step => step,
            }
        }
        PromotionPhase::Activating { .. } if tenant.home == group => activate(view, tenant, promotion, record),
        PromotionPhase::Activating { .. } => return PromotionStep::Other,
    };
    step.map_or(PromotionStep::Wait, |step| PromotionStep::Due(Box::new(step)))
}

/// Tells whether a group freezes as soon as the tenant is fenced: its own log says that it may own an epoch below the
/// fence, or has handed one over, so that its freeze fences it. The others go on following until nobody can serve.
fn freezes_at_once(promotion: &TenantPromotion, is_home: bool, record: Option<&TenantRecord>) -> bool {
    record.is_some_and(|record| match record.role {
        Role::Owner | Role::Relinquished { .. } => record.epoch < promotion.epoch,
        Role::Frozen {
            operation,
            epoch,
            previous,
        } => {
            let has_done_so = operation == promotion.operation && epoch == promotion.epoch;
            // This promotion has replaced another one, for which the group froze in its place, or that chose it.
            let could_own = is_home || matches!(previous, PreviousRole::Owner | PreviousRole::Relinquished(_));
            has_done_so || could_own
        }
        Role::Follower { .. } | Role::Heir { .. } | Role::Erased => false,
    })
}

/// Tells whether the directory lacks the report of a frozen group. One that takes changes over reports again once it has
/// them all.
fn is_report_due(tenant: &Tenant, promotion: &TenantPromotion, group: GroupId, facts: &LeaderFacts<'_>) -> bool {
    match promotion.phase {
        PromotionPhase::Pulling { from, to } if to == group => {
            (facts.has_pulled)(tenant.number, promotion.operation, from)
        }
        PromotionPhase::Fenced
        | PromotionPhase::Freezing
        | PromotionPhase::Pulling { .. }
        | PromotionPhase::Activating { .. } => !promotion.has_reported(group),
    }
}

/// Returns the freeze of a member, or what it reports once it is frozen.
fn frozen(
    view: &DirectoryView,
    tenant: &Tenant,
    promotion: &TenantPromotion,
    record: Option<&TenantRecord>,
    facts: &LeaderFacts<'_>,
) -> Option<Step> {
    let promised = record.map(|record| record.promised);
    if promised.is_none_or(|promised| promised < promotion.epoch) {
        return Some(Step::Freeze(Freeze {
            tenant: tenant.number,
            version: view.version(),
            operation: promotion.operation,
            epoch: promotion.epoch,
            lineage: tenant.lineage.clone(),
        }));
    }
    let report = freeze_report(record?)?;
    let is_of_promotion = report.operation == promotion.operation && report.epoch == promotion.epoch;
    is_of_promotion.then(|| {
        Step::Report(GroupReport::Frozen {
            tenant: tenant.number,
            report,
            fresh_as_of: (facts.fresh_as_of)(tenant.number, promotion.operation),
            reported: view.settings().has_report_times().then_some(facts.wall),
        })
    })
}

/// Returns the activation of the chosen group, or its report that it owns the tenant.
fn activate(
    view: &DirectoryView,
    tenant: &Tenant,
    promotion: &TenantPromotion,
    record: Option<&TenantRecord>,
) -> Option<Step> {
    let PromotionPhase::Activating { kept, time } = promotion.phase else {
        return None;
    };
    let record = record?;
    if record.owned() == Some(promotion.epoch) {
        return Some(Step::Report(GroupReport::Activated {
            tenant: tenant.number,
            operation: promotion.operation,
            epoch: promotion.epoch,
        }));
    }
    let is_frozen = matches!(
        record.role,
        Role::Frozen { operation, epoch, .. } if operation == promotion.operation && epoch == promotion.epoch
    );
    let uncounted = |state: MemberState| !matches!(state, MemberState::Staying);
    let members = tenant.members.iter().filter(|member| uncounted(member.state));
    is_frozen.then(|| {
        Step::Activate(Activate {
            tenant: tenant.number,
            version: view.version(),
            home: tenant.home,
            epoch: promotion.epoch,
            kept,
            time,
            policy: tenant.on_lease_loss.wanted(),
            uncounted: members.map(|member| member.group).collect(),
        })
    })
}
