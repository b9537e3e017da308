//! `stead operation show`.

use clap::Args;

use super::{display, name};
use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Name of the operation, or its number
    operation: String,
}

impl Show {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        let operation = admin.operation(&name).await?;
        let lines = display::lines(&operation);
        display::table(&[operation]).print_one(target.output)?;
        if target.output == Output::Json {
            return Ok(());
        }
        output::line("")?;
        lines.iter().try_for_each(|line| output::line(line))
    }
}
