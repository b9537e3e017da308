//! `stead directory watch`: one line a change.

use clap::Args;
use serde_json::json;

use super::display;
use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Names of tenants; else all
    tenants: Vec<String>,
}

impl Watch {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let mut watch = client.directory().watch(self.tenants).await?;
        loop {
            let change = watch.next().await?;
            for route in &change.routes {
                if target.output == Output::Json {
                    output::line(&display::value(route).to_string())?;
                } else {
                    output::line(&display::cells(route)[..display::COLUMNS.1].join("  "))?;
                }
            }
            for name in &change.removed {
                if target.output == Output::Json {
                    output::line(&json!({ "removedTenant": name }).to_string())?;
                } else {
                    output::line(&format!("{name}  removed"))?;
                }
            }
        }
    }
}
