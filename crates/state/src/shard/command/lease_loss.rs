//! `SetLeaseLossPolicy`: what the owner does without a lease.

use bytes::Bytes;
use stead_types::{DirectoryVersion, TenantNumber};

use super::{kind, policy, start, tenant, version, write_policy, write_version};
use crate::{
    codec::{Malformed, Reader},
    shard::record::LeaseLossPolicy,
};

/// Changes what the owner does without a lease. Guard: owner; no older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetLeaseLossPolicy {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the policy.
    pub version: DirectoryVersion,
    /// The policy.
    pub policy: LeaseLossPolicy,
}

impl SetLeaseLossPolicy {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::SET_LEASE_LOSS_POLICY, self.tenant, 16);
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
