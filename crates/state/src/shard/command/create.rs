//! `Create`: makes this group the first home of a new tenant.

use bytes::Bytes;
use stead_types::{DirectoryVersion, TenantNumber};

use super::{kind, policy, start, tenant, version, write_policy, write_version};
use crate::{
    codec::{Malformed, Reader},
    shard::record::LeaseLossPolicy,
};

/// Creates a tenant. Guard: no record of this tenant number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that it was derived from.
    pub version: DirectoryVersion,
    /// Lease loss policy of the owner.
    pub policy: LeaseLossPolicy,
}

impl Create {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::CREATE, self.tenant, 16);
        write_version(&mut w, self.version);
        write_policy(&mut w, self.policy);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            policy: policy(r)?,
        })
    }
}
