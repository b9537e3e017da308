//! `Expire`: removes expired keys. Only the owner does so, in tenant time; followers get the deletes by the feed.

use bytes::Bytes;
use stead_types::TenantNumber;

use super::{kind, start, tenant};
use crate::codec::{Malformed, Reader};

/// Most keys that one command removes.
pub const EXPIRED_MAX: usize = 512;

/// Removes keys that have expired by tenant time, up to [`EXPIRED_MAX`]. Guard: owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expire {
    /// Tenant of the keys.
    pub tenant: TenantNumber,
}

impl Expire {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        start(kind::EXPIRE, self.tenant, 0).finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { tenant: tenant(r)? })
    }
}
