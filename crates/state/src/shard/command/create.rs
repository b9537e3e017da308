//! `Create`: this group is the first home of a new tenant.

use bytes::Bytes;
use stead_types::{DirectoryVersion, TenantNumber};

use super::{kind, start, tenant, version, write_version};
use crate::{
    codec::{Malformed, Reader},
    shard::record::OnLeaseLoss,
};

/// A new tenant. Guard: no record of this tenant number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Of the view that it was derived from.
    pub version: DirectoryVersion,
    /// What the owner does without a lease.
    pub policy: OnLeaseLoss,
}

impl Create {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::CREATE, self.tenant, 16);
        write_version(&mut w, self.version);
        w.bool(self.policy == OnLeaseLoss::Continue);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            policy: if r.bool()? {
                OnLeaseLoss::Continue
            } else {
                OnLeaseLoss::Stop
            },
        })
    }
}
