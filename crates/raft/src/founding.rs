//! How a group begins, and how a voter that has lost its disk is kept from doing harm.
//!
//! A voter without a log is new, or its disk was lost. In the second case it has forgotten what it acknowledged, and
//! could help to elect a leader that lacks it. So a voter without a log first asks all others, and neither votes nor
//! takes entries meanwhile:
//!
//! ```text
//!   "I have nothing; and you?" ──> every other voter has nothing ──> initial membership, elections
//!                             ├──> a leader that asked this voter sends entries ──> the group has begun: joins too
//!                             └──> one of them has data and never asked ──> this disk was lost: the node stops
//! ```
//!
//! # Invariants
//!
//! 1. A voter without a log joins only once every other voter has answered that it has nothing, or had said so itself;
//!    or once one leads for which that was so, and which this voter has answered. Before, it asks for no vote either.
//! 2. Whoever answers a question of a new voter has the initial membership on its disk before: it was there at the
//!    beginning, and is not mistaken for one that lost its disk should it die before the first entry.
//! 3. Data takes a majority of voters that have joined. Each of them has the answers of all others, who therefore know
//!    its question: a voter that meets data whose owner never asked it has lost its disk.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use stead_types::planted::{self, Bug};
use stead_types::{GroupId, NodeId};
use tokio::sync::watch;
use tokio::time::sleep;

/// The time between two questions to a voter that did not answer.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// After this time an operator is told who is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a voter without a log knows.
#[derive(Debug)]
pub(crate) struct Founding(watch::Sender<Known>);

#[derive(Debug)]
struct Known {
    /// The voters that have not answered.
    unanswered: BTreeSet<NodeId>,
    /// The voters that have asked, and so had nothing.
    asked_by: BTreeSet<NodeId>,
    has_joined: bool,
}

/// Another voter has data of a group that this one has nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner} has data of group {group}, but this node has none: its disk was lost or exchanged, or its data directory \
     is another one; start it with the data that it had (a node without them could help to elect a leader that lacks \
     what it had acknowledged; this version cannot replace it)"
)]
pub(crate) struct DiskLost {
    pub(crate) group: GroupId,
    pub(crate) owner: NodeId,
}

impl Founding {
    /// A voter that needs the answers of these others first; of none, if it has a log.
    pub(crate) fn new(others: BTreeSet<NodeId>) -> Self {
        Self(watch::Sender::new(Known {
            has_joined: others.is_empty(),
            unanswered: others,
            asked_by: BTreeSet::new(),
        }))
    }

    /// Tells whether this voter takes part.
    pub(crate) fn has_joined(&self) -> bool {
        self.0.borrow().has_joined
    }

    /// Waits until this voter takes part.
    pub(crate) async fn joined(&self) {
        let mut known = self.0.subscribe();
        // The sender is self.
        let _ = known.wait_for(|known| known.has_joined).await;
    }

    pub(crate) fn join(&self) {
        self.0.send_modify(|known| known.has_joined = true);
    }

    /// Notes that a voter has asked.
    pub(crate) fn was_asked_by(&self, voter: NodeId) {
        self.0.send_modify(|known| {
            known.asked_by.insert(voter);
        });
    }

    /// Tells whether a voter has asked.
    pub(crate) fn has_answered(&self, voter: NodeId) -> bool {
        self.0.borrow().asked_by.contains(&voter)
    }

    fn unanswered(&self) -> BTreeSet<NodeId> {
        self.0.borrow().unanswered.clone()
    }

    /// Asks until every other voter has answered. `ask` tells whether one has nothing, or that it did not answer.
    ///
    /// # Errors
    ///
    /// The voter that has data.
    pub(crate) async fn ask_all<A: Future<Output = Option<bool>>>(
        &self,
        group: GroupId,
        ask: impl Fn(NodeId) -> A,
    ) -> Result<(), NodeId> {
        let asked = try_join_all(self.unanswered().into_iter().map(|voter| self.ask(voter, &ask)));
        tokio::select! {
            asked = asked => asked.map(drop),
            () = self.tell_who_is_missing(group) => Ok(()),
        }
    }

    async fn ask<A: Future<Output = Option<bool>>>(
        &self,
        voter: NodeId,
        ask: impl Fn(NodeId) -> A,
    ) -> Result<(), NodeId> {
        loop {
            let Some(has_nothing) = ask(voter).await else {
                sleep(ASK_INTERVAL).await;
                continue;
            };
            if !has_nothing && !self.has_answered(voter) && !planted::is(Bug::LostDiskAdmitted) {
                return Err(voter);
            }
            self.0.send_modify(|known| {
                known.unanswered.remove(&voter);
            });
            return Ok(());
        }
    }

    /// Never ends.
    async fn tell_who_is_missing(&self, group: GroupId) {
        let mut told = BTreeSet::new();
        loop {
            sleep(PATIENCE).await;
            let unanswered = self.unanswered();
            if told != unanswered {
                let missing: Vec<String> = unanswered.iter().map(NodeId::to_string).collect();
                let missing = missing.join(", ");
                tracing::warn!(%group, %missing, "a new group begins when all its voters are there; waiting");
                told = unanswered;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;

    const GROUP: GroupId = GroupId::new(1);

    fn founding() -> Founding {
        Founding::new([2, 3].map(NodeId::new).into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_waits_until_every_other_has_answered() {
        let asked = Cell::new(0);
        let ask = |voter: NodeId| {
            asked.set(asked.get() + 1);
            ready((voter.get() == 2 || asked.get() > 10).then_some(true))
        };
        founding().ask_all(GROUP, ask).await.unwrap();
        // The second voter once, the third until it was there.
        assert_eq!(asked.get(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_that_has_nothing_stops_at_one_that_has_data() {
        let ask = |voter: NodeId| ready(Some(voter.get() == 2));
        assert_eq!(founding().ask_all(GROUP, ask).await, Err(NodeId::new(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_that_asked_may_have_data_by_the_time_it_answers() {
        let founding = founding();
        founding.was_asked_by(NodeId::new(3));
        let ask = |voter: NodeId| ready(Some(voter.get() == 2));
        founding.ask_all(GROUP, ask).await.unwrap();
    }
}
