//! Promotions: options, progress, plans and reports.

use std::time::{Duration, SystemTime};

use stead_api::{
    convert,
    proto::{
        admin::v1::{self, promotion_progress, tenant_copy},
        v1::Revision as RevisionMessage,
    },
};
use stead_types::{Error, Revision};

use super::place::{Place, place};
use crate::Durability;

/// Tenants that are promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromotionSelection {
    /// Those whose home is in a region, or that move there.
    Region(String),
    /// Those whose home is a group, or that move there.
    Group(u32),
    /// Those of these names.
    Tenants(Vec<String>),
}

/// Request for a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionRequest {
    /// Tenants that are promoted.
    pub selection: PromotionSelection,
    /// Region of the new homes; `None`: the group that has most of each tenant.
    pub to: Option<String>,
    /// Whether acknowledged writes may be cut that only groups which cannot be asked may hold.
    pub allow_loss: bool,
    /// Whether another promotion that is in flight is replaced.
    pub replace: bool,
    /// REGION: whether tenants may stay without a follower that their default needs.
    pub durability: Option<Durability>,
    /// Time in which planned moves are tried first.
    pub graceful_for: Option<Duration>,
    /// Whether homes that answer are promoted all the same.
    pub even_if_healthy: bool,
    /// The operator's word that the homes are down, which tenants need that go on without a lease.
    pub is_down: bool,
    /// Reason, for the audit log and the operation.
    pub reason: String,
    /// Whether to plan only; the operation has a plan then, and no name.
    pub dry_run: bool,
}

/// Forecast of a promotion, as far as the nodes know: never better than the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionPlan {
    /// Tenants that are promoted, in words.
    pub selection: String,
    /// Tenants that were selected.
    pub tenants: u64,
    /// Their homes.
    pub homes: Vec<PromotionHome>,
    /// Groups to which they would go, each with their number.
    pub targets: Vec<(Place, u64)>,
    /// Longest wait after the fence.
    pub wait_max: Option<Duration>,
    /// Rest of the wait now, if the directory's leader has told.
    pub wait_left: Option<Duration>,
    /// Tenants of which acknowledged writes may be lost.
    pub tenants_at_risk: u64,
    /// Tenants that would not be promoted as requested.
    pub tenants_blocked: u64,
    /// Advice before the promotion.
    pub advice: Vec<String>,
    /// Options that would unblock what is blocked.
    pub options_needed: Vec<String>,
    /// Tenants, those that are blocked first, then those at risk.
    pub items: Vec<PlannedPromotion>,
    /// Why nothing would be promoted at all.
    pub blockers: Vec<String>,
}

/// Home of tenants that would be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionHome {
    /// The group.
    pub place: Place,
    /// Selected tenants whose home it is.
    pub tenants: u64,
    /// Voters of the group.
    pub voters: u32,
    /// Those of them that answer.
    pub voters_answering: u32,
    /// Whether a leader with a majority answers.
    pub healthy: bool,
}

/// Tenant that would be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPromotion {
    /// Name of the tenant.
    pub tenant: String,
    /// Home now.
    pub from: Option<Place>,
    /// Home afterwards, if there is one.
    pub to: Option<Place>,
    /// Last change that would be kept.
    pub kept: Option<Revision>,
    /// Window of time in which lost acknowledgements can lie.
    pub loss: LossWindow,
    /// Why it would not be promoted; empty: it would.
    pub blocker: String,
    /// Options that would unblock it.
    pub options_needed: Vec<String>,
    /// Copies of its members.
    pub copies: Vec<TenantCopy>,
}

/// Window of time in which acknowledged writes may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossWindow {
    /// Nothing can be lost.
    None,
    /// Acknowledgements in it may be lost; `None`: that bound is not known.
    Between(Option<SystemTime>, Option<SystemTime>),
}

/// Copy of a tenant in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantCopy {
    /// The group.
    pub place: Option<Place>,
    /// Whether the group does not answer: nothing else is known then.
    pub silent: bool,
    /// Part of the group.
    pub role: CopyRole,
    /// Epoch that it owns or follows.
    pub epoch: u32,
    /// Last change of the copy.
    pub revision: Option<Revision>,
    /// How old the copy is at most.
    pub staleness: Option<Duration>,
    /// Whether its digest differed from the home's.
    pub suspect: bool,
}

/// Part of a group that holds a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRole {
    /// It has none.
    None,
    /// It owns the tenant.
    Owner,
    /// It follows.
    Follower,
    /// It has handed the tenant over.
    Relinquished,
    /// It is frozen.
    Frozen,
    /// Unknown, or a part of a newer version.
    Other,
}

/// Phase of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionPhase {
    /// Planned moves are tried first.
    Graceful,
    /// The leases of the homes run out.
    Waiting,
    /// New homes are chosen and take over.
    TakingOver,
    /// All tenants that are left are blocked.
    Blocked,
    /// It is over.
    Over,
    /// A phase of a newer version.
    Other,
}

/// How far a promotion is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionProgress {
    /// Tenants that are promoted, in words.
    pub selection: String,
    /// Phase.
    pub phase: PromotionPhase,
    /// Tenants that were selected.
    pub tenants: u64,
    /// Tenants whose new home serves.
    pub promoted: u64,
    /// Tenants that a planned move has moved.
    pub moved: u64,
    /// Tenants that wait for leases to run out.
    pub fenced: u64,
    /// Tenants whose copies freeze and are compared.
    pub freezing: u64,
    /// Tenants whose new home takes over.
    pub activating: u64,
    /// Tenants that are blocked.
    pub blocked: u64,
    /// Tenants that other promotions have taken over.
    pub replaced: u64,
    /// Tenants that were not promoted.
    pub failed: u64,
    /// Tenants that are to be moved or promoted, or that a planned move moves.
    pub waiting: u64,
    /// Time at which the wait of this phase is over at the latest.
    pub wait_until: Option<SystemTime>,
    /// The first tenants that are blocked, with reasons.
    pub failures: Vec<(String, String)>,
}

/// Tenants of a promotion that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Tenants whose new home serves.
    pub promoted: u64,
    /// Tenants that a planned move has moved.
    pub moved: u64,
    /// Tenants that other promotions have taken over.
    pub replaced: u64,
}

impl PromotionRequest {
    /// Returns a request without options.
    pub fn new(selection: PromotionSelection) -> Self {
        Self {
            selection,
            to: None,
            allow_loss: false,
            replace: false,
            durability: None,
            graceful_for: None,
            even_if_healthy: false,
            is_down: false,
            reason: String::new(),
            dry_run: false,
        }
    }

    pub(super) fn message(self) -> v1::PromoteRequest {
        use v1::promote_request::{Names, Selection};
        v1::PromoteRequest {
            selection: Some(match self.selection {
                PromotionSelection::Region(region) => Selection::Region(region),
                PromotionSelection::Group(group) => Selection::Group(group),
                PromotionSelection::Tenants(tenants) => Selection::Tenants(Names { tenants }),
            }),
            to: self.to.unwrap_or_default(),
            allow_loss: self.allow_loss,
            replace: self.replace,
            durability: Durability::message(self.durability),
            graceful_for: self.graceful_for.map(convert::read::duration),
            even_if_healthy: self.even_if_healthy,
            is_down: self.is_down,
            reason: self.reason,
            validate_only: self.dry_run,
        }
    }
}

impl LossWindow {
    pub(super) fn new(nothing: bool, from: Option<SystemTime>, to: Option<SystemTime>) -> Self {
        if nothing {
            return Self::None;
        }
        Self::Between(from, to)
    }

    /// Returns its length, if both bounds are known.
    pub fn length(&self) -> Option<Duration> {
        match self {
            Self::None => Some(Duration::ZERO),
            Self::Between(from, to) => to.as_ref()?.duration_since((*from)?).ok(),
        }
    }
}

pub(super) fn time(time: Option<impl TryInto<SystemTime>>) -> Option<SystemTime> {
    time.and_then(|time| time.try_into().ok())
}

pub(super) fn duration(duration: Option<impl TryInto<Duration>>) -> Option<Duration> {
    duration.and_then(|duration| duration.try_into().ok())
}

pub(super) fn revision(revision: Option<RevisionMessage>) -> Result<Option<Revision>, Error> {
    revision
        .map(|revision| convert::id::revision("revision", revision))
        .transpose()
}

fn failure(failure: v1::MoveFailure) -> (String, String) {
    (failure.tenant, failure.reason)
}

/// Reads the plan of a promotion.
pub(super) fn plan(plan: v1::PromotionPlan) -> Result<PromotionPlan, Error> {
    let home = |home: v1::promotion_plan::Home| {
        Some(PromotionHome {
            place: place(home.place?),
            tenants: home.tenants,
            voters: home.voters,
            voters_answering: home.voters_answering,
            healthy: home.healthy,
        })
    };
    let target = |target: v1::promotion_plan::Target| Some((place(target.place?), target.tenants));
    Ok(PromotionPlan {
        selection: plan.selection,
        tenants: plan.tenants,
        homes: plan.homes.into_iter().filter_map(home).collect(),
        targets: plan.targets.into_iter().filter_map(target).collect(),
        wait_max: duration(plan.wait_max),
        wait_left: duration(plan.wait_left),
        tenants_at_risk: plan.tenants_at_risk,
        tenants_blocked: plan.tenants_blocked,
        advice: plan.advice,
        options_needed: plan.options_needed,
        items: plan.items.into_iter().map(planned).collect::<Result<_, _>>()?,
        blockers: plan.blockers,
    })
}

pub(super) fn planned(item: v1::PlannedPromotion) -> Result<PlannedPromotion, Error> {
    Ok(PlannedPromotion {
        tenant: item.tenant,
        from: item.from.map(place),
        to: item.to.map(place),
        kept: revision(item.kept)?,
        loss: LossWindow::new(item.nothing_lost, time(item.loss_from), time(item.loss_to)),
        blocker: item.blocker,
        options_needed: item.options_needed,
        copies: item.copies.into_iter().map(copy).collect::<Result<_, _>>()?,
    })
}

fn copy(copy: v1::TenantCopy) -> Result<TenantCopy, Error> {
    Ok(TenantCopy {
        silent: copy.silent,
        role: role(copy.role()),
        epoch: copy.epoch,
        revision: revision(copy.revision)?,
        staleness: duration(copy.staleness),
        suspect: copy.suspect,
        place: copy.place.map(place),
    })
}

pub(super) fn role(role: tenant_copy::Role) -> CopyRole {
    use tenant_copy::Role;
    match role {
        Role::None => CopyRole::None,
        Role::Owner => CopyRole::Owner,
        Role::Follower => CopyRole::Follower,
        Role::Relinquished => CopyRole::Relinquished,
        Role::Frozen => CopyRole::Frozen,
        Role::Unspecified => CopyRole::Other,
    }
}

/// Reads the progress of a promotion.
pub(super) fn progress(progress: v1::PromotionProgress) -> PromotionProgress {
    use promotion_progress::Phase;
    PromotionProgress {
        phase: match progress.phase() {
            Phase::Graceful => PromotionPhase::Graceful,
            Phase::Waiting => PromotionPhase::Waiting,
            Phase::TakingOver => PromotionPhase::TakingOver,
            Phase::Blocked => PromotionPhase::Blocked,
            Phase::Over => PromotionPhase::Over,
            Phase::Unspecified => PromotionPhase::Other,
        },
        selection: progress.selection,
        tenants: progress.tenants,
        promoted: progress.promoted,
        moved: progress.moved,
        fenced: progress.fenced,
        freezing: progress.freezing,
        activating: progress.activating,
        blocked: progress.blocked,
        replaced: progress.replaced,
        failed: progress.failed,
        waiting: progress.waiting,
        wait_until: time(progress.wait_until),
        failures: progress.failures.into_iter().map(failure).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_window_is_known_only_with_both_bounds() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(LossWindow::new(true, at(1), at(2)), LossWindow::None);
        let window = LossWindow::new(false, at(10), at(25));
        assert_eq!(window.length(), Some(Duration::from_secs(15)));
        let unknown = LossWindow::new(false, None, at(25));
        assert_ne!(unknown, LossWindow::None);
        assert_eq!(unknown.length(), None);
    }

    #[test]
    fn planned_tenant_with_invalid_revision_is_refused() {
        let item = v1::PlannedPromotion {
            kept: Some(RevisionMessage {
                epoch: u32::MAX,
                sequence: 1,
            }),
            ..v1::PlannedPromotion::default()
        };
        assert!(planned(item).is_err());
    }
}
