//! Output of operations.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stead_client::{
    BulkMoveState, MovePlan, OperationInfo, OperationOutcome, Place, PromotionPhase, Replica, Role, Step, StepName,
};

use super::{bulk_display, promotion_display, promotion_value, topology_display};
use crate::{
    output::{self, OutputTable, list},
    verbs::region::seeds,
};

/// Returns a table of operations.
pub(in crate::verbs) fn table(operations: &[OperationInfo]) -> OutputTable {
    let columns = &[
        "OPERATION",
        "TENANT",
        "FROM",
        "TO",
        "STATE",
        "LAST STEP",
        "WHO",
        "REASON",
        "CREATED",
        "ENDED",
    ];
    let mut table = OutputTable::new(columns, 6);
    for operation in operations {
        table.push(cells(operation), value(operation));
    }
    table
}

fn cells(operation: &OperationInfo) -> Vec<String> {
    let last = operation.steps.last();
    vec![
        operation.name.clone(),
        subject(operation),
        place(operation.from.as_ref()),
        place(operation.to.as_ref()),
        state(operation).to_owned(),
        last.map(|step| step_text(step.name).to_owned()).unwrap_or_default(),
        who(operation),
        operation.reason.clone(),
        time(operation.created).unwrap_or_default(),
        time(operation.ended).unwrap_or_default(),
    ]
}

/// Returns what an operation is about: its tenants, or what a bulk move selects.
fn subject(operation: &OperationInfo) -> String {
    let bulk = operation.progress.as_ref().map(|progress| &progress.selection);
    let promotion = operation.promotion.as_ref().map(|promotion| &promotion.selection);
    let topology = operation.topology.as_ref().map(|topology| &topology.summary);
    let selection = bulk.or(promotion).or(topology);
    selection.map_or_else(|| list(&operation.tenants), Clone::clone)
}

/// Returns the steps of an operation, one a line, and what it waits for or how it ended.
pub(in crate::verbs) fn lines(operation: &OperationInfo) -> Vec<String> {
    let mut lines: Vec<String> = operation.steps.iter().map(|step| step_line(operation, step)).collect();
    if let Some(progress) = &operation.progress {
        lines.extend(bulk_display::failure_lines(&progress.failures, progress.failed));
        if operation.outcome.is_some() {
            lines.push(bulk_display::progress_line(progress));
        }
    }
    if let Some(promotion) = &operation.promotion {
        lines.extend(promotion_display::blocked_lines(promotion));
        if operation.outcome.is_some() {
            lines.push(promotion_display::progress_line(promotion));
        }
        lines.push(format!("`stead operation report {}` has each tenant", operation.name));
    }
    lines.push(last_line(operation));
    lines
}

/// Returns a step with the time that had passed since the operation began.
pub(in crate::verbs) fn step_line(operation: &OperationInfo, step: &Step) -> String {
    format!("{}  {}", since(operation, step.time), step_text(step.name))
}

/// Returns how an operation ended, or what it waits for.
pub(in crate::verbs) fn last_line(operation: &OperationInfo) -> String {
    match &operation.outcome {
        None => format!("waits: {}", waiting(operation)),
        Some(OperationOutcome::Moved { home, epoch }) => format!(
            "{}  done: the home is {} in epoch {epoch}",
            since(operation, operation.ended),
            place(Some(home))
        ),
        Some(OperationOutcome::TenantsMoved(moved)) => {
            format!(
                "{}  done: {moved} tenants were moved",
                since(operation, operation.ended)
            )
        }
        Some(OperationOutcome::Promoted(done)) => format!(
            "{}  done: {} tenants were promoted, {} moved without loss",
            since(operation, operation.ended),
            done.promoted,
            done.moved
        ),
        Some(OperationOutcome::TopologyChanged(summary)) => {
            format!("{}  done: {summary}", since(operation, operation.ended))
        }
        Some(OperationOutcome::Failed(error)) => {
            format!("{}  failed: {}", since(operation, operation.ended), error.message)
        }
        Some(OperationOutcome::Cancelled(message)) => {
            format!("{}  {message}", since(operation, operation.ended))
        }
    }
}

/// Returns what an operation in flight waits for.
pub(in crate::verbs) fn waiting(operation: &OperationInfo) -> String {
    if let Some(progress) = &operation.progress {
        return bulk_display::waiting(progress);
    }
    if let Some(promotion) = &operation.promotion {
        return promotion_display::waiting(promotion, SystemTime::now());
    }
    if let Some(topology) = &operation.topology {
        return topology_display::waiting(topology, operation.cancel_requested);
    }
    let waits_for = match operation.steps_left.first() {
        Some(StepName::Planned) => "the directory plans the move",
        Some(StepName::HeirReady) => "the target catches up, while the tenant goes on",
        Some(StepName::Recorded) => "the home hands the tenant over",
        Some(
            StepName::CancelRequested
            | StepName::Refused
            | StepName::SeedFailed
            | StepName::Paused
            | StepName::Resumed
            | StepName::NodesJoined
            | StepName::GroupsMade
            | StepName::VotersChanged
            | StepName::Other,
        ) => "the next step",
        None if operation.cancel_requested => "whether it was cancelled in time",
        None => "its end",
    };
    match &operation.seed {
        Some(seed) => format!("{waits_for}: {}", seeds::progress(seed)),
        None => waits_for.to_owned(),
    }
}

fn since(operation: &OperationInfo, time: Option<SystemTime>) -> String {
    let passed = operation.created.zip(time);
    let passed = passed.map(|(created, time)| time.duration_since(created).unwrap_or(Duration::ZERO));
    passed.map_or_else(|| "?".to_owned(), |passed| format!("+{:.1} s", passed.as_secs_f64()))
}

fn step_text(name: StepName) -> &'static str {
    match name {
        StepName::Planned => "planned",
        StepName::HeirReady => "the target has caught up and is the heir",
        StepName::CancelRequested => "cancellation asked for",
        StepName::Refused => "the home has refused the move",
        StepName::Recorded => "the new home is recorded",
        StepName::SeedFailed => "the copy for the target was given up",
        StepName::Paused => "paused",
        StepName::Resumed => "resumed",
        StepName::NodesJoined => "every announced node has joined",
        StepName::GroupsMade => "the groups of the region are made",
        StepName::VotersChanged => "a group has new voters",
        StepName::Other => "a step that this version does not know",
    }
}

fn step_name(name: StepName) -> &'static str {
    match name {
        StepName::Planned => "STEP_NAME_PLANNED",
        StepName::HeirReady => "STEP_NAME_HEIR_READY",
        StepName::CancelRequested => "STEP_NAME_CANCEL_REQUESTED",
        StepName::Refused => "STEP_NAME_REFUSED",
        StepName::Recorded => "STEP_NAME_RECORDED",
        StepName::SeedFailed => "STEP_NAME_SEED_FAILED",
        StepName::Paused => "STEP_NAME_PAUSED",
        StepName::Resumed => "STEP_NAME_RESUMED",
        StepName::NodesJoined => "STEP_NAME_NODES_JOINED",
        StepName::GroupsMade => "STEP_NAME_GROUPS_MADE",
        StepName::VotersChanged => "STEP_NAME_VOTERS_CHANGED",
        StepName::Other => "STEP_NAME_UNSPECIFIED",
    }
}

fn state(operation: &OperationInfo) -> &'static str {
    match &operation.outcome {
        None if operation.cancel_requested => "cancelling",
        None if is_paused(operation) => "paused",
        None if is_blocked(operation) => "blocked",
        None => "in flight",
        Some(
            OperationOutcome::Moved { .. }
            | OperationOutcome::TenantsMoved(_)
            | OperationOutcome::Promoted(_)
            | OperationOutcome::TopologyChanged(_),
        ) => "done",
        Some(OperationOutcome::Failed(_)) => "failed",
        Some(OperationOutcome::Cancelled(_)) => "cancelled",
    }
}

fn is_paused(operation: &OperationInfo) -> bool {
    let progress = operation.progress.as_ref();
    progress.is_some_and(|progress| matches!(progress.state, BulkMoveState::Paused(_)))
}

/// Tells whether a promotion goes on only if somebody decides something.
pub(super) fn is_blocked(operation: &OperationInfo) -> bool {
    let promotion = operation.promotion.as_ref();
    promotion.is_some_and(|promotion| promotion.phase == PromotionPhase::Blocked)
}

fn who(operation: &OperationInfo) -> String {
    if operation.who_verified || operation.who.is_empty() {
        return operation.who.clone();
    }
    format!("{} (unverified)", operation.who)
}

fn place(place: Option<&Place>) -> String {
    place.map_or_else(String::new, |place| format!("{} g{}", place.region, place.group))
}

/// Returns the plan of a move, one fact a line.
pub(in crate::verbs) fn plan_lines(operation: &OperationInfo, plan: &MovePlan) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let mut lines = vec![format!(
        "{}: {} -> {}",
        list(&operation.tenants),
        place(operation.from.as_ref()),
        operation.to.as_ref().map_or_else(unknown, |to| place(Some(to)))
    )];
    lines.extend(plan.blockers.iter().map(|blocker| format!("blocked: {blocker}")));
    if !plan.blockers.is_empty() {
        return lines;
    }
    lines.push(match (plan.target_has_copy, plan.lag) {
        (true, Some(lag)) => format!("copy at the target: yes, {} behind", output::duration(lag)),
        (true, None) => "copy at the target: yes, its lag is unknown".to_owned(),
        (false, _) => "copy at the target: none; one is made first, while the tenant goes on".to_owned(),
    });
    let bytes = plan.cross_region_bytes.map_or_else(unknown, output::size);
    lines.push(format!("copied to another region first: {bytes}"));
    let round_trip = plan.round_trip.map_or_else(unknown, output::duration);
    let pause = plan.pause.map_or_else(unknown, output::duration);
    lines.push(format!("pause of writes: {pause} (round trip: {round_trip})"));
    let after: Vec<String> = plan.replicas.iter().map(replica).collect();
    lines.push(format!("replicas afterwards: {}", after.join(", ")));
    lines
}

/// Formats a replica for people.
pub(in crate::verbs) fn replica(replica: &Replica) -> String {
    let note = match (replica.role, replica.leaving) {
        (Role::Home, _) => " (home)",
        (Role::Follower, true) => " (leaving)",
        (Role::Follower, false) => "",
    };
    format!("{} g{}{note}", replica.region, replica.group)
}

/// Returns an operation as JSON.
pub(in crate::verbs) fn value(operation: &OperationInfo) -> Value {
    let place = |place: &Place| json!({ "region": place.region, "group": place.group });
    let step = |step: &Step| json!({ "name": step_name(step.name), "time": time(step.time) });
    let left = operation.steps_left.iter().map(|name| step_name(*name));
    let (mut response, mut error) = (Value::Null, Value::Null);
    match &operation.outcome {
        None => {}
        Some(OperationOutcome::Moved { home, epoch }) => {
            response = json!({ "home": place(home), "epoch": epoch });
        }
        Some(OperationOutcome::TenantsMoved(moved)) => response = json!({ "moved": moved.to_string() }),
        Some(OperationOutcome::Promoted(done)) => {
            response = json!({
                "promoted": done.promoted.to_string(),
                "moved": done.moved.to_string(),
                "replaced": done.replaced.to_string(),
            });
        }
        Some(OperationOutcome::TopologyChanged(summary)) => response = json!({ "summary": summary }),
        Some(OperationOutcome::Failed(why)) => {
            let details = stead_api::status::to_operation_error(why);
            error = json!({ "reason": details.reason, "message": why.message });
        }
        Some(OperationOutcome::Cancelled(message)) => error = json!({ "reason": "CANCELLED", "message": message }),
    }
    json!({
        "name": operation.name,
        "done": operation.outcome.is_some(),
        "tenants": operation.tenants,
        "from": operation.from.as_ref().map(place),
        "to": operation.to.as_ref().map(place),
        "steps": operation.steps.iter().map(step).collect::<Vec<_>>(),
        "stepsLeft": left.collect::<Vec<_>>(),
        "who": operation.who,
        "whoVerified": operation.who_verified,
        "reason": operation.reason,
        "createTime": time(operation.created),
        "updateTime": time(operation.updated),
        "endTime": time(operation.ended),
        "cancelRequested": operation.cancel_requested,
        "response": response,
        "error": error,
        "plan": operation.plan.as_ref().map(plan_value),
        "seed": operation.seed.as_ref().map(seeds::value),
        "progress": operation.progress.as_ref().map(bulk_display::progress_value),
        "bulkPlan": operation.bulk_plan.as_ref().map(bulk_display::plan_value),
        "promotion": operation.promotion.as_ref().map(promotion_value::progress_value),
        "promotionPlan": operation.promotion_plan.as_ref().map(promotion_value::plan_value),
        "topology": operation.topology.as_ref().map(topology_display::value),
    })
}

fn plan_value(plan: &MovePlan) -> Value {
    let seconds = |duration: Duration| format!("{:.3}s", duration.as_secs_f64());
    json!({
        "blockers": plan.blockers,
        "replicas": plan.replicas.iter().map(replica_value).collect::<Vec<_>>(),
        "targetHasCopy": plan.target_has_copy,
        "crossRegionBytes": plan.cross_region_bytes.map(|bytes| bytes.to_string()),
        "lag": plan.lag.map(seconds),
        "roundTrip": plan.round_trip.map(seconds),
        "pause": plan.pause.map(seconds),
    })
}

/// Returns a replica as JSON.
pub(in crate::verbs) fn replica_value(replica: &Replica) -> Value {
    let role = match replica.role {
        Role::Home => "ROLE_HOME",
        Role::Follower => "ROLE_FOLLOWER",
    };
    json!({ "group": replica.group, "region": replica.region, "role": role, "leaving": replica.leaving })
}

fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(|time| humantime::format_rfc3339_millis(time).to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn operation(steps: &[StepName], outcome: Option<OperationOutcome>) -> OperationInfo {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let place = |region: &str, group| {
            let region = region.to_owned();
            Some(Place { region, group })
        };
        OperationInfo {
            name: "operations/7".into(),
            tenants: vec!["acme".into()],
            from: place("eu-west", 1),
            to: place("us-east", 5),
            steps: steps
                .iter()
                .zip(100..)
                .map(|(name, time)| Step {
                    name: *name,
                    time: at(time),
                })
                .collect(),
            steps_left: vec![StepName::Recorded],
            who: "alice".into(),
            who_verified: false,
            reason: "closer".into(),
            created: at(100),
            updated: at(100),
            ended: outcome.as_ref().and_then(|_| at(102)),
            cancel_requested: false,
            outcome,
            plan: None,
            seed: None,
            progress: None,
            bulk_plan: None,
            promotion: None,
            promotion_plan: None,
            topology: None,
        }
    }

    #[test]
    fn operation_is_shown_step_by_step() {
        let in_flight = operation(&[StepName::Planned, StepName::HeirReady], None);
        assert_eq!(
            lines(&in_flight),
            [
                "+0.0 s  planned",
                "+1.0 s  the target has caught up and is the heir",
                "waits: the home hands the tenant over"
            ]
        );
        let home = Place {
            region: "us-east".into(),
            group: 5,
        };
        let done = operation(&[StepName::Planned], Some(OperationOutcome::Moved { home, epoch: 2 }));
        assert_eq!(last_line(&done), "+2.0 s  done: the home is us-east g5 in epoch 2");
        assert_eq!(value(&done)["response"]["epoch"], 2);
        assert_eq!(cells(&done)[6], "alice (unverified)");
    }

    #[test]
    fn blocked_plan_has_no_figures() {
        let planned = operation(&[], None);
        let plan = MovePlan {
            blockers: vec!["tenant acme has its home there already".into()],
            replicas: Vec::new(),
            target_has_copy: true,
            cross_region_bytes: Some(0),
            lag: None,
            round_trip: Some(Duration::from_millis(80)),
            pause: Some(Duration::from_millis(60)),
        };
        let lines = plan_lines(&planned, &plan);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("blocked: "), "{lines:?}");
        let free = MovePlan {
            blockers: Vec::new(),
            ..plan
        };
        let lines = plan_lines(&planned, &free).join("\n");
        assert!(lines.contains("pause of writes: 60 ms (round trip: 80 ms)"), "{lines}");
        assert!(lines.contains("its lag is unknown"), "{lines}");
    }
}
