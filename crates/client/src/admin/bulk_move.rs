//! Bulk moves: options, progress, plans and tenants.

use std::time::Duration;

use stead_api::{
    convert::read::duration,
    proto::admin::v1::{self, bulk_move_progress, bulk_move_tenant},
};

use super::{MoveSource, RehearsedTenant, rehearsal::rehearsed};

/// Pace of a bulk move; what is not set has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Tenants of the first wave.
    pub canaries: Option<u32>,
    /// Most tenants that move at once.
    pub at_once: Option<u32>,
    /// Time in which a wave must end.
    pub wave_budget: Option<Duration>,
}

/// How a bulk move is made, whatever its tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkMoveOptions {
    /// Role of each home before, after its move.
    pub source: MoveSource,
    /// How many at a time.
    pub pace: Pace,
    /// Reason, for the audit log and the operation.
    pub reason: String,
    /// Whether to plan only; the operation has a plan then, and no name.
    pub dry_run: bool,
    /// Of a drain: whether forks may stay on the region's nodes, where they are lost if the nodes are taken away. A region
    /// that holds forks is not drained without.
    pub keep_forks: bool,
}

/// Tenants that are moved, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSelection {
    /// Tenants with a label, to a region.
    Label {
        /// Name of the label.
        key: String,
        /// Value of the label.
        value: String,
        /// The region.
        to: String,
    },
    /// Tenants by name, each with its region.
    Named(Vec<(String, String)>),
    /// Tenants of a region, over its groups.
    Spread(String),
}

/// State of a bulk move that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkMoveState {
    /// It goes on.
    Running,
    /// It begins no further moves until it is resumed, for this reason.
    Paused(String),
    /// It begins no further moves, and ends with those in flight.
    Cancelling,
}

/// How far a bulk move is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMoveProgress {
    /// Tenants and their target, in words.
    pub selection: String,
    /// Whether it goes on.
    pub state: BulkMoveState,
    /// Tenants that were selected when it began.
    pub selected: u64,
    /// Tenants that are moving.
    pub moving: u64,
    /// Tenants that were moved.
    pub moved: u64,
    /// Tenants that could not be moved.
    pub failed: u64,
    /// Number of the last wave.
    pub wave: u64,
    /// Tenants of the last wave.
    pub wave_size: u32,
    /// How many at a time.
    pub pace: Pace,
    /// The first failures: tenant and reason.
    pub failures: Vec<(String, String)>,
    /// Tenants of a rehearsal that are away; `moved` counts those that have come back.
    pub away: u64,
}

/// Preview of a bulk move, as far as the nodes know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMovePlan {
    /// Tenants and their target, in words.
    pub selection: String,
    /// Tenants that would move.
    pub tenants: u64,
    /// Where they would go.
    pub targets: Vec<BulkMoveTarget>,
    /// Waves, if none misses its budget.
    pub waves: u64,
    /// Role of each home before, after its move.
    pub source: MoveSource,
    /// Tenants that would stay.
    pub refused: u64,
    /// The first of them: tenant and reason.
    pub failures: Vec<(String, String)>,
    /// The first tenants that would move.
    pub moves: Vec<BulkMoveTenant>,
    /// Bytes of keys and values that would be copied first, if that is known.
    pub copy_bytes: Option<u64>,
    /// How far a target's copy is behind at most, if that is known.
    pub lag: Option<Duration>,
    /// Longest pause of a tenant's writes to expect, if that is known.
    pub pause: Option<Duration>,
    /// Advice before the move.
    pub advice: Vec<String>,
}

/// Group to which tenants of a bulk move would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMoveTarget {
    /// Region of the group.
    pub region: String,
    /// The group.
    pub group: u32,
    /// Tenants that would go there.
    pub tenants: u64,
    /// Those of them for which a copy must be made first.
    pub copies: u64,
}

/// Tenant of a bulk move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMoveTenant {
    /// Name of the tenant.
    pub tenant: String,
    /// How far it is.
    pub state: BulkMoveTenantState,
    /// Region of the home before; empty if it does not move.
    pub from_region: String,
    /// Group that was the home before; 0 if it does not move.
    pub from_group: u32,
    /// Region of the home afterwards.
    pub to_region: String,
    /// Group that is the home afterwards; 0 if that is not known.
    pub to_group: u32,
    /// Why it could not be moved; while it moves: why its move is given up.
    pub failure: String,
    /// Figures that a rehearsal has measured of it, and those that were forecast.
    pub rehearsal: Option<RehearsedTenant>,
}

/// State of a tenant of a bulk move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMoveTenantState {
    /// It is to be moved.
    Waiting,
    /// It moves.
    Moving,
    /// It was moved.
    Moved,
    /// It could not be moved.
    Failed,
    /// A state of a newer version.
    Other,
}

impl Pace {
    pub(super) fn message(self) -> v1::Pace {
        v1::Pace {
            canaries: self.canaries.unwrap_or_default(),
            at_once: self.at_once.unwrap_or_default(),
            wave_budget: self.wave_budget.map(duration),
        }
    }
}

fn failure(failure: v1::MoveFailure) -> (String, String) {
    (failure.tenant, failure.reason)
}

/// Reads the progress of a bulk move.
pub(super) fn progress(progress: v1::BulkMoveProgress) -> BulkMoveProgress {
    use bulk_move_progress::State;
    let pace = progress.pace.unwrap_or_default();
    BulkMoveProgress {
        state: match progress.state() {
            State::Running | State::Unspecified => BulkMoveState::Running,
            State::Paused => BulkMoveState::Paused(progress.paused_reason),
            State::Cancelling => BulkMoveState::Cancelling,
        },
        selection: progress.selection,
        selected: progress.selected,
        moving: progress.moving,
        moved: progress.moved,
        failed: progress.failed,
        wave: progress.wave,
        wave_size: progress.wave_size,
        pace: Pace {
            canaries: Some(pace.canaries),
            at_once: Some(pace.at_once),
            wave_budget: pace.wave_budget.and_then(|budget| budget.try_into().ok()),
        },
        failures: progress.failures.into_iter().map(failure).collect(),
        away: progress.away,
    }
}

/// Reads the plan of a bulk move.
pub(super) fn plan(plan: v1::BulkMovePlan) -> BulkMovePlan {
    let target = |target: v1::bulk_move_plan::Target| BulkMoveTarget {
        region: target.region,
        group: target.group,
        tenants: target.tenants,
        copies: target.copies,
    };
    BulkMovePlan {
        source: MoveSource::read(plan.source()),
        selection: plan.selection,
        tenants: plan.tenants,
        targets: plan.targets.into_iter().map(target).collect(),
        waves: plan.waves,
        refused: plan.refused,
        failures: plan.failures.into_iter().map(failure).collect(),
        moves: plan.moves.into_iter().map(tenant).collect(),
        copy_bytes: plan.copy_bytes,
        lag: plan.lag.and_then(|lag| lag.try_into().ok()),
        pause: plan.pause.and_then(|pause| pause.try_into().ok()),
        advice: plan.advice,
    }
}

/// Reads a tenant of a bulk move.
pub(super) fn tenant(of: v1::BulkMoveTenant) -> BulkMoveTenant {
    use bulk_move_tenant::State;
    BulkMoveTenant {
        state: match of.state() {
            State::Waiting => BulkMoveTenantState::Waiting,
            State::Moving => BulkMoveTenantState::Moving,
            State::Moved => BulkMoveTenantState::Moved,
            State::Failed => BulkMoveTenantState::Failed,
            State::Unspecified => BulkMoveTenantState::Other,
        },
        tenant: of.tenant,
        from_region: of.from_region,
        from_group: of.from_group,
        to_region: of.to_region,
        to_group: of.to_group,
        failure: of.failure,
        rehearsal: of.rehearsal.map(rehearsed),
    }
}
