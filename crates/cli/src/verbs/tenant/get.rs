//! `stead tenant get`.

use clap::Args;

use super::shown;
use crate::{args::Target, context, exit::Failure};

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Its name
    name: String,
}

impl Get {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = context::connect(target).await?;
        let tenant = client.admin().tenant(&self.name).await?;
        shown::sheet(&[tenant]).print_one(target.output)
    }
}
