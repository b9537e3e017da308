//! Operations on tenants that take a while, in flight and finished: who asked for what and why, how far it is, how it
//! ended. Kept by the directory's voters only, not in the views of nodes.
//!
//! # Invariants
//!
//! 1. Numbers grow and are never used twice.
//! 2. There are at most [`OPERATIONS_MAX`]; the oldest finished ones are dropped, those in flight never, and those never that
//!    say which tenants return to a region. Records of bulk moves have a bound of their own, in the same way.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::TenantNumber;

use super::{
    BulkMove, BulkMoveItem, ItemMove, ItemState, OPERATION_STEPS_MAX, OPERATIONS_MAX, Operation, OperationEnd,
    OperationKind, OperationStep, Promotion, PromotionItem, PromotionItems, PromotionState, Selection, StepName,
    TopologyChange,
};
use crate::shard::record::OperationId;

/// Time for which a finished operation is kept, by logged time.
pub const OPERATION_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Most finished operations that one command drops because of their age.
const EXPIRED_MAX: usize = 100;

/// The operations of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    all: BTreeMap<u64, Operation>,
    /// Operations in flight, by tenant and number.
    in_flight: BTreeMap<(TenantNumber, OperationId), u64>,
    /// Finished operations, by the time of their end.
    finished: BTreeSet<(u64, u64)>,
    /// Bulk moves in flight.
    bulk_in_flight: BTreeSet<u64>,
    /// Tenants of bulk moves, by operation and tenant.
    items: BTreeMap<(u64, TenantNumber), BulkMoveItem>,
    /// Tenants of promotions.
    promotions: PromotionItems,
    /// Promotions that are over.
    finished_promotions: BTreeSet<u64>,
    /// Changes of the topology in flight.
    topology_in_flight: BTreeSet<u64>,
}

impl Operations {
    /// Returns an operation.
    pub fn get(&self, id: u64) -> Option<&Operation> {
        self.all.get(&id)
    }

    /// Returns the operations below a number, newest first; `None`: all.
    pub fn newest_first(&self, below: Option<u64>) -> impl Iterator<Item = &Operation> {
        let below = below.unwrap_or(u64::MAX);
        self.all.range(..below).rev().map(|(_, operation)| operation)
    }

    /// Returns the operation in flight of a tenant with this number among the tenant's.
    pub fn in_flight(&self, tenant: TenantNumber, operation: OperationId) -> Option<&Operation> {
        self.all.get(self.in_flight.get(&(tenant, operation))?)
    }

    /// Returns how many operations are kept.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns a bulk move by the number of its operation.
    pub fn bulk_move(&self, id: u64) -> Option<&BulkMove> {
        match &self.all.get(&id)?.kind {
            OperationKind::BulkMove(bulk) => Some(bulk),
            OperationKind::Move { .. } | OperationKind::Promotion(_) | OperationKind::Topology(_) => None,
        }
    }

    /// Returns a promotion by the number of its operation.
    pub fn promotion(&self, id: u64) -> Option<&Promotion> {
        match &self.all.get(&id)?.kind {
            OperationKind::Promotion(promotion) => Some(promotion),
            OperationKind::Move { .. } | OperationKind::BulkMove(_) | OperationKind::Topology(_) => None,
        }
    }

    /// Returns the tenants of promotions.
    pub fn promotions(&self) -> &PromotionItems {
        &self.promotions
    }

    /// Returns the numbers of the promotions that are over, the oldest first.
    pub fn finished_promotions(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.finished_promotions.iter().copied()
    }

    /// Returns the numbers of the bulk moves in flight.
    pub fn bulk_in_flight(&self) -> impl Iterator<Item = u64> + '_ {
        self.bulk_in_flight.iter().copied()
    }

    /// Returns the numbers of the changes of the topology in flight.
    pub(super) fn topology_in_flight(&self) -> impl Iterator<Item = u64> + '_ {
        self.topology_in_flight.iter().copied()
    }

    /// Replaces a change of the topology.
    pub(super) fn put_topology_change(&mut self, id: u64, change: TopologyChange) {
        if let Some(operation) = self.all.get_mut(&id) {
            operation.kind = OperationKind::Topology(Box::new(change));
        }
    }

    /// Returns the record of a tenant of a bulk move.
    pub fn item(&self, id: u64, tenant: TenantNumber) -> Option<&BulkMoveItem> {
        self.items.get(&(id, tenant))
    }

    /// Returns the records of a bulk move from a tenant on, by tenant.
    pub fn items_from(&self, id: u64, from: TenantNumber) -> impl Iterator<Item = (TenantNumber, &BulkMoveItem)> {
        let all = (id, from)..=(id, TenantNumber::new(u64::MAX));
        self.items.range(all).map(|((_, tenant), item)| (*tenant, item))
    }

    /// Returns the tenants that bulk moves have moved, by operation and tenant.
    pub fn moved(&self, ids: &[u64]) -> impl Iterator<Item = (TenantNumber, ItemMove)> {
        let items = ids.iter().flat_map(|id| self.items_from(*id, TenantNumber::new(0)));
        items.filter_map(|(tenant, item)| match item.state {
            ItemState::Moved(moved) => Some((tenant, moved)),
            ItemState::Waiting(_) | ItemState::Moving(_) | ItemState::Failed { .. } => None,
        })
    }

    /// Returns every record of the bulk moves: the content of a snapshot.
    pub(crate) fn all_items(&self) -> impl Iterator<Item = (&(u64, TenantNumber), &BulkMoveItem)> {
        self.items.iter()
    }

    /// Tells whether there is room for another operation, once the oldest finished one that is not pinned is dropped.
    pub(super) fn has_room(&self, is_pinned: impl Fn(u64) -> bool) -> bool {
        self.all.len() < OPERATIONS_MAX || self.finished.iter().any(|(_, id)| !is_pinned(*id))
    }

    /// Counts the records of bulk moves that cannot be dropped for others: of those in flight, with what they may still
    /// add, and of pinned ones.
    pub(super) fn items_kept(&self, is_pinned: impl Fn(u64) -> bool) -> u64 {
        let droppable = self.finished.iter().filter(|(_, id)| !is_pinned(*id));
        let droppable: u64 = droppable.map(|(_, id)| self.item_count(*id)).sum();
        self.items_reserved().saturating_sub(droppable)
    }

    fn item_count(&self, id: u64) -> u64 {
        if self.bulk_move(id).is_none() {
            return 0;
        }
        self.items_from(id, TenantNumber::new(0)).count() as u64
    }

    /// Counts all records of bulk moves, with those that the ones in flight may still add.
    fn items_reserved(&self) -> u64 {
        let in_flight = self.bulk_in_flight.iter().filter_map(|id| self.bulk_move(*id));
        let to_come = in_flight.map(|bulk| match bulk.selection {
            // They have all been added when it began.
            Selection::Named | Selection::Rehearse { .. } => 0,
            Selection::Drain { .. }
            | Selection::Undrain { .. }
            | Selection::Failback { .. }
            | Selection::Label { .. }
            | Selection::Spread { .. } => bulk.selected.saturating_sub(bulk.moving + bulk.moved + bulk.failed),
        });
        self.items.len() as u64 + to_come.sum::<u64>()
    }

    /// Returns the oldest finished bulk moves that are not pinned and whose records are beyond a bound.
    fn with_excess_items(&self, items_max: u64, is_pinned: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let mut excess = self.items_reserved().saturating_sub(items_max);
        if excess == 0 {
            return Vec::new();
        }
        let mut dropped = Vec::new();
        for (ended, id) in self.finished.iter().filter(|(_, id)| !is_pinned(*id)) {
            let count = self.item_count(*id);
            if excess > 0 && count > 0 {
                excess = excess.saturating_sub(count);
                dropped.push((*ended, *id));
            }
        }
        dropped
    }

    /// Adds an operation, or puts one from a row.
    pub(super) fn put(&mut self, operation: Operation) {
        match &operation.end {
            Some(end) => {
                self.finished.insert((end.time, operation.id));
                if matches!(operation.kind, OperationKind::Promotion(_)) {
                    self.finished_promotions.insert(operation.id);
                }
            }
            None => {
                let tenants = operation.tenants.iter();
                self.in_flight
                    .extend(tenants.map(|of| ((of.tenant, of.operation), operation.id)));
                match operation.kind {
                    OperationKind::Move { .. } => {}
                    OperationKind::BulkMove(_) => drop(self.bulk_in_flight.insert(operation.id)),
                    OperationKind::Promotion(_) => self.promotions.begin(operation.id),
                    OperationKind::Topology(_) => drop(self.topology_in_flight.insert(operation.id)),
                }
            }
        }
        self.all.insert(operation.id, operation);
    }

    /// Puts the record of a tenant of a bulk move.
    pub(super) fn put_item(&mut self, id: u64, tenant: TenantNumber, item: BulkMoveItem) {
        if let ItemState::Moving(moving) = &item.state {
            self.in_flight.insert((tenant, moving.operation), id);
        }
        let before = self.items.insert((id, tenant), item);
        let now = &self.items[&(id, tenant)].state;
        if let Some(ItemState::Moving(moving)) = before.map(|before| before.state)
            && !matches!(now, ItemState::Moving(_))
        {
            self.in_flight.remove(&(tenant, moving.operation));
        }
    }

    /// Puts the record of a tenant of a promotion.
    pub(super) fn put_promotion_item(&mut self, id: u64, tenant: TenantNumber, item: PromotionItem) {
        let now = (item.operation, item.state == PromotionState::Moving);
        let before = self.promotions.put(id, tenant, item);
        if let Some(before) = before.filter(|before| before.state == PromotionState::Moving) {
            self.in_flight.remove(&(tenant, before.operation));
        }
        if let (operation, true) = now {
            self.in_flight.insert((tenant, operation), id);
        }
    }

    /// Returns a promotion for a change.
    pub(super) fn promotion_mut(&mut self, id: u64) -> Option<&mut Promotion> {
        match &mut self.all.get_mut(&id)?.kind {
            OperationKind::Promotion(promotion) => Some(promotion),
            OperationKind::Move { .. } | OperationKind::BulkMove(_) | OperationKind::Topology(_) => None,
        }
    }

    /// Replaces a bulk move.
    pub(super) fn put_bulk_move(&mut self, id: u64, bulk: BulkMove) {
        if let Some(operation) = self.all.get_mut(&id) {
            operation.kind = OperationKind::BulkMove(Box::new(bulk));
        }
    }

    /// Records a step of an operation in flight.
    pub(super) fn record(&mut self, id: u64, step: OperationStep) {
        if let Some(operation) = self.all.get_mut(&id)
            && (operation.steps.len() < OPERATION_STEPS_MAX || step.name == StepName::AbortRequested)
        {
            operation.steps.push(step);
        }
    }

    /// Ends an operation in flight.
    pub(super) fn finish(&mut self, id: u64, end: OperationEnd) {
        let Some(operation) = self.all.get_mut(&id) else {
            return;
        };
        for of in &operation.tenants {
            self.in_flight.remove(&(of.tenant, of.operation));
        }
        if matches!(operation.kind, OperationKind::Promotion(_)) {
            self.finished_promotions.insert(id);
        }
        self.bulk_in_flight.remove(&id);
        self.topology_in_flight.remove(&id);
        self.promotions.end(id);
        self.finished.insert((end.time, id));
        operation.end = Some(end);
    }

    /// Drops finished operations that are too old, a bounded number, those beyond the bound, and bulk moves whose records
    /// are beyond theirs, except pinned ones; returns their numbers, and the tenants of bulk moves.
    pub(super) fn drop_old(&mut self, time: u64, items_max: u64, is_pinned: impl Fn(u64) -> bool) -> DroppedOperations {
        let excess = self.all.len().saturating_sub(OPERATIONS_MAX);
        let is_old = |ended: u64| time.saturating_sub(ended) >= OPERATION_KEPT_MS;
        let finished = self.finished.iter().copied();
        let finished = finished.filter(|(ended, id)| (excess > 0 || is_old(*ended)) && !is_pinned(*id));
        let old = finished
            .enumerate()
            .take_while(|(at, (ended, _))| *at < excess || (*at < EXPIRED_MAX && is_old(*ended)));
        let mut old: BTreeSet<(u64, u64)> = old.map(|(_, finished)| finished).collect();
        old.extend(self.with_excess_items(items_max, &is_pinned));
        let mut dropped = DroppedOperations::default();
        for (ended, id) in old {
            self.finished.remove(&(ended, id));
            self.finished_promotions.remove(&id);
            self.all.remove(&id);
            let items = self.items_from(id, TenantNumber::new(0));
            let items: Vec<(u64, TenantNumber)> = items.map(|(tenant, _)| (id, tenant)).collect();
            for item in &items {
                self.items.remove(item);
            }
            dropped.items.extend(items);
            let promoted = self.promotions.remove(id).into_iter();
            dropped.promotion_items.extend(promoted.map(|tenant| (id, tenant)));
            dropped.operations.push(id);
        }
        dropped
    }
}

/// Operations that were dropped, and tenants of bulk moves and of promotions among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DroppedOperations {
    pub(super) operations: Vec<u64>,
    pub(super) items: Vec<(u64, TenantNumber)>,
    pub(super) promotion_items: Vec<(u64, TenantNumber)>,
}
