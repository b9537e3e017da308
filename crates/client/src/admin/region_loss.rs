//! Operators' calls about what becomes of tenants when their home region is lost.

use std::time::Duration;

use stead_api::{
    convert,
    proto::admin::v1::{self, promotion_service_client::PromotionServiceClient as Service, region_loss_policy::Action},
};
use stead_types::Error;

use super::{Admin, promotion::duration};
use crate::response::malformed;

/// Policy for the loss of a tenant's home region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRegionLoss {
    /// An operator is alerted, and decides.
    #[default]
    Alert,
    /// An operator is alerted, and told what [`OnRegionLoss::Promote`] would have done.
    Observe(AutomaticPromotion),
    /// It is promoted.
    Promote(AutomaticPromotion),
}

/// When a tenant is promoted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutomaticPromotion {
    /// Time without a lease renewal of any node of the region.
    pub after: Duration,
    /// Longest window in which acknowledged writes may be lost; `None`: none may be, which needs the durability REMOTE.
    pub max_loss: Option<Duration>,
}

impl Admin {
    /// Sets what becomes of a tenant when its home region is lost, or only checks it.
    ///
    /// # Errors
    ///
    /// It does not go together with the tenant's other policies, there is no such tenant, or no node answers.
    pub async fn set_on_region_loss(
        &self,
        tenant: &str,
        policy: OnRegionLoss,
        reason: &str,
        dry_run: bool,
    ) -> Result<OnRegionLoss, Error> {
        let request = v1::SetRegionLossPolicyRequest {
            tenant: tenant.to_owned(),
            policy: Some(message(policy)),
            reason: reason.to_owned(),
            validate_only: dry_run,
        };
        let call = async |channel, request| Service::new(channel).set_region_loss_policy(request).await;
        let state = self.0.state();
        // Set twice, it is the same.
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        answer
            .policy
            .map(|policy| read(Some(policy)))
            .ok_or_else(|| malformed("policy"))
    }
}

fn message(policy: OnRegionLoss) -> v1::RegionLossPolicy {
    let (action, promotion) = match policy {
        OnRegionLoss::Alert => (Action::Alert, None),
        OnRegionLoss::Observe(promotion) => (Action::Observe, Some(promotion)),
        OnRegionLoss::Promote(promotion) => (Action::Promote, Some(promotion)),
    };
    v1::RegionLossPolicy {
        action: action.into(),
        after: promotion.map(|promotion| convert::read::duration(promotion.after)),
        max_loss: promotion
            .and_then(|promotion| promotion.max_loss)
            .map(convert::read::duration),
    }
}

/// Reads what becomes of a tenant; an action of a newer version is read as an alert.
pub(super) fn read(policy: Option<v1::RegionLossPolicy>) -> OnRegionLoss {
    let policy = policy.unwrap_or_default();
    let promotion = AutomaticPromotion {
        after: duration(policy.after).unwrap_or_default(),
        max_loss: duration(policy.max_loss),
    };
    match policy.action() {
        Action::Unspecified | Action::Alert => OnRegionLoss::Alert,
        Action::Observe => OnRegionLoss::Observe(promotion),
        Action::Promote => OnRegionLoss::Promote(promotion),
    }
}
