//! Reasons why a promotion is refused, and their encoding.

use stead_types::{ErrorKind, TenantName};

use super::text;
use crate::codec::{Malformed, Reader, Writer};

/// Reason why a promotion was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromotionRejection {
    /// Tenants that are selected are being promoted already.
    #[error(
        "{count} tenants are being promoted already, such as {tenant} by operations/{operation}: wait, or replace that promotion"
    )]
    InFlight {
        /// Number of the tenants.
        count: u64,
        /// The first one.
        tenant: TenantName,
        /// The operation that promotes it.
        operation: u64,
    },
    /// Tenants with durability `REMOTE` would be left without a follower that can acknowledge.
    #[error(
        "{count} tenants with durability REMOTE would have no other region to follow them, such as {tenant}: accept durability REGION for them"
    )]
    Alone {
        /// Number of the tenants.
        count: u64,
        /// The first one.
        tenant: TenantName,
    },
    /// Homes of tenants that are selected go on without a lease.
    #[error(
        "{count} tenants go on without a lease, such as {tenant}, and their home acknowledges until it hears of the promotion: confirm that it is down"
    )]
    HomeGoesOn {
        /// Number of the tenants.
        count: u64,
        /// The first one.
        tenant: TenantName,
    },
    /// No member can become the home.
    #[error("no member of tenant {0} can become its home: none is in a region that the promotion may choose")]
    NoTarget(TenantName),
    /// It selects no tenant.
    #[error("no tenant is to be promoted: none has its home there or moves there")]
    Nothing,
    /// Too many promotions are in flight.
    #[error("{max} promotions are in flight, more are not supported: wait until one is over", max = super::PROMOTIONS_MAX)]
    Full,
    /// It has fenced tenants and cannot be cancelled.
    #[error(
        "operation {0} has fenced its tenants and cannot be cancelled: to go back, promote them again, replace it, and name the old home's region"
    )]
    Fenced(u64),
    /// The time for planned moves is too long.
    #[error("planned moves for {0} ms before a promotion are too long: at most {max} ms", max = super::GRACEFUL_MS_MAX)]
    GracefulTime(u64),
    /// The feature level was raised a short time ago.
    #[error(
        "the feature level was raised a moment ago, and nodes may still serve without a lease: try again in {left_ms} ms"
    )]
    LevelRaised {
        /// Time that is left, in milliseconds.
        left_ms: u64,
    },
}

/// First byte of each; never used for anything else again.
mod tag {
    pub(super) const IN_FLIGHT: u8 = 90;
    pub(super) const ALONE: u8 = 91;
    pub(super) const GOES_ON: u8 = 92;
    pub(super) const NO_TARGET: u8 = 93;
    pub(super) const NOTHING: u8 = 94;
    pub(super) const FULL: u8 = 95;
    pub(super) const FENCED: u8 = 96;
    pub(super) const GRACEFUL_TIME: u8 = 97;
    pub(super) const LEVEL_RAISED: u8 = 98;
}

impl PromotionRejection {
    /// Returns what the caller can do about it.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::InFlight { .. }
            | Self::Alone { .. }
            | Self::HomeGoesOn { .. }
            | Self::NoTarget(_)
            | Self::Nothing => ErrorKind::Conflict,
            Self::Full => ErrorKind::QuotaExceeded {
                limit: "promotions".into(),
            },
            Self::Fenced(_) => ErrorKind::NotCancellable,
            Self::GracefulTime(_) => ErrorKind::Invalid {
                field: "graceful".into(),
            },
            Self::LevelRaised { .. } => ErrorKind::Unavailable,
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::InFlight {
                count,
                tenant,
                operation,
            } => text::write(w.u8(tag::IN_FLIGHT).varint(*count).varint(*operation), tenant.as_str()),
            Self::Alone { count, tenant } => text::write(w.u8(tag::ALONE).varint(*count), tenant.as_str()),
            Self::HomeGoesOn { count, tenant } => text::write(w.u8(tag::GOES_ON).varint(*count), tenant.as_str()),
            Self::NoTarget(tenant) => text::write(w.u8(tag::NO_TARGET), tenant.as_str()),
            Self::Nothing => drop(w.u8(tag::NOTHING)),
            Self::Full => drop(w.u8(tag::FULL)),
            Self::Fenced(number) => drop(w.u8(tag::FENCED).varint(*number)),
            Self::GracefulTime(ms) => drop(w.u8(tag::GRACEFUL_TIME).varint(*ms)),
            Self::LevelRaised { left_ms } => drop(w.u8(tag::LEVEL_RAISED).varint(*left_ms)),
        }
    }

    pub(super) fn decode(tag: u8, r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match tag {
            tag::IN_FLIGHT => Self::InFlight {
                count: r.varint()?,
                operation: r.varint()?,
                tenant: text::parse(r)?,
            },
            tag::ALONE => Self::Alone {
                count: r.varint()?,
                tenant: text::parse(r)?,
            },
            tag::GOES_ON => Self::HomeGoesOn {
                count: r.varint()?,
                tenant: text::parse(r)?,
            },
            tag::NO_TARGET => Self::NoTarget(text::parse(r)?),
            tag::NOTHING => Self::Nothing,
            tag::FULL => Self::Full,
            tag::FENCED => Self::Fenced(r.varint()?),
            tag::GRACEFUL_TIME => Self::GracefulTime(r.varint()?),
            tag::LEVEL_RAISED => Self::LevelRaised { left_ms: r.varint()? },
            _ => return Err(r.malformed()),
        })
    }
}
