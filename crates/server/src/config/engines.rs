//! Which engines a cluster stands on. sled is the second engine, for the sake of a second opinion: digests compare what two
//! engines hold. It does not always open after a power cut, so that no group should need it for its majority.

use super::{Checked, Invalid, Member};
use crate::node;

const SLED: &str = "sled";

/// Refuses a name that is no engine's.
pub(super) fn check(key: &str, engine: &str) -> Result<(), Invalid> {
    if ["fjall", SLED, "memory"].contains(&engine) {
        return Ok(());
    }
    let problem = format!("{engine:?} is no engine: use fjall, sled or memory");
    Err(Invalid::value(key, problem))
}

/// Refuses an engine that is not the one that all nodes are told.
pub(super) fn check_own(node: &Member, engine: &str) -> Result<(), Invalid> {
    let (name, told) = (&node.name, node.engine.as_str());
    let problem = match told {
        "" if engine == SLED => format!("cluster.initial does not say what {name} runs on"),
        "" => return Ok(()),
        told if told == engine => return Ok(()),
        told => format!("cluster.initial says that {name} runs on {told}"),
    };
    let problem = format!("{engine:?}, but {problem}: write engine = {engine:?} into its entry, on every node");
    Err(Invalid::value("storage.engine", problem))
}

/// Refuses a group with a majority of its voters on sled.
pub(super) fn check_groups(config: &Checked) -> Result<(), Invalid> {
    for group in node::initial(config).groups() {
        let is_on_sled = |member: &&Member| group.voters.contains(&member.id) && member.engine == SLED;
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
            return Err(Invalid::value("cluster.initial", problem));
        }
    }
    Ok(())
}
