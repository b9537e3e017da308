//! `stead dev`.

use clap::Args;

use crate::exit::Failure;

#[derive(Debug, Args)]
pub(crate) struct Dev {}

impl Dev {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        Ok(())
    }
}
