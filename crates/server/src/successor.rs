//! Choice of the voter that leadership of a group is handed to: one that is alive and caught up by its own answer just now.
//!
//! A leader that hands over to a dead voter leaves a gap until an election. Voters are asked for their status of the group,
//! as operators ask for it.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use stead_raft::{Group, GroupMetrics};
use stead_types::{Error, ErrorKind, GroupId, NodeId};
use tokio::time::timeout;

use crate::{host::Host, services::admin::group::status_at};

/// Longest time for a voter's answer: one in its own region has answered by then, or is dead or frozen.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Most entries that a voter may lack: it has them within a heartbeat, and nobody waits meanwhile.
const BEHIND_MAX: u64 = 1_000;

/// Voter as a possible successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    node: NodeId,
    /// Index that it has applied by its own answer; `None` if it has not answered, or knows another leader.
    applied: Option<u64>,
    /// Index up to which it has the log, as this node knows.
    replicated: u64,
}

/// Returns the voter to which this node hands the leadership of a group: the requested one, else the one that has most of
/// the log.
///
/// # Errors
///
/// `INVALID` if the requested node is no voter, `CONFLICT` if it, or every other voter, is not alive and caught up: nothing
/// has happened.
pub(crate) async fn choose(host: &Host, group: &Group, to: Option<NodeId>) -> Result<NodeId, Error> {
    let own = host.config.node.id;
    let GroupMetrics {
        voters,
        replicated,
        last_log,
        ..
    } = group.metrics();
    let number = group.id();
    if let Some(to) = to.filter(|to| !voters.contains(to)) {
        return Err(no_voter(number, to, &voters));
    }
    let asked = voters.iter().copied().filter(|voter| *voter != own);
    let asked = asked.filter(|voter| to.is_none_or(|to| to == *voter));
    let candidates = join_all(asked.map(async |node| {
        Candidate {
            node,
            applied: applied_at(host, number, node).await,
            replicated: replicated
                .iter()
                .find(|(at, _)| *at == node)
                .map_or(0, |(_, index)| *index),
        }
    }));
    if to == Some(own) {
        return Ok(own);
    }
    decide(number, last_log, &candidates.await)
}

/// Returns the index that a voter has applied, if it answers in time and takes this node for the leader.
async fn applied_at(host: &Host, group: GroupId, voter: NodeId) -> Option<u64> {
    let asked = timeout(ANSWER_MAX, status_at(host, group.get(), voter.get())).await;
    let status = asked.ok().flatten()?;
    (status.leader == Some(host.config.node.id.get())).then_some(status.applied_index)
}

/// Decides between the candidates, for a leader whose log ends at this index.
fn decide(group: GroupId, last_log: u64, candidates: &[Candidate]) -> Result<NodeId, Error> {
    let is_ready = |candidate: &&Candidate| {
        let applied = candidate.applied.unwrap_or_default();
        candidate.applied.is_some() && applied.min(candidate.replicated) + BEHIND_MAX >= last_log
    };
    let best = candidates
        .iter()
        .filter(is_ready)
        .max_by_key(|candidate| candidate.replicated);
    best.map(|best| best.node).ok_or_else(|| {
        let why: Vec<String> = candidates.iter().map(|candidate| candidate.refusal(last_log)).collect();
        let why = if why.is_empty() {
            "the group has no other voter".to_owned()
        } else {
            why.join(", ")
        };
        let message = format!("leadership of group {} stays, nothing happened: {why}", group.get());
        Error::new(ErrorKind::Conflict, message)
    })
}

impl Candidate {
    fn refusal(&self, last_log: u64) -> String {
        let node = self.node.get();
        match self.applied {
            None => format!(
                "node {node} does not answer as a follower of this leader within {} ms",
                ANSWER_MAX.as_millis()
            ),
            Some(applied) => format!(
                "node {node} has applied entry {applied} of {last_log}, and may lack {BEHIND_MAX} at most: try again"
            ),
        }
    }
}

fn no_voter(group: GroupId, to: NodeId, voters: &BTreeSet<NodeId>) -> Error {
    let voters: Vec<String> = voters.iter().map(|voter| voter.get().to_string()).collect();
    let message = format!(
        "to: node {} is no voter of group {}; voters are {}",
        to.get(),
        group.get(),
        voters.join(", ")
    );
    Error::invalid("to", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(node: u64, applied: Option<u64>, replicated: u64) -> Candidate {
        Candidate {
            node: NodeId::new(node),
            applied,
            replicated,
        }
    }

    fn decided(candidates: &[Candidate]) -> Result<u64, String> {
        let decided = decide(GroupId::new(1), 5_000, candidates);
        decided.map(NodeId::get).map_err(|error| error.message)
    }

    #[test]
    fn only_a_living_caught_up_voter_is_chosen() {
        let (dead, behind) = (candidate(2, None, 5_000), candidate(3, Some(3_999), 3_999));
        assert_eq!(decided(&[dead, candidate(3, Some(4_990), 4_999)]), Ok(3));
        assert_eq!(
            decided(&[candidate(2, Some(4_990), 4_991), candidate(3, Some(4_999), 5_000)]),
            Ok(3)
        );
        let refused = decided(&[dead, behind]).unwrap_err();
        for words in [
            "leadership of group 1 stays, nothing happened: node 2 does not answer",
            "node 3 has applied entry 3999 of 5000",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
        assert!(decided(&[candidate(3, Some(4_999), 100)]).is_err(), "its log is behind");
        assert!(decided(&[]).unwrap_err().ends_with("the group has no other voter"));
    }

    #[test]
    fn requested_node_must_be_a_voter() {
        let voters = [1, 2, 3].map(NodeId::new).into();
        let refused = no_voter(GroupId::new(1), NodeId::new(99), &voters);
        assert_eq!(
            refused.message,
            "to: node 99 is no voter of group 1; voters are 1, 2, 3"
        );
    }
}
