//! Bootstrap of a group, and the protection against a voter that has lost its disk.
//!
//! A voter without a vote is new, or its disk was lost. In the second case it has forgotten entries that it
//! acknowledged, and could help to elect a leader that lacks them. So it first asks all others for their state, and
//! neither votes nor accepts entries meanwhile:
//!
//! ```text
//!   nothing ── every other voter has responded, none has more than the initial entry ──> writes the initial entry
//!      └────── another one has begun ──> this disk was lost: the node stops
//!   initial ── every other voter has the initial entry, or one has begun ──> joins: elections, entries
//!   begun      has voted: joins at once
//! ```
//!
//! The state follows from the log alone, so a voter that dies at any step continues there.
//!
//! # Invariants
//!
//! 1. A voter joins only once every voter had the initial entry on its disk: none votes or accepts entries before, so a
//!    voter that has neither vote nor initial entry while another one has begun has lost its disk. A vote for itself in
//!    the first term does not count.
//! 2. A voter writes the initial entry only after each other one has reported, since it was started, that it has not
//!    begun: one that lost its disk never gets so far, however often it is started and whichever voter asks it.
//! 3. The state that a voter reports is on its disk.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::future::join_all;
use stead_state::codec::{Malformed, Reader, Writer};
use stead_store::log::GroupLogState;
use stead_types::planted::{self, Bug};
use stead_types::{GroupId, NodeId};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::encoding::read_vote_record;

/// Interval of polls of a voter.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Time after which missing voters are logged.
const REPORT_DELAY: Duration = Duration::from_secs(3);

/// State of a voter at the bootstrap of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VoterState {
    /// No log.
    Nothing = 0,
    /// The initial entry, and no vote but for itself in the first term.
    Initial = 1,
    /// A vote, and perhaps entries.
    Begun = 2,
}

/// Error of a voter that has rows or entries, but not the vote that it gave before it had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has rows or entries of group {0}, but not its vote: its Raft log was lost or exchanged; restore the log \
     from a backup of the same time, or replace the node with `stead node replace` and start it with an empty data directory \
     (a node without its log could vote twice, and help to elect a leader that lacks acknowledged entries)"
)]
pub(crate) struct LogLost(pub(crate) GroupId);

/// Error of a voter that has nothing of a group with which another voter has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner} has data of group {group}, but this node has none: its disk was lost or exchanged, or its data directory \
     is another one; start it with its former data, or replace it: `stead node replace`, then start it with an empty data \
     directory and --join (a node without its data could help to elect a leader that lacks acknowledged entries)"
)]
pub(crate) struct DiskLost {
    pub(crate) group: GroupId,
    pub(crate) owner: NodeId,
}

impl VoterState {
    /// Derives the state from a voter's log, given whether there is a vote in it and whether anything was applied.
    pub(crate) fn of(group: GroupId, log: &GroupLogState, has_voted: bool, has_applied: bool) -> Result<Self, LogLost> {
        let last = log.last.as_ref().map(|last| last.index);
        if has_voted {
            return Ok(Self::Begun);
        }
        // A voter that accepts or applies entries has saved the vote of their leader before.
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
        let known = all.into_iter().find(|voter_state| *voter_state as u8 == byte);
        known.ok_or_else(|| reader.malformed())
    }
}

/// Tells whether a log has a vote that counts. openraft saves one for the voter itself with the initial entry, before
/// it requests others: a candidate of the first term has promised nothing to another voter.
pub(crate) fn has_voted(log: &GroupLogState, own: NodeId) -> io::Result<bool> {
    let vote = read_vote_record(log.vote.clone().unwrap_or_default())?;
    Ok(vote.is_some_and(|vote| match vote.leader_id.term {
        0 => false,
        1 => vote.committed || vote.leader_id.node_id != own.get(),
        2.. => true,
    }))
}

/// Next step of a voter that has not joined yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Waits for responses.
    Wait,
    /// Writes the initial entry.
    Initialize,
    /// Joins the group.
    Join,
    /// Stops: the named voter has begun, so the own disk was lost.
    Refuse(NodeId),
}

/// Bootstrap of a group on one voter.
#[derive(Debug)]
pub(crate) struct GroupBootstrap(watch::Sender<BootstrapState>);

/// States of the voters as this one knows them.
#[derive(Debug)]
struct BootstrapState {
    own: VoterState,
    /// States that the others have reported since this voter was started.
    others: BTreeMap<NodeId, Option<VoterState>>,
    has_joined: bool,
}

impl BootstrapState {
    fn step(&self) -> Step {
        let mut others = self.others.iter();
        let begun = others.find(|(_, voter_state)| **voter_state == Some(VoterState::Begun));
        let all = |least: VoterState| self.others.values().all(|voter_state| *voter_state >= Some(least));
        match (self.own, begun) {
            (VoterState::Nothing, Some((owner, _))) if !planted::is(Bug::LostDiskAdmitted) => Step::Refuse(*owner),
            (VoterState::Nothing, Some(_)) => Step::Initialize,
            (VoterState::Nothing, None) if all(VoterState::Nothing) => Step::Initialize,
            (VoterState::Initial, None) if !all(VoterState::Initial) => Step::Wait,
            (VoterState::Nothing, None) => Step::Wait,
            (VoterState::Initial | VoterState::Begun, _) => Step::Join,
        }
    }
}

impl GroupBootstrap {
    /// Creates the bootstrap of a voter in this state, among these others.
    pub(crate) fn new(own: VoterState, others: impl IntoIterator<Item = NodeId>) -> Self {
        Self(watch::Sender::new(BootstrapState {
            own,
            others: others.into_iter().map(|voter| (voter, None)).collect(),
            has_joined: own == VoterState::Begun,
        }))
    }

    /// Creates a completed bootstrap, for a node that joins at once: one that has begun, or that a leader will add.
    pub(crate) fn completed() -> Self {
        Self::new(VoterState::Begun, [])
    }

    /// Tells whether this voter has joined.
    pub(crate) fn has_joined(&self) -> bool {
        self.0.borrow().has_joined
    }

    /// Waits until this voter has joined.
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
        known
            .others
            .values()
            .any(|voter_state| *voter_state == Some(VoterState::Begun))
    }

    /// Returns the own state, before this voter has joined.
    pub(crate) fn own(&self) -> VoterState {
        self.0.borrow().own
    }

    /// Records that the initial entry is on the disk.
    pub(crate) fn mark_initialized(&self) {
        self.0
            .send_modify(|known| known.own = known.own.max(VoterState::Initial));
    }

    /// Records the state that another voter has reported.
    pub(crate) fn record_state(&self, voter: NodeId, voter_state: VoterState) {
        self.0.send_if_modified(|known| {
            let reported = known.others.get_mut(&voter);
            reported.is_some_and(|reported| reported.replace(voter_state) != Some(voter_state))
        });
    }

    /// Polls the others until there is a step to take. `poll` returns the state of one, or `None` if it did not
    /// respond.
    pub(crate) async fn next<A: Future<Output = Option<VoterState>>>(
        &self,
        group: GroupId,
        poll: impl Fn(NodeId) -> A,
    ) -> Step {
        let mut known = self.0.subscribe();
        let others: Vec<NodeId> = known.borrow().others.keys().copied().collect();
        let polling = join_all(others.into_iter().map(|voter| self.poll_voter(voter, &poll)));
        let is_due = known.wait_for(|known| known.step() != Step::Wait);
        tokio::select! {
            biased;
            found = is_due => found.map_or(Step::Wait, |known| known.step()),
            _never = polling => Step::Wait,
            () = self.report_missing_voters(group) => Step::Wait,
        }
    }

    /// Polls one voter; never ends.
    async fn poll_voter<A: Future<Output = Option<VoterState>>>(&self, voter: NodeId, poll: impl Fn(NodeId) -> A) {
        loop {
            if let Some(voter_state) = poll(voter).await {
                self.record_state(voter, voter_state);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Logs the voters that have not responded; never ends.
    async fn report_missing_voters(&self, group: GroupId) {
        let mut logged = Vec::new();
        loop {
            sleep(REPORT_DELAY).await;
            let missing: Vec<String> = {
                let known = self.0.borrow();
                let unheard = known.others.iter().filter(|(_, voter_state)| voter_state.is_none());
                unheard.map(|(voter, _)| voter.to_string()).collect()
            };
            if !missing.is_empty() && logged != missing {
                let missing_names = missing.join(", ");
                tracing::warn!(%group, missing = %missing_names, "group bootstrap waits for all voters");
                logged = missing;
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
    use stead_store::log::{LogRecord, PurgePoint};

    use super::*;
    use crate::encoding::vote_record;
    use crate::types::{LeaderId, Vote};

    const GROUP: GroupId = GroupId::new(1);

    fn known(own: VoterState, others: [Option<VoterState>; 2]) -> Step {
        let voters = [2, 3].map(NodeId::new);
        let others = voters.into_iter().zip(others).collect();
        let has_joined = false;
        BootstrapState {
            own,
            others,
            has_joined,
        }
        .step()
    }

    #[test]
    fn bootstrap_waits_initializes_joins_or_refuses() {
        use VoterState::{Begun, Initial, Nothing};
        let owner = NodeId::new(3);
        // Invariant 2: every other one has responded, and none has begun.
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
    fn voter_state_follows_log_and_lost_log_is_detected() {
        let record = |index| LogRecord {
            index,
            bytes: Bytes::new(),
        };
        let own = NodeId::new(1);
        let vote = |(term, of, committed)| Vote::from_leader_id(LeaderId::new(term, of), committed);
        let voted = |last: Option<u64>, a_vote| GroupLogState {
            last: last.map(record),
            vote: Some(vote_record(&vote(a_vote))),
            ..GroupLogState::default()
        };
        let with = |last, has_voted: bool| voted(last, (u64::from(has_voted), 2, true));
        let of =
            |log: &GroupLogState, has_applied| VoterState::of(GROUP, log, has_voted(log, own).unwrap(), has_applied);
        for (a_vote, expected) in [
            // A candidate, a leader, one that voted for another, and one that may have before.
            ((1, 1, false), VoterState::Initial),
            ((1, 1, true), VoterState::Begun),
            ((1, 2, false), VoterState::Begun),
            ((2, 1, false), VoterState::Begun),
        ] {
            assert_eq!(of(&voted(Some(0), a_vote), false), Ok(expected), "{a_vote:?}");
        }
        assert_eq!(of(&GroupLogState::default(), false), Ok(VoterState::Nothing));
        assert_eq!(of(&with(None, false), false), Ok(VoterState::Nothing));
        assert_eq!(of(&with(Some(0), false), false), Ok(VoterState::Initial));
        assert_eq!(of(&with(Some(0), true), false), Ok(VoterState::Begun));
        assert_eq!(of(&with(Some(7), true), true), Ok(VoterState::Begun));
        assert_eq!(of(&with(None, false), true), Err(LogLost(GROUP)));
        assert_eq!(of(&with(Some(0), false), true), Err(LogLost(GROUP)));
        assert_eq!(of(&with(Some(7), false), false), Err(LogLost(GROUP)));
        let purged = Some(PurgePoint {
            index: 7,
            meta: Bytes::new(),
        });
        let purged = GroupLogState {
            purged,
            ..GroupLogState::default()
        };
        assert_eq!(of(&purged, false), Err(LogLost(GROUP)));
    }

    #[tokio::test(start_paused = true)]
    async fn bootstrap_polls_until_every_voter_has_responded() {
        let polls = Cell::new(0);
        let poll = |voter: NodeId| {
            polls.set(polls.get() + 1);
            ready((voter.get() == 2 || polls.get() > 20).then_some(VoterState::Nothing))
        };
        let bootstrap = GroupBootstrap::new(VoterState::Nothing, [2, 3].map(NodeId::new));
        assert_eq!(bootstrap.next(GROUP, poll).await, Step::Initialize);
        bootstrap.mark_initialized();
        let poll = |_| ready(Some(VoterState::Initial));
        assert_eq!(bootstrap.next(GROUP, poll).await, Step::Join);
    }

    #[tokio::test(start_paused = true)]
    async fn bootstrap_learns_states_from_requests() {
        let bootstrap = GroupBootstrap::new(VoterState::Nothing, [2, 3].map(NodeId::new));
        bootstrap.record_state(NodeId::new(2), VoterState::Nothing);
        bootstrap.record_state(NodeId::new(3), VoterState::Begun);
        bootstrap.record_state(NodeId::new(9), VoterState::Begun);
        let step = bootstrap.next(GROUP, |_| ready(None)).await;
        assert_eq!(step, Step::Refuse(NodeId::new(3)));
    }
}
