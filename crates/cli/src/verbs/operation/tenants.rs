//! `stead operation tenants`.

use clap::Args;
use stead_client::BulkMoveTenantState;

use super::{bulk_display, name};
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Tenants {
    /// Name of the operation, or its number
    operation: String,
    /// Only those that could not be moved
    #[arg(long)]
    failed: bool,
}

impl Tenants {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        let mut tenants = admin.bulk_move_tenants(&name).await?;
        tenants.retain(|tenant| !self.failed || tenant.state == BulkMoveTenantState::Failed);
        bulk_display::tenants_table(&tenants).print(target.output)
    }
}
