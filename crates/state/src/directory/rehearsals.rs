//! Applies commands about rehearsals: bulk moves whose tenants go away and come back.
//!
//! # Invariants
//!
//! 1. No tenant goes away once one is to come back; a wave has tenants of one way only.
//! 2. A tenant comes back to the group that it left, and only from where the rehearsal has put it.
//! 3. Cancelled while tenants are away, it brings them back first.

use stead_types::TenantNumber;

use super::{
    ApplyContext, AuditContext, BulkMove, BulkMoveItem, BulkMoveRequest, Directory, DirectoryChange, DirectoryOutcome,
    DirectoryResult, ItemMove, ItemState, NAMED_MOVES_MAX, Operation, OperationKind, OperationResult, Region,
    RehearsalItem, RehearsalProgress, RehearsalRequest, Rehearsed, Rejection, Selection, SourceAfterMove, StepName,
    bulk_move::Cursor, bulk_moves::PASSES, placement,
};
use crate::shard::record::OperationId;

impl Directory {
    /// Begins the rehearsal of the loss of a region.
    pub(super) fn begin_rehearsal(
        &mut self,
        context: &mut ApplyContext,
        by: AuditContext,
        request: RehearsalRequest,
    ) -> DirectoryResult {
        self.view.settings().check_region_loss()?;
        placement::open(&self.view, &request.region)?;
        if request.tenants.len() > NAMED_MOVES_MAX {
            return Err(Rejection::NamedTooMany(request.tenants.len() as u64));
        }
        self.check_room_of_bulk_move(request.tenants.len() as u64)?;
        let items = self.rehearsed_items(&request)?;
        let bulk = BulkMoveRequest {
            selection: Selection::Rehearse { region: request.region },
            named: Vec::new(),
            source: SourceAfterMove::Follow,
            pace: request.pace,
        };
        let id = self.next_operation;
        self.next_operation += 1;
        self.operations.put(Operation {
            id,
            kind: OperationKind::BulkMove(Box::new(BulkMove::of(&bulk, items.len() as u64))),
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

    /// Returns the records of the tenants that a rehearsal names.
    fn rehearsed_items(&self, request: &RehearsalRequest) -> Result<Vec<(TenantNumber, BulkMoveItem)>, Rejection> {
        let mut items = std::collections::BTreeMap::new();
        for named in &request.tenants {
            let tenant = self.view.tenant_named(&named.name);
            let tenant = tenant.ok_or_else(|| Rejection::TenantUnknown(named.name.clone()))?;
            let home = self.view.region_of(tenant.home).map(|home| &home.name);
            if home != Some(&request.region) {
                return Err(Rejection::NotHome {
                    tenant: named.name.clone(),
                    region: request.region.clone(),
                });
            }
            placement::open(&self.view, &named.to)?;
            if named.to == request.region {
                return Err(Rejection::AlreadyHome(named.name.clone()));
            }
            let mut item = BulkMoveItem::new(named.name.clone(), ItemState::Waiting(named.to.clone()));
            item.rehearsal = Some(Box::new(RehearsalItem {
                forecast: named.forecast.clone(),
                ..RehearsalItem::default()
            }));
            if items.insert(tenant.number, item).is_some() {
                return Err(Rejection::NamedTwice(named.name.clone()));
            }
        }
        if items.is_empty() {
            return Err(Rejection::NothingToMove);
        }
        Ok(items.into_iter().collect())
    }

    /// Cancels a rehearsal: those that are away come back. Returns whether that is all that is to be done: cancelled
    /// again, it stops where it is.
    pub(super) fn cancel_rehearsal(&mut self, context: &mut ApplyContext, id: u64, bulk: &BulkMove) -> bool {
        let Some(progress) = bulk.rehearsal.filter(|progress| !progress.is_cancelled) else {
            return false;
        };
        let mut bulk = bulk.clone();
        bulk.rehearsal = Some(RehearsalProgress {
            is_cancelled: true,
            ..progress
        });
        if bulk.cursor.pass < PASSES {
            bulk.cursor = Cursor {
                pass: PASSES,
                ..Cursor::default()
            };
        }
        self.operations.record(id, context.step(StepName::AbortRequested));
        self.put_bulk(context, id, bulk);
        true
    }

    /// Records in a tenant of a rehearsal, or of a promotion that moves it first, that the target of its move has caught up.
    /// From feature level 4 on, because older voters do not.
    pub(super) fn record_leg_ready(
        &mut self,
        context: &mut ApplyContext,
        tenant: TenantNumber,
        operation: OperationId,
    ) {
        if !self.view.settings().has_region_loss() {
            return;
        }
        let id = self.operations.in_flight(tenant, operation).map(|of| of.id);
        let promoted = id.and_then(|id| Some((id, self.operations.promotions().get(id, tenant)?.clone())));
        if let Some((id, mut item)) = promoted {
            item.times.chosen = context.time;
            self.put_promotion_item(context, id, tenant, item);
            return;
        }
        let Some((id, mut item)) = id.and_then(|id| Some((id, self.operations.item(id, tenant)?.clone()))) else {
            return;
        };
        if let Some(rehearsal) = &mut item.rehearsal {
            rehearsal.leg().ready = context.time;
            self.put_item(context, id, tenant, item);
        }
    }

    /// Records that a region's loss was rehearsed.
    pub(super) fn end_rehearsal(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        bulk: &BulkMove,
        result: &OperationResult,
    ) {
        let Selection::Rehearse { region } = &bulk.selection else {
            return;
        };
        if let (Some(found), OperationResult::Succeeded) = (self.view.region(region), result) {
            let rehearsed = Rehearsed {
                operation: id,
                time: context.time,
            };
            let region = Region {
                rehearsed: Some(rehearsed),
                ..found.clone()
            };
            context.push(&mut self.view, DirectoryChange::Region(region));
        }
    }
}

impl BulkMove {
    /// Returns the result of a rehearsal that is over.
    pub(super) fn rehearsal_result(&self, progress: RehearsalProgress) -> OperationResult {
        let RehearsalProgress { away, is_cancelled } = progress;
        if away == 0 && is_cancelled {
            return OperationResult::Cancelled;
        }
        if away + self.failed == 0 {
            return OperationResult::Succeeded;
        }
        let first = self.failures.first();
        let first = first.map(|failure| format!("; the first one: {}: {}", failure.name, failure.reason));
        let away = match away {
            0 => String::new(),
            away => format!(", {away} are away still: move them back by hand"),
        };
        OperationResult::Failed {
            reason: format!(
                "{} tenants went away and came back, {} were not moved{away}{}",
                self.moved,
                self.failed,
                first.unwrap_or_default()
            ),
        }
    }

    /// Takes the end of a move of a tenant of a rehearsal.
    pub(super) fn end_leg(&mut self, item: &mut BulkMoveItem, moving: ItemMove, time: u64, failure: Option<String>) {
        let Some(rehearsal) = &mut item.rehearsal else {
            return;
        };
        let done = ItemMove { time, ..moving };
        let progress = self.rehearsal.get_or_insert_default();
        match (failure, rehearsal.away) {
            (None, None) => {
                rehearsal.there.recorded = time;
                rehearsal.away = Some(done);
                item.state = ItemState::Moved(done);
                progress.away += 1;
            }
            (None, Some(_)) => {
                rehearsal.back.recorded = time;
                item.state = ItemState::Moved(done);
                progress.away = progress.away.saturating_sub(1);
                self.moved += 1;
            }
            (Some(reason), away) => {
                if let Some(away) = away {
                    item.state = ItemState::Moved(away);
                }
                self.wave.failed += 1;
                self.refuse(item, reason);
            }
        }
    }
}
