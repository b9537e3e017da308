//! `stead operation list`.

use clap::Args;
use stead_client::OperationFilter;

use super::display;
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only operations of this tenant
    #[arg(long, value_name = "NAME", default_value = "")]
    tenant: String,
    /// Only operations in flight
    #[arg(long, conflicts_with = "done")]
    in_flight: bool,
    /// Only operations that are over
    #[arg(long)]
    done: bool,
}

impl List {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let filter = OperationFilter {
            tenant: self.tenant,
            done: (self.done || self.in_flight).then_some(self.done),
        };
        display::table(&admin.operations(&filter).await?).print(target.output)
    }
}
