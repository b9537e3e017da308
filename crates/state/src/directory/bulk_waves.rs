//! Waves of bulk moves: which tenants move next, and how the move of each ends.

use std::collections::BTreeSet;

use stead_types::{NodeId, TenantName, TenantNumber};

use super::{
    ApplyContext, BulkMove, BulkMoveItem, BulkMoveState, Directory, ItemMove, ItemState, MoveFailure, MoveState,
    OperationResult, SHOWN_FAILURES_MAX, Selection, Tenant, Wave,
    bulk_move::Cursor,
    bulk_moves::PASSES,
    bulk_plan::{Goal, Planner, returns_now},
    failback::way_back,
    ownership,
};

/// Most tenants that one entry examines to find those of the next wave.
const EXAMINED_MAX: usize = 10_000;

/// Tenants of the next wave, and those that cannot be moved.
#[derive(Default)]
struct NextWave {
    planned: Vec<(Tenant, ItemMove)>,
    refused: Vec<(TenantNumber, TenantName, String)>,
}

impl BulkMove {
    pub(super) fn add_failure(&mut self, failure: MoveFailure) {
        self.failed += 1;
        self.show_failure(failure);
    }

    pub(super) fn show_failure(&mut self, failure: MoveFailure) {
        if self.failures.len() < SHOWN_FAILURES_MAX {
            self.failures.push(failure);
        }
    }

    /// Records that a tenant cannot be moved; one that is away in a rehearsal stays there, and is tried again.
    pub(super) fn refuse(&mut self, item: &mut BulkMoveItem, reason: String) {
        if let Some(rehearsal) = item.rehearsal.as_mut().filter(|rehearsal| rehearsal.away.is_some()) {
            rehearsal.failure.clone_from(&reason);
            self.show_failure(MoveFailure {
                name: item.name.clone(),
                reason: format!("it did not come back: {reason}"),
            });
            return;
        }
        self.add_failure(MoveFailure {
            name: item.name.clone(),
            reason: reason.clone(),
        });
        item.state = ItemState::Failed { reason };
    }
}

impl Directory {
    /// Plans the moves of the next wave, after a bounded search.
    pub(super) fn begin_wave(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        mut bulk: BulkMove,
        unreachable: &[NodeId],
    ) {
        let size_max = bulk.pace.next_size(bulk.wave.size_max);
        let planner = Planner::new(&self.view, bulk.source, unreachable, context.time);
        let NextWave { planned, refused } = self.search(planner, id, &mut bulk, size_max as usize);
        for (number, name, reason) in refused {
            let known = self.operations.item(id, number).cloned();
            let mut item =
                known.unwrap_or_else(|| BulkMoveItem::new(name.clone(), ItemState::Failed { reason: String::new() }));
            bulk.refuse(&mut item, reason);
            self.put_item(context, id, number, item);
        }
        if !planned.is_empty() {
            bulk.moving = planned.len() as u64;
            bulk.wave = Wave {
                number: bulk.wave.number + 1,
                size_max,
                size: u32::try_from(planned.len()).unwrap_or(u32::MAX),
                failed: 0,
                started: context.time,
            };
        }
        for (tenant, moving) in planned {
            let mut item = BulkMoveItem::new(tenant.name.clone(), ItemState::Moving(moving));
            item.rehearsal = self
                .operations
                .item(id, tenant.number)
                .and_then(|item| item.rehearsal.clone());
            if let Some(rehearsal) = &mut item.rehearsal {
                rehearsal.leg().planned = context.time;
            }
            self.put_item(context, id, tenant.number, item);
            self.change(context, tenant);
        }
        self.put_bulk(context, id, bulk);
    }

    /// Searches for the tenants of the next wave, from the cursor on.
    fn search(&self, mut planner: Planner<'_>, id: u64, bulk: &mut BulkMove, size_max: usize) -> NextWave {
        let mut next = NextWave::default();
        let mut found = BTreeSet::new();
        for _ in 0..EXAMINED_MAX {
            if next.planned.len() >= size_max || bulk.cursor.pass >= bulk.passes() {
                break;
            }
            let is_last_pass = (bulk.cursor.pass + 1).is_multiple_of(PASSES);
            // Another search begins once this wave is over: a tenant that is busy now may be free then.
            if bulk.cursor.pass > 0 && bulk.cursor.tenant == 0 && !next.planned.is_empty() {
                break;
            }
            let Some(number) = self.examine(id, bulk).filter(|number| !found.contains(number)) else {
                continue;
            };
            let Some(tenant) = self.view.tenant(number) else {
                let waiting = self.operations.item(id, number);
                let waiting = waiting.filter(|item| matches!(item.state, ItemState::Waiting(_)));
                let erased = waiting.map(|item| (number, item.name.clone(), "the tenant was erased".to_owned()));
                found.extend(erased.as_ref().map(|_| number));
                next.refused.extend(erased);
                continue;
            };
            let Some(goal) = self.goal(id, bulk, &planner, tenant) else {
                continue;
            };
            // One that is busy is tried again at the end.
            if tenant.moving.is_some() && !is_last_pass {
                continue;
            }
            found.insert(tenant.number);
            match planner.plan(tenant, goal) {
                Ok((after, moving)) => {
                    let item = ItemMove {
                        operation: moving.operation,
                        from: tenant.home,
                        to: moving.to,
                        joined: moving.joined,
                        time: moving.started,
                    };
                    next.planned.push((after, item));
                }
                Err(rejection) => next
                    .refused
                    .push((tenant.number, tenant.name.clone(), rejection.to_string())),
            }
        }
        next
    }

    /// Returns the next tenant to examine, and moves the cursor behind it; `None` at the end of a search.
    fn examine(&self, id: u64, bulk: &mut BulkMove) -> Option<TenantNumber> {
        let from = TenantNumber::new(bulk.cursor.tenant);
        let found = match &bulk.selection {
            Selection::Drain { .. } | Selection::Label { .. } | Selection::Spread { .. } => {
                self.view.tenants_from(from).next().map(|tenant| tenant.number)
            }
            Selection::Named | Selection::Rehearse { .. } => {
                self.operations.items_from(id, from).next().map(|(tenant, _)| tenant)
            }
            Selection::Failback { .. } => {
                let promotion = bulk.drains.get(bulk.cursor.drain as usize).copied();
                let items = promotion
                    .into_iter()
                    .flat_map(|promotion| self.operations.promotions().from(promotion, from));
                items.map(|(tenant, _)| tenant).next()
            }
            Selection::Undrain { .. } => {
                let drain = bulk.drains.get(bulk.cursor.drain as usize).copied();
                let items = drain
                    .into_iter()
                    .flat_map(|drain| self.operations.items_from(drain, from));
                items.map(|(tenant, _)| tenant).next()
            }
        };
        let has_more_drains = bulk.cursor.drain as usize + 1 < bulk.drains.len();
        bulk.cursor = match found {
            Some(tenant) => Cursor {
                tenant: tenant.get().saturating_add(1),
                ..bulk.cursor
            },
            None if has_more_drains => Cursor {
                drain: bulk.cursor.drain + 1,
                tenant: 0,
                ..bulk.cursor
            },
            None => Cursor {
                pass: bulk.cursor.pass + 1,
                ..Cursor::default()
            },
        };
        found
    }

    /// Returns where a tenant that was examined goes; `None` if it is not selected, or was before.
    fn goal<'a>(&'a self, id: u64, bulk: &'a BulkMove, planner: &Planner<'_>, tenant: &Tenant) -> Option<Goal<'a>> {
        let item = self.operations.item(id, tenant.number);
        let own = item.map(|item| &item.state);
        match (&bulk.selection, own) {
            (Selection::Rehearse { .. }, Some(ItemState::Waiting(to))) if bulk.cursor.pass < PASSES => {
                Some(Goal::Into(to))
            }
            (Selection::Rehearse { .. }, Some(ItemState::Moved(_))) if bulk.cursor.pass >= PASSES => {
                let rehearsal = item?.rehearsal.as_ref().filter(|rehearsal| rehearsal.is_away())?;
                let away = rehearsal.away?;
                returns_now(&self.view, tenant.number, &away).map(|_| Goal::BackTo(away))
            }
            (Selection::Failback { region }, None) => {
                let promotion = bulk.drains.get(bulk.cursor.drain as usize)?;
                let item = self.operations.promotions().get(*promotion, tenant.number)?;
                way_back(&self.view, region, tenant.number, item).map(Goal::BackTo)
            }
            (Selection::Named, Some(ItemState::Waiting(to))) => Some(Goal::Into(to)),
            (Selection::Undrain { .. }, None) => {
                let drain = bulk.drains.get(bulk.cursor.drain as usize)?;
                let moved = match self.operations.item(*drain, tenant.number)?.state {
                    ItemState::Moved(moved) => moved,
                    ItemState::Waiting(_) | ItemState::Moving(_) | ItemState::Failed { .. } => return None,
                };
                returns_now(&self.view, tenant.number, &moved).map(|_| Goal::BackTo(moved))
            }
            (Selection::Drain { .. } | Selection::Label { .. } | Selection::Spread { .. }, None) => {
                planner.goal(&bulk.selection, tenant)
            }
            (_, _) => None,
        }
    }

    /// Records the end of the move of one tenant.
    pub(super) fn end_bulk_item(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        tenant: TenantNumber,
        result: &OperationResult,
    ) {
        let Some(mut bulk) = self.bulk_in_flight(id) else {
            return;
        };
        let Some(mut item) = self.operations.item(id, tenant).cloned() else {
            return;
        };
        let ItemState::Moving(moving) = item.state else {
            return;
        };
        let time = context.time;
        let failure = match result {
            OperationResult::Succeeded => None,
            OperationResult::Failed { reason } => Some(reason.clone()),
            OperationResult::Cancelled => Some("its move was given up".to_owned()),
        };
        bulk.moving = bulk.moving.saturating_sub(1);
        let failed_now = failure.is_some();
        if item.rehearsal.is_some() {
            bulk.end_leg(&mut item, moving, time, failure);
        } else if let Some(reason) = failure {
            bulk.wave.failed += 1;
            bulk.refuse(&mut item, reason);
        } else {
            bulk.moved += 1;
            item.state = ItemState::Moved(ItemMove { time, ..moving });
        }
        self.put_item(context, id, tenant, item);
        if failed_now && bulk.state == BulkMoveState::Running && bulk.wave.fails() {
            let Wave {
                number, size, failed, ..
            } = bulk.wave;
            let last = bulk.failures.last();
            let last = last.map(|last| format!(", such as {}: {}", last.name, last.reason));
            let reason = format!(
                "wave {number} missed its budget: {failed} of its {size} tenants were not moved{}",
                last.unwrap_or_default()
            );
            self.pause(context, id, bulk, reason);
            return;
        }
        self.put_bulk(context, id, bulk);
    }

    /// Asks for the moves of a bulk move that are in flight to be given up.
    pub(super) fn abort_items(&mut self, context: &mut ApplyContext, id: u64) {
        let items = self.operations.items_from(id, TenantNumber::new(0));
        let moving = items.filter_map(|(tenant, item)| match item.state {
            ItemState::Moving(moving) => Some((tenant, moving.operation)),
            ItemState::Waiting(_) | ItemState::Moved(_) | ItemState::Failed { .. } => None,
        });
        for (number, operation) in moving.collect::<Vec<_>>() {
            let tenant = self.view.tenant(number).map(|tenant| Tenant::clone(tenant));
            let Some(mut tenant) = tenant else { continue };
            let before = tenant.moving.as_deref().map(|moving| moving.state);
            let aborted = ownership::abort_move(&mut tenant, operation);
            if aborted.is_ok() && before != Some(MoveState::Aborting) {
                self.change(context, tenant);
            }
        }
    }
}
