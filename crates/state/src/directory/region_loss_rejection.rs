//! Reasons why what becomes of a tenant when its home region is lost is refused, and their encoding.

use stead_types::{ErrorKind, TenantName};

use super::{
    region_loss::{LOSS_MS_MAX, SILENT_MS},
    text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Reason why what becomes of a tenant when its home region is lost is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionLossRejection {
    /// The tenant goes on without a lease.
    #[error(
        "tenant {0} goes on without a lease (on_lease_loss CONTINUE), or may do so still: its home acknowledges until it hears \
         of a promotion, so that none may be by policy; let it stop without a lease, or let on_region_loss be ALERT"
    )]
    GoesOn(TenantName),
    /// Acknowledged writes could be lost, and no bound says how many may be.
    #[error(
        "tenant {0} has not durability REMOTE, so that a promotion can lose writes: name max_loss, set durability REMOTE, or \
         let on_region_loss be ALERT"
    )]
    NotRemote(TenantName),
    /// The time for which the region must be silent is out of range.
    #[error("after: {0} ms is out of range: {min} to {max} ms", min = SILENT_MS.start(), max = SILENT_MS.end())]
    After(u64),
    /// The bound on the loss is out of range.
    #[error(
        "max_loss: {loss} ms is out of range: {least} ms, for which a home may acknowledge after its last lease, to {max} ms",
        max = LOSS_MS_MAX
    )]
    MaxLoss {
        /// The bound, in milliseconds.
        loss: u64,
        /// Least bound, in milliseconds.
        least: u64,
    },
}

/// First byte of each; never used for anything else again.
mod tag {
    pub(super) const GOES_ON: u8 = 112;
    pub(super) const NOT_REMOTE: u8 = 113;
    pub(super) const AFTER: u8 = 114;
    pub(super) const MAX_LOSS: u8 = 115;
}

impl RegionLossRejection {
    /// Returns what the caller can do about it.
    pub(super) fn kind(&self) -> ErrorKind {
        let invalid = |field: &str| ErrorKind::Invalid { field: field.into() };
        match self {
            Self::GoesOn(_) => ErrorKind::Conflict,
            Self::NotRemote(_) | Self::MaxLoss { .. } => invalid("max_loss"),
            Self::After(_) => invalid("after"),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::GoesOn(name) => text::write(w.u8(tag::GOES_ON), name.as_str()),
            Self::NotRemote(name) => text::write(w.u8(tag::NOT_REMOTE), name.as_str()),
            Self::After(ms) => drop(w.u8(tag::AFTER).varint(*ms)),
            Self::MaxLoss { loss, least } => drop(w.u8(tag::MAX_LOSS).varint(*loss).varint(*least)),
        }
    }

    /// Reads what [`RegionLossRejection::encode`] wrote; `None`: it is none of these.
    pub(super) fn decode(tag: u8, r: &mut Reader) -> Result<Option<Self>, Malformed> {
        Ok(Some(match tag {
            tag::GOES_ON => Self::GoesOn(text::parse(r)?),
            tag::NOT_REMOTE => Self::NotRemote(text::parse(r)?),
            tag::AFTER => Self::After(r.varint()?),
            tag::MAX_LOSS => Self::MaxLoss {
                loss: r.varint()?,
                least: r.varint()?,
            },
            _ => return Ok(None),
        }))
    }
}
