//! Output of bulk moves: progress, plans and tenants.

use std::time::Duration;

use serde_json::{Value, json};
use stead_client::{
    BulkMovePlan, BulkMoveProgress, BulkMoveState, BulkMoveTarget, BulkMoveTenant, BulkMoveTenantState, LossWindow,
    MoveSource, RehearsedTenant,
};

use super::promotion_value;
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
        away,
        ..
    } = progress;
    let wave = match wave {
        0 => String::new(),
        wave => format!(", wave {wave} of {wave_size}"),
    };
    let away = match away {
        0 => String::new(),
        away => format!(", {away} away"),
    };
    format!("{moved} of {selected} moved, {moving} moving, {failed} failed{away}{wave}")
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
        "{}: {} would move, in {}",
        plan.selection,
        output::count(plan.tenants, "tenant"),
        output::count(plan.waves, "wave")
    )];
    let copies = |target: &BulkMoveTarget| match target.copies {
        0 => String::new(),
        copies => format!(", {copies} of them need a copy first"),
    };
    let targets = plan.targets.iter();
    lines.extend(targets.map(|target| {
        let copies = copies(target);
        format!(
            "to {} g{}: {}{copies}",
            target.region,
            target.group,
            output::count(target.tenants, "tenant")
        )
    }));
    lines.push(format!("homes before: {}", source(plan.source)));
    lines.extend(figures_line(plan));
    lines.extend(plan.advice.iter().map(|advice| format!("first: {advice}")));
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

/// Says what is copied first, how far targets are behind, and how long writes pause, as far as it is known.
fn figures_line(plan: &BulkMovePlan) -> Option<String> {
    let copied = plan
        .copy_bytes
        .map(|bytes| format!("{} copied first", output::size(bytes)));
    let lag = plan
        .lag
        .map(|lag| format!("targets at most {} behind", output::duration(lag)));
    let pause = plan
        .pause
        .map(|pause| format!("writes of each pause about {}", output::duration(pause)));
    let known: Vec<String> = copied.into_iter().chain(lag).chain(pause).collect();
    (!known.is_empty() && plan.tenants > 0).then(|| known.join(", "))
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
        "away": progress.away.to_string(),
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
        "copyBytes": plan.copy_bytes.map(|bytes| bytes.to_string()),
        "lag": plan.lag.map(seconds),
        "pause": plan.pause.map(seconds),
        "advice": plan.advice,
    })
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

fn failures_value(failures: &[(String, String)]) -> Vec<Value> {
    let value = |(tenant, reason): &(String, String)| json!({ "tenant": tenant, "reason": reason });
    failures.iter().map(value).collect()
}

/// Returns a table of the tenants of a bulk move.
pub(super) fn tenants_table(tenants: &[BulkMoveTenant]) -> OutputTable {
    if tenants.iter().any(|tenant| tenant.rehearsal.is_some()) {
        return rehearsal_table(tenants);
    }
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

/// Returns a table of the tenants of a rehearsal: what was measured, and what a promotion would have done.
fn rehearsal_table(tenants: &[BulkMoveTenant]) -> OutputTable {
    let columns = &[
        "TENANT",
        "STATE",
        "PAUSE THERE",
        "PAUSE BACK",
        "TOOK THERE",
        "TOOK BACK",
        "PROMOTION TO",
        "COPY AGE",
        "LOSS WINDOW",
        "WHY",
    ];
    let mut table = OutputTable::new(columns, 10);
    let shown = |time: Option<Duration>| time.map(output::duration).unwrap_or_default();
    for tenant in tenants {
        let Some(of) = &tenant.rehearsal else { continue };
        let state = match (tenant.state, of.is_away) {
            (BulkMoveTenantState::Moved, true) => "away",
            (BulkMoveTenantState::Moved, false) => "back",
            (other, _) => state(other).1,
        };
        let to = of
            .to
            .as_ref()
            .map_or_else(|| "nowhere".to_owned(), |to| format!("{} g{}", to.region, to.group));
        let loss = match of.loss {
            LossWindow::None => "none".to_owned(),
            window => window.length().map_or_else(|| "unknown".to_owned(), output::duration),
        };
        let why = [&tenant.failure, &of.failure, &of.blocker];
        let why = why.into_iter().find(|why| !why.is_empty());
        let cells = vec![
            tenant.tenant.clone(),
            state.to_owned(),
            shown(of.pause_there),
            shown(of.pause_back),
            shown(of.took_there),
            shown(of.took_back),
            to,
            shown(of.lag),
            loss,
            why.map(|why| output::display_bytes(why.as_bytes(), 120))
                .unwrap_or_default(),
        ];
        table.push(cells, tenant_value(tenant));
    }
    table
}

fn rehearsal_value(of: &RehearsedTenant) -> Value {
    let (from, to) = promotion_value::bounds(&of.loss);
    json!({
        "away": of.is_away,
        "pauseThere": of.pause_there.map(seconds),
        "pauseBack": of.pause_back.map(seconds),
        "tookThere": of.took_there.map(seconds),
        "tookBack": of.took_back.map(seconds),
        "forecastTime": of.forecast_at.map(promotion_value::clock),
        "forecastTo": of.to.as_ref().map(|to| json!({ "region": to.region, "group": to.group })),
        "forecastKept": of.kept.map(|kept| kept.to_string()),
        "forecastLag": of.lag.map(seconds),
        "forecastNothingLost": of.loss == LossWindow::None,
        "forecastLossFrom": from.map(promotion_value::clock),
        "forecastLossTo": to.map(promotion_value::clock),
        "forecastBlocker": of.blocker,
        "failure": of.failure,
    })
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
        "rehearsal": tenant.rehearsal.as_ref().map(rehearsal_value),
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
            away: 0,
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
            copy_bytes: Some(2_048),
            lag: Some(Duration::from_millis(120)),
            pause: Some(Duration::from_millis(60)),
            advice: vec!["2 of them have a fork".into()],
        };
        assert_eq!(
            plan_lines(&plan),
            [
                "drain of region eu-west: 10 tenants would move, in 2 waves",
                "to us-east g5: 10 tenants, 2 of them need a copy first",
                "homes before: they follow",
                "2048 B copied first, targets at most 120 ms behind, writes of each pause about 60 ms",
                "first: 2 of them have a fork",
                "stays: bound: residency",
            ]
        );
    }
}
