//! `stead tenant create`.

use clap::Args;
use stead_client::{Followers, NewTenant, TenantLimit, TenantLimits};

use super::{DurabilityArg, OnLeaseLossArg, label, limit, print_tenant, verify_hint};
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the tenant: 1 to 64 of a-z, 0-9 and -
    name: String,
    /// Home region; else the region of the node that is asked
    #[arg(long, value_name = "REGION", default_value = "")]
    home: String,
    /// Regions of its followers, with commas, or none; else all that its residency admits
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    followers: Option<Vec<String>>,
    /// Jurisdictions in which it may be stored, with commas; else all
    #[arg(long, value_name = "JURISDICTIONS", value_delimiter = ',')]
    residency: Vec<String>,
    /// When its writes are acknowledged
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
    /// Behaviour of its home once its lease has run out, because it cannot reach the directory
    #[arg(long, value_enum)]
    on_lease_loss: Option<OnLeaseLossArg>,
    /// A label, name=value; may be given several times
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// A limit, such as operations-per-second=500, stored-bytes=2GiB, history-age=30m; may be given several times;
    /// other limits have the cluster's default
    #[arg(long = "limit", value_parser = limit, value_name = "NAME=VALUE")]
    limits: Vec<(TenantLimit, Option<u64>)>,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// Only validate, and show the tenant that would be created
    #[arg(long)]
    dry_run: bool,
}

impl Create {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let dry_run = self.dry_run;
        let new = NewTenant {
            name: self.name,
            home_region: self.home,
            followers: self.followers.map_or(Followers::AllAdmitted, followers),
            residency: self.residency,
            durability: self.durability.map(Into::into),
            labels: self.labels.into_iter().collect(),
            limits: limits(&self.limits),
            on_lease_loss: self.on_lease_loss.map(Into::into),
            reason: self.reason,
            dry_run,
        };
        let verify_hint = verify_hint(&new.name);
        let created = client.admin().create_tenant(new).await;
        let tenant = created.map_err(|error| CommandError::from(error).if_unknown(&verify_hint))?;
        print_tenant(tenant, dry_run, target.output)
    }
}

/// Returns the limits that are set; the last one of a name counts.
pub(super) fn limits(asked: &[(TenantLimit, Option<u64>)]) -> TenantLimits {
    let mut limits = TenantLimits::default();
    for (limit, value) in asked {
        match value {
            Some(value) => limits.set(*limit, *value).expect("it was checked when it was read"),
            None => limits.clear(*limit),
        }
    }
    limits
}

pub(super) fn followers(regions: Vec<String>) -> Followers {
    if regions == ["all"] {
        return Followers::AllAdmitted;
    }
    Followers::Regions(
        regions
            .into_iter()
            .filter(|region| !region.is_empty() && region != "none")
            .collect(),
    )
}
