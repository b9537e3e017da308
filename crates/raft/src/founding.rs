//! How a group begins, and how a voter that has lost its disk is kept from doing harm.
//!
//! A voter without a vote is new, or its disk was lost. In the second case it has forgotten what it acknowledged, and
//! could help to elect a leader that lacks it. So it first asks all others what they have, and neither votes nor takes
//! entries meanwhile:
//!
//! ```text
//!   nothing ── every other voter has answered, none has more than the initial entry ──> writes the initial entry
//!      └────── another one has begun ──> this disk was lost: the node stops
//!   initial ── every other voter has the initial entry, or one has begun ──> takes part: elections, entries
//!   begun      has voted: takes part at once
//! ```
//!
//! The steps are kept by the log alone, so a voter that dies at any of them goes on there.
//!
//! # Invariants
//!
//! 1. A voter takes part only once every voter had the initial entry on its disk: nobody votes or takes entries before,
//!    so who has neither vote nor initial entry while another one has begun has lost its disk. A vote for itself in the
//!    first term is none.
//! 2. A voter writes the initial entry only after each other one has said, since it was started, that it has not begun:
//!    one that lost its disk never gets so far, however often it is started and whoever asks it.
//! 3. What a voter says that it has is on its disk.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::future::join_all;
use stead_state::codec::{Malformed, Reader, Writer};
use stead_store::log::State;
use stead_types::planted::{self, Bug};
use stead_types::{GroupId, NodeId};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::encoding::read_vote_record;

/// The time between two questions to a voter.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// After this time an operator is told who is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a voter has of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// No log.
    Nothing = 0,
    /// The initial entry, and no vote but for itself in the first term.
    Initial = 1,
    /// A vote, and perhaps entries.
    Begun = 2,
}

/// A voter's rows or entries are there, but not the vote that it gave before it had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has rows or entries of group {0}, but not its vote: its Raft log was lost or exchanged; bring the log \
     back from a backup of the same time (a node without it could vote twice, and help to elect a leader that lacks what \
     it had acknowledged; this version cannot replace it)"
)]
pub(crate) struct LogLost(pub(crate) GroupId);

/// Another voter has begun with a group that this one has nothing of.
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

impl Standing {
    /// Reads it from a voter's log, given whether there is a vote in it and whether anything was applied.
    pub(crate) fn of(group: GroupId, log: &State, has_voted: bool, has_applied: bool) -> Result<Self, LogLost> {
        let last = log.last.as_ref().map(|last| last.index);
        if has_voted {
            return Ok(Self::Begun);
        }
        // Whoever takes entries, or applies them, has saved the vote of their leader before.
        if has_applied || log.purged.is_some() || last.is_some_and(|last| last > 0) {
            return Err(LogLost(group));
        }
        Ok(if last.is_some() { Self::Initial } else { Self::Nothing })
    }

    pub(crate) fn encode(self, writer: &mut Writer) {
        writer.u8(self as u8);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let all = [Self::Nothing, Self::Initial, Self::Begun];
        let byte = reader.u8()?;
        let known = all.into_iter().find(|standing| *standing as u8 == byte);
        known.ok_or_else(|| reader.malformed())
    }
}

/// Tells whether a log has a vote that says anything. openraft saves one for the voter itself with the initial entry, before
/// anybody is asked for another: a candidate of the first term has promised nothing to anybody else.
pub(crate) fn has_voted(log: &State, own: NodeId) -> io::Result<bool> {
    let vote = read_vote_record(log.vote.clone().unwrap_or_default())?;
    Ok(vote.is_some_and(|vote| match vote.leader_id.term {
        0 => false,
        1 => vote.committed || vote.leader_id.node_id != own.get(),
        2.. => true,
    }))
}

/// What a voter that does not take part yet does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Waits for answers.
    Wait,
    /// Writes the initial entry.
    Initialize,
    /// Takes part.
    Join,
    /// Stops: this voter has begun, so the own disk was lost.
    Refuse(NodeId),
}

/// What a voter knows at a group's beginning.
#[derive(Debug)]
pub(crate) struct Founding(watch::Sender<Known>);

#[derive(Debug)]
struct Known {
    own: Standing,
    /// What the others have said since this voter was started.
    others: BTreeMap<NodeId, Option<Standing>>,
    has_joined: bool,
}

impl Known {
    fn step(&self) -> Step {
        let mut others = self.others.iter();
        let begun = others.find(|(_, standing)| **standing == Some(Standing::Begun));
        let all = |least: Standing| self.others.values().all(|standing| *standing >= Some(least));
        match (self.own, begun) {
            (Standing::Nothing, Some((owner, _))) if !planted::is(Bug::LostDiskAdmitted) => Step::Refuse(*owner),
            (Standing::Nothing, Some(_)) => Step::Initialize,
            (Standing::Nothing, None) if all(Standing::Nothing) => Step::Initialize,
            (Standing::Initial, None) if !all(Standing::Initial) => Step::Wait,
            (Standing::Nothing, None) => Step::Wait,
            (Standing::Initial | Standing::Begun, _) => Step::Join,
        }
    }
}

impl Founding {
    /// A voter that has this much of the group, among these others.
    pub(crate) fn new(own: Standing, others: impl IntoIterator<Item = NodeId>) -> Self {
        Self(watch::Sender::new(Known {
            own,
            others: others.into_iter().map(|voter| (voter, None)).collect(),
            has_joined: own == Standing::Begun,
        }))
    }

    /// A node that takes part at once: one that has begun, or that a leader will bring in.
    pub(crate) fn over() -> Self {
        Self::new(Standing::Begun, [])
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

    /// Tells whether another voter is known to have begun.
    pub(crate) fn others_have_begun(&self) -> bool {
        let known = self.0.borrow();
        known.others.values().any(|standing| *standing == Some(Standing::Begun))
    }

    /// Returns what this voter has, before it takes part.
    pub(crate) fn own(&self) -> Standing {
        self.0.borrow().own
    }

    /// Notes that the initial entry is on the disk.
    pub(crate) fn initialized(&self) {
        self.0.send_modify(|known| known.own = known.own.max(Standing::Initial));
    }

    /// Notes what another voter has said.
    pub(crate) fn heard(&self, voter: NodeId, standing: Standing) {
        self.0.send_if_modified(|known| {
            let said = known.others.get_mut(&voter);
            said.is_some_and(|said| said.replace(standing) != Some(standing))
        });
    }

    /// Asks the others again and again until there is something to do. `ask` tells what one has, or that it did not
    /// answer.
    pub(crate) async fn next<A: Future<Output = Option<Standing>>>(
        &self,
        group: GroupId,
        ask: impl Fn(NodeId) -> A,
    ) -> Step {
        let mut known = self.0.subscribe();
        let others: Vec<NodeId> = known.borrow().others.keys().copied().collect();
        let asking = join_all(others.into_iter().map(|voter| self.keep_asking(voter, &ask)));
        let is_due = known.wait_for(|known| known.step() != Step::Wait);
        tokio::select! {
            biased;
            found = is_due => found.map_or(Step::Wait, |known| known.step()),
            _never = asking => Step::Wait,
            () = self.tell_who_is_missing(group) => Step::Wait,
        }
    }

    /// Never ends.
    async fn keep_asking<A: Future<Output = Option<Standing>>>(&self, voter: NodeId, ask: impl Fn(NodeId) -> A) {
        loop {
            if let Some(standing) = ask(voter).await {
                self.heard(voter, standing);
            }
            sleep(ASK_INTERVAL).await;
        }
    }

    /// Never ends.
    async fn tell_who_is_missing(&self, group: GroupId) {
        let mut told = Vec::new();
        loop {
            sleep(PATIENCE).await;
            let missing: Vec<String> = {
                let known = self.0.borrow();
                let unheard = known.others.iter().filter(|(_, standing)| standing.is_none());
                unheard.map(|(voter, _)| voter.to_string()).collect()
            };
            if !missing.is_empty() && told != missing {
                let missing_names = missing.join(", ");
                tracing::warn!(%group, missing = %missing_names, "a new group begins when all its voters are there; waiting");
                told = missing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use bytes::Bytes;
    use openraft::vote::{RaftLeaderId, RaftVote};
    use stead_store::log::{Purged, Record};

    use super::*;
    use crate::encoding::vote_record;
    use crate::types::{LeaderId, Vote};

    const GROUP: GroupId = GroupId::new(1);

    fn known(own: Standing, others: [Option<Standing>; 2]) -> Step {
        let voters = [2, 3].map(NodeId::new);
        let others = voters.into_iter().zip(others).collect();
        let has_joined = false;
        Known {
            own,
            others,
            has_joined,
        }
        .step()
    }

    #[test]
    fn voter_waits_initializes_joins_or_is_refused() {
        use Standing::{Begun, Initial, Nothing};
        let owner = NodeId::new(3);
        // Invariant 2: every other one has answered, and none has begun.
        assert_eq!(known(Nothing, [Some(Initial), None]), Step::Wait);
        assert_eq!(known(Nothing, [Some(Initial), Some(Nothing)]), Step::Initialize);
        assert_eq!(known(Nothing, [Some(Initial), Some(Begun)]), Step::Refuse(owner));
        assert_eq!(known(Nothing, [None, Some(Begun)]), Step::Refuse(owner));
        // Invariant 1: every other one has the initial entry, or one has found that so.
        assert_eq!(known(Initial, [Some(Initial), None]), Step::Wait);
        assert_eq!(known(Initial, [Some(Initial), Some(Nothing)]), Step::Wait);
        assert_eq!(known(Initial, [Some(Initial), Some(Initial)]), Step::Join);
        assert_eq!(known(Initial, [None, Some(Begun)]), Step::Join);
    }

    #[test]
    fn standing_is_what_the_log_says_and_a_lost_log_is_found() {
        let record = |index| Record {
            index,
            bytes: Bytes::new(),
        };
        let own = NodeId::new(1);
        let vote = |(term, of, committed)| Vote::from_leader_id(LeaderId::new(term, of), committed);
        let voted = |last: Option<u64>, a_vote| State {
            last: last.map(record),
            vote: Some(vote_record(&vote(a_vote))),
            ..State::default()
        };
        let with = |last, has_voted: bool| voted(last, (u64::from(has_voted), 2, true));
        let of = |log: &State, has_applied| Standing::of(GROUP, log, has_voted(log, own).unwrap(), has_applied);
        for (a_vote, expected) in [
            // A candidate, a leader, one that voted for another, and one that may have before.
            ((1, 1, false), Standing::Initial),
            ((1, 1, true), Standing::Begun),
            ((1, 2, false), Standing::Begun),
            ((2, 1, false), Standing::Begun),
        ] {
            assert_eq!(of(&voted(Some(0), a_vote), false), Ok(expected), "{a_vote:?}");
        }
        assert_eq!(of(&State::default(), false), Ok(Standing::Nothing));
        assert_eq!(of(&with(None, false), false), Ok(Standing::Nothing));
        assert_eq!(of(&with(Some(0), false), false), Ok(Standing::Initial));
        assert_eq!(of(&with(Some(0), true), false), Ok(Standing::Begun));
        assert_eq!(of(&with(Some(7), true), true), Ok(Standing::Begun));
        assert_eq!(of(&with(None, false), true), Err(LogLost(GROUP)));
        assert_eq!(of(&with(Some(0), false), true), Err(LogLost(GROUP)));
        assert_eq!(of(&with(Some(7), false), false), Err(LogLost(GROUP)));
        let purged = Some(Purged {
            index: 7,
            meta: Bytes::new(),
        });
        let purged = State {
            purged,
            ..State::default()
        };
        assert_eq!(of(&purged, false), Err(LogLost(GROUP)));
    }

    #[tokio::test(start_paused = true)]
    async fn voter_asks_until_every_other_has_answered() {
        let asked = Cell::new(0);
        let ask = |voter: NodeId| {
            asked.set(asked.get() + 1);
            ready((voter.get() == 2 || asked.get() > 20).then_some(Standing::Nothing))
        };
        let founding = Founding::new(Standing::Nothing, [2, 3].map(NodeId::new));
        assert_eq!(founding.next(GROUP, ask).await, Step::Initialize);
        founding.initialized();
        let ask = |_| ready(Some(Standing::Initial));
        assert_eq!(founding.next(GROUP, ask).await, Step::Join);
    }

    #[tokio::test(start_paused = true)]
    async fn voter_hears_from_questions_too() {
        let founding = Founding::new(Standing::Nothing, [2, 3].map(NodeId::new));
        founding.heard(NodeId::new(2), Standing::Nothing);
        founding.heard(NodeId::new(3), Standing::Begun);
        founding.heard(NodeId::new(9), Standing::Begun);
        let step = founding.next(GROUP, |_| ready(None)).await;
        assert_eq!(step, Step::Refuse(NodeId::new(3)));
    }
}
