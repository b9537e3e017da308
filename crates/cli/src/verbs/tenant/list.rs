//! `stead tenant list`.

use clap::Args;

use super::display;
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only tenants with this home region
    #[arg(long, value_name = "REGION", default_value = "")]
    home: String,
    /// Only tenants with this name prefix
    #[arg(long, default_value = "")]
    prefix: String,
}

impl List {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let tenants = client.admin().tenants(&self.home, &self.prefix).await?;
        display::table(&tenants).print(target.output)
    }
}
