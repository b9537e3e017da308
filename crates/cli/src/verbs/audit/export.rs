//! `stead audit export`.

use clap::Args;

use crate::{args::Target, context, exit::CommandError, output, verbs::tenant::residency};

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Write residency evidence of all tenants instead: what was sent to which region, and where it was erased
    #[arg(long)]
    residency: bool,
}

impl Export {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        if self.residency {
            for record in admin.residency("").await? {
                output::line(&residency::value(&record).to_string())?;
            }
            return Ok(());
        }
        let mut records = admin.audit_all().await?;
        records.reverse();
        for record in records {
            output::line(&super::list::value(&record).to_string())?;
        }
        Ok(())
    }
}
