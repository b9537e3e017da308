//! `Accept` and the baton that it carries: a group takes a tenant over at the last change of the epoch before.
//!
//! The feed carries the [`Baton`]; the target adds a [`DataHeader`] with the attempt that it was sent for, and the
//! version of the proposer's view.

use bytes::Bytes;
use stead_types::{Epoch, GroupId, Incarnation, Revision, TenantTime};

use super::{
    DataHeader, attach_number, epoch, group, kind, operation, policy, revision, start, tenant, version, write_epoch,
    write_group, write_policy, write_version,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    shard::{
        digest::Digests,
        record::{LeaseLossPolicy, OperationId},
    },
};

/// Feed record that carries the ownership in a planned move: at position (`epoch`, `last`), after the last change of
/// the epoch before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Baton {
    /// Number of the move.
    pub operation: OperationId,
    /// The group that takes over.
    pub to: GroupId,
    /// Epoch that ends with it.
    pub from_epoch: Epoch,
    /// Epoch handed over.
    pub epoch: Epoch,
    /// Last change of the epoch that ends.
    pub last: Revision,
    /// Digests at that change.
    pub digests: Digests,
    /// Lease loss policy in force.
    pub policy: LeaseLossPolicy,
    /// Tenant time at the handover.
    pub time: TenantTime,
    /// The owner's retention floor for this tenant.
    pub retention_floor: Revision,
    /// Members whose acknowledgements do not count: the new owner must not count them either before they have
    /// rejoined.
    pub uncounted: Vec<GroupId>,
}

/// Takes a tenant over by the baton.
///
/// Guard: the baton names this group; follower or heir of that home at the session's epoch, which is the one that the
/// baton ends; the attempt is the record's, attached, of that incarnation; not suspect, complete idempotency windows;
/// the copy is at the last change; a lower epoch was promised; no older view; equal digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Fields of the feed session: the epoch is that of the session.
    pub head: DataHeader,
    /// The home group's incarnation.
    pub incarnation: Incarnation,
    /// The baton as the home sent it.
    pub baton: Baton,
}

impl Baton {
    /// Writes the baton as the feed carries it.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(96);
        self.write(&mut w);
        w.finish()
    }

    /// Reads what [`Baton::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "baton");
        let baton = Self::read(&mut r)?;
        r.end()?;
        Ok(baton)
    }

    /// Returns the command that takes the tenant over in a feed session.
    pub fn accept(self, head: DataHeader, incarnation: Incarnation) -> Accept {
        Accept {
            head,
            incarnation,
            baton: self,
        }
    }

    fn write(&self, w: &mut Writer) {
        w.varint(self.operation.0);
        write_group(w, self.to);
        write_epoch(w, self.from_epoch);
        write_epoch(w, self.epoch);
        self.digests.encode(w.varint(self.last.to_u64()));
        write_policy(w, self.policy);
        w.varint(self.time.0).varint(self.retention_floor.to_u64());
        w.list(self.uncounted.iter(), |w, group| write_group(w, *group));
    }

    fn read(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            operation: operation(r)?,
            to: group(r)?,
            from_epoch: epoch(r)?,
            epoch: epoch(r)?,
            last: revision(r)?,
            digests: Digests::decode(r)?,
            policy: policy(r)?,
            time: TenantTime(r.varint()?),
            retention_floor: revision(r)?,
            uncounted: r.list(group)?,
        })
    }
}

impl Accept {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::ACCEPT, self.head.tenant, 128);
        write_group(&mut w, self.head.home);
        write_epoch(&mut w, self.head.epoch);
        write_version(&mut w, self.head.version);
        w.varint(self.head.attach.0).varint(u64::from(self.incarnation.0));
        self.baton.write(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            head: DataHeader {
                tenant: tenant(r)?,
                home: group(r)?,
                epoch: epoch(r)?,
                version: version(r)?,
                attach: attach_number(r)?,
            },
            incarnation: Incarnation(r.varint_u32()?),
            baton: Baton::read(r)?,
        })
    }
}
