//! `stead tenant on-region-loss`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use stead_client::{AutomaticPromotion, OnRegionLoss};

use super::{display, verify_hint};
use crate::{
    args::{self, Target},
    context,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct OnRegionLossVerb {
    /// Name of the tenant
    name: String,
    /// Policy for the loss of its home region
    #[arg(value_enum)]
    action: Action,
    /// Time without a lease renewal of any node of the region, such as 2m; 10s to 24h
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    after: Option<Duration>,
    /// Longest window in which acknowledged writes may be lost, up to the end of the wait for the last lease; without it none
    /// may be, which needs the durability remote
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    max_loss: Option<Duration>,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// Only validate
    #[arg(long)]
    dry_run: bool,
}

/// Policy for the loss of a home region, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// An operator is alerted, with the command at hand, and decides
    Alert,
    /// An operator is alerted, and told what promote would have done
    Observe,
    /// It is promoted, by the same steps as by hand
    Promote,
}

impl OnRegionLossVerb {
    fn policy(&self) -> Result<OnRegionLoss, CommandError> {
        let usage = |message: &str| CommandError::new(Code::Usage, message.to_owned());
        let promotion = match (self.action, self.after) {
            (Action::Alert, None) if self.max_loss.is_none() => return Ok(OnRegionLoss::Alert),
            (Action::Alert, _) => return Err(usage("alert promotes nothing: leave out --after and --max-loss")),
            (Action::Observe | Action::Promote, None) => {
                return Err(usage(
                    "--after: say for how long the region must be silent, such as --after 2m",
                ));
            }
            (Action::Observe | Action::Promote, Some(after)) => AutomaticPromotion {
                after,
                max_loss: self.max_loss,
            },
        };
        Ok(match self.action {
            Action::Promote => OnRegionLoss::Promote(promotion),
            Action::Observe | Action::Alert => OnRegionLoss::Observe(promotion),
        })
    }

    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let policy = self.policy()?;
        let admin = context::connect(target).await?.admin();
        let set = admin
            .set_on_region_loss(&self.name, policy, &self.reason, self.dry_run)
            .await;
        let set = set.map_err(|error| CommandError::from(error).if_unknown(&verify_hint(&self.name)))?;
        if target.output == Output::Json {
            return output::json(&json!({ "tenant": self.name, "onRegionLoss": display::on_region_loss_value(set) }));
        }
        output::line(&format!("{}: {}", self.name, display::on_region_loss(set)))?;
        if self.dry_run {
            eprintln!("dry run: this would be the result; nothing was changed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(action: Action, after: Option<u64>) -> OnRegionLossVerb {
        OnRegionLossVerb {
            name: "acme".into(),
            action,
            after: after.map(Duration::from_secs),
            max_loss: None,
            reason: String::new(),
            dry_run: false,
        }
    }

    #[test]
    fn promotion_needs_its_time_and_alert_has_none() {
        assert_eq!(verb(Action::Alert, None).policy().unwrap(), OnRegionLoss::Alert);
        assert_eq!(verb(Action::Alert, Some(30)).policy().unwrap_err().code(), Code::Usage);
        assert_eq!(verb(Action::Promote, None).policy().unwrap_err().code(), Code::Usage);
        let promotion = AutomaticPromotion {
            after: Duration::from_secs(30),
            max_loss: None,
        };
        let promote = verb(Action::Promote, Some(30)).policy().unwrap();
        assert_eq!(promote, OnRegionLoss::Promote(promotion));
        let observe = verb(Action::Observe, Some(30)).policy().unwrap();
        assert_eq!(observe, OnRegionLoss::Observe(promotion));
    }
}
