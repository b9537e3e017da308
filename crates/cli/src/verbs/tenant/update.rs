//! `stead tenant update`.

use clap::Args;
use stead_client::{TenantChange, TenantLimit};

use super::{
    DurabilityArg, OnLeaseLossArg,
    create::{followers, limits},
    label, limit, print_tenant, verify_hint,
};
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name of the tenant
    name: String,
    /// Regions of its followers, with commas; all: those that its residency admits; none
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    followers: Option<Vec<String>>,
    /// Jurisdictions in which it may be stored, with commas; any: all
    #[arg(long, value_name = "JURISDICTIONS", value_delimiter = ',')]
    residency: Option<Vec<String>>,
    /// When its writes are acknowledged
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
    /// Behaviour of its home once its lease has run out, because it cannot reach the directory
    #[arg(long, value_enum)]
    on_lease_loss: Option<OnLeaseLossArg>,
    /// A label, name=value; replaces all labels; may be given several times
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Option<Vec<(String, String)>>,
    /// Remove all labels
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// A limit, such as operations-per-second=500 or stored-bytes=2GiB; keys=default resets it to the cluster's
    /// default; other limits stay; may be given several times
    #[arg(long = "limit", value_parser = limit, value_name = "NAME=VALUE")]
    limits: Vec<(TenantLimit, Option<u64>)>,
    /// Enable the tenant
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Disable the tenant
    #[arg(long)]
    disable: bool,
    /// Refuse unless this is its etag
    #[arg(long, default_value = "")]
    etag: String,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// Only validate, and show the result
    #[arg(long)]
    dry_run: bool,
}

impl Update {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let admitted = |names: Vec<String>| names.into_iter().filter(|name| name != "any").collect();
        let limits = limits(&self.limits);
        let cleared = self.limits.iter().map(|(limit, _)| *limit);
        let default_limits = cleared.filter(|limit| limits.get(*limit).is_none()).collect();
        let dry_run = self.dry_run;
        let change = TenantChange {
            name: self.name,
            etag: self.etag,
            followers: self.followers.map(followers),
            residency: self.residency.map(admitted),
            durability: self.durability.map(Into::into),
            labels: self
                .labels
                .or_else(|| self.no_labels.then(Vec::new))
                .map(|labels| labels.into_iter().collect()),
            limits,
            default_limits,
            enabled: (self.enable || self.disable).then_some(self.enable),
            on_lease_loss: self.on_lease_loss.map(Into::into),
            reason: self.reason,
            dry_run,
        };
        let verify_hint = verify_hint(&change.name);
        let updated = client.admin().update_tenant(change).await;
        let tenant = updated.map_err(|error| CommandError::from(error).if_unknown(&verify_hint))?;
        print_tenant(tenant, dry_run, target.output)
    }
}
