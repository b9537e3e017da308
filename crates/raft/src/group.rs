//! Handle of a group, for the rest of the node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Precondition};
use stead_state::logged_time::ClockReport;
use stead_store::health::Health;
use stead_types::{GroupId, Incarnation, NodeId};
use tokio::sync::watch;

use crate::copy_bandwidth::CopyBandwidth;
use crate::error::{ChangeError, ReadIndexError, leader};
use crate::leadership::Leadership;
use crate::machine::external_index;
use crate::member::Member;
use crate::types::{LogId, TypeConfig};

/// Handle of a group of this node, whatever its machine is; a [`TypedGroup`](crate::TypedGroup) proposes to it. Clones
/// are the same group.
#[derive(Clone)]
pub struct Group {
    member: Arc<Member>,
}

/// Metrics of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMetrics {
    /// The leadership.
    pub leadership: Leadership,
    /// Index of the last entry of the log; zero before the first.
    pub last_log: u64,
    /// Index up to which the log is committed, as far as this node knows.
    pub committed: u64,
    /// Index up to which it is applied here.
    pub applied: u64,
    /// Index of the machine's last checkpoint.
    pub checkpoint: u64,
    /// Index up to which the log is purged.
    pub purged: u64,
    /// Bytes of the snapshot that is being received or installed; zero while there is none.
    pub snapshot_received_bytes: u64,
    /// The voters; of both configurations while they change.
    pub voters: BTreeSet<NodeId>,
    /// Whether the membership is a joint one: a change of voters has begun and not ended.
    pub is_joint: bool,
    /// Whether the membership is committed, as far as this node knows.
    pub is_membership_committed: bool,
    /// The learners.
    pub learners: BTreeSet<NodeId>,
    /// On the leader: the index up to which each other node has the log.
    pub replicated: Vec<(NodeId, u64)>,
}

fn outside(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| external_index(id.index))
}

impl Group {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }

    /// Returns the group's number.
    pub fn id(&self) -> GroupId {
        self.member.sender.group
    }

    /// Returns the node's health, where a failure of this group is recorded.
    pub fn health(&self) -> &Health {
        &self.member.worker.health
    }

    /// Returns the group's incarnation: how often it recovered from a lost majority.
    pub fn incarnation(&self) -> Incarnation {
        self.member.sender.incarnation
    }

    /// Returns a watch of a later incarnation of the group, in which another node has said that it is: this replica was
    /// left out of a recovery from a lost majority.
    pub fn later_incarnation(&self) -> watch::Receiver<Option<Incarnation>> {
        self.member.later.subscribe()
    }

    /// Obtains a read index: waits until every entry committed before this call is applied here, so that the machine
    /// may be read linearizably. Returns the index.
    ///
    /// # Errors
    ///
    /// When this node does not lead, or cannot reach a majority.
    pub async fn read_index(&self) -> Result<u64, ReadIndexError> {
        self.member.reads.index().await
    }

    /// Returns the leader, if one is known.
    pub fn leader(&self) -> Option<NodeId> {
        self.leadership().leader
    }

    /// Returns the leadership.
    pub fn leadership(&self) -> Leadership {
        *self.member.leadership.borrow()
    }

    /// Returns a watch of the leadership.
    pub fn watch_leader(&self) -> watch::Receiver<Leadership> {
        self.member.leadership.subscribe()
    }

    /// Tells whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leadership().is_here
    }

    /// Returns Raft's term.
    pub fn term(&self) -> u64 {
        self.leadership().term
    }

    /// Returns a watch of the index up to which entries are applied here.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.member.applied.subscribe()
    }

    /// Returns the group's logged time, in milliseconds since 1970: on the leader the current one, elsewhere the
    /// highest known.
    pub fn logged_time(&self) -> u64 {
        self.member.clock.now()
    }

    /// Returns the bandwidth that the node's copies share.
    pub fn copy_bandwidth(&self) -> &CopyBandwidth {
        &self.member.copies
    }

    /// Returns a report of logged time and the voters' wall clocks; none on a node that does not lead.
    pub fn clocks(&self) -> Option<ClockReport> {
        self.member.clock.report()
    }

    /// Returns the group's metrics.
    pub fn metrics(&self) -> GroupMetrics {
        let metrics = self.member.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let nodes = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId::new).collect();
        let replicated = metrics.replication.iter().flatten();
        GroupMetrics {
            leadership: self.leadership(),
            last_log: metrics.last_log_index.map_or(0, external_index),
            committed: outside(metrics.local_committed),
            applied: *self.member.applied.borrow(),
            checkpoint: outside(metrics.snapshot),
            purged: outside(metrics.purged),
            snapshot_received_bytes: self.member.snapshot_received.bytes(),
            voters: nodes(&mut members.voter_ids()),
            is_joint: members.get_joint_config().len() > 1,
            is_membership_committed: metrics.membership_config.log_id().as_ref() <= metrics.local_committed.as_ref(),
            learners: nodes(&mut members.learner_ids()),
            replicated: replicated
                .map(|(node, matching)| (NodeId::new(*node), outside(*matching)))
                .collect(),
        }
    }

    /// Tells whether replicas of the group differed at the last corruption check.
    pub fn differs(&self) -> bool {
        self.member.differs.load(Ordering::Relaxed)
    }

    /// Tells whether this node is in contact with the group: it hears from the leader, or as the leader from a
    /// majority. While this is false a leader may be known that is long dead.
    pub fn is_connected(&self) -> bool {
        self.member.is_connected()
    }

    /// Returns a watch of [`Group::is_connected`], which is looked at with each heartbeat.
    pub fn watch_connected(&self) -> watch::Receiver<bool> {
        self.member.connected.subscribe()
    }

    /// Transfers leadership to another voter and waits until this node knows it as the leader.
    ///
    /// # Errors
    ///
    /// When this node does not lead, or the other did not take over within an election timeout.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ChangeError> {
        let leadership = self.leadership();
        if leadership.leader == Some(to) {
            return Ok(());
        }
        if !leadership.is_here {
            return Err(ChangeError::NotLeader {
                leader: leadership.leader,
            });
        }
        let asked = self.member.raft.trigger().transfer_leader(to.get()).await;
        asked.map_err(|_| ChangeError::Stopped)?;
        let mut leadership = self.watch_leader();
        let taken = leadership.wait_for(|known| known.leader == Some(to));
        match tokio::time::timeout(self.member.periods.election_max(), taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::TimedOut),
        }
    }

    /// Adds a node that gets the log and does not vote. That it has any of it is for the node itself to say.
    ///
    /// # Errors
    ///
    /// When this node does not lead, or another change is in flight.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        let added = self.member.raft.add_learner(node.get(), (), false).await;
        added.map(drop).map_err(refused)
    }

    /// Removes nodes that do not vote.
    ///
    /// # Errors
    ///
    /// When this node does not lead, or another change is in flight.
    pub async fn remove_learners(&self, nodes: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let nodes = nodes.into_iter().map(NodeId::get).collect();
        self.change(ChangeMembers::RemoveNodes(nodes)).await
    }

    /// Changes the voters to exactly these nodes, which are voters or learners; those left out leave the group. It also
    /// ends a change that an earlier leader has begun. Only one change runs at a time: another one meanwhile is rejected.
    ///
    /// # Errors
    ///
    /// When this node does not lead, or another change came in between.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters = voters.into_iter().map(NodeId::get).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    async fn change(&self, change: ChangeMembers<u64, ()>) -> Result<(), ChangeError> {
        let raft = &self.member.raft;
        let last = *raft.server_metrics().borrow_watched().membership_config.log_id();
        let expected = Precondition::LastMembershipLogId {
            last_membership_log_id: last,
        };
        let changed = raft.change_membership_if(change, false, [expected]).await;
        changed.map(drop).map_err(refused)
    }

    /// Stops the group on this node. Its log and its machine stay.
    pub async fn shutdown(&self) {
        self.member.stop().await;
    }
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => ChangeError::NotLeader {
            leader: leader(&forward),
        },
        RaftError::APIError(other) => ChangeError::Refused(Box::new(other)),
        RaftError::Fatal(_) => ChangeError::Stopped,
    }
}
