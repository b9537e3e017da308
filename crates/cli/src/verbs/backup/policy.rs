//! Policies of a tenant as a manifest has them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stead_client::{AutomaticPromotion, OnRegionLoss};

/// Policy for the loss of the home region that is not to alert only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegionLoss {
    /// Whether the tenant is promoted, or only observed.
    promotes: bool,
    /// Silence of the region before that.
    after_ms: u64,
    /// Longest window of loss; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_loss_ms: Option<u64>,
}

impl RegionLoss {
    /// Returns what a manifest has of a policy; `None`: an alert.
    pub(super) fn of(policy: OnRegionLoss) -> Option<Self> {
        let (promotes, promotion) = match policy {
            OnRegionLoss::Alert => return None,
            OnRegionLoss::Observe(promotion) => (false, promotion),
            OnRegionLoss::Promote(promotion) => (true, promotion),
        };
        Some(Self {
            promotes,
            after_ms: millis(promotion.after),
            max_loss_ms: promotion.max_loss.map(millis),
        })
    }

    /// Returns the policy.
    pub(super) fn policy(self) -> OnRegionLoss {
        let promotion = AutomaticPromotion {
            after: Duration::from_millis(self.after_ms),
            max_loss: self.max_loss_ms.map(Duration::from_millis),
        };
        match self.promotes {
            true => OnRegionLoss::Promote(promotion),
            false => OnRegionLoss::Observe(promotion),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_is_read_back() {
        let promotion = |max_loss| AutomaticPromotion {
            after: Duration::from_secs(90),
            max_loss,
        };
        for policy in [
            OnRegionLoss::Observe(promotion(None)),
            OnRegionLoss::Promote(promotion(Some(Duration::from_secs(5)))),
        ] {
            assert_eq!(RegionLoss::of(policy).unwrap().policy(), policy);
        }
        assert_eq!(RegionLoss::of(OnRegionLoss::Alert), None);
    }
}
