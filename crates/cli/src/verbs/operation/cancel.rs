//! `stead operation cancel`.

use clap::Args;

use super::{display, name};
use crate::{args::Target, context, exit::CommandError, output::Output};

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Name of the operation, or its number
    operation: String,
}

impl Cancel {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        let verify_hint = format!("`stead operation show {name}` shows whether it was cancelled");
        let cancelled = admin.cancel_operation(&name).await;
        cancelled.map_err(|error| CommandError::from(error).if_unknown(&verify_hint))?;
        let operation = admin.operation(&name).await?;
        let is_open = operation.outcome.is_none();
        display::table(&[operation]).print_one(target.output)?;
        if is_open && target.output != Output::Json {
            eprintln!("asked for; its outcome is not known yet: `stead operation watch {name}`");
        }
        Ok(())
    }
}
