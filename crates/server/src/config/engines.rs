//! Rules about the storage engines of a cluster. sled is the second engine, so that digests can compare what two
//! engines hold. It does not always open after a power cut, so that no group should need it for its majority.

use super::{ConfigError, NodeConfig, ValidatedConfig};
use crate::node;

const SLED: &str = "sled";

/// Rejects an unknown engine.
pub(super) fn check(key: &str, engine: &str) -> Result<(), ConfigError> {
    if ["fjall", SLED, "memory"].contains(&engine) {
        return Ok(());
    }
    let problem = format!("{engine:?} is not an engine: use fjall, sled or memory");
    Err(ConfigError::value(key, problem))
}

/// Rejects an engine that differs from the one that `cluster.initial` declares for this node.
pub(super) fn check_own(node: &NodeConfig, engine: &str) -> Result<(), ConfigError> {
    let (name, declared) = (&node.name, node.engine.as_str());
    let problem = match declared {
        "" if engine == SLED => format!("cluster.initial does not say what {name} runs on"),
        "" => return Ok(()),
        declared if declared == engine => return Ok(()),
        declared => format!("cluster.initial says that {name} runs on {declared}"),
    };
    let problem = format!("{engine:?}, but {problem}: write engine = {engine:?} into its entry, on every node");
    Err(ConfigError::value("storage.engine", problem))
}

/// Rejects a group with a majority of its voters on sled.
pub(super) fn check_groups(config: &ValidatedConfig) -> Result<(), ConfigError> {
    for group in node::initial_cluster(config).groups() {
        let is_on_sled = |member: &&NodeConfig| group.voters.contains(&member.id) && member.engine == SLED;
        let (on_sled, voters) = (config.members.iter().filter(is_on_sled).count(), group.voters.len());
        if voters < 2 * on_sled {
            let whose = match &group.region {
                Some(region) => format!("the groups of {region}"),
                None => "the directory".to_owned(),
            };
            let problem = format!(
                "{on_sled} of {voters} voters of {whose} are on sled, which does not always open after a power cut: use fjall \
                 for the majority, or set storage.sled_majority = true on every node"
            );
            return Err(ConfigError::value("cluster.initial", problem));
        }
    }
    Ok(())
}
