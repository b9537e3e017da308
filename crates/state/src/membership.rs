//! Change of the voters of a group, one step at a time, as its leader carries it out.
//!
//! ```text
//!   new voter has the group ──> learner ──> its own log has the leader's ──> all others answer ──> Raft's change ──> confirm
//!                                                                             leader goes first ┘
//! ```
//!
//! What is next follows from what the leader sees, so that another leader goes on where this one ended.
//!
//! # Invariants
//!
//! 1. A node votes only once it has said itself that it has applied all that the leader had committed when it asked.
//! 2. Voters are changed only while all that will vote answer: so the group may lose as many nodes afterwards as its number
//!    of voters says. A change that Raft has begun goes on without.
//! 3. A leader that leaves hands over first, where another voter stays.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::NodeId;

/// Group whose voters are to change, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedGroup {
    /// The leader.
    pub own: NodeId,
    /// The voters before, as the directory has them.
    pub before: BTreeSet<NodeId>,
    /// The voters afterwards.
    pub target: BTreeSet<NodeId>,
    /// Whether the change was given up.
    pub withdrawn: bool,
    /// The voters in Raft's membership, of both configurations while it changes.
    pub voters: BTreeSet<NodeId>,
    /// Whether the membership is a joint one, which Raft leaves only when the change is asked for again.
    pub is_joint: bool,
    /// Whether the membership is committed.
    pub is_committed: bool,
    /// The learners.
    pub learners: BTreeSet<NodeId>,
    /// Index that was committed before the nodes were asked.
    pub committed: u64,
    /// Answers of the other nodes that have answered as followers of this leader: the index that each has applied.
    pub applied: BTreeMap<NodeId, u64>,
}

/// Next step of a change of voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits.
    Wait(Waiting),
    /// Adds a learner.
    AddLearner(NodeId),
    /// Removes learners that are not to vote.
    RemoveLearners(BTreeSet<NodeId>),
    /// Hands leadership over.
    Transfer(NodeId),
    /// Changes the voters to these.
    Change(BTreeSet<NodeId>),
    /// Reports these voters, which are committed, to the directory.
    Confirm(BTreeSet<NodeId>),
}

/// Reason to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// A node that is to vote does not answer.
    #[error("{0} does not answer: start it, or cancel the operation and replace that node too")]
    Answer(NodeId),
    /// A new voter lacks entries.
    #[error("{node} has applied entry {applied} of {committed}")]
    CatchUp {
        /// The node.
        node: NodeId,
        /// Entry that it has applied.
        applied: u64,
        /// Entry that was committed.
        committed: u64,
    },
    /// The membership is not committed yet.
    #[error("the membership is being committed")]
    Commit,
}

/// Returns the next step of a change of voters.
pub fn next(group: &ObservedGroup) -> Step {
    if group.is_joint {
        return Step::Change(group.target.clone());
    }
    if !group.is_committed {
        return Step::Wait(Waiting::Commit);
    }
    let goal = if group.voters == group.target || !group.withdrawn {
        &group.target
    } else {
        &group.before
    };
    let surplus: BTreeSet<NodeId> = group.learners.difference(goal).copied().collect();
    if !surplus.is_empty() {
        return Step::RemoveLearners(surplus);
    }
    if group.voters == *goal {
        return Step::Confirm(goal.clone());
    }
    toward(group, goal)
}

fn toward(group: &ObservedGroup, goal: &BTreeSet<NodeId>) -> Step {
    let others = || goal.iter().copied().filter(|node| *node != group.own);
    if let Some(silent) = others().find(|node| !group.applied.contains_key(node)) {
        // A learner follows nobody before it is one: that it has the group is asked for otherwise.
        let is_new = !group.voters.contains(&silent) && !group.learners.contains(&silent);
        return match is_new {
            true => Step::AddLearner(silent),
            false => Step::Wait(Waiting::Answer(silent)),
        };
    }
    for node in others().filter(|node| !group.voters.contains(node)) {
        if !group.learners.contains(&node) {
            return Step::AddLearner(node);
        }
        // Invariant 1.
        let applied = group.applied.get(&node).copied().unwrap_or(0);
        if applied < group.committed {
            let committed = group.committed;
            return Step::Wait(Waiting::CatchUp {
                node,
                applied,
                committed,
            });
        }
    }
    // Invariant 3.
    let heir = others().filter(|node| group.voters.contains(node));
    let heir = heir.max_by_key(|node| group.applied.get(node).copied());
    match heir {
        Some(heir) if !goal.contains(&group.own) => Step::Transfer(heir),
        Some(_) | None => Step::Change(goal.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    fn applied(answers: &[(u64, u64)]) -> BTreeMap<NodeId, u64> {
        let answer = |(node, applied): &(u64, u64)| (NodeId::new(*node), *applied);
        answers.iter().map(answer).collect()
    }

    /// Node 3 of three is dead, and node 4 takes its place.
    fn replacement() -> ObservedGroup {
        ObservedGroup {
            own: NodeId::new(1),
            before: ids(&[1, 2, 3]),
            target: ids(&[1, 2, 4]),
            withdrawn: false,
            voters: ids(&[1, 2, 3]),
            is_joint: false,
            is_committed: true,
            learners: ids(&[]),
            committed: 100,
            applied: applied(&[(2, 100)]),
        }
    }

    #[test]
    fn replacement_goes_through_all_steps() {
        let mut group = replacement();
        assert_eq!(next(&group), Step::AddLearner(NodeId::new(4)));
        group.learners = ids(&[4]);
        assert_eq!(next(&group), Step::Wait(Waiting::Answer(NodeId::new(4))));
        group.applied = applied(&[(2, 100), (4, 99)]);
        let waits = Waiting::CatchUp {
            node: NodeId::new(4),
            applied: 99,
            committed: 100,
        };
        assert_eq!(next(&group), Step::Wait(waits), "invariant 1");
        group.applied = applied(&[(2, 100), (4, 100)]);
        assert_eq!(next(&group), Step::Change(ids(&[1, 2, 4])));
        group.is_joint = true;
        group.voters = ids(&[1, 2, 3, 4]);
        group.applied.clear();
        assert_eq!(next(&group), Step::Change(ids(&[1, 2, 4])), "Raft's change goes on");
        (group.is_joint, group.voters, group.learners) = (false, ids(&[1, 2, 4]), ids(&[]));
        group.is_committed = false;
        assert_eq!(next(&group), Step::Wait(Waiting::Commit));
        group.is_committed = true;
        assert_eq!(next(&group), Step::Confirm(ids(&[1, 2, 4])));
    }

    #[test]
    fn change_waits_for_every_voter_to_come() {
        let mut group = replacement();
        group.learners = ids(&[4]);
        group.applied = applied(&[(4, 100)]);
        assert_eq!(next(&group), Step::Wait(Waiting::Answer(NodeId::new(2))), "invariant 2");
    }

    #[test]
    fn leaving_leader_hands_over_where_a_voter_stays() {
        let mut group = replacement();
        group.own = NodeId::new(3);
        group.learners = ids(&[4]);
        group.applied = applied(&[(1, 99), (2, 100), (4, 100)]);
        assert_eq!(next(&group), Step::Transfer(NodeId::new(2)), "invariant 3");
        group.before = ids(&[3]);
        group.voters = ids(&[3]);
        group.target = ids(&[4]);
        assert_eq!(next(&group), Step::Change(ids(&[4])), "nobody stays");
    }

    #[test]
    fn withdrawn_change_is_undone_unless_it_is_made() {
        let mut group = replacement();
        group.withdrawn = true;
        group.learners = ids(&[4]);
        assert_eq!(next(&group), Step::RemoveLearners(ids(&[4])));
        group.learners = ids(&[]);
        assert_eq!(next(&group), Step::Confirm(ids(&[1, 2, 3])));
        group.voters = ids(&[1, 2, 4]);
        assert_eq!(next(&group), Step::Confirm(ids(&[1, 2, 4])));
    }

    #[test]
    fn region_of_one_grows_to_three() {
        let mut group = replacement();
        group.before = ids(&[1]);
        group.voters = ids(&[1]);
        group.target = ids(&[1, 5, 6]);
        group.applied = applied(&[]);
        assert_eq!(next(&group), Step::AddLearner(NodeId::new(5)));
        group.learners = ids(&[5]);
        group.applied = applied(&[(5, 100)]);
        assert_eq!(next(&group), Step::AddLearner(NodeId::new(6)));
        group.learners = ids(&[5, 6]);
        group.applied = applied(&[(5, 100), (6, 120)]);
        assert_eq!(next(&group), Step::Change(ids(&[1, 5, 6])));
    }
}
