//! `stead tenant list`.

use clap::Args;

use super::shown;
use crate::{args::Target, context, exit::Failure};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those at home here
    #[arg(long, value_name = "REGION", default_value = "")]
    home: String,
    /// Only those whose names begin with this
    #[arg(long, default_value = "")]
    prefix: String,
}

impl List {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = context::connect(target).await?;
        let tenants = client.admin().tenants(&self.home, &self.prefix).await?;
        shown::sheet(&tenants).print(target.output)
    }
}
