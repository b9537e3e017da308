//! `stead config check`: validates a node's configuration.

use std::path::{Path, PathBuf};

use clap::Args;
use stead_server::{
    config::{Config, Joined},
    join,
};

use crate::{
    exit::{Code, CommandError},
    output,
    verbs::serve,
};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut config = serve::load(Some(&self.file), std::env::vars())?;
        let joins = join::recall(&mut config)
            .map_err(|error| CommandError::new(Code::Failed, format!("{:#}", anyhow::Error::from(error))))?;
        if joins {
            if config.node.name.is_empty() {
                return Err(CommandError::new(
                    Code::Usage,
                    "node.name: name the node as it was announced",
                ));
            }
            config.joined = Some(provisional(&config));
        }
        let checked = config
            .validate()
            .map_err(|invalid| serve::invalid(Some(&self.file), &invalid))?;
        check_data_dir(&checked.data_dir)?;
        let node = &checked.node;
        if checked.has_joined {
            let how = if joins { "is to join" } else { "has joined" };
            return output::line(&format!(
                "valid: node {}, which {how} cluster {}, engine {}",
                node.name, checked.cluster, checked.engine
            ));
        }
        output::line(&format!(
            "valid: node {} ({}) of cluster {}, {} in {}, engine {}",
            node.name,
            node.region,
            checked.cluster,
            output::count(checked.members.len() as u64, "node"),
            output::count(checked.regions.len() as u64, "region"),
            checked.engine
        ))
    }
}

/// Returns an identity for a node that has not asked the cluster for its own yet: what the cluster decides is not checked.
fn provisional(config: &Config) -> Joined {
    Joined {
        name: config.node.name.clone(),
        node: u64::MAX,
        region: "unknown".to_owned(),
        witness: false,
        voters: Vec::new(),
    }
}

/// Rejects a data directory that cannot be made, because a file is in its place or above it.
fn check_data_dir(data_dir: &Path) -> Result<(), CommandError> {
    let existing = data_dir.ancestors().find(|path| path.symlink_metadata().is_ok());
    match existing {
        Some(path) if !path.is_dir() => {
            let path = output::display_bytes(path.as_os_str().as_encoded_bytes(), 200);
            let message = format!("node.data_dir: {path} is no directory: name another one");
            Err(CommandError::new(Code::Usage, message))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_dir_below_a_file_is_refused_and_a_new_one_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        check_data_dir(&dir.path().join("new/below")).unwrap();
        check_data_dir(Path::new("relative")).unwrap();
        assert!(check_data_dir(&file).is_err());
        assert!(check_data_dir(&file.join("below")).is_err());
    }
}
