//! One attempt of a follower to attach a tenant, as the home's end knows it.

use stead_state::shard::record::AttachNumber;
use stead_types::Epoch;

use crate::wire::TenantPosition;

/// One attempt of a follower to attach a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttachAttempt {
    /// Epoch that it follows.
    pub(crate) epoch: Epoch,
    /// Its number.
    pub(crate) number: AttachNumber,
}

impl AttachAttempt {
    /// Returns the attempt that a position belongs to.
    pub(crate) fn of(position: &TenantPosition) -> Self {
        Self {
            epoch: position.epoch,
            number: position.attach,
        }
    }
}
