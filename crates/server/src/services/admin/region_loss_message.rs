//! Policy for the loss of a tenant's home region, as messages.

use std::time::Duration;

use stead_api::{
    convert,
    proto::admin::v1::{RegionLossPolicy, SetRegionLossPolicyRequest, region_loss_policy::Action},
};
use stead_state::directory::{PromotionPolicy, RegionLoss, RegionLossUpdate};
use stead_types::Error;

/// Reads a request.
pub(super) fn update(request: &SetRegionLossPolicyRequest) -> Result<RegionLossUpdate, Error> {
    let name = convert::id::tenant("tenant", &request.tenant)?;
    let missing = || {
        Error::invalid(
            "policy",
            "policy: say what becomes of the tenant: ALERT, OBSERVE or PROMOTE",
        )
    };
    let policy = request.policy.as_ref().ok_or_else(missing)?;
    let action = Action::try_from(policy.action).map_err(|_| {
        let message = format!("policy.action: {} is nothing that this node knows", policy.action);
        Error::invalid("policy.action", message)
    })?;
    let promotes = match action {
        Action::Unspecified | Action::Alert => None,
        Action::Observe => Some(RegionLoss::Observe as fn(PromotionPolicy) -> RegionLoss),
        Action::Promote => Some(RegionLoss::Promote as fn(PromotionPolicy) -> RegionLoss),
    };
    let policy = match promotes {
        Some(promotes) => promotes(promotion(policy)?),
        None if policy.after.is_some() || policy.max_loss.is_some() => {
            let message =
                "policy.action: ALERT promotes nothing: leave out after and max_loss, or name OBSERVE or PROMOTE";
            return Err(Error::invalid("policy.action", message));
        }
        None => RegionLoss::Alert,
    };
    Ok(RegionLossUpdate { name, policy })
}

fn promotion(policy: &RegionLossPolicy) -> Result<PromotionPolicy, Error> {
    let ms = |field: &'static str, duration: prost_types::Duration| {
        let ms = convert::read::to_duration(duration).and_then(|time| u64::try_from(time.as_millis()).ok());
        ms.ok_or_else(|| Error::invalid(field, format!("{field}: not a time that passes")))
    };
    let missing = || {
        Error::invalid(
            "policy.after",
            "policy.after: say for how long the region must be silent",
        )
    };
    Ok(PromotionPolicy {
        after_ms: ms("policy.after", policy.after.ok_or_else(missing)?)?,
        loss_ms_max: policy.max_loss.map(|max| ms("policy.max_loss", max)).transpose()?,
    })
}

/// Converts what becomes of a tenant.
pub(super) fn message(policy: RegionLoss) -> RegionLossPolicy {
    let action = match policy {
        RegionLoss::Alert => Action::Alert,
        RegionLoss::Observe(_) => Action::Observe,
        RegionLoss::Promote(_) => Action::Promote,
    };
    let duration = |ms: u64| convert::read::duration(Duration::from_millis(ms));
    let promotion = policy.promotion();
    RegionLossPolicy {
        action: action.into(),
        after: promotion.map(|promotion| duration(promotion.after_ms)),
        max_loss: promotion.and_then(|promotion| promotion.loss_ms_max).map(duration),
    }
}

#[cfg(test)]
mod tests {
    use stead_types::ErrorKind;

    use super::*;

    fn request(policy: RegionLossPolicy) -> SetRegionLossPolicyRequest {
        SetRegionLossPolicyRequest {
            tenant: "acme".into(),
            policy: Some(policy),
            ..SetRegionLossPolicyRequest::default()
        }
    }

    #[test]
    fn policy_round_trips() {
        let promotion = PromotionPolicy {
            after_ms: 30_000,
            loss_ms_max: Some(90_000),
        };
        for policy in [
            RegionLoss::Alert,
            RegionLoss::Observe(promotion),
            RegionLoss::Promote(promotion),
        ] {
            assert_eq!(update(&request(message(policy))).unwrap().policy, policy);
        }
    }

    #[test]
    fn wrong_field_is_named() {
        let field = |policy: RegionLossPolicy| {
            let error = update(&request(policy)).unwrap_err();
            let ErrorKind::Invalid { field } = error.kind else {
                panic!("{}", error.message)
            };
            field
        };
        let promote = RegionLossPolicy {
            action: Action::Promote.into(),
            ..RegionLossPolicy::default()
        };
        assert_eq!(field(promote), "policy.after");
        let alert = RegionLossPolicy {
            max_loss: Some(convert::read::duration(Duration::from_secs(1))),
            ..RegionLossPolicy::default()
        };
        assert_eq!(field(alert), "policy.action");
        let unknown = RegionLossPolicy {
            action: 9,
            ..RegionLossPolicy::default()
        };
        assert_eq!(field(unknown), "policy.action");
    }
}
