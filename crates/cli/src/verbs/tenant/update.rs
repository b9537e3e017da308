//! `stead tenant update`.

use clap::Args;
use stead_client::{TenantChange, TenantLimit};

use super::{
    DurabilityArg, changed,
    create::{followers, limits},
    label, limit, look,
};
use crate::{args::Target, context, exit::Failure};

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Its name
    name: String,
    /// Regions that follow it, with commas; all: those that its residency admits; none
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    followers: Option<Vec<String>>,
    /// Jurisdictions in which it may be stored, with commas; any: all
    #[arg(long, value_name = "JURISDICTIONS", value_delimiter = ',')]
    residency: Option<Vec<String>>,
    /// When its writes are acknowledged
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
    /// A note, name=value; replaces all there are; may be given several times
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Option<Vec<(String, String)>>,
    /// Take all its notes away
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// What it may use at most, such as operations-per-second=500 or stored-bytes=2GiB; keys=default returns to the
    /// cluster's default; limits that are not named stay; may be given several times
    #[arg(long = "limit", value_parser = limit, value_name = "NAME=VALUE")]
    limits: Vec<(TenantLimit, Option<u64>)>,
    /// Let it serve again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Let it serve nothing
    #[arg(long)]
    disable: bool,
    /// Refuse unless this is its etag
    #[arg(long, default_value = "")]
    etag: String,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
    /// Only check, and show what it would be
    #[arg(long)]
    dry_run: bool,
}

impl Update {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
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
            reason: self.reason,
            dry_run,
        };
        let look = look(&change.name);
        let updated = client.admin().update_tenant(change).await;
        let tenant = updated.map_err(|error| Failure::from(error).if_unknown(&look))?;
        changed(tenant, dry_run, target.output)
    }
}
