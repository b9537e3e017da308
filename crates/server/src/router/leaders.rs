//! Which voter of a group is asked first, learnt from answers.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use stead_types::{GroupId, NodeId};

/// The voter that answered last for its group, by group.
#[derive(Debug, Default)]
pub(crate) struct Leaders(Mutex<BTreeMap<GroupId, NodeId>>);

impl Leaders {
    /// Returns whom to ask: who answered last, else the first.
    pub(crate) fn choose(&self, group: GroupId, voters: &[NodeId]) -> Option<NodeId> {
        let known = self.0.lock().get(&group).copied();
        known
            .filter(|known| voters.contains(known))
            .or_else(|| voters.first().copied())
    }

    /// Notes that a node has answered as the group's leader.
    pub(crate) fn answered(&self, group: GroupId, node: NodeId) {
        self.0.lock().insert(group, node);
    }

    /// Notes that a node could not answer: the next voter is asked next time.
    pub(crate) fn failed(&self, group: GroupId, node: NodeId, voters: &[NodeId]) {
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

    #[test]
    fn who_fails_is_passed_over_and_who_answers_is_asked_again() {
        let leaders = Leaders::default();
        let group = GroupId::new(1);
        let voters = [1, 2, 3].map(NodeId::new);
        assert_eq!(leaders.choose(group, &voters), Some(voters[0]));
        leaders.failed(group, voters[0], &voters);
        assert_eq!(leaders.choose(group, &voters), Some(voters[1]));
        leaders.answered(group, voters[2]);
        leaders.failed(group, voters[1], &voters);
        assert_eq!(
            leaders.choose(group, &voters),
            Some(voters[2]),
            "an old failure says nothing of another node"
        );
        leaders.failed(group, voters[2], &voters);
        assert_eq!(leaders.choose(group, &voters), Some(voters[0]));
        assert_eq!(leaders.choose(group, &[]), None);
    }
}
