//! `stead operation watch`.

use clap::Args;

use super::{follow, name};
use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Name of the operation, or its number
    operation: String,
}

impl Watch {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        follow::to_the_end(&admin, &name, target.output).await
    }
}
