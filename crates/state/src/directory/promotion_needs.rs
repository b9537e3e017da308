//! Work of the directory's leader for promotions in flight. It follows from the directory alone, so that a new
//! leader goes on where the last one was.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::{GroupId, TenantNumber};

use super::{Directory, Promotion, PromotionItem, PromotionPhase, PromotionState, Tenant, TenantPromotion};
use crate::lease::{grantor::AppliedFence, waiter::PossibleOwners};

/// Work of the directory's leader for a promotion in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionNeeds {
    /// Number of the operation.
    pub operation: u64,
    /// The last fence, with the groups that could own a tenant that is still waited for: begin a wait, once for this
    /// version, and propose [`super::PromotionAdvance::WaitOver`] with it until there is none.
    pub fence: Option<AppliedFence>,
    /// The last lease renewals of the owners are to be told: propose [`super::PromotionAdvance::Renewals`], once.
    pub tells_renewals: bool,
    /// Tenants are to be moved: propose [`super::PromotionAdvance::Move`].
    pub moves: bool,
    /// Logged time from which on [`super::PromotionAdvance::GracefulOver`] is to be proposed, until there is none.
    pub graceful_until: Option<u64>,
    /// Groups whose reports are due, with how many of them, and with how far those are that take over what others have more:
    /// propose [`super::PromotionAdvance::Silent`] with those that do not answer. A group that answers while new reports
    /// become due, or that gets further, shows by the number.
    pub due: BTreeMap<GroupId, u64>,
    /// Those that it has been told of.
    pub silent: BTreeSet<GroupId>,
    /// Tenants are still to be examined: propose [`super::PromotionAdvance::Silent`] with `silent`, or with others.
    pub examines: bool,
}

impl PromotionNeeds {
    /// Tells whether its leader only waits for reports of groups that it has been told do not answer.
    pub fn is_idle(&self) -> bool {
        let is_told = self.due.keys().all(|group| self.silent.contains(group));
        self.fence.is_none() && !self.moves && self.graceful_until.is_none() && !self.examines && is_told
    }
}

impl Directory {
    /// Returns what the leader has to do for promotions in flight.
    pub fn promotions_in_flight(&self) -> impl Iterator<Item = PromotionNeeds> + '_ {
        let in_flight = self.operations.promotions().in_flight();
        in_flight.filter_map(|id| Some(self.needs_of(id, self.operations.promotion(id)?)))
    }

    fn needs_of(&self, id: u64, promotion: &Promotion) -> PromotionNeeds {
        let mut needs = PromotionNeeds {
            operation: id,
            fence: None,
            tells_renewals: false,
            moves: promotion.moves_next() > 0,
            graceful_until: Some(promotion.graceful_until).filter(|_| promotion.is_graceful()),
            due: BTreeMap::new(),
            silent: promotion.silent.clone(),
            examines: promotion.cursor != u64::MAX,
        };
        let mut owners: Option<PossibleOwners> = None;
        for (number, item) in self.operations.promotions().open(id) {
            let Some((tenant, promoting)) = self.promoted_by(id, number) else {
                continue;
            };
            if item.state == PromotionState::Fenced {
                let possible = possible_owners(tenant, promoting);
                match &mut owners {
                    Some(owners) => owners.extend(possible),
                    None => owners = Some(possible),
                }
            }
            for group in due(tenant, promoting, item) {
                *needs.due.entry(group).or_default() += 1 + progress(promoting, item, group);
            }
        }
        needs.fence = owners.map(|owners| AppliedFence {
            version: promotion.fence,
            owners,
            ttl: Duration::from_millis(promotion.lease_ttl_ms),
        });
        needs.tells_renewals =
            needs.fence.is_some() && promotion.renewals.is_empty() && self.view.settings().has_region_loss();
        needs
    }

    /// Returns a tenant that an operation promotes, and its promotion.
    pub(super) fn promoted_by(&self, id: u64, number: TenantNumber) -> Option<(&Tenant, &TenantPromotion)> {
        let tenant = &**self.view.tenant(number)?;
        let promoting = tenant.promoting.as_deref()?;
        (promoting.of == id).then_some((tenant, promoting))
    }
}

/// Returns the groups that could own an epoch below a tenant's fence.
fn possible_owners(tenant: &Tenant, promoting: &TenantPromotion) -> PossibleOwners {
    let replaced = promoting.replaced.iter().map(|replaced| replaced.to);
    PossibleOwners::new(tenant.home, None, replaced)
}

/// Returns how far a group is that takes over what another one has more, by the last sequence that it has told.
fn progress(promoting: &TenantPromotion, item: &PromotionItem, group: GroupId) -> u64 {
    match promoting.phase {
        PromotionPhase::Pulling { to, .. } if to == group => {
            let held = item.reports.get(&group);
            held.map_or(0, |held| held.report.revision.sequence().get())
        }
        PromotionPhase::Fenced
        | PromotionPhase::Freezing
        | PromotionPhase::Pulling { .. }
        | PromotionPhase::Activating { .. } => 0,
    }
}

/// Returns the groups whose freeze reports a tenant's promotion waits for. As long as leases may run those of groups that
/// may own it are: the lease wait is long enough to see that such a group is silent.
fn due(tenant: &Tenant, promoting: &TenantPromotion, item: &PromotionItem) -> Vec<GroupId> {
    let held = |group: GroupId| item.reports.get(&group).map(|frozen| frozen.report.revision);
    let members = tenant.members.iter().map(|member| member.group);
    let missing = members.filter(|group| tenant.consults(*group) && !promoting.has_reported(*group));
    match promoting.phase {
        PromotionPhase::Fenced => missing.filter(|group| *group == tenant.home).collect(),
        PromotionPhase::Freezing => missing.collect(),
        // Once it has reported what it took over, others may still be waited for.
        PromotionPhase::Pulling { from, to } => missing.chain((held(to) < held(from)).then_some(to)).collect(),
        PromotionPhase::Activating { .. } => Vec::new(),
    }
}
