//! Promotions as messages: their progress and what they have decided for each tenant.

use std::time::Duration;

use stead_api::{
    convert,
    proto::{
        admin::v1::{
            self as admin, PromoteResponse, PromotedTenant, PromotionOptions, PromotionProgress,
            promoted_tenant::State, promotion_progress::Phase, tenant_copy::Role,
        },
        v1::Durability as DurabilityMessage,
    },
};
use stead_state::{
    directory::{DirectoryView, FrozenReport, LossWindow, Promotion, PromotionItem, PromotionState},
    lease::clock::wait_time,
    shard::record::PreviousRole,
};
use stead_types::{Durability, GroupId, TenantNumber};

use super::{place, region_name, time};

/// Converts the progress of a promotion; its first failures are read elsewhere.
pub(super) fn progress(promotion: &Promotion, is_over: bool) -> PromotionProgress {
    let counts = &promotion.counts;
    let phase = phase(promotion, is_over);
    PromotionProgress {
        selection: promotion.request.selection.to_string(),
        phase: phase.into(),
        tenants: counts.total(),
        promoted: counts.promoted,
        moved: counts.moved,
        fenced: counts.fenced,
        freezing: counts.freezing,
        activating: counts.pulling + counts.activating,
        blocked: counts.blocked,
        replaced: counts.replaced,
        failed: counts.failed,
        waiting: counts.waiting + counts.moving,
        wait_until: wait_until(promotion, phase).map(time),
        failures: Vec::new(),
        options: Some(options(promotion)),
    }
}

fn phase(promotion: &Promotion, is_over: bool) -> Phase {
    let counts = &promotion.counts;
    if is_over {
        Phase::Over
    } else if promotion.is_graceful() {
        Phase::Graceful
    } else if counts.fenced > 0 {
        Phase::Waiting
    } else if counts.blocked > 0 && counts.blocked == counts.in_flight() {
        Phase::Blocked
    } else {
        Phase::TakingOver
    }
}

/// Returns the logged time at which the wait of a phase is over at the latest.
fn wait_until(promotion: &Promotion, phase: Phase) -> Option<u64> {
    match phase {
        Phase::Graceful => Some(promotion.graceful_until),
        Phase::Waiting => Some(promotion.fenced + wait_ms(promotion.lease_ttl_ms)),
        Phase::TakingOver | Phase::Blocked | Phase::Over | Phase::Unspecified => None,
    }
}

/// Returns the longest wait for leases of this ttl.
pub(super) fn wait_ms(lease_ttl_ms: u64) -> u64 {
    let wait = wait_time(Duration::from_millis(lease_ttl_ms));
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn options(promotion: &Promotion) -> PromotionOptions {
    let request = &promotion.request;
    let graceful_for = (request.graceful_ms > 0).then(|| Duration::from_millis(request.graceful_ms));
    PromotionOptions {
        to: request.to.as_ref().map(ToString::to_string).unwrap_or_default(),
        allow_loss: request.allow_loss,
        replace: request.replace,
        durability: match request.durability {
            None => DurabilityMessage::Unspecified,
            Some(Durability::Region) => DurabilityMessage::Region,
            Some(Durability::Remote) => DurabilityMessage::Remote,
        }
        .into(),
        graceful_for: graceful_for.map(convert::read::duration),
        is_down: request.is_down,
    }
}

/// Returns the response of a promotion that has succeeded.
pub(super) fn response(promotion: &Promotion) -> PromoteResponse {
    PromoteResponse {
        promoted: promotion.counts.promoted,
        moved: promotion.counts.moved,
        replaced: promotion.counts.replaced,
    }
}

/// Converts what a promotion has decided for a tenant.
pub(super) fn tenant(
    view: &DirectoryView,
    promotion: &Promotion,
    number: TenantNumber,
    item: &PromotionItem,
) -> PromotedTenant {
    let decision = item.decision.as_ref();
    let at = |ms: u64| (ms > 0).then(|| time(ms));
    let to = match &item.state {
        PromotionState::Moved { to } | PromotionState::Pulling { to, .. } => Some(*to),
        PromotionState::Waiting { .. }
        | PromotionState::Moving
        | PromotionState::Fenced
        | PromotionState::Freezing
        | PromotionState::Blocked { .. }
        | PromotionState::Activating
        | PromotionState::Promoted
        | PromotionState::Replaced { .. }
        | PromotionState::Failed { .. } => decision.map(|decision| decision.home),
    };
    let (loss_from, loss_to) = loss(decision.and_then(|decision| decision.loss));
    let is_moved = matches!(item.state, PromotionState::Moved { .. });
    PromotedTenant {
        tenant: item.name.to_string(),
        number: number.get(),
        state: state(&item.state).into(),
        from: Some(place(view, item.home)),
        to: to.map(|group| place(view, group)),
        epoch: item.epoch.get(),
        kept: decision.map(|decision| convert::id::from_revision(decision.kept)),
        loss_from,
        loss_to,
        reason: reason(item),
        fence_time: at(item.times.fenced),
        wait_over_time: at(item.times.waited),
        choice_time: at(item.times.chosen).filter(|_| !is_moved),
        end_time: at(item.times.ended),
        reports: item
            .reports
            .iter()
            .map(|(group, frozen)| report(view, *group, frozen))
            .collect(),
        nothing_lost: is_moved || decision.is_some_and(|decision| decision.loss.is_none()),
        durability_lowered: decision.is_some_and(|decision| decision.lowers_durability),
        last_renewal_time: promotion.renewals.get(&item.home).copied().map(time),
        ready_time: at(item.times.chosen).filter(|_| is_moved),
    }
}

/// Converts the bounds of a window of loss.
pub(super) fn loss(loss: Option<LossWindow>) -> (Option<prost_types::Timestamp>, Option<prost_types::Timestamp>) {
    let Some(window) = loss else {
        return (None, None);
    };
    (window.from.map(time), window.to.map(time))
}

fn reason(item: &PromotionItem) -> String {
    match &item.state {
        PromotionState::Waiting { reason } | PromotionState::Blocked { reason } | PromotionState::Failed { reason } => {
            reason.clone()
        }
        PromotionState::Replaced { by } => format!("{} has taken its place", convert::operation::name(*by)),
        PromotionState::Moving
        | PromotionState::Fenced
        | PromotionState::Freezing
        | PromotionState::Pulling { .. }
        | PromotionState::Activating
        | PromotionState::Promoted
        | PromotionState::Moved { .. } => {
            let decision = item.decision.as_ref();
            decision.map(|decision| decision.reason.clone()).unwrap_or_default()
        }
    }
}

/// Returns a tenant that a promotion cannot promote, with the reason.
pub(super) fn failure(item: &PromotionItem) -> Option<admin::MoveFailure> {
    let (PromotionState::Blocked { reason } | PromotionState::Failed { reason }) = &item.state else {
        return None;
    };
    Some(admin::MoveFailure {
        tenant: item.name.to_string(),
        reason: reason.clone(),
    })
}

fn state(state: &PromotionState) -> State {
    match state {
        PromotionState::Waiting { .. } => State::Waiting,
        PromotionState::Moving => State::Moving,
        PromotionState::Fenced => State::Fenced,
        PromotionState::Freezing => State::Freezing,
        PromotionState::Blocked { .. } => State::Blocked,
        PromotionState::Pulling { .. } => State::Pulling,
        PromotionState::Activating => State::Activating,
        PromotionState::Promoted => State::Promoted,
        PromotionState::Moved { .. } => State::Moved,
        PromotionState::Replaced { .. } => State::Replaced,
        PromotionState::Failed { .. } => State::Failed,
    }
}

fn report(view: &DirectoryView, group: GroupId, frozen: &FrozenReport) -> admin::FreezeReport {
    let report = &frozen.report;
    admin::FreezeReport {
        place: Some(place(view, group)),
        role: role(report.previous).into(),
        epoch: report.followed.get(),
        revision: Some(convert::id::from_revision(report.revision)),
        suspect: report.suspect,
        fresh_as_of: frozen.fresh_as_of.map(time),
    }
}

/// Converts the role of a group before it was frozen.
pub(super) fn role(role: PreviousRole) -> Role {
    match role {
        PreviousRole::Owner => Role::Owner,
        PreviousRole::Follower => Role::Follower,
        PreviousRole::Relinquished(_) => Role::Relinquished,
        PreviousRole::None => Role::None,
    }
}

/// Returns how a cancelled promotion ended, for people.
pub(super) fn cancelled(promotion: &Promotion) -> String {
    let counts = &promotion.counts;
    format!(
        "cancelled before any tenant was promoted by force: {} of {} were moved and stay there",
        counts.moved,
        counts.total()
    )
}

/// Names a group for people.
pub(super) fn named(view: &DirectoryView, group: GroupId) -> String {
    format!("{} g{}", region_name(view, group), group.get())
}

/// Returns the group that would be the new home.
pub(super) fn chosen(item: &PromotionItem) -> Option<GroupId> {
    let is_chosen = matches!(item.state, PromotionState::Activating | PromotionState::Promoted);
    let decision = item.decision.as_ref().filter(|_| is_chosen);
    decision.map(|decision| decision.home)
}

/// Returns why a tenant would not be promoted, for people; `None`: it would.
pub(super) fn blocker(item: &PromotionItem) -> Option<String> {
    if chosen(item).is_some() {
        return None;
    }
    Some(match &item.state {
        PromotionState::Blocked { reason } | PromotionState::Failed { reason } => reason.clone(),
        PromotionState::Replaced { by } => format!("{} has it", convert::operation::name(*by)),
        PromotionState::Waiting { .. }
        | PromotionState::Moving
        | PromotionState::Fenced
        | PromotionState::Freezing
        | PromotionState::Pulling { .. }
        | PromotionState::Activating
        | PromotionState::Promoted
        | PromotionState::Moved { .. } => {
            "its copies cannot be compared now: not every member that answers has told what it holds".to_owned()
        }
    })
}
