//! `stead serve`: one node.

use std::path::{Path, PathBuf};

use clap::Args;
use stead_server::config::{Config, Invalid};

use crate::exit::{Code, Failure};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The node's configuration; `stead config default` prints one
    #[arg(long, env = "STEAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which of cluster.initial this node is
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where everything is kept
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// What is logged, such as info or stead_raft=debug,info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut config = load(self.config.as_deref(), std::env::vars())?;
        if let Some(node) = self.node {
            config.node.name = node;
        }
        if let Some(data_dir) = self.data_dir {
            config.node.data_dir = data_dir;
        }
        if let Some(log) = self.log {
            config.log.level = log;
        }
        config
            .check()
            .map_err(|error| invalid(self.config.as_deref(), &error))?;
        Err(Failure::new(Code::Failed, "nodes are not built yet"))
    }
}

/// Reads a node's configuration: the file, with the environment over it.
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Failure> {
    let unreadable = |path: &Path, error| {
        Failure::new(Code::Usage, format!("{} cannot be read: {error}", path.display()))
            .hint("`stead config default > FILE` makes one")
    };
    let text = match file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?,
        None => String::new(),
    };
    Config::load(&text, environment).map_err(|error| invalid(file, &error))
}

/// The failure of a configuration that cannot be used.
pub(crate) fn invalid(file: Option<&Path>, error: &Invalid) -> Failure {
    let place = file.map_or_else(String::new, |path| format!("{}: ", path.display()));
    let cause = std::error::Error::source(error)
        .map_or_else(String::new, |cause| format!(": {}", cause.to_string().trim_end()));
    Failure::new(Code::Usage, format!("{place}{error}{cause}")).hint("`stead config default` shows every setting")
}
