//! `stead tenant delete`: two steps, of which the second is irreversible.

use clap::Args;
use stead_client::TenantDeletion;

use super::{print_tenant, verify_hint};
use crate::{args::Target, confirm, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Name of the tenant
    name: String,
    /// The second step: erase a disabled tenant in every region
    #[arg(long)]
    erase: bool,
    /// Refuse unless this is its etag
    #[arg(long, default_value = "")]
    etag: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// Only validate, and show the result
    #[arg(long)]
    dry_run: bool,
}

impl Delete {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        if !self.yes && !self.dry_run {
            let lost = if self.erase {
                "all its data, in every region, for ever"
            } else {
                "its service, until it is enabled"
            };
            confirm::by_name(&format!("tenant {} would lose {lost}", self.name), &self.name).await?;
        }
        let client = context::connect(target).await?;
        let verify_hint = verify_hint(&self.name);
        let dry_run = self.dry_run;
        let deletion = TenantDeletion {
            name: self.name,
            etag: self.etag,
            erase: self.erase,
            reason: self.reason,
            dry_run,
        };
        let deleted = client.admin().delete_tenant(deletion).await;
        let tenant = deleted.map_err(|error| CommandError::from(error).if_unknown(&verify_hint))?;
        print_tenant(tenant, dry_run, target.output)
    }
}
