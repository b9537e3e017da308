//! `stead tenant get`.

use clap::Args;

use super::display;
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name of the tenant
    name: String,
}

impl Get {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let tenant = client.admin().tenant(&self.name).await?;
        display::table(&[tenant]).print_one(target.output)
    }
}
