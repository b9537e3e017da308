//! Output of bulk moves: progress, plans and tenants.

use std::time::Duration;

use serde_json::{Value, json};
use stead_client::{
    BulkMovePlan, BulkMoveProgress, BulkMoveState, BulkMoveTarget, BulkMoveTenant, BulkMoveTenantState, MoveSource,
};

use crate::output::{self, OutputTable};

/// Returns the progress of a bulk move in one line.
pub(super) fn progress_line(progress: &BulkMoveProgress) -> String {
    let BulkMoveProgress {
        selected,
        moving,
        moved,
        failed,
        wave,
        wave_size,
        ..
    } = progress;
    let wave = match wave {
        0 => String::new(),
        wave => format!(", wave {wave} of {wave_size}"),
    };
    format!("{moved} of {selected} moved, {moving} moving, {failed} failed{wave}")
}

/// Returns what a bulk move waits for.
pub(super) fn waiting(progress: &BulkMoveProgress) -> String {
    let line = progress_line(progress);
    match &progress.state {
        BulkMoveState::Running => line,
        BulkMoveState::Paused(reason) => format!("{line}; paused: {reason}"),
        BulkMoveState::Cancelling => format!("{line}; no further moves begin: cancelled"),
    }
}

/// Returns the first failures of a bulk move, one a line.
pub(super) fn failure_lines(failures: &[(String, String)], count: u64) -> Vec<String> {
    let mut lines: Vec<String> = failures
        .iter()
        .map(|(tenant, reason)| format!("failed: {tenant}: {reason}"))
        .collect();
    let left = count.saturating_sub(failures.len() as u64);
    if left > 0 {
        lines.push(format!("failed: {left} more"));
    }
    lines
}

/// Returns the plan of a bulk move, one fact a line.
pub(super) fn plan_lines(plan: &BulkMovePlan) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {} tenants would move, in {} waves",
        plan.selection, plan.tenants, plan.waves
    )];
    let copies = |target: &BulkMoveTarget| match target.copies {
        0 => String::new(),
        copies => format!(", {copies} of them need a copy first"),
    };
    let targets = plan.targets.iter();
    lines.extend(targets.map(|target| {
        let copies = copies(target);
        format!(
            "to {} g{}: {} tenants{copies}",
            target.region, target.group, target.tenants
        )
    }));
    lines.push(format!("homes before: {}", source(plan.source)));
    lines.extend(
        plan.failures
            .iter()
            .map(|(tenant, reason)| format!("stays: {tenant}: {reason}")),
    );
    let left = plan.refused.saturating_sub(plan.failures.len() as u64);
    if left > 0 {
        lines.push(format!("stays: {left} more tenants"));
    }
    lines
}

fn source(source: MoveSource) -> &'static str {
    match source {
        MoveSource::Follow => "they follow",
        MoveSource::Leave => "they leave, and erase their copies",
        MoveSource::Policy => "they follow where the tenants' followers name their regions, else they leave",
    }
}

/// Returns the progress of a bulk move as JSON.
pub(super) fn progress_value(progress: &BulkMoveProgress) -> Value {
    let (state, reason) = match &progress.state {
        BulkMoveState::Running => ("STATE_RUNNING", ""),
        BulkMoveState::Paused(reason) => ("STATE_PAUSED", reason.as_str()),
        BulkMoveState::Cancelling => ("STATE_CANCELLING", ""),
    };
    let seconds = |budget: Duration| format!("{:.3}s", budget.as_secs_f64());
    json!({
        "selection": progress.selection,
        "state": state,
        "pausedReason": reason,
        "selected": progress.selected.to_string(),
        "moving": progress.moving.to_string(),
        "moved": progress.moved.to_string(),
        "failed": progress.failed.to_string(),
        "wave": progress.wave.to_string(),
        "waveSize": progress.wave_size,
        "pace": {
            "canaries": progress.pace.canaries,
            "atOnce": progress.pace.at_once,
            "waveBudget": progress.pace.wave_budget.map(seconds),
        },
        "failures": failures_value(&progress.failures),
    })
}

/// Returns the plan of a bulk move as JSON.
pub(super) fn plan_value(plan: &BulkMovePlan) -> Value {
    let target = |target: &BulkMoveTarget| {
        json!({
            "region": target.region,
            "group": target.group,
            "tenants": target.tenants.to_string(),
            "copies": target.copies.to_string(),
        })
    };
    let source = match plan.source {
        MoveSource::Follow => "SOURCE_FOLLOW",
        MoveSource::Leave => "SOURCE_LEAVE",
        MoveSource::Policy => "SOURCE_UNSPECIFIED",
    };
    json!({
        "selection": plan.selection,
        "tenants": plan.tenants.to_string(),
        "targets": plan.targets.iter().map(target).collect::<Vec<_>>(),
        "waves": plan.waves.to_string(),
        "source": source,
        "refused": plan.refused.to_string(),
        "failures": failures_value(&plan.failures),
        "moves": plan.moves.iter().map(tenant_value).collect::<Vec<_>>(),
    })
}

fn failures_value(failures: &[(String, String)]) -> Vec<Value> {
    let value = |(tenant, reason): &(String, String)| json!({ "tenant": tenant, "reason": reason });
    failures.iter().map(value).collect()
}

/// Returns a table of the tenants of a bulk move.
pub(super) fn tenants_table(tenants: &[BulkMoveTenant]) -> OutputTable {
    let mut table = OutputTable::new(&["TENANT", "STATE", "FROM", "TO", "WHY"], 5);
    for tenant in tenants {
        let place = |region: &str, group: u32| match group {
            0 => region.to_owned(),
            group => format!("{region} g{group}"),
        };
        let cells = vec![
            tenant.tenant.clone(),
            state(tenant.state).1.to_owned(),
            place(&tenant.from_region, tenant.from_group),
            place(&tenant.to_region, tenant.to_group),
            output::display_bytes(tenant.failure.as_bytes(), 120),
        ];
        table.push(cells, tenant_value(tenant));
    }
    table
}

fn tenant_value(tenant: &BulkMoveTenant) -> Value {
    json!({
        "tenant": tenant.tenant,
        "state": state(tenant.state).0,
        "fromRegion": tenant.from_region,
        "fromGroup": tenant.from_group,
        "toRegion": tenant.to_region,
        "toGroup": tenant.to_group,
        "failure": tenant.failure,
    })
}

/// Returns the name of a state for programs and for people.
fn state(state: BulkMoveTenantState) -> (&'static str, &'static str) {
    match state {
        BulkMoveTenantState::Waiting => ("STATE_WAITING", "waiting"),
        BulkMoveTenantState::Moving => ("STATE_MOVING", "moving"),
        BulkMoveTenantState::Moved => ("STATE_MOVED", "moved"),
        BulkMoveTenantState::Failed => ("STATE_FAILED", "failed"),
        BulkMoveTenantState::Other => ("STATE_UNSPECIFIED", "?"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use stead_client::Pace;

    use super::*;

    pub(in super::super) fn progress(state: BulkMoveState) -> BulkMoveProgress {
        BulkMoveProgress {
            selection: "drain of region eu-west".into(),
            state,
            selected: 340,
            moving: 48,
            moved: 15,
            failed: 3,
            wave: 3,
            wave_size: 48,
            pace: Pace::default(),
            failures: vec![("acme".into(), "the tenant was erased".into())],
        }
    }

    #[test]
    fn progress_says_why_it_is_paused() {
        let running = progress(BulkMoveState::Running);
        assert_eq!(waiting(&running), "15 of 340 moved, 48 moving, 3 failed, wave 3 of 48");
        let paused = progress(BulkMoveState::Paused("wave 3 missed its budget".into()));
        assert!(waiting(&paused).ends_with("; paused: wave 3 missed its budget"));
        assert_eq!(progress_value(&paused)["state"], "STATE_PAUSED");
        assert_eq!(
            failure_lines(&paused.failures, paused.failed),
            ["failed: acme: the tenant was erased", "failed: 2 more"]
        );
    }

    #[test]
    fn plan_shows_targets_policy_and_what_stays() {
        let plan = BulkMovePlan {
            selection: "drain of region eu-west".into(),
            tenants: 10,
            targets: vec![BulkMoveTarget {
                region: "us-east".into(),
                group: 5,
                tenants: 10,
                copies: 2,
            }],
            waves: 2,
            source: MoveSource::Follow,
            refused: 1,
            failures: vec![("bound".into(), "residency".into())],
            moves: Vec::new(),
        };
        assert_eq!(
            plan_lines(&plan),
            [
                "drain of region eu-west: 10 tenants would move, in 2 waves",
                "to us-east g5: 10 tenants, 2 of them need a copy first",
                "homes before: they follow",
                "stays: bound: residency",
            ]
        );
    }
}
