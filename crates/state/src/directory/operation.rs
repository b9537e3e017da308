//! Operation on tenants that takes a while, with its steps and its end.

use bytes::Bytes;
use stead_types::{Epoch, GroupId, RegionName, TenantName, TenantNumber};

use super::{BulkMove, DirectoryView, Promotion, Selection, TopologyChange, command::AuditContext, text};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    seed_pace::SeedFailure,
    shard::record::OperationId,
};

/// Most steps of an operation; later ones are not recorded.
pub const OPERATION_STEPS_MAX: usize = 32;

/// Operation on tenants that takes a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Number in the cluster.
    pub id: u64,
    /// Kind of the operation.
    pub kind: OperationKind,
    /// Its tenants; none of a bulk move or a promotion.
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Many tenants get other homes, in waves. It has a record of each instead of [`Operation::tenants`].
    BulkMove(Box<BulkMove>),
    /// Tenants get other homes although theirs are lost. It has a record of each instead of [`Operation::tenants`].
    Promotion(Box<Promotion>),
    /// Nodes or regions are added, replaced or removed. From feature level 5 on.
    Topology(Box<TopologyChange>),
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
    /// Name of the step.
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
    /// An operator has asked for the operation to be given up.
    AbortRequested,
    /// The source has refused the move.
    Refused,
    /// The directory has recorded the new home.
    Recorded,
    /// The source has given up the seed of the target.
    SeedFailed(SeedFailure),
    /// A bulk move begins no further moves until it is resumed.
    Paused,
    /// A bulk move goes on.
    Resumed,
    /// Every node that was announced has joined.
    NodesJoined,
    /// The groups of a new region are made.
    GroupsMade,
    /// A group has new voters.
    VotersChanged,
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

impl Operation {
    /// Returns the regions that whoever begins, cancels or pauses it must operate; `None`: the cluster.
    pub fn operated_regions(&self, view: &DirectoryView) -> Option<Vec<RegionName>> {
        let region = |group| Some(view.region_of(group)?.name.clone());
        match &self.kind {
            OperationKind::Move { from, to, .. } => Some(vec![region(*from)?, region(*to)?]),
            OperationKind::BulkMove(bulk) => match &bulk.selection {
                Selection::Drain { region, .. }
                | Selection::Undrain { region, .. }
                | Selection::Failback { region }
                | Selection::Rehearse { region } => Some(vec![region.clone()]),
                Selection::Label { .. } | Selection::Named | Selection::Spread { .. } => None,
            },
            OperationKind::Promotion(_) | OperationKind::Topology(_) => None,
        }
    }

    /// Returns why the seed of its target was given up.
    pub fn seed_failure(&self) -> Option<SeedFailure> {
        self.steps.iter().find_map(|step| match step.name {
            StepName::SeedFailed(failure) => Some(failure),
            StepName::Planned
            | StepName::HeirReady
            | StepName::AbortRequested
            | StepName::Refused
            | StepName::Recorded
            | StepName::Paused
            | StepName::Resumed
            | StepName::NodesJoined
            | StepName::GroupsMade
            | StepName::VotersChanged => None,
        })
    }

    /// Writes the operation, for its row and for the nodes that ask a voter.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(96);
        w.varint(self.id);
        match &self.kind {
            OperationKind::Move { from, to, epoch } => {
                w.u8(0).varint(u64::from(from.get())).varint(u64::from(to.get()));
                w.varint(u64::from(epoch.get()));
            }
            OperationKind::BulkMove(bulk) => bulk.encode(w.u8(1)),
            OperationKind::Promotion(promotion) => {
                promotion.encode(w.u8(if promotion.has_renewals() { 3 } else { 2 }));
            }
            OperationKind::Topology(change) => change.encode(w.u8(4)),
        }
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
                StepName::Paused => 6,
                StepName::Resumed => 7,
                StepName::NodesJoined => 8,
                StepName::GroupsMade => 9,
                StepName::VotersChanged => 10,
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
            1 => OperationKind::BulkMove(Box::new(BulkMove::decode(r)?)),
            2 => OperationKind::Promotion(Box::new(Promotion::decode(r, false)?)),
            3 => OperationKind::Promotion(Box::new(Promotion::decode(r, true)?)),
            4 => OperationKind::Topology(Box::new(TopologyChange::decode(r)?)),
            5.. => return Err(r.malformed()),
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
                6 => StepName::Paused,
                7 => StepName::Resumed,
                8 => StepName::NodesJoined,
                9 => StepName::GroupsMade,
                10 => StepName::VotersChanged,
                11.. => return Err(r.malformed()),
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
