//! Operations on tenants that take a while, in flight and finished: who asked for what and why, how far it is, how it
//! ended. Kept by the directory's voters only, not in the views of nodes.
//!
//! # Invariants
//!
//! 1. Numbers grow and are never used twice.
//! 2. There are at most [`OPERATIONS_MAX`]; the oldest finished ones are dropped, those in flight never.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stead_types::{Epoch, GroupId, TenantName, TenantNumber};

use super::{OPERATIONS_MAX, command::AuditContext, text};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    seed_pace::SeedFailure,
    shard::record::OperationId,
};

/// Time for which a finished operation is kept, by logged time.
pub const OPERATION_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Most steps of an operation; later ones are not recorded.
pub const OPERATION_STEPS_MAX: usize = 32;
/// Most finished operations that one command drops because of their age.
const EXPIRED_MAX: usize = 100;

/// Operation on tenants that takes a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Number in the cluster.
    pub id: u64,
    /// What it does.
    pub kind: OperationKind,
    /// Its tenants.
    pub tenants: Vec<OperationTenant>,
    /// Identity of the caller who asked for it, and the reason given.
    pub by: AuditContext,
    /// Logged time of its beginning, in milliseconds since 1970.
    pub created: u64,
    /// Steps that are done, in their order.
    pub steps: Vec<OperationStep>,
    /// How it ended; `None` while it is in flight.
    pub end: Option<OperationEnd>,
}

/// Kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// A tenant gets another home.
    Move {
        /// The home before.
        from: GroupId,
        /// The home afterwards.
        to: GroupId,
        /// Epoch in which it is the home.
        epoch: Epoch,
    },
}

/// Tenant of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationTenant {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Its name when the operation began.
    pub name: TenantName,
    /// Number of the operation among the tenant's.
    pub operation: OperationId,
}

/// Step of an operation that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationStep {
    /// What was done.
    pub name: StepName,
    /// Logged time.
    pub time: u64,
}

/// Name of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepName {
    /// The directory has planned the move.
    Planned,
    /// The target has caught up and is the heir.
    HeirReady,
    /// An operator has asked for the move to be given up.
    AbortRequested,
    /// The source has refused the move.
    Refused,
    /// The directory has recorded the new home.
    Recorded,
    /// The source has given up the seed of the target.
    SeedFailed(SeedFailure),
}

/// End of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationEnd {
    /// Its result.
    pub result: OperationResult,
    /// Logged time.
    pub time: u64,
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// It has done what was asked for.
    Succeeded,
    /// It could not be completed.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// It was given up on request.
    Cancelled,
}

/// The operations of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    all: BTreeMap<u64, Operation>,
    /// Operations in flight, by tenant and number.
    in_flight: BTreeMap<(TenantNumber, OperationId), u64>,
    /// Finished operations, by the time of their end.
    finished: BTreeSet<(u64, u64)>,
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

    pub(super) fn has_room(&self) -> bool {
        self.all.len() < OPERATIONS_MAX || !self.finished.is_empty()
    }

    /// Adds an operation, or puts one from a row.
    pub(super) fn put(&mut self, operation: Operation) {
        match &operation.end {
            Some(end) => drop(self.finished.insert((end.time, operation.id))),
            None => {
                let tenants = operation.tenants.iter();
                self.in_flight
                    .extend(tenants.map(|of| ((of.tenant, of.operation), operation.id)));
            }
        }
        self.all.insert(operation.id, operation);
    }

    /// Records a step of an operation in flight, and returns its number.
    pub(super) fn record(&mut self, tenant: TenantNumber, operation: OperationId, step: OperationStep) -> Option<u64> {
        let id = *self.in_flight.get(&(tenant, operation))?;
        let operation = self.all.get_mut(&id)?;
        if operation.steps.len() < OPERATION_STEPS_MAX {
            operation.steps.push(step);
        }
        Some(id)
    }

    /// Ends an operation in flight, and returns its number.
    pub(super) fn finish(&mut self, tenant: TenantNumber, operation: OperationId, end: OperationEnd) -> Option<u64> {
        let id = *self.in_flight.get(&(tenant, operation))?;
        let operation = self.all.get_mut(&id)?;
        for of in &operation.tenants {
            self.in_flight.remove(&(of.tenant, of.operation));
        }
        self.finished.insert((end.time, id));
        operation.end = Some(end);
        Some(id)
    }

    /// Drops finished operations that are too old, a bounded number, and those beyond the bound; returns their numbers.
    pub(super) fn drop_old(&mut self, time: u64) -> Vec<u64> {
        let mut dropped = Vec::new();
        while let Some((ended, id)) = self.finished.first().copied() {
            let is_old = time.saturating_sub(ended) >= OPERATION_KEPT_MS && dropped.len() < EXPIRED_MAX;
            if !is_old && self.all.len() <= OPERATIONS_MAX {
                break;
            }
            self.finished.pop_first();
            self.all.remove(&id);
            dropped.push(id);
        }
        dropped
    }
}

impl Operation {
    /// Returns why the seed of its target was given up.
    pub fn seed_failure(&self) -> Option<SeedFailure> {
        self.steps.iter().find_map(|step| match step.name {
            StepName::SeedFailed(failure) => Some(failure),
            StepName::Planned
            | StepName::HeirReady
            | StepName::AbortRequested
            | StepName::Refused
            | StepName::Recorded => None,
        })
    }

    /// Writes the operation, for its row and for the nodes that ask a voter.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(96);
        w.varint(self.id);
        let OperationKind::Move { from, to, epoch } = self.kind;
        w.u8(0).varint(u64::from(from.get())).varint(u64::from(to.get()));
        w.varint(u64::from(epoch.get()));
        w.list(self.tenants.iter(), |w, of| {
            text::write(w.varint(of.tenant.get()), of.name.as_str());
            w.varint(of.operation.0);
        });
        self.by.encode(&mut w);
        w.varint(self.created);
        w.list(self.steps.iter(), |w, step| {
            let name = match step.name {
                StepName::Planned => 0,
                StepName::HeirReady => 1,
                StepName::AbortRequested => 2,
                StepName::Refused => 3,
                StepName::Recorded => 4,
                StepName::SeedFailed(_) => 5,
            };
            w.u8(name);
            if let StepName::SeedFailed(failure) = step.name {
                failure.encode(w);
            }
            w.varint(step.time);
        });
        w.option(self.end.as_ref(), |w, end| {
            w.varint(end.time);
            match &end.result {
                OperationResult::Succeeded => drop(w.u8(0)),
                OperationResult::Failed { reason } => text::write(w.u8(1), reason),
                OperationResult::Cancelled => drop(w.u8(2)),
            }
        });
        w.finish()
    }

    /// Reads what [`Operation::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "operation");
        let r = &mut reader;
        let id = r.varint()?;
        let kind = match r.u8()? {
            0 => OperationKind::Move {
                from: text::group(r)?,
                to: text::group(r)?,
                epoch: decode_epoch(r)?,
            },
            1.. => return Err(r.malformed()),
        };
        let tenants = r.list(|r| {
            Ok(OperationTenant {
                tenant: TenantNumber::new(r.varint()?),
                name: text::parse(r)?,
                operation: OperationId(r.varint()?),
            })
        })?;
        let operation = Self {
            id,
            kind,
            tenants,
            by: AuditContext::decode(r)?,
            created: r.varint()?,
            steps: r.list(OperationStep::decode)?,
            end: r.option(OperationEnd::decode)?,
        };
        reader.end()?;
        Ok(operation)
    }
}

impl OperationStep {
    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: match r.u8()? {
                0 => StepName::Planned,
                1 => StepName::HeirReady,
                2 => StepName::AbortRequested,
                3 => StepName::Refused,
                4 => StepName::Recorded,
                5 => StepName::SeedFailed(SeedFailure::decode(r)?),
                6.. => return Err(r.malformed()),
            },
            time: r.varint()?,
        })
    }
}

impl OperationEnd {
    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let time = r.varint()?;
        let result = match r.u8()? {
            0 => OperationResult::Succeeded,
            1 => OperationResult::Failed { reason: text::read(r)? },
            2 => OperationResult::Cancelled,
            3.. => return Err(r.malformed()),
        };
        Ok(Self { result, time })
    }
}
