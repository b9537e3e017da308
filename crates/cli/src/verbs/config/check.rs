//! `stead config check`: validates a node's configuration.

use std::path::PathBuf;

use clap::Args;

use crate::{exit::CommandError, output, verbs::serve};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let config = serve::load(Some(&self.file), std::env::vars())?;
        let checked = config
            .validate()
            .map_err(|invalid| serve::invalid(Some(&self.file), &invalid))?;
        let node = &checked.node;
        output::line(&format!(
            "good: node {} ({}) of cluster {}, {} in {}, engine {}",
            node.name,
            node.region,
            checked.cluster,
            count(checked.members.len(), "node"),
            count(checked.regions.len(), "region"),
            checked.engine
        ))
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
