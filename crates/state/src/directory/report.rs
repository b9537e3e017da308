//! Reports of groups about their tenants. A group repeats a report until the directory's view shows that it was taken;
//! one that is late or repeated is ignored.

use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, TenantNumber};

use super::{
    command::{decode_version, encode_version},
    promotion_report, text,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    seed_pace::SeedFailure,
    shard::{ownership::FreezeReport, record::OperationId},
};

/// Report of a group about a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupReport {
    /// The group holds nothing of the tenant any more.
    Erased(TenantNumber),
    /// The group has accepted the baton of a move.
    Accepted {
        /// The tenant.
        tenant: TenantNumber,
        /// Number of the move.
        operation: OperationId,
        /// Epoch that the group owns now.
        epoch: Epoch,
    },
    /// The group, the home, has refused a move.
    Refused {
        /// The tenant.
        tenant: TenantNumber,
        /// Number of the move.
        operation: OperationId,
    },
    /// The group, the home, no longer counts the acknowledgements of a leaving member, and a follower that stays, if
    /// there is one, has applied everything up to that entry.
    Uncounted {
        /// The tenant.
        tenant: TenantNumber,
        /// Epoch that the group owns.
        epoch: Epoch,
        /// The leaving member.
        group: GroupId,
        /// View version of the group's record.
        version: DirectoryVersion,
        /// Its last change, at or above that entry: up to here acknowledgements may rest on the leaving member.
        revision: Revision,
    },
    /// The group's record has seen a view that shows it as a member again.
    Rejoined {
        /// The tenant.
        tenant: TenantNumber,
        /// View version of the group's record.
        version: DirectoryVersion,
    },
    /// The group, the home, has it in its log that it stops without a lease.
    StopLogged {
        /// The tenant.
        tenant: TenantNumber,
        /// Epoch that the group owns.
        epoch: Epoch,
        /// View version of the group's record.
        version: DirectoryVersion,
    },
    /// The group is the heir of a move.
    HeirReady {
        /// The tenant.
        tenant: TenantNumber,
        /// Number of the move.
        operation: OperationId,
    },
    /// The group, the home, has given up the seed of a move's target.
    SeedFailed {
        /// The tenant.
        tenant: TenantNumber,
        /// Number of the move.
        operation: OperationId,
        /// Why, with the figures.
        failure: SeedFailure,
    },
    /// The group is frozen for a promotion, and holds this.
    Frozen {
        /// The tenant.
        tenant: TenantNumber,
        /// Content of its record.
        report: FreezeReport,
        /// Wall clock, in milliseconds since 1970, at which its copy was last proved fresh.
        fresh_as_of: Option<u64>,
        /// Wall clock at which it reports, in milliseconds since 1970; `None`: of an earlier version.
        reported: Option<u64>,
    },
    /// The group, the new home, has activated a promotion: it owns the epoch.
    Activated {
        /// The tenant.
        tenant: TenantNumber,
        /// Number of the promotion.
        operation: OperationId,
        /// Epoch that the group owns now.
        epoch: Epoch,
    },
}

/// First byte of each report; never used for anything else again.
mod tag {
    pub(super) const ERASED: u8 = 0;
    pub(super) const ACCEPTED: u8 = 1;
    pub(super) const REFUSED: u8 = 2;
    pub(super) const UNCOUNTED: u8 = 3;
    pub(super) const REJOINED: u8 = 4;
    pub(super) const HEIR_READY: u8 = 5;
    pub(super) const SEED_FAILED: u8 = 6;
    pub(super) const STOP_LOGGED: u8 = 7;
    pub(super) const FROZEN: u8 = 8;
    pub(super) const ACTIVATED: u8 = 9;
    /// As [`FROZEN`], with the time of the report behind it.
    pub(super) const FROZEN_WITH_TIME: u8 = 10;
}

impl GroupReport {
    /// Returns the tenant of the report.
    pub fn tenant(&self) -> TenantNumber {
        match self {
            Self::Erased(tenant)
            | Self::Accepted { tenant, .. }
            | Self::Refused { tenant, .. }
            | Self::Uncounted { tenant, .. }
            | Self::Rejoined { tenant, .. }
            | Self::HeirReady { tenant, .. }
            | Self::StopLogged { tenant, .. }
            | Self::SeedFailed { tenant, .. }
            | Self::Frozen { tenant, .. }
            | Self::Activated { tenant, .. } => *tenant,
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        let tag = match self {
            Self::Erased(_) => tag::ERASED,
            Self::Accepted { .. } => tag::ACCEPTED,
            Self::Refused { .. } => tag::REFUSED,
            Self::Uncounted { .. } => tag::UNCOUNTED,
            Self::Rejoined { .. } => tag::REJOINED,
            Self::StopLogged { .. } => tag::STOP_LOGGED,
            Self::HeirReady { .. } => tag::HEIR_READY,
            Self::SeedFailed { .. } => tag::SEED_FAILED,
            Self::Frozen { reported: None, .. } => tag::FROZEN,
            Self::Frozen { reported: Some(_), .. } => tag::FROZEN_WITH_TIME,
            Self::Activated { .. } => tag::ACTIVATED,
        };
        w.u8(tag).varint(self.tenant().get());
        match self {
            Self::Erased(_) => {}
            Self::Accepted { operation, epoch, .. } | Self::Activated { operation, epoch, .. } => {
                w.varint(operation.0).varint(u64::from(epoch.get()));
            }
            Self::Refused { operation, .. } | Self::HeirReady { operation, .. } => drop(w.varint(operation.0)),
            Self::SeedFailed { operation, failure, .. } => failure.encode(w.varint(operation.0)),
            Self::Uncounted {
                epoch,
                group,
                version,
                revision,
                ..
            } => {
                w.varint(u64::from(epoch.get())).varint(u64::from(group.get()));
                encode_version(w, *version);
                w.varint(revision.to_u64());
            }
            Self::StopLogged { epoch, version, .. } => {
                w.varint(u64::from(epoch.get()));
                encode_version(w, *version);
            }
            Self::Rejoined { version, .. } => encode_version(w, *version),
            Self::Frozen {
                report,
                fresh_as_of,
                reported,
                ..
            } => {
                promotion_report::encode(report, w);
                w.option(*fresh_as_of, |w, time| {
                    w.varint(time);
                });
                if let Some(reported) = reported {
                    w.varint(*reported);
                }
            }
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let (tag, tenant) = (r.u8()?, TenantNumber::new(r.varint()?));
        Ok(match tag {
            tag::ERASED => Self::Erased(tenant),
            tag::ACCEPTED => Self::Accepted {
                tenant,
                operation: OperationId(r.varint()?),
                epoch: decode_epoch(r)?,
            },
            tag::REFUSED => Self::Refused {
                tenant,
                operation: OperationId(r.varint()?),
            },
            tag::UNCOUNTED => Self::Uncounted {
                tenant,
                epoch: decode_epoch(r)?,
                group: text::group(r)?,
                version: decode_version(r)?,
                revision: Revision::from_u64(r.varint()?),
            },
            tag::STOP_LOGGED => Self::StopLogged {
                tenant,
                epoch: decode_epoch(r)?,
                version: decode_version(r)?,
            },
            tag::REJOINED => Self::Rejoined {
                tenant,
                version: decode_version(r)?,
            },
            tag::HEIR_READY => Self::HeirReady {
                tenant,
                operation: OperationId(r.varint()?),
            },
            tag::SEED_FAILED => Self::SeedFailed {
                tenant,
                operation: OperationId(r.varint()?),
                failure: SeedFailure::decode(r)?,
            },
            tag::FROZEN | tag::FROZEN_WITH_TIME => Self::Frozen {
                tenant,
                report: promotion_report::decode(r)?,
                fresh_as_of: r.option(Reader::varint)?,
                reported: match tag {
                    tag::FROZEN_WITH_TIME => Some(r.varint()?),
                    _ => None,
                },
            },
            tag::ACTIVATED => Self::Activated {
                tenant,
                operation: OperationId(r.varint()?),
                epoch: decode_epoch(r)?,
            },
            _ => return Err(r.malformed()),
        })
    }
}
