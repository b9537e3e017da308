//! Output of promotions: progress, plans and reports.

use std::time::{Duration, SystemTime};

use stead_client::{
    CopyRole, LossWindow, Place, PlannedPromotion, PromotedState, PromotedTenant, PromotionHome, PromotionPhase,
    PromotionPlan, PromotionProgress, PromotionReport, TenantCopy,
};

use super::promotion_value::{bounds, clock, role, state, tenant_value};
use crate::output::{self, OutputTable};

/// Most tenants that a plan or a summary lists for people.
const SHOWN_TENANTS_MAX: usize = 20;

/// Returns the progress of a promotion in one line.
pub(super) fn progress_line(progress: &PromotionProgress) -> String {
    let done = progress.promoted + progress.moved;
    let mut line = format!("{done} of {} tenants have a new home", progress.tenants);
    for (count, what) in [
        (progress.moved, "by a planned move"),
        (progress.waiting, "wait"),
        (progress.fenced, "wait for leases"),
        (progress.freezing, "are compared"),
        (progress.activating, "take over"),
        (progress.blocked, "blocked"),
        (progress.replaced, "replaced"),
        (progress.failed, "failed"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line
}

/// Returns what a promotion waits for.
pub(super) fn waiting(progress: &PromotionProgress, now: SystemTime) -> String {
    let line = progress_line(progress);
    let left = |what: &str| match progress.wait_until.and_then(|until| until.duration_since(now).ok()) {
        Some(left) => format!("{what}, at most {:.0} s more", left.as_secs_f64().ceil()),
        None => what.to_owned(),
    };
    let phase = match progress.phase {
        PromotionPhase::Graceful => left("planned moves are tried first"),
        PromotionPhase::Waiting => left("the leases of the homes before run out"),
        PromotionPhase::TakingOver => "the new homes take over".to_owned(),
        PromotionPhase::Blocked => "what is left is blocked".to_owned(),
        PromotionPhase::Over => "its end".to_owned(),
        PromotionPhase::Other => "the next step".to_owned(),
    };
    format!("{phase}: {line}")
}

/// Returns the first tenants that are blocked, one a line.
pub(super) fn blocked_lines(progress: &PromotionProgress) -> Vec<String> {
    let shown = progress.failures.iter();
    let mut lines: Vec<String> = shown
        .map(|(tenant, reason)| format!("blocked: {tenant}: {reason}"))
        .collect();
    let left = progress.blocked.saturating_sub(progress.failures.len() as u64);
    if left > 0 {
        lines.push(format!("blocked: {left} more tenants"));
    }
    lines
}

/// Returns the plan of a promotion, one fact a line.
pub(super) fn plan_lines(plan: &PromotionPlan) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", plan.selection, output::count(plan.tenants, "tenant"))];
    if plan.tenants == 0 {
        lines.extend(needed_line(plan));
        return lines;
    }
    lines.extend(plan.homes.iter().map(home_line));
    lines.extend(plan.advice.iter().map(|advice| format!("first: {advice}")));
    let targets = plan.targets.iter();
    lines.extend(
        targets.map(|(target, tenants)| format!("to {}: {}", place(target), output::count(*tenants, "tenant"))),
    );
    if let Some(wait) = plan.wait_max {
        let left = plan
            .wait_left
            .map(|left| format!("; {} if it began now", output::duration(left)));
        lines.push(format!(
            "wait: at most {} after the fence{}; no region serves these tenants then",
            output::duration(wait),
            left.unwrap_or_default()
        ));
    }
    lines.push(match plan.tenants_at_risk {
        0 => "loss: none is possible".to_owned(),
        count => format!(
            "loss: possible for {}, of what their homes acknowledge in the windows below",
            output::count(count, "tenant")
        ),
    });
    if plan.tenants_blocked > 0 {
        lines.push(format!(
            "blocked: {}, which no region would serve",
            output::count(plan.tenants_blocked, "tenant")
        ));
    }
    lines.extend(needed_line(plan));
    lines.extend(plan.items.iter().take(SHOWN_TENANTS_MAX).flat_map(item_lines));
    let shown = plan.items.len().min(SHOWN_TENANTS_MAX) as u64;
    if plan.tenants > shown {
        lines.push(format!(
            "{} more tenants: `-o json` shows {}",
            plan.tenants - shown,
            plan.items.len()
        ));
    }
    lines
}

fn needed_line(plan: &PromotionPlan) -> Option<String> {
    (!plan.options_needed.is_empty()).then(|| format!("needed: {}", plan.options_needed.join(" ")))
}

fn home_line(home: &PromotionHome) -> String {
    let state = match (home.healthy, home.voters_answering) {
        (true, _) => "healthy",
        (false, 0) => "silent",
        (false, _) => "no majority answers",
    };
    format!(
        "home {}: {state}, {} of {} nodes answer, home of {} of them",
        place(&home.place),
        home.voters_answering,
        home.voters,
        home.tenants
    )
}

/// Returns what would become of a tenant, with its copies.
pub(in crate::verbs) fn item_lines(item: &PlannedPromotion) -> Vec<String> {
    let to = item.to.as_ref().map_or_else(|| "nowhere".to_owned(), place);
    let kept = item.kept.map_or_else(|| "nothing".to_owned(), |kept| kept.to_string());
    let mut lines = vec![match item.blocker.as_str() {
        "" => format!("{}: to {to}, keeps {kept}, {}", item.tenant, loss(&item.loss)),
        blocker => format!("{}: blocked: {blocker}", item.tenant),
    }];
    lines.extend(item.copies.iter().map(|copy| format!("  {}", copy_line(copy))));
    lines
}

fn copy_line(copy: &TenantCopy) -> String {
    let group = copy.place.as_ref().map_or_else(String::new, place);
    if copy.silent {
        return format!("{group}: silent");
    }
    let revision = copy
        .revision
        .map_or_else(|| "nothing".to_owned(), |revision| revision.to_string());
    let age = match (copy.role, copy.staleness) {
        (CopyRole::Owner, _) => String::new(),
        (_, Some(staleness)) => format!(", at most {} old", output::duration(staleness)),
        (_, None) => ", of unknown age".to_owned(),
    };
    let suspect = if copy.suspect {
        ", suspect: its digest differed"
    } else {
        ""
    };
    format!("{group}: {} at {revision}{age}{suspect}", role(copy.role).1)
}

/// Returns the window in which acknowledged writes may be lost, for people.
fn loss(window: &LossWindow) -> String {
    match window {
        LossWindow::None => "nothing can be lost".to_owned(),
        LossWindow::Between(from, to) => {
            let bound = |at: &Option<SystemTime>| at.map_or_else(|| "an unknown time".to_owned(), clock);
            let length = window.length().map(|length| format!(" ({})", output::duration(length)));
            format!(
                "may lose what was acknowledged between {} and {}{}",
                bound(from),
                bound(to),
                length.unwrap_or_default()
            )
        }
    }
}

fn place(place: &Place) -> String {
    format!("{} g{}", place.region, place.group)
}

/// Returns what a promotion has done, one fact a line, with the commands that help where it has not.
pub(super) fn summary_lines(report: &PromotionReport) -> Vec<String> {
    let of = |state| report.tenants.iter().filter(move |tenant| tenant.state == state);
    let count = |state| of(state).count();
    let promoted = count(PromotedState::Promoted);
    let mut lines = vec![format!(
        "{promoted} tenants promoted, {} moved without loss, {} blocked, {} replaced, {} failed, of {}",
        count(PromotedState::Moved),
        count(PromotedState::Blocked),
        count(PromotedState::Replaced),
        count(PromotedState::Failed),
        report.tenants.len()
    )];
    let times = of(PromotedState::Promoted).filter_map(|tenant| Some((time_taken(tenant)?, &tenant.tenant)));
    if let Some((longest, tenant)) = times.max() {
        lines.push(format!(
            "longest, from the fence: {} ({tenant})",
            output::duration(longest)
        ));
    }
    let since_renewal = of(PromotedState::Promoted).filter_map(|tenant| {
        let renewed = tenant.times.last_renewal?;
        Some((tenant.times.ended?.duration_since(renewed).ok()?, &tenant.tenant))
    });
    if let Some((longest, tenant)) = since_renewal.max() {
        lines.push(format!(
            "longest, from the last lease of the home before, which failed later: {} ({tenant})",
            output::duration(longest)
        ));
    }
    let pauses = of(PromotedState::Moved).filter_map(|tenant| {
        let paused = tenant.times.ended?.duration_since(tenant.times.ready?).ok()?;
        Some((paused, &tenant.tenant))
    });
    if let Some((longest, tenant)) = pauses.max() {
        lines.push(format!(
            "longest pause of writes by a planned move: at most {} ({tenant})",
            output::duration(longest)
        ));
    }
    lines.push(loss_line(report));
    let blocked: Vec<&PromotedTenant> = of(PromotedState::Blocked).collect();
    let shown = blocked.iter().take(SHOWN_TENANTS_MAX);
    lines.extend(shown.map(|tenant| format!("blocked: {}: {}", tenant.tenant, tenant.reason)));
    if blocked.len() > SHOWN_TENANTS_MAX {
        lines.push(format!("blocked: {} more tenants", blocked.len() - SHOWN_TENANTS_MAX));
    }
    let name = &report.operation.name;
    if let Some(first) = blocked.first() {
        lines.push(format!(
            "blocked tenants are served by no region: `stead tenant promote {} --replace --dry-run` shows what each needs",
            first.tenant
        ));
    }
    lines.push(format!("digest: {}", super::promotion_digest::of(report)));
    lines.push(format!(
        "`stead operation report {name}` has each tenant; `--json` and `--csv` export it"
    ));
    lines
}

fn loss_line(report: &PromotionReport) -> String {
    let windows = report
        .tenants
        .iter()
        .filter(|tenant| tenant.state == PromotedState::Promoted);
    let windows: Vec<&LossWindow> = windows
        .map(|tenant| &tenant.loss)
        .filter(|loss| **loss != LossWindow::None)
        .collect();
    if windows.is_empty() {
        return "loss: none".to_owned();
    }
    // A window without a beginning makes the whole one unknown.
    let mut from = Some(None);
    let mut until = Some(None);
    for window in &windows {
        let LossWindow::Between(begins, ends) = window else {
            continue;
        };
        from = from
            .zip(*begins)
            .map(|(from, begins)| Some(from.map_or(begins, |from: SystemTime| from.min(begins))));
        until = until
            .zip(*ends)
            .map(|(until, ends)| Some(until.map_or(ends, |until: SystemTime| until.max(ends))));
    }
    let all = LossWindow::Between(from.flatten(), until.flatten());
    format!("loss: {} {}", output::count(windows.len() as u64, "tenant"), loss(&all))
}

/// Returns the time from the fence until the new home served.
fn time_taken(tenant: &PromotedTenant) -> Option<Duration> {
    let ended = tenant.times.ended.filter(|_| tenant.state == PromotedState::Promoted);
    ended?.duration_since(tenant.times.fenced?).ok()
}

/// Returns a table of what a promotion has decided.
pub(super) fn report_table(tenants: &[PromotedTenant]) -> OutputTable {
    let columns = &[
        "TENANT",
        "STATE",
        "FROM",
        "TO",
        "EPOCH",
        "KEPT",
        "LOSS WINDOW",
        "TOOK",
        "WHY",
        "LOSS FROM",
        "LOSS TO",
    ];
    let mut table = OutputTable::new(columns, 9);
    for tenant in tenants {
        table.push(report_cells(tenant), tenant_value(tenant));
    }
    table
}

fn report_cells(tenant: &PromotedTenant) -> Vec<String> {
    let group = |group: &Option<Place>| group.as_ref().map_or_else(String::new, place);
    let is_decided = tenant.kept.is_some();
    let window = match (is_decided, &tenant.loss) {
        (false, _) => String::new(),
        (true, LossWindow::None) => "none".to_owned(),
        (true, window) => window.length().map_or_else(|| "unknown".to_owned(), output::duration),
    };
    let (from, to) = bounds(&tenant.loss);
    vec![
        tenant.tenant.clone(),
        state(tenant.state).1.to_owned(),
        group(&tenant.from),
        group(&tenant.to),
        tenant.epoch.to_string(),
        tenant.kept.map(|kept| kept.to_string()).unwrap_or_default(),
        window,
        time_taken(tenant).map(output::duration).unwrap_or_default(),
        output::display_bytes(tenant.reason.as_bytes(), 120),
        from.map(clock).unwrap_or_default(),
        to.map(clock).unwrap_or_default(),
    ]
}

/// Returns a report as CSV, a line a tenant.
pub(super) fn report_csv(report: &PromotionReport) -> Result<Vec<u8>, csv::Error> {
    let mut written = csv::Writer::from_writer(Vec::new());
    written.write_record([
        "tenant",
        "number",
        "state",
        "from_region",
        "from_group",
        "to_region",
        "to_group",
        "epoch",
        "kept",
        "nothing_lost",
        "loss_from",
        "loss_to",
        "fenced",
        "wait_over",
        "chosen",
        "ended",
        "durability_lowered",
        "reason",
    ])?;
    for tenant in &report.tenants {
        let region = |group: &Option<Place>| group.as_ref().map(|group| group.region.clone()).unwrap_or_default();
        let group = |group: &Option<Place>| group.as_ref().map(|group| group.group.to_string()).unwrap_or_default();
        let (from, to) = bounds(&tenant.loss);
        written.write_record([
            tenant.tenant.clone(),
            tenant.number.to_string(),
            state(tenant.state).0.to_owned(),
            region(&tenant.from),
            group(&tenant.from),
            region(&tenant.to),
            group(&tenant.to),
            tenant.epoch.to_string(),
            tenant.kept.map(|kept| kept.to_string()).unwrap_or_default(),
            (tenant.loss == LossWindow::None).to_string(),
            from.map(clock).unwrap_or_default(),
            to.map(clock).unwrap_or_default(),
            tenant.times.fenced.map(clock).unwrap_or_default(),
            tenant.times.waited.map(clock).unwrap_or_default(),
            tenant.times.chosen.map(clock).unwrap_or_default(),
            tenant.times.ended.map(clock).unwrap_or_default(),
            tenant.durability_lowered.to_string(),
            tenant.reason.clone(),
        ])?;
    }
    Ok(written.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

#[cfg(test)]
#[path = "promotion_display_test.rs"]
pub(super) mod tests;
