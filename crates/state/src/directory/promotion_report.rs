//! Encoding of a group's freeze report.

use stead_types::{Revision, Sequence, TenantTime};

use super::text;
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::{Lineage, decode_epoch},
    shard::{
        ownership::FreezeReport,
        record::{OperationId, PreviousRole},
    },
};

/// Writes a report.
pub(super) fn encode(report: &FreezeReport, w: &mut Writer) {
    w.varint(report.operation.0).varint(u64::from(report.epoch.get()));
    match report.previous {
        PreviousRole::Owner => drop(w.u8(1)),
        PreviousRole::Follower => drop(w.u8(2)),
        PreviousRole::Relinquished(to) => drop(w.u8(3).varint(u64::from(to.get()))),
        PreviousRole::None => drop(w.u8(4)),
    }
    w.varint(u64::from(report.followed.get()))
        .varint(report.revision.to_u64());
    report.lineage.encode(w);
    w.varint(report.retention_floor.to_u64()).varint(report.time.0);
    w.bool(report.suspect).varint(report.forked_up_to.get());
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(r: &mut Reader) -> Result<FreezeReport, Malformed> {
    Ok(FreezeReport {
        operation: OperationId(r.varint()?),
        epoch: decode_epoch(r)?,
        previous: match r.u8()? {
            1 => PreviousRole::Owner,
            2 => PreviousRole::Follower,
            3 => PreviousRole::Relinquished(text::group(r)?),
            4 => PreviousRole::None,
            0 | 5.. => return Err(r.malformed()),
        },
        followed: decode_epoch(r)?,
        revision: Revision::from_u64(r.varint()?),
        lineage: Lineage::decode(r)?,
        retention_floor: Revision::from_u64(r.varint()?),
        time: TenantTime(r.varint()?),
        suspect: r.bool()?,
        forked_up_to: {
            let sequence = r.varint()?;
            Sequence::new(sequence).ok_or_else(|| r.malformed())?
        },
    })
}
