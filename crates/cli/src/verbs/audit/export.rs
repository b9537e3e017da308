//! `stead audit export`.

use clap::Args;

use crate::{args::Target, context, exit::CommandError, output};

#[derive(Debug, Args)]
pub(crate) struct Export {}

impl Export {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let mut records = context::connect(target).await?.admin().audit_all().await?;
        records.reverse();
        for record in records {
            output::line(&super::list::value(&record).to_string())?;
        }
        Ok(())
    }
}
