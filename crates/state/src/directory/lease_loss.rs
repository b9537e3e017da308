//! What a tenant's home does without a lease, as the directory shows it, and how that changes.
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

use stead_types::{DirectoryVersion, Epoch, GroupId};

use super::{Rejection, Tenant};
use crate::{
    codec::{Malformed, Reader},
    shard::record::LeaseLossPolicy,
};

/// What a tenant's home does without a lease.
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

/// Report of a home that its log has the policy [`LeaseLossPolicy::Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLogged {
    /// The reporting group.
    pub from: GroupId,
    /// Epoch that it owns.
    pub epoch: Epoch,
    /// Version of the view that its record has seen. One below the tenant's is of an earlier change.
    pub version: DirectoryVersion,
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

/// Changes the policy as an operator asks.
pub fn set(tenant: &mut Tenant, policy: LeaseLossPolicy) {
    tenant.on_lease_loss = match (policy, tenant.on_lease_loss) {
        (LeaseLossPolicy::Continue, _) => LeaseLoss::Continue,
        (LeaseLossPolicy::Stop, LeaseLoss::Stop) => LeaseLoss::Stop,
        (LeaseLossPolicy::Stop, LeaseLoss::Continue | LeaseLoss::Stopping) => LeaseLoss::Stopping,
    };
}

/// Records that the home has the policy in its log: it stops without a lease from now on.
///
/// # Errors
///
/// The home is not asked to, or the report is not of the home in its epoch, or older than the tenant's last change.
pub fn record_stop_logged(tenant: &mut Tenant, logged: &StopLogged) -> Result<(), Rejection> {
    let of_home = (logged.from, logged.epoch) == (tenant.home, tenant.epoch);
    if tenant.on_lease_loss != LeaseLoss::Stopping || !of_home || logged.version < tenant.version {
        return Err(Rejection::StaleReport);
    }
    tenant.on_lease_loss = LeaseLoss::Stop;
    Ok(())
}

#[cfg(test)]
mod tests {
    use stead_types::{Incarnation, TenantNumber};

    use super::*;

    fn version(index: u64) -> DirectoryVersion {
        DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn tenant(on_lease_loss: LeaseLoss) -> Tenant {
        Tenant {
            on_lease_loss,
            version: version(7),
            ..Tenant::new(TenantNumber::new(1), "acme".parse().unwrap(), GroupId::new(3))
        }
    }

    fn logged() -> StopLogged {
        StopLogged {
            from: GroupId::new(3),
            epoch: Epoch::FIRST,
            version: version(7),
        }
    }

    #[test]
    fn stop_is_shown_only_once_home_has_logged_it() {
        let mut tenant = tenant(LeaseLoss::Continue);
        set(&mut tenant, LeaseLossPolicy::Stop);
        assert_eq!(tenant.on_lease_loss, LeaseLoss::Stopping);
        assert_eq!(tenant.on_lease_loss.possible(), LeaseLossPolicy::Continue);
        assert_eq!(tenant.on_lease_loss.wanted(), LeaseLossPolicy::Stop);
        set(&mut tenant, LeaseLossPolicy::Stop);
        assert_eq!(tenant.on_lease_loss, LeaseLoss::Stopping, "asked twice");
        record_stop_logged(&mut tenant, &logged()).unwrap();
        assert_eq!(tenant.on_lease_loss, LeaseLoss::Stop);
    }

    #[test]
    fn continue_is_shown_at_once() {
        for before in [LeaseLoss::Stop, LeaseLoss::Continue, LeaseLoss::Stopping] {
            let mut tenant = tenant(before);
            set(&mut tenant, LeaseLossPolicy::Continue);
            assert_eq!(tenant.on_lease_loss, LeaseLoss::Continue);
        }
    }

    #[test]
    fn report_of_stop_needs_each_clause() {
        let rejected = |mut tenant: Tenant, logged: StopLogged| {
            let before = tenant.clone();
            assert_eq!(record_stop_logged(&mut tenant, &logged), Err(Rejection::StaleReport));
            assert_eq!(tenant, before);
        };
        rejected(tenant(LeaseLoss::Continue), logged());
        rejected(
            tenant(LeaseLoss::Stopping),
            StopLogged {
                from: GroupId::new(1),
                ..logged()
            },
        );
        rejected(
            tenant(LeaseLoss::Stopping),
            StopLogged {
                epoch: Epoch::MAX,
                ..logged()
            },
        );
        rejected(
            tenant(LeaseLoss::Stopping),
            StopLogged {
                version: version(6),
                ..logged()
            },
        );
    }
}
