//! TENANT: a tenant's record in a group.
//!
//! Key: kind, group u32, install u32, tenant u64. Value: format byte 2, then the fields of [`TenantRecord`] in their
//! order; counters as varints, digests as sixteen bytes each. With format byte 3, which only a record that was rewound
//! has, what belongs to rewinds follows: whether the live copy lacks outcomes, the rewind under way, the tail of each
//! fork; with format byte 4 the copy that is being seeded has idempotency windows alone. Format bytes 6, 7 and 8 are 2, 3
//! and 4 with the remote watermark at the end, where there is one. The record is decoded at start and held in memory; its
//! row is written at checkpoints.

use bytes::Bytes;
use stead_types::{
    ClientId, DirectoryVersion, Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber, TenantTime,
};

use super::{GroupPrefix, kind};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::{Lineage, decode_epoch},
    shard::{
        digest::Digests,
        record::{
            AttachNumber, AttachSession, ClientRange, CopyState, Fork, Handover, LeaseLossPolicy, OperationId,
            PreviousRole, Rewind, Role, SeedNumber, ShadowCopy, Tail, TenantRecord,
        },
    },
};

const FORMAT: u8 = 2;
const FORMAT_REWOUND: u8 = 3;
const FORMAT_WINDOWS: u8 = 4;
/// Added to the format byte of a record with a remote watermark.
const WITH_REMOTE: u8 = 4;

/// Returns the key of a tenant's record.
pub fn key(prefix: GroupPrefix, tenant: TenantNumber) -> Bytes {
    prefix.key(kind::TENANT, 8).u64(tenant.get()).finish()
}

/// Parses the tenant from a key.
pub fn parse_key(key: Bytes) -> Result<TenantNumber, Malformed> {
    let mut reader = Reader::new(key, "tenant key");
    reader.raw(super::GROUP_PREFIX_LEN)?;
    let tenant = TenantNumber::new(reader.u64()?);
    reader.end()?;
    Ok(tenant)
}

/// Writes a record.
pub fn encode(record: &TenantRecord) -> Bytes {
    let mut w = Writer::with_capacity(160);
    let is_rewound =
        record.live.rewound || record.rewind.is_some() || record.forks.iter().any(|fork| fork.tail.is_some());
    let seeds_windows = record.shadow.as_ref().is_some_and(|shadow| shadow.windows_only);
    let format = match (seeds_windows, is_rewound) {
        (true, _) => FORMAT_WINDOWS,
        (false, true) => FORMAT_REWOUND,
        (false, false) => FORMAT,
    };
    w.u8(if record.remote > 0 {
        format + WITH_REMOTE
    } else {
        format
    });
    role(&mut w, record.role);
    epoch(&mut w, record.epoch);
    epoch(&mut w, record.promised);
    w.varint(u64::from(record.view_version.incarnation.0))
        .varint(record.view_version.index);
    record.lineage.encode(&mut w);
    w.varint(record.refused_up_to.0);
    w.u8(match record.policy {
        LeaseLossPolicy::Stop => 0,
        LeaseLossPolicy::Continue => 1,
    });
    w.list(record.uncounted.iter(), |w, group| group_id(w, *group));
    w.option(record.accepted, |w, accepted| {
        accepted.digests.encode(w.varint(accepted.revision.to_u64()));
    });
    w.varint(record.attach.0);
    w.option(record.session, |w, session| {
        group_id(w, session.home);
        w.varint(u64::from(session.incarnation.0));
        epoch(w, session.epoch);
        w.varint(session.number.0).bool(session.attached);
    });
    w.bool(record.suspect);
    copy(&mut w, &record.live);
    w.varint(record.seeds.0);
    w.option(record.shadow.as_ref(), |w, shadow| {
        copy(w, &shadow.state);
        w.varint(shadow.number.0);
        w.varint(shadow.seed.to_u64()).varint(shadow.loaded.get());
        w.list(shadow.clients.iter(), |w, range| {
            w.u128(range.up_to.0).varint(range.read_at.to_u64());
        });
        w.varint(shadow.read_at.to_u64());
    });
    w.list(record.forks.iter(), |w, fork| {
        copy(w, &fork.copy);
        fork.lineage.encode(w);
        w.varint(fork.point.get());
    });
    w.varint(u64::from(record.copies));
    if is_rewound || seeds_windows {
        rewound(&mut w, record);
    }
    if record.remote > 0 {
        w.varint(record.remote);
    }
    w.finish()
}

fn rewound(w: &mut Writer, record: &TenantRecord) {
    w.bool(record.live.rewound);
    w.option(record.rewind, |w, rewind| {
        w.varint(u64::from(rewind.fork)).varint(rewind.next.get());
        w.bool(rewind.lacks_outcomes);
    });
    w.list(record.forks.iter(), |w, fork| {
        w.option(fork.tail, |w, tail| {
            w.varint(tail.after.to_u64()).varint(tail.len);
        });
    });
}

/// Reads what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<TenantRecord, Malformed> {
    let mut r = Reader::new(value, "tenant record");
    const FORMATS: [u8; 3] = [FORMAT, FORMAT_REWOUND, FORMAT_WINDOWS];
    let (format, has_remote) = match r.u8()? {
        format if FORMATS.contains(&format) => (format, false),
        format if FORMATS.contains(&format.wrapping_sub(WITH_REMOTE)) => (format - WITH_REMOTE, true),
        _ => return Err(r.malformed()),
    };
    let mut record = TenantRecord {
        role: read_role(&mut r)?,
        epoch: decode_epoch(&mut r)?,
        promised: decode_epoch(&mut r)?,
        view_version: DirectoryVersion {
            incarnation: Incarnation(r.varint_u32()?),
            index: r.varint()?,
        },
        lineage: Lineage::decode(&mut r)?,
        refused_up_to: OperationId(r.varint()?),
        policy: match r.u8()? {
            0 => LeaseLossPolicy::Stop,
            1 => LeaseLossPolicy::Continue,
            2.. => return Err(r.malformed()),
        },
        uncounted: r.list(read_group)?,
        accepted: r.option(|r| {
            Ok(Handover {
                revision: read_revision(r)?,
                digests: Digests::decode(r)?,
            })
        })?,
        attach: AttachNumber(r.varint()?),
        session: r.option(read_session)?,
        suspect: r.bool()?,
        live: read_copy(&mut r)?,
        seeds: SeedNumber(r.varint()?),
        shadow: r.option(read_shadow)?,
        forks: r.list(|r| {
            Ok(Fork {
                copy: read_copy(r)?,
                lineage: Lineage::decode(r)?,
                point: read_sequence(r)?,
                tail: None,
            })
        })?,
        copies: r.varint_u32()?,
        rewind: None,
        remote: 0,
    };
    if format != FORMAT {
        read_rewound(&mut r, &mut record)?;
    }
    if format == FORMAT_WINDOWS {
        let shadow = record.shadow.as_mut().ok_or_else(|| r.malformed())?;
        shadow.windows_only = true;
    }
    if has_remote {
        record.remote = r.varint()?;
    }
    r.end()?;
    Ok(record)
}

fn read_rewound(r: &mut Reader, record: &mut TenantRecord) -> Result<(), Malformed> {
    record.live.rewound = r.bool()?;
    record.rewind = r.option(|r| {
        Ok(Rewind {
            fork: r.varint_u32()?,
            next: read_sequence(r)?,
            lacks_outcomes: r.bool()?,
        })
    })?;
    let tails = r.list(|r| {
        r.option(|r| {
            Ok(Tail {
                after: read_revision(r)?,
                len: r.varint()?,
            })
        })
    })?;
    if tails.len() != record.forks.len() {
        return Err(r.malformed());
    }
    for (fork, tail) in record.forks.iter_mut().zip(tails) {
        fork.tail = tail;
    }
    Ok(())
}

fn epoch(w: &mut Writer, epoch: Epoch) {
    w.varint(u64::from(epoch.get()));
}

fn group_id(w: &mut Writer, group: GroupId) {
    w.varint(u64::from(group.get()));
}

fn role(w: &mut Writer, role: Role) {
    match role {
        Role::Owner => {
            w.u8(1);
        }
        Role::Follower { home } => group_id(w.u8(2), home),
        Role::Heir {
            home,
            operation,
            epoch: promised,
        } => {
            group_id(w.u8(3), home);
            epoch(w.varint(operation.0), promised);
        }
        Role::Relinquished {
            operation,
            to,
            epoch: handed,
            last,
        } => {
            group_id(w.u8(4).varint(operation.0), to);
            epoch(w, handed);
            w.varint(last.to_u64());
        }
        Role::Frozen {
            operation,
            epoch: frozen,
            previous,
        } => {
            epoch(w.u8(5).varint(operation.0), frozen);
            match previous {
                PreviousRole::Owner => w.u8(1),
                PreviousRole::Follower => w.u8(2),
                PreviousRole::Relinquished(to) => w.u8(3).varint(u64::from(to.get())),
                PreviousRole::None => w.u8(4),
            };
        }
        Role::Erased => {
            w.u8(6);
        }
    }
}

fn copy(w: &mut Writer, copy: &CopyState) {
    w.varint(u64::from(copy.number)).varint(copy.revision.to_u64());
    w.varint(copy.index);
    copy.digests.encode(w.varint(copy.time.0).varint(copy.as_of));
    w.varint(copy.keys).varint(copy.len);
    w.varint(copy.retention_floor.to_u64()).varint(copy.edge.0);
    w.varint(copy.swept.get()).varint(copy.trimmed.get());
}

fn read_group(r: &mut Reader) -> Result<GroupId, Malformed> {
    Ok(GroupId::new(r.varint_u32()?))
}

fn read_revision(r: &mut Reader) -> Result<Revision, Malformed> {
    Ok(Revision::from_u64(r.varint()?))
}

fn read_sequence(r: &mut Reader) -> Result<Sequence, Malformed> {
    let number = r.varint()?;
    Sequence::new(number).ok_or_else(|| r.malformed())
}

fn read_role(r: &mut Reader) -> Result<Role, Malformed> {
    Ok(match r.u8()? {
        1 => Role::Owner,
        2 => Role::Follower { home: read_group(r)? },
        3 => Role::Heir {
            home: read_group(r)?,
            operation: OperationId(r.varint()?),
            epoch: decode_epoch(r)?,
        },
        4 => Role::Relinquished {
            operation: OperationId(r.varint()?),
            to: read_group(r)?,
            epoch: decode_epoch(r)?,
            last: read_revision(r)?,
        },
        5 => Role::Frozen {
            operation: OperationId(r.varint()?),
            epoch: decode_epoch(r)?,
            previous: match r.u8()? {
                1 => PreviousRole::Owner,
                2 => PreviousRole::Follower,
                3 => PreviousRole::Relinquished(read_group(r)?),
                4 => PreviousRole::None,
                0 | 5.. => return Err(r.malformed()),
            },
        },
        6 => Role::Erased,
        0 | 7.. => return Err(r.malformed()),
    })
}

fn read_session(r: &mut Reader) -> Result<AttachSession, Malformed> {
    Ok(AttachSession {
        home: read_group(r)?,
        incarnation: Incarnation(r.varint_u32()?),
        epoch: decode_epoch(r)?,
        number: AttachNumber(r.varint()?),
        attached: r.bool()?,
    })
}

fn read_shadow(r: &mut Reader) -> Result<ShadowCopy, Malformed> {
    Ok(ShadowCopy {
        state: read_copy(r)?,
        number: SeedNumber(r.varint()?),
        seed: read_revision(r)?,
        loaded: read_sequence(r)?,
        clients: r.list(|r| {
            Ok(ClientRange {
                up_to: ClientId(r.u128()?),
                read_at: read_revision(r)?,
            })
        })?,
        read_at: read_revision(r)?,
        // The format byte says otherwise.
        windows_only: false,
    })
}

fn read_copy(r: &mut Reader) -> Result<CopyState, Malformed> {
    Ok(CopyState {
        number: r.varint_u32()?,
        revision: read_revision(r)?,
        index: r.varint()?,
        time: TenantTime(r.varint()?),
        as_of: r.varint()?,
        digests: Digests::decode(r)?,
        keys: r.varint()?,
        len: r.varint()?,
        retention_floor: read_revision(r)?,
        edge: TenantTime(r.varint()?),
        swept: read_sequence(r)?,
        trimmed: read_sequence(r)?,
        // Follows for the live copy; no other is read.
        rewound: false,
    })
}

#[cfg(test)]
#[path = "tenant_test.rs"]
mod tenant_test;
