//! `Data` and `Offset`: what a home's stream brings. A batch of the stream is proposed as one entry: a `Data` for each
//! tenant, then the `Offset`.
//!
//! The stream carries [`Records`]; the follower puts a [`DataHead`] before them: it says for which attempt they were
//! sent, and what the proposer's view was.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, FeedOffset, GroupId, Revision, TenantNumber};

use super::{
    attach_number, epoch, group, kind, offset, revision, start, tenant, version, write_epoch, write_group,
    write_offset, write_version,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    rows::change::Change,
    shard::{digest::Digests, record::AttachNumber},
};

/// Changes of one tenant from its home.
///
/// Guard: the attempt is the record's, else it is ignored; follower or heir of that home; the session's epoch is the
/// record's and the highest promised; no older view; the first change that is new is the next. Where it is void it
/// ends the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// What the guard compares.
    pub head: DataHead,
    /// What the home sent.
    pub records: Records,
}

/// What the guard of a [`Data`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHead {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Of the proposer's view.
    pub version: DirectoryVersion,
    /// The attempt to attach that the home sent it for.
    pub attach: AttachNumber,
}

/// What a home's stream carries of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The changes in their order.
    pub changes: Vec<Change>,
    /// The home's digests as of the last of the changes, where that is the tenant's last.
    pub digests: Option<Digests>,
    /// The home's floor for this tenant.
    pub floor: Revision,
}

impl Data {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        self.head.command(&self.records.encode())
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            head: DataHead {
                tenant: tenant(r)?,
                home: group(r)?,
                epoch: epoch(r)?,
                version: version(r)?,
                attach: attach_number(r)?,
            },
            records: Records::read(r)?,
        })
    }
}

impl DataHead {
    /// Most bytes that a command has before its records.
    pub const LEN_MAX: usize = 48;

    /// Returns the command that takes in these records, as [`Records::encode`] wrote them.
    pub fn command(&self, records: &[u8]) -> Bytes {
        let mut w = start(kind::DATA, self.tenant, 40 + records.len());
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        w.varint(self.attach.0).raw(records);
        w.finish()
    }
}

impl Records {
    /// Writes the records as the stream carries them.
    pub fn encode(&self) -> Bytes {
        let len: usize = self.changes.iter().map(|change| change.len() + 64).sum();
        let mut w = Writer::with_capacity(32 + len);
        w.list(self.changes.iter(), |w, change| change.encode_for_feed(w));
        w.option(self.digests, |w, digests| digests.encode(w));
        w.varint(self.floor.to_u64());
        w.finish()
    }

    /// Reads what [`Records::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "feed records");
        let records = Self::read(&mut r)?;
        r.end()?;
        Ok(records)
    }

    fn read(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            changes: r.list(Change::decode_from_feed)?,
            digests: r.option(Digests::decode)?,
            floor: revision(r)?,
        })
    }
}

/// How far a home's stream is, as of the batch that this stands behind. Guard: above what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The home group.
    pub home: GroupId,
    /// The offset of the batch.
    pub offset: FeedOffset,
}

impl Offset {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = crate::codec::Writer::with_capacity(20);
        write_group(w.u8(kind::OFFSET), self.home);
        write_offset(&mut w, self.offset);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            home: group(r)?,
            offset: offset(r)?,
        })
    }
}
