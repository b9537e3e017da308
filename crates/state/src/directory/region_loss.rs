//! Policy for the loss of a tenant's home region, which the operator has chosen beforehand.
//!
//! # Invariants
//!
//! 1. A tenant that goes on without a lease is never promoted by policy: its home acknowledges until it hears of it.
//! 2. Without a bound on the loss only tenants with durability `REMOTE` are: nothing that they have acknowledged is lost.
//! 3. A bound on the loss is at least the wait for leases: until its end the home may acknowledge.

use std::ops::RangeInclusive;

use stead_types::{Durability, TenantName};

use super::{ApplyContext, Directory, DirectoryOutcome, DirectoryResult, LeaseLoss, RegionLossRejection, Tenant, text};
use crate::{
    codec::{Malformed, Reader, Writer},
    lease::clock::wait_time,
};

/// Shortest and longest time for which a region must be silent before a tenant is promoted, in milliseconds.
pub const SILENT_MS: RangeInclusive<u64> = 10_000..=86_400_000;
/// Longest window of loss that may be accepted, in milliseconds.
pub const LOSS_MS_MAX: u64 = 86_400_000;

/// Policy for the loss of a tenant's home region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RegionLoss {
    /// An operator is alerted, and decides.
    #[default]
    Alert,
    /// An operator is alerted, and told what [`RegionLoss::Promote`] would have done.
    Observe(PromotionPolicy),
    /// It is promoted.
    Promote(PromotionPolicy),
}

/// When a tenant is promoted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PromotionPolicy {
    /// Time without a lease renewal of any voter of the region, in milliseconds.
    pub after_ms: u64,
    /// Longest window in which acknowledged writes may be lost, up to the end of the wait, in milliseconds; `None`: only if
    /// none can be, because its durability is `REMOTE`.
    pub loss_ms_max: Option<u64>,
}

/// Request to set what becomes of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionLossUpdate {
    /// Name of the tenant.
    pub name: TenantName,
    /// Policy.
    pub policy: RegionLoss,
}

impl RegionLoss {
    /// Returns when it is promoted, or would be.
    pub fn promotion(&self) -> Option<PromotionPolicy> {
        match self {
            Self::Alert => None,
            Self::Observe(policy) | Self::Promote(policy) => Some(*policy),
        }
    }

    pub(super) fn encode(self, w: &mut Writer) {
        let tag = match self {
            Self::Alert => 0,
            Self::Observe(_) => 1,
            Self::Promote(_) => 2,
        };
        w.u8(tag);
        if let Some(policy) = self.promotion() {
            w.varint(policy.after_ms);
            w.option(policy.loss_ms_max, |w, loss| {
                w.varint(loss);
            });
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let policy = |r: &mut Reader| {
            Ok(PromotionPolicy {
                after_ms: r.varint()?,
                loss_ms_max: r.option(Reader::varint)?,
            })
        };
        Ok(match r.u8()? {
            0 => Self::Alert,
            1 => Self::Observe(policy(r)?),
            2 => Self::Promote(policy(r)?),
            3.. => return Err(r.malformed()),
        })
    }
}

impl RegionLossUpdate {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.name.as_str());
        self.policy.encode(w);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: text::parse(r)?,
            policy: RegionLoss::decode(r)?,
        })
    }
}

impl Directory {
    /// Sets what becomes of a tenant when its home region is lost.
    pub(super) fn set_region_loss(&mut self, context: &mut ApplyContext, update: &RegionLossUpdate) -> DirectoryResult {
        self.view.settings().check_region_loss()?;
        let mut tenant = self.named(&update.name, None)?;
        tenant.set_on_region_loss(update.policy);
        check_bounds(update.policy, self.view.settings().longest_lease_ttl_ms(context.time))?;
        check(&tenant)?;
        let number = tenant.number;
        self.change(context, tenant);
        Ok(DirectoryOutcome::Tenant(number))
    }
}

/// Checks that the policies of a tenant go together, whatever of them is changed.
pub(super) fn check(tenant: &Tenant) -> Result<(), RegionLossRejection> {
    let Some(policy) = tenant.on_region_loss().promotion() else {
        return Ok(());
    };
    if tenant.on_lease_loss != LeaseLoss::Stop {
        return Err(RegionLossRejection::GoesOn(tenant.name.clone()));
    }
    if policy.loss_ms_max.is_none() && tenant.durability != Durability::Remote {
        return Err(RegionLossRejection::NotRemote(tenant.name.clone()));
    }
    Ok(())
}

fn check_bounds(policy: RegionLoss, lease_ttl_ms: u64) -> Result<(), RegionLossRejection> {
    let Some(policy) = policy.promotion() else {
        return Ok(());
    };
    if !SILENT_MS.contains(&policy.after_ms) {
        return Err(RegionLossRejection::After(policy.after_ms));
    }
    let least = wait_ms(lease_ttl_ms);
    match policy.loss_ms_max {
        Some(loss) if loss < least || LOSS_MS_MAX < loss => Err(RegionLossRejection::MaxLoss { loss, least }),
        Some(_) | None => Ok(()),
    }
}

/// Returns the longest wait for leases of this ttl, in milliseconds.
pub(super) fn wait_ms(lease_ttl_ms: u64) -> u64 {
    let wait = wait_time(std::time::Duration::from_millis(lease_ttl_ms));
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
