//! Behaviour of a tenant's home without a lease, as the directory shows it; [`super::ownership`] has the transitions.
//!
//! ```text
//!            an operator asks          the home reports that its log has it
//!   Continue ---------------> Stopping -----------------------------------> Stop
//!      ^                         |                                           |
//!      +-------------------------+-------------------------------------------+   an operator asks: at once
//! ```
//!
//! A promotion may rely on `Stop`: then no home serves without a lease. `Continue` may be shown too early, never too
//! late, because it only makes a promotion ask for the operator's word.
//!
//! # Invariants
//!
//! 1. While a log of a possible owner has [`LeaseLossPolicy::Continue`], the directory does not show [`LeaseLoss::Stop`]
//!    (protocol.md "Leases", on_lease_loss).

use crate::{
    codec::{Malformed, Reader},
    shard::record::LeaseLossPolicy,
};

/// Behaviour of a tenant's home without a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LeaseLoss {
    /// It stops.
    #[default]
    Stop,
    /// It goes on, and marks its responses.
    Continue,
    /// It is to stop; until its log says so it may still go on.
    Stopping,
}

impl LeaseLoss {
    /// Returns the policy that the home is to have in its log.
    pub fn wanted(self) -> LeaseLossPolicy {
        match self {
            Self::Stop | Self::Stopping => LeaseLossPolicy::Stop,
            Self::Continue => LeaseLossPolicy::Continue,
        }
    }

    /// Returns the policy that the home may have in its log at worst, for a promotion and for its activation.
    pub fn possible(self) -> LeaseLossPolicy {
        match self {
            Self::Stop => LeaseLossPolicy::Stop,
            Self::Continue | Self::Stopping => LeaseLossPolicy::Continue,
        }
    }

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Stop => 0,
            Self::Continue => 1,
            Self::Stopping => 2,
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(Self::Stop),
            1 => Ok(Self::Continue),
            2 => Ok(Self::Stopping),
            3.. => Err(r.malformed()),
        }
    }
}
