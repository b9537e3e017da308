//! `Expire`: keys whose time is over go. Only the owner says so, in tenant time; followers are told of the deletes.

use bytes::Bytes;
use stead_types::TenantNumber;

use super::{kind, start, tenant};
use crate::codec::{Malformed, Reader};

/// Most keys that one command removes.
pub const EXPIRED_MAX: usize = 512;

/// Removes keys that have expired by the tenant's time, up to [`EXPIRED_MAX`]. Guard: owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expire {
    /// Of which tenant.
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
