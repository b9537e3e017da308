//! `stead directory lookup`.

use clap::Args;

use super::shown;
use crate::{args::Target, context, exit::Failure, output::Sheet};

#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// The tenant
    tenant: String,
}

impl Lookup {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = context::connect(target).await?;
        let route = client.directory().lookup(&self.tenant).await?;
        let mut sheet = Sheet::new(shown::COLUMNS.0, shown::COLUMNS.1);
        sheet.push(shown::cells(&route), shown::value(&route));
        sheet.print_one(target.output)
    }
}
