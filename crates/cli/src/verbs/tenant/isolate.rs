//! `stead tenant isolate`.

use clap::Args;
use stead_client::{MoveSource, MoveTarget, TenantMove};

use super::move_home;
use crate::{args::Target, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Isolate {
    /// Name of the tenant
    name: String,
    /// Refuse unless this is the tenant's etag
    #[arg(long, default_value = "")]
    etag: String,
    /// Reason, for the audit log and the operation
    #[arg(long, default_value = "")]
    reason: String,
    /// Only show what would happen, how long writes would pause, and what blocks it
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
    /// End as soon as the move has begun
    #[arg(long)]
    no_wait: bool,
}

impl Isolate {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let request = TenantMove {
            name: self.name,
            etag: self.etag,
            to: MoveTarget::OtherGroup,
            source: MoveSource::Policy,
            reason: self.reason,
            dry_run: self.dry_run,
        };
        move_home::run(target, request, self.no_wait).await
    }
}
