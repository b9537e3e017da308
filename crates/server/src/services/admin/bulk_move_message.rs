//! Bulk moves as messages: their progress, their plans and their tenants.

use std::{collections::BTreeMap, time::Duration};

use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, BulkMovePlan, BulkMoveProgress, BulkMoveTenant, MoveFailure, RehearsedTenant,
        bulk_move_progress, bulk_move_tenant::State, move_tenant_request::Source,
    },
};
use stead_state::directory::{
    BulkMove, BulkMoveItem, BulkMovePreview, BulkMoveRequest, BulkMoveState, DirectoryView, ItemMove, ItemState,
    LegTimes, Pace, RehearsalItem, SHOWN_FAILURES_MAX, Selection, SourceAfterMove,
};
use stead_types::GroupId;

use super::{place, promotion_message, region_name, time};

/// Most moves that a plan lists.
const PLANNED_MOVES_MAX: usize = 100;

/// Converts the progress of a bulk move.
pub(super) fn progress(bulk: &BulkMove) -> BulkMoveProgress {
    use bulk_move_progress::State;
    let (state, paused_reason) = match &bulk.state {
        BulkMoveState::Running => (State::Running, String::new()),
        BulkMoveState::Paused { reason } => (State::Paused, reason.clone()),
        BulkMoveState::Cancelling => (State::Cancelling, String::new()),
    };
    BulkMoveProgress {
        selection: bulk.selection.to_string(),
        state: state.into(),
        paused_reason,
        selected: bulk.selected,
        moving: bulk.moving,
        moved: bulk.moved,
        failed: bulk.failed,
        wave: bulk.wave.number,
        wave_size: bulk.wave.size,
        pace: Some(pace(bulk.pace)),
        failures: bulk.failures.iter().map(failure).collect(),
        away: bulk.rehearsal.map_or(0, |rehearsal| rehearsal.away),
    }
}

/// Returns how a cancelled bulk move ended, for people.
pub(super) fn cancelled(bulk: &BulkMove) -> String {
    let BulkMove {
        moved,
        selected,
        selection,
        ..
    } = bulk;
    if let Selection::Rehearse { .. } = selection {
        return format!("cancelled: {moved} of {selected} tenants went away and came back, and none is away");
    }
    let closed = match selection {
        Selection::Drain { region, .. } => {
            format!("; region {region} takes no tenants until it is undrained: `stead region undrain {region}`")
        }
        Selection::Undrain { .. }
        | Selection::Label { .. }
        | Selection::Named
        | Selection::Spread { .. }
        | Selection::Failback { .. }
        | Selection::Rehearse { .. } => String::new(),
    };
    format!("cancelled: {moved} of {selected} tenants were moved and stay there{closed}")
}

fn pace(pace: Pace) -> admin::Pace {
    admin::Pace {
        canaries: pace.canaries,
        at_once: pace.at_once,
        wave_budget: Some(convert::read::duration(Duration::from_millis(pace.wave_budget_ms))),
    }
}

fn failure(failure: &stead_state::directory::MoveFailure) -> MoveFailure {
    MoveFailure {
        tenant: failure.name.to_string(),
        reason: failure.reason.clone(),
    }
}

/// Converts what a bulk move would do.
pub(super) fn plan(view: &DirectoryView, request: &BulkMoveRequest, preview: &BulkMovePreview) -> BulkMovePlan {
    let mut targets = BTreeMap::<GroupId, (u64, u64)>::new();
    for one in &preview.moves {
        let (tenants, copies) = targets.entry(one.to).or_default();
        *tenants += 1;
        *copies += u64::from(one.joined);
    }
    let target = |(group, (tenants, copies)): (GroupId, (u64, u64))| admin::bulk_move_plan::Target {
        region: region_name(view, group),
        group: group.get(),
        tenants,
        copies,
    };
    let planned = |one: &stead_state::directory::PreviewedMove| BulkMoveTenant {
        tenant: one.name.to_string(),
        state: State::Waiting.into(),
        from_region: region_name(view, one.from),
        from_group: one.from.get(),
        to_region: region_name(view, one.to),
        to_group: one.to.get(),
        failure: String::new(),
        rehearsal: None,
    };
    let source = match request.source {
        SourceAfterMove::Follow => Source::Follow,
        SourceAfterMove::Leave => Source::Leave,
        SourceAfterMove::Policy => Source::Unspecified,
    };
    BulkMovePlan {
        selection: request.selection.to_string(),
        tenants: preview.moves.len() as u64,
        targets: targets.into_iter().map(target).collect(),
        waves: waves(request.pace, preview.moves.len() as u64),
        source: source.into(),
        refused: preview.refused.len() as u64,
        failures: preview.refused.iter().take(SHOWN_FAILURES_MAX).map(failure).collect(),
        moves: preview.moves.iter().take(PLANNED_MOVES_MAX).map(planned).collect(),
        copy_bytes: None,
        lag: None,
        pause: None,
        advice: Vec::new(),
    }
}

/// Returns the number of waves that so many tenants take.
fn waves(pace: Pace, mut tenants: u64) -> u64 {
    let (mut waves, mut size) = (0, 0);
    while tenants > 0 {
        size = pace.next_size(size);
        tenants = tenants.saturating_sub(u64::from(size.max(1)));
        waves += 1;
    }
    waves
}

/// Converts a tenant of a bulk move.
pub(super) fn tenant(view: &DirectoryView, item: &BulkMoveItem) -> BulkMoveTenant {
    // While it is given up; then it is the reason of the failure.
    let failure = item.seed_failure.map(|failure| failure.to_string());
    let of = |state: State| BulkMoveTenant {
        tenant: item.name.to_string(),
        state: state.into(),
        failure: failure.clone().unwrap_or_default(),
        rehearsal: item.rehearsal.as_deref().map(|of| rehearsed(view, of)),
        ..BulkMoveTenant::default()
    };
    let moved = |state, moved: &ItemMove| BulkMoveTenant {
        from_region: region_name(view, moved.from),
        from_group: moved.from.get(),
        to_region: region_name(view, moved.to),
        to_group: moved.to.get(),
        ..of(state)
    };
    match &item.state {
        ItemState::Waiting(to) => BulkMoveTenant {
            to_region: to.to_string(),
            ..of(State::Waiting)
        },
        ItemState::Moving(moving) => moved(State::Moving, moving),
        ItemState::Moved(done) => moved(State::Moved, done),
        ItemState::Failed { reason } => BulkMoveTenant {
            failure: reason.clone(),
            ..of(State::Failed)
        },
    }
}

/// Converts what a rehearsal has measured of a tenant, and what was forecast.
fn rehearsed(view: &DirectoryView, of: &RehearsalItem) -> RehearsedTenant {
    let duration = |ms: u64| convert::read::duration(Duration::from_millis(ms));
    let took = |leg: &LegTimes| (leg.recorded > 0).then(|| duration(leg.recorded.saturating_sub(leg.planned)));
    let forecast = &of.forecast;
    let (loss_from, loss_to) = promotion_message::loss(forecast.loss);
    RehearsedTenant {
        away: of.is_away(),
        pause_there: of.there.pause_ms().map(duration),
        pause_back: of.back.pause_ms().map(duration),
        took_there: took(&of.there),
        took_back: took(&of.back),
        forecast_time: (forecast.time > 0).then(|| time(forecast.time)),
        forecast_to: forecast.home.map(|home| place(view, home)),
        forecast_kept: forecast.home.map(|_| convert::id::from_revision(forecast.kept)),
        forecast_lag: forecast.lag_ms.map(duration),
        forecast_loss_from: loss_from,
        forecast_loss_to: loss_to,
        forecast_nothing_lost: forecast.home.is_some() && forecast.loss.is_none(),
        forecast_blocker: forecast.blocker.clone(),
        failure: of.failure.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_grow_up_to_their_bound() {
        let pace = Pace::default();
        assert_eq!([0, 3, 4, 15, 16].map(|tenants| waves(pace, tenants)), [0, 1, 2, 2, 3]);
        assert_eq!(waves(pace, 10_000), 4 + 20, "3, 12, 48, 192, then 500 each");
    }
}
