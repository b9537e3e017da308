//! Cache of group leaders, learnt from answers.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{GroupId, NodeId};

/// The last known leader of each group.
#[derive(Debug, Default)]
pub(crate) struct LeaderCache(Mutex<BTreeMap<GroupId, NodeId>>);

impl LeaderCache {
    /// Returns the voter to try first: the cached leader, else the first voter.
    pub(crate) fn choose(&self, group: GroupId, voters: &[NodeId]) -> Option<NodeId> {
        let known = self.0.lock().get(&group).copied();
        known
            .filter(|known| voters.contains(known))
            .or_else(|| voters.first().copied())
    }

    /// Records that a node has answered as the group's leader.
    pub(crate) fn record_leader(&self, group: GroupId, node: NodeId) {
        self.0.lock().insert(group, node);
    }

    /// Records that a node could not answer: the next voter is tried next time.
    pub(crate) fn record_failure(&self, group: GroupId, node: NodeId, voters: &[NodeId]) {
        let mut known = self.0.lock();
        if known.get(&group).is_some_and(|known| *known != node) {
            return;
        }
        let at = voters.iter().position(|voter| *voter == node).map_or(0, |at| at + 1);
        if let Some(next) = voters.get(at % voters.len().max(1)) {
            known.insert(group, *next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed voter is skipped; an old failure says nothing about another voter.
    #[test]
    fn leader_cache_skips_failed_voter_prefers_last_leader() {
        let leaders = LeaderCache::default();
        let group = GroupId::new(1);
        let voters = [1, 2, 3].map(NodeId::new);
        assert_eq!(leaders.choose(group, &voters), Some(voters[0]));
        leaders.record_failure(group, voters[0], &voters);
        assert_eq!(leaders.choose(group, &voters), Some(voters[1]));
        leaders.record_leader(group, voters[2]);
        leaders.record_failure(group, voters[1], &voters);
        assert_eq!(
            leaders.choose(group, &voters),
            Some(voters[2]),
            "an old failure says nothing of another node"
        );
        leaders.record_failure(group, voters[2], &voters);
        assert_eq!(leaders.choose(group, &voters), Some(voters[0]));
        assert_eq!(leaders.choose(group, &[]), None);
    }
}
