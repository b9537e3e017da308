//! `Data` and `Offset`: feed records of a home. A batch of the feed is proposed as one entry: a `Data` for each
//! tenant, then the `Offset`.
//!
//! The feed carries [`FeedRecords`]; the follower adds a [`DataHeader`] with the attempt that they were sent for, and
//! the version of the proposer's view.

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
/// record's and the highest promised; no older view; the first change that is new is the next. A failed guard ends
/// the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Fields that the guard compares.
    pub head: DataHeader,
    /// Records that the home sent.
    pub records: FeedRecords,
}

/// Header of a [`Data`] command: the fields that its guard compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Directory version of the proposer's view.
    pub version: DirectoryVersion,
    /// Number of the attach attempt that the home sent it for.
    pub attach: AttachNumber,
}

/// Feed records of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRecords {
    /// The changes in their order.
    pub changes: Vec<Change>,
    /// The home's digests as of the last of the changes, if that is the tenant's last change.
    pub digests: Option<Digests>,
    /// The home's retention floor for this tenant.
    pub retention_floor: Revision,
}

impl Data {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        self.head.command(&self.records.encode())
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
            records: FeedRecords::read(r)?,
        })
    }
}

impl DataHeader {
    /// Most bytes of a command before its records.
    pub const LEN_MAX: usize = 48;

    /// Returns the command that applies these records, as [`FeedRecords::encode`] wrote them.
    pub fn command(&self, records: &[u8]) -> Bytes {
        let mut w = start(kind::DATA, self.tenant, 40 + records.len());
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        w.varint(self.attach.0).raw(records);
        w.finish()
    }
}

impl FeedRecords {
    /// Writes the records as the feed carries them.
    pub fn encode(&self) -> Bytes {
        let len: usize = self.changes.iter().map(|change| change.len() + 64).sum();
        let mut w = Writer::with_capacity(32 + len);
        w.list(self.changes.iter(), |w, change| change.encode_for_feed(w));
        w.option(self.digests, |w, digests| digests.encode(w));
        w.varint(self.retention_floor.to_u64());
        w.finish()
    }

    /// Reads what [`FeedRecords::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "feed records");
        let records = Self::read(&mut r)?;
        r.end()?;
        Ok(records)
    }

    pub(super) fn read(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            changes: r.list(Change::decode_from_feed)?,
            digests: r.option(Digests::decode)?,
            retention_floor: revision(r)?,
        })
    }
}

/// Offset of a home's feed after the batch before it. Guard: above the current offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The home group.
    pub home: GroupId,
    /// Offset of the batch.
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
