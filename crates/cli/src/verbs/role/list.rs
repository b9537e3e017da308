//! `stead role list`.

use clap::Args;

use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct List {}

impl List {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let bindings = context::connect(target).await?.admin().role_bindings().await?;
        super::print(bindings, target)
    }
}
