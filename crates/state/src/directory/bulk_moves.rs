//! Applies commands about bulk moves.
//!
//! # Invariants
//!
//! 1. A bulk move begins a wave only when no tenant of the wave before is moving.
//! 2. A bulk move that is paused, being cancelled or over begins no move.
//! 3. What is next follows from the directory alone: a new leader goes on where the last one was.

use stead_types::{NodeId, RegionName, TenantNumber};

use super::{
    ApplyContext, AuditContext, BulkMove, BulkMoveItem, BulkMoveRequest, BulkMoveState, Directory, DirectoryChange,
    DirectoryOutcome, DirectoryResult, ItemMove, ItemState, NAMED_MOVES_MAX, NamedMove, Operation, OperationKind,
    OperationResult, PROMOTIONS_KEPT, Pace, Region, RehearsalProgress, Rejection, Selection, StepName, Tenant, Wave,
    bulk_move::Cursor,
    bulk_plan::{Planner, check_selection, named_tenants, returns_now},
};

/// Most bulk moves in flight.
pub const BULK_MOVES_MAX: usize = 16;
/// Most drains of a region until it is undrained, those included whose tenants are returning.
pub const DRAINS_MAX: usize = 16;
/// Most records of tenants of bulk moves; those of the oldest finished ones are dropped for new ones, but not of those that
/// say which tenants return to a region.
pub const ITEMS_MAX: u64 = 2_000_000;
/// Number of searches through all tenants.
pub(super) const PASSES: u32 = 2;
/// Time after which another cancellation is no repetition of the first one by a client that had no answer.
const CANCEL_AGAIN_MS: u64 = 5_000;

/// Next need of a bulk move.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing but time and reports.
    Nothing,
    /// Its next wave.
    Wave,
    /// A pause, for this reason.
    Pause(String),
    /// Its end.
    End,
}

impl BulkMove {
    pub(super) fn of(request: &BulkMoveRequest, selected: u64) -> Self {
        Self {
            selection: request.selection.clone(),
            source: request.source,
            pace: request.pace.bounded(),
            state: BulkMoveState::Running,
            drains: Box::new([]),
            selected,
            moving: 0,
            moved: 0,
            failed: 0,
            failures: Vec::new(),
            wave: Wave::default(),
            cursor: Cursor::default(),
            rehearsal: matches!(request.selection, Selection::Rehearse { .. }).then(RehearsalProgress::default),
        }
    }

    /// Returns the number of searches through its tenants.
    pub(super) fn passes(&self) -> u32 {
        if self.rehearsal.is_some() { 2 * PASSES } else { PASSES }
    }

    /// Decides what is next at a logged time.
    fn next(&self, time: u64) -> Next {
        match &self.state {
            BulkMoveState::Cancelling if self.moving == 0 => Next::End,
            BulkMoveState::Running if self.moving == 0 && self.cursor.pass >= self.passes() => Next::End,
            BulkMoveState::Running if self.moving == 0 => Next::Wave,
            BulkMoveState::Running if time >= self.wave.started + self.pace.wave_budget_ms => {
                let Wave { number, size, .. } = self.wave;
                let (moving, seconds) = (self.moving, self.pace.wave_budget_ms / 1_000);
                Next::Pause(format!(
                    "wave {number} missed its budget: {moving} of its {size} tenants did not move within {seconds} s"
                ))
            }
            BulkMoveState::Running | BulkMoveState::Paused { .. } | BulkMoveState::Cancelling => Next::Nothing,
        }
    }
}

/// Commands.
impl Directory {
    pub(super) fn begin_bulk_move(
        &mut self,
        context: &mut ApplyContext,
        by: AuditContext,
        request: &BulkMoveRequest,
    ) -> DirectoryResult {
        self.view.settings().check_moves()?;
        check_selection(&self.view, &request.selection)?;
        self.check_room_of_bulk_move(0)?;
        let items = self.named_items(request)?;
        let selected = self.selected(request, items.len())?;
        self.check_room_of_bulk_move(selected)?;
        let mut bulk = BulkMove::of(request, selected);
        let id = self.next_operation;
        match &request.selection {
            Selection::Drain { region, .. } => {
                let drains = self.finished_drains(region)?;
                // Those of an undrain come back if it is cancelled.
                if drains.len() + self.undraining(region) >= DRAINS_MAX {
                    return Err(Rejection::DrainedTooOften(region.clone()));
                }
                self.set_drains(context, region, drains.into_iter().chain([id]).collect());
            }
            Selection::Undrain { region, returns } => {
                bulk.drains = self.finished_drains(region)?.into();
                if !returns {
                    bulk.cursor.pass = PASSES;
                }
                self.set_drains(context, region, Vec::new());
            }
            Selection::Failback { region } => {
                bulk.drains = self.operations.promotions_to_undo(&self.view, region).into();
            }
            Selection::Label { .. } | Selection::Named | Selection::Spread { .. } | Selection::Rehearse { .. } => {}
        }
        self.next_operation += 1;
        self.operations.put(Operation {
            id,
            kind: OperationKind::BulkMove(Box::new(bulk)),
            tenants: Vec::new(),
            by,
            created: context.time,
            steps: vec![context.step(StepName::Planned)],
            end: None,
        });
        context.operations.push(id);
        for (tenant, item) in items {
            self.put_item(context, id, tenant, item);
        }
        Ok(DirectoryOutcome::Operation(id))
    }

    /// Checks that a bulk move of so many tenants may begin.
    pub(super) fn check_room_of_bulk_move(&self, selected: u64) -> Result<(), Rejection> {
        if self.operations.bulk_in_flight().count() >= BULK_MOVES_MAX {
            return Err(Rejection::BulkMovesFull);
        }
        let pinned = self.pinned();
        if !self.operations.has_room(|id| pinned.contains(&id)) {
            return Err(Rejection::OperationsFull);
        }
        let kept = self.operations.items_kept(|id| pinned.contains(&id));
        if kept.saturating_add(selected) > ITEMS_MAX {
            return Err(Rejection::BulkTenantsFull(selected, kept));
        }
        Ok(())
    }

    /// Does what a bulk move needs next. Proposed by the directory's leader while [`Directory::due_bulk_move`] says so; a
    /// command that comes late does nothing.
    pub(super) fn advance_bulk_move(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        unreachable: &[NodeId],
    ) -> DirectoryResult {
        let Some(bulk) = self.bulk_in_flight(id) else {
            return Ok(DirectoryOutcome::Done);
        };
        match bulk.next(context.time) {
            Next::Nothing => {}
            Next::Wave => self.begin_wave(context, id, bulk, unreachable),
            Next::Pause(reason) => self.pause(context, id, bulk, reason),
            Next::End => {
                self.drain_again(context, &bulk);
                let result = self.bulk_result(&bulk);
                self.end_rehearsal(context, id, &bulk, &result);
                self.operations.finish(id, context.end(result));
                context.operations.push(id);
            }
        }
        Ok(DirectoryOutcome::Done)
    }

    pub(super) fn pause_bulk_move(
        &mut self,
        context: &mut ApplyContext,
        by: &AuditContext,
        id: u64,
    ) -> DirectoryResult {
        let bulk = self.bulk_to_change(id)?;
        match bulk.state {
            BulkMoveState::Running => {
                let reason = match by.reason.as_str() {
                    "" => format!("paused by {}", by.who),
                    reason => format!("paused by {}: {reason}", by.who),
                };
                self.pause(context, id, bulk, reason);
                Ok(DirectoryOutcome::Done)
            }
            // What the caller wants has happened already.
            BulkMoveState::Paused { .. } => Ok(DirectoryOutcome::Done),
            BulkMoveState::Cancelling => Err(Rejection::OperationOver),
        }
    }

    /// Lets a bulk move go on, with another pace if one is given. After a pause its waves begin small again.
    pub(super) fn resume_bulk_move(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        pace: Option<Pace>,
    ) -> DirectoryResult {
        let mut bulk = self.bulk_to_change(id)?;
        match bulk.state {
            BulkMoveState::Running if pace.is_none() => return Ok(DirectoryOutcome::Done),
            BulkMoveState::Running => {}
            BulkMoveState::Paused { .. } => {
                bulk.state = BulkMoveState::Running;
                bulk.wave = Wave {
                    size_max: 0,
                    failed: 0,
                    started: context.time,
                    ..bulk.wave
                };
                self.operations.record(id, context.step(StepName::Resumed));
            }
            BulkMoveState::Cancelling => return Err(Rejection::OperationOver),
        }
        bulk.pace = pace.map_or(bulk.pace, Pace::bounded);
        self.put_bulk(context, id, bulk);
        Ok(DirectoryOutcome::Done)
    }

    /// Cancels a bulk move: it begins no further moves. Cancelled again later, those in flight are given up, too.
    pub(super) fn cancel_bulk_move(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        mut bulk: BulkMove,
    ) -> DirectoryResult {
        if self.cancel_rehearsal(context, id, &bulk) {
            return Ok(DirectoryOutcome::Done);
        }
        if bulk.state == BulkMoveState::Cancelling {
            let steps = self.operations.get(id).map(|operation| &operation.steps[..]);
            let mut requested = steps.unwrap_or_default().iter();
            let requested = requested.find(|step| step.name == StepName::AbortRequested);
            if requested.is_none_or(|step| context.time >= step.time + CANCEL_AGAIN_MS) {
                self.abort_items(context, id);
            }
            return Ok(DirectoryOutcome::Done);
        }
        bulk.state = BulkMoveState::Cancelling;
        self.operations.record(id, context.step(StepName::AbortRequested));
        self.put_bulk(context, id, bulk);
        Ok(DirectoryOutcome::Done)
    }

    /// Returns a bulk move that needs [`super::Command::AdvanceBulkMove`] at a logged time.
    pub fn due_bulk_move(&self, time: u64) -> Option<u64> {
        let mut in_flight = self.operations.bulk_in_flight();
        in_flight.find(|id| {
            let bulk = self.operations.bulk_move(*id);
            bulk.is_some_and(|bulk| bulk.next(time) != Next::Nothing)
        })
    }

    /// Tells whether a wave may miss its budget while nothing else happens.
    pub fn has_wave_in_flight(&self) -> bool {
        let mut in_flight = self.operations.bulk_in_flight();
        in_flight.any(|id| {
            let bulk = self.operations.bulk_move(id);
            bulk.is_some_and(|bulk| bulk.moving > 0 && bulk.state == BulkMoveState::Running)
        })
    }

    /// Returns the operations that are kept however old they are: they say which tenants return to a region, or when its
    /// loss was rehearsed. Promotions are from feature level 4 on only, because older voters drop them.
    pub(super) fn pinned(&self) -> Vec<u64> {
        let draining = self.view.regions().flat_map(|region| region.drains.iter());
        let rehearsed = self.view.regions().filter_map(|region| region.rehearsed);
        let promotions = if self.view.settings().has_region_loss() {
            PROMOTIONS_KEPT
        } else {
            0
        };
        let in_flight = self.operations.bulk_in_flight();
        let bulk = in_flight.filter_map(|id| self.operations.bulk_move(id));
        draining
            .chain(bulk.flat_map(|bulk| bulk.drains.iter()))
            .copied()
            .chain(rehearsed.map(|rehearsed| rehearsed.operation))
            .chain(self.operations.finished_promotions().rev().take(promotions))
            .collect()
    }
}

/// Beginning and end.
impl Directory {
    /// Returns the records of the tenants that a request names.
    fn named_items(&self, request: &BulkMoveRequest) -> Result<Vec<(TenantNumber, BulkMoveItem)>, Rejection> {
        if request.named.len() > NAMED_MOVES_MAX {
            return Err(Rejection::NamedTooMany(request.named.len() as u64));
        }
        if request.selection != Selection::Named {
            return Ok(Vec::new());
        }
        let named = named_tenants(&self.view, &request.named)?;
        let item = |(tenant, named): (&Tenant, &NamedMove)| {
            let state = ItemState::Waiting(named.to.clone());
            (tenant.number, BulkMoveItem::new(tenant.name.clone(), state))
        };
        Ok(named.into_iter().map(item).collect())
    }

    /// Counts the tenants that a request selects.
    fn selected(&self, request: &BulkMoveRequest, named: usize) -> Result<u64, Rejection> {
        let planner = Planner::new(&self.view, request.source, &[], 0);
        let tenants = || self.view.tenants_from(TenantNumber::new(0));
        let included = || {
            let goals = tenants().filter_map(|tenant| planner.goal(&request.selection, tenant));
            goals.count() as u64
        };
        let groups = |region| {
            self.view
                .groups_of(region)
                .map(|group| self.view.load(group.number).homes)
        };
        let count = match &request.selection {
            Selection::Drain { region, .. } => return Ok(groups(region).sum()),
            Selection::Undrain { region, returns } => {
                let drains = self.view.region(region).map(|region| &region.drains[..]);
                let moved = self.operations.moved(drains.unwrap_or_default());
                let returning = moved.filter(|(tenant, moved)| returns_now(&self.view, *tenant, moved).is_some());
                return Ok(if *returns { returning.count() as u64 } else { 0 });
            }
            Selection::Label { .. } => included(),
            Selection::Named => named as u64,
            Selection::Spread { region } => {
                let (homes, count) = (groups(region).sum::<u64>(), groups(region).count() as u64);
                let share = homes.div_ceil(count.max(1));
                groups(region).map(|homes| homes.saturating_sub(share)).sum()
            }
            Selection::Failback { region } => {
                let undone = self.operations.promotions_to_undo(&self.view, region);
                let back = undone
                    .into_iter()
                    .flat_map(|id| self.operations.ways_back(&self.view, region, id));
                let back: std::collections::BTreeSet<TenantNumber> = back.map(|(tenant, _)| tenant).collect();
                back.len() as u64
            }
            Selection::Rehearse { region } => return Err(Rejection::RehearsalWithoutForecast(region.clone())),
        };
        if count == 0 {
            return Err(Rejection::NothingToMove);
        }
        Ok(count)
    }

    /// Returns the drains of a region, none of which is in flight.
    fn finished_drains(&self, region: &RegionName) -> Result<Vec<u64>, Rejection> {
        let drains = self.view.region(region).map(|region| region.drains.to_vec());
        let drains = drains.unwrap_or_default();
        let is_in_flight = |id: &u64| self.operations.get(*id).is_some_and(|drain| drain.end.is_none());
        match drains.iter().copied().find(is_in_flight) {
            Some(operation) => Err(Rejection::DrainInFlight {
                region: region.clone(),
                operation,
            }),
            None => Ok(drains),
        }
    }

    /// Returns the number of drains whose tenants are returning to a region.
    fn undraining(&self, of: &RegionName) -> usize {
        let in_flight = self.operations.bulk_in_flight();
        let bulk = in_flight.filter_map(|id| self.operations.bulk_move(id));
        let undrains = bulk.filter(|bulk| matches!(&bulk.selection, Selection::Undrain { region, .. } if region == of));
        undrains.map(|bulk| bulk.drains.len()).sum()
    }

    /// Lets a region count as drained again if an undrain is cancelled before all have returned: so that it is not
    /// forgotten who did not.
    fn drain_again(&mut self, context: &mut ApplyContext, bulk: &BulkMove) {
        let Selection::Undrain { region, returns: true } = &bulk.selection else {
            return;
        };
        let returns = |(tenant, moved): (TenantNumber, ItemMove)| returns_now(&self.view, tenant, &moved).is_some();
        let is_complete = !self.operations.moved(&bulk.drains).any(returns);
        if bulk.state != BulkMoveState::Cancelling || is_complete {
            return;
        }
        let later = self.view.region(region).map(|region| region.drains.to_vec());
        let drains = bulk.drains.iter().copied().chain(later.unwrap_or_default());
        let drains = drains.collect();
        self.set_drains(context, region, drains);
    }

    fn set_drains(&mut self, context: &mut ApplyContext, region: &RegionName, drains: Vec<u64>) {
        if let Some(found) = self.view.region(region) {
            let region = Region {
                drains: drains.into(),
                ..found.clone()
            };
            context.push(&mut self.view, DirectoryChange::Region(region));
        }
    }

    fn bulk_result(&self, bulk: &BulkMove) -> OperationResult {
        if let Some(progress) = bulk.rehearsal {
            return bulk.rehearsal_result(progress);
        }
        if bulk.state == BulkMoveState::Cancelling {
            return OperationResult::Cancelled;
        }
        let left: u64 = match &bulk.selection {
            Selection::Drain { region, .. } => {
                let groups: Vec<_> = self.view.groups_of(region).map(|group| group.number).collect();
                let homes: u64 = groups.iter().map(|group| self.view.load(*group).homes).sum();
                let moves = self.view.tenants_from(TenantNumber::new(0));
                let moves = moves.filter_map(|tenant| tenant.moving.as_deref());
                homes + moves.filter(|moving| groups.contains(&moving.to)).count() as u64
            }
            Selection::Undrain { .. }
            | Selection::Label { .. }
            | Selection::Named
            | Selection::Spread { .. }
            | Selection::Failback { .. }
            | Selection::Rehearse { .. } => bulk.failed,
        };
        if left == 0 {
            return OperationResult::Succeeded;
        }
        let first = match bulk.failures.first() {
            Some(failure) => format!("; the first one: {}: {}", failure.name, failure.reason),
            None => "; moves into the region were in flight: drain it again once they are over".to_owned(),
        };
        OperationResult::Failed {
            reason: format!("{} tenants were moved, {left} were not{first}", bulk.moved),
        }
    }
}

/// Records.
impl Directory {
    pub(super) fn bulk_in_flight(&self, id: u64) -> Option<BulkMove> {
        let operation = self.operations.get(id)?;
        let bulk = self.operations.bulk_move(id).cloned();
        bulk.filter(|_| operation.end.is_none())
    }

    fn bulk_to_change(&self, id: u64) -> Result<BulkMove, Rejection> {
        self.operations.get(id).ok_or(Rejection::OperationUnknown(id))?;
        self.operations.bulk_move(id).ok_or(Rejection::NotBulkMove(id))?;
        self.bulk_in_flight(id).ok_or(Rejection::OperationOver)
    }

    pub(super) fn put_bulk(&mut self, context: &mut ApplyContext, id: u64, bulk: BulkMove) {
        self.operations.put_bulk_move(id, bulk);
        // The reports of a wave change one operation many times.
        if context.operations.last() != Some(&id) {
            context.operations.push(id);
        }
    }

    pub(super) fn put_item(&mut self, context: &mut ApplyContext, id: u64, tenant: TenantNumber, item: BulkMoveItem) {
        self.operations.put_item(id, tenant, item);
        context.items.push((id, tenant));
    }

    pub(super) fn pause(&mut self, context: &mut ApplyContext, id: u64, mut bulk: BulkMove, reason: String) {
        bulk.state = BulkMoveState::Paused { reason };
        self.operations.record(id, context.step(StepName::Paused));
        self.put_bulk(context, id, bulk);
    }
}
