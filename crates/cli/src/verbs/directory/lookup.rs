//! `stead directory lookup`.

use clap::Args;

use super::display;
use crate::{args::Target, context, exit::CommandError, output::OutputTable};

#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// Name of the tenant
    tenant: String,
}

impl Lookup {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let route = client.directory().lookup(&self.tenant).await?;
        let mut table = OutputTable::new(display::COLUMNS.0, display::COLUMNS.1);
        table.push(display::cells(&route), display::value(&route));
        table.print_one(target.output)
    }
}
