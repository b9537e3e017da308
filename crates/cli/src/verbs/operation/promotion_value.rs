//! Promotions as JSON, and the names of their parts for programs and for people.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stead_client::{
    CopyRole, FreezeReport, LossWindow, Place, PlannedPromotion, PromotedState, PromotedTenant, PromotionHome,
    PromotionPhase, PromotionPlan, PromotionProgress, PromotionReport, TenantCopy,
};

/// Returns a report as JSON, without its digest.
pub(super) fn report_value(report: &PromotionReport) -> Value {
    json!({
        "operation": super::display::value(&report.operation),
        "tenants": report.tenants.iter().map(tenant_value).collect::<Vec<_>>(),
        // No group reports the digest of its copy when it freezes.
        "tenantDigests": "not reported by the frozen groups",
    })
}

fn place_value(place: &Option<Place>) -> Value {
    place.as_ref().map_or(
        Value::Null,
        |place| json!({ "region": place.region, "group": place.group }),
    )
}

/// Returns what was decided for a tenant as JSON.
pub(super) fn tenant_value(tenant: &PromotedTenant) -> Value {
    let report = |report: &FreezeReport| {
        json!({
            "place": place_value(&report.place),
            "role": role(report.role).0,
            "epoch": report.epoch,
            "revision": report.revision.map(|revision| revision.to_string()),
            "suspect": report.suspect,
            "freshAsOf": report.fresh_as_of.map(clock),
        })
    };
    let (from, to) = bounds(&tenant.loss);
    json!({
        "tenant": tenant.tenant,
        "number": tenant.number.to_string(),
        "state": state(tenant.state).0,
        "from": place_value(&tenant.from),
        "to": place_value(&tenant.to),
        "epoch": tenant.epoch,
        "kept": tenant.kept.map(|kept| kept.to_string()),
        "nothingLost": tenant.loss == LossWindow::None,
        "lossFrom": from.map(clock),
        "lossTo": to.map(clock),
        "reason": tenant.reason,
        "durabilityLowered": tenant.durability_lowered,
        "fenceTime": tenant.times.fenced.map(clock),
        "waitOverTime": tenant.times.waited.map(clock),
        "choiceTime": tenant.times.chosen.map(clock),
        "endTime": tenant.times.ended.map(clock),
        "lastRenewalTime": tenant.times.last_renewal.map(clock),
        "readyTime": tenant.times.ready.map(clock),
        "reports": tenant.reports.iter().map(report).collect::<Vec<_>>(),
    })
}

/// Returns the progress of a promotion as JSON.
pub(super) fn progress_value(progress: &PromotionProgress) -> Value {
    let failure = |(tenant, reason): &(String, String)| json!({ "tenant": tenant, "reason": reason });
    json!({
        "selection": progress.selection,
        "phase": match progress.phase {
            PromotionPhase::Graceful => "PHASE_GRACEFUL",
            PromotionPhase::Waiting => "PHASE_WAITING",
            PromotionPhase::TakingOver => "PHASE_TAKING_OVER",
            PromotionPhase::Blocked => "PHASE_BLOCKED",
            PromotionPhase::Over => "PHASE_OVER",
            PromotionPhase::Other => "PHASE_UNSPECIFIED",
        },
        "tenants": progress.tenants.to_string(),
        "promoted": progress.promoted.to_string(),
        "moved": progress.moved.to_string(),
        "fenced": progress.fenced.to_string(),
        "freezing": progress.freezing.to_string(),
        "activating": progress.activating.to_string(),
        "blocked": progress.blocked.to_string(),
        "replaced": progress.replaced.to_string(),
        "failed": progress.failed.to_string(),
        "waiting": progress.waiting.to_string(),
        "waitUntil": progress.wait_until.map(clock),
        "failures": progress.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

/// Returns the plan of a promotion as JSON.
pub(super) fn plan_value(plan: &PromotionPlan) -> Value {
    let home = |home: &PromotionHome| {
        json!({
            "place": { "region": home.place.region, "group": home.place.group },
            "tenants": home.tenants.to_string(),
            "voters": home.voters,
            "votersAnswering": home.voters_answering,
            "healthy": home.healthy,
        })
    };
    let target = |(target, tenants): &(Place, u64)| json!({ "place": { "region": target.region, "group": target.group }, "tenants": tenants.to_string() });
    json!({
        "selection": plan.selection,
        "tenants": plan.tenants.to_string(),
        "homes": plan.homes.iter().map(home).collect::<Vec<_>>(),
        "targets": plan.targets.iter().map(target).collect::<Vec<_>>(),
        "waitMax": plan.wait_max.map(seconds),
        "waitLeft": plan.wait_left.map(seconds),
        "tenantsAtRisk": plan.tenants_at_risk.to_string(),
        "tenantsBlocked": plan.tenants_blocked.to_string(),
        "advice": plan.advice,
        "optionsNeeded": plan.options_needed,
        "items": plan.items.iter().map(item_value).collect::<Vec<_>>(),
        "blockers": plan.blockers,
    })
}

/// Returns a tenant that would be promoted as JSON.
pub(in crate::verbs) fn item_value(item: &PlannedPromotion) -> Value {
    let copy = |copy: &TenantCopy| {
        json!({
            "place": place_value(&copy.place),
            "silent": copy.silent,
            "role": role(copy.role).0,
            "epoch": copy.epoch,
            "revision": copy.revision.map(|revision| revision.to_string()),
            "staleness": copy.staleness.map(seconds),
            "suspect": copy.suspect,
        })
    };
    let (from, to) = bounds(&item.loss);
    json!({
        "tenant": item.tenant,
        "from": place_value(&item.from),
        "to": place_value(&item.to),
        "kept": item.kept.map(|kept| kept.to_string()),
        "nothingLost": item.loss == LossWindow::None,
        "lossFrom": from.map(clock),
        "lossTo": to.map(clock),
        "blocker": item.blocker,
        "optionsNeeded": item.options_needed,
        "copies": item.copies.iter().map(copy).collect::<Vec<_>>(),
    })
}

/// Returns the name of a part for programs and for people.
pub(super) fn role(role: CopyRole) -> (&'static str, &'static str) {
    match role {
        CopyRole::None => ("ROLE_NONE", "no copy"),
        CopyRole::Owner => ("ROLE_OWNER", "home"),
        CopyRole::Follower => ("ROLE_FOLLOWER", "follower"),
        CopyRole::Relinquished => ("ROLE_RELINQUISHED", "handed over"),
        CopyRole::Frozen => ("ROLE_FROZEN", "frozen"),
        CopyRole::Other => ("ROLE_UNSPECIFIED", "?"),
    }
}

/// Returns the name of a state for programs and for people.
pub(super) fn state(state: PromotedState) -> (&'static str, &'static str) {
    match state {
        PromotedState::Moving => ("STATE_MOVING", "moving"),
        PromotedState::Fenced => ("STATE_FENCED", "waits for leases"),
        PromotedState::Freezing => ("STATE_FREEZING", "is compared"),
        PromotedState::Pulling => ("STATE_PULLING", "pulls"),
        PromotedState::Activating => ("STATE_ACTIVATING", "takes over"),
        PromotedState::Promoted => ("STATE_PROMOTED", "promoted"),
        PromotedState::Moved => ("STATE_MOVED", "moved"),
        PromotedState::Blocked => ("STATE_BLOCKED", "blocked"),
        PromotedState::Replaced => ("STATE_REPLACED", "replaced"),
        PromotedState::Failed => ("STATE_FAILED", "failed"),
        PromotedState::Waiting => ("STATE_WAITING", "waiting"),
        PromotedState::Other => ("STATE_UNSPECIFIED", "?"),
    }
}

/// Returns the bounds of a window of loss.
pub(super) fn bounds(loss: &LossWindow) -> (Option<SystemTime>, Option<SystemTime>) {
    match loss {
        LossWindow::None => (None, None),
        LossWindow::Between(from, to) => (*from, *to),
    }
}

/// Formats a time.
pub(in crate::verbs) fn clock(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
