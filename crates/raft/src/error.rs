//! Errors of requests to a group, with whether a request may be repeated.

use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use stead_types::{GroupId, NodeId};

use crate::queue::QUEUE_BYTES_MAX;
use crate::types::TypeConfig;

/// Error of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead the group. Nothing happened.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<NodeId>,
    },
    /// The proposal queue is full. Nothing happened.
    #[error("the proposal queue of the group is full ({} MiB)", QUEUE_BYTES_MAX >> 20)]
    Overloaded,
    /// The group is being shut down. Nothing happened.
    #[error("the group is stopping")]
    Stopped,
    /// The deadline passed before the entry was known to be applied: the outcome is unknown.
    #[error("the deadline passed before the entry was known to be applied")]
    TimedOut,
    /// The leader changed before the entry was known to be committed: the outcome is unknown.
    #[error("the leader changed before the entry was known to be committed")]
    LeaderChanged,
    /// The group stopped before the entry was applied: the outcome is unknown.
    #[error("the group stopped before the entry was applied")]
    Unknown,
}

impl ProposeError {
    /// Tells whether the proposal certainly has no effect, now or later.
    pub fn has_no_effect(self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::Overloaded | Self::Stopped => true,
            Self::TimedOut | Self::LeaderChanged | Self::Unknown => false,
        }
    }
}

/// Error of a read index, without which this node may not serve a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<NodeId>,
    },
    /// A majority did not confirm in time that this node leads.
    #[error("a majority did not confirm the leader in time")]
    NoQuorum,
    /// The queue of reads is full.
    #[error("the read index queue of the group is full")]
    Overloaded,
    /// The group is being shut down.
    #[error("the group is stopping")]
    Stopped,
}

/// Error while a group is opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The node already runs it.
    #[error("group {0} is already open on this node")]
    AlreadyOpen(GroupId),
    /// Its rows are lost, and there is no other voter.
    #[error(
        "the rows of group {group} are lost, its log is purged, and no other voter has them: restore the rows from a \
         backup; rows that could not be opened were set aside beside them"
    )]
    RowsLost {
        /// The group.
        group: GroupId,
    },
    /// Its log or its machine cannot be read.
    #[error("cannot open group {group}")]
    Unreadable {
        /// The group.
        group: GroupId,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Error of a change of a group's leadership or membership.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<NodeId>,
    },
    /// The change did not complete in time; it may still complete.
    #[error("the change did not complete in time")]
    TimedOut,
    /// The group rejected the change.
    #[error("the group rejected the change")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The group is being shut down.
    #[error("the group is stopping")]
    Stopped,
}

/// Rejection of a write by openraft.
pub(crate) enum WriteRejection {
    /// No majority has confirmed the leader recently, as right after an election: certainly not proposed, retry.
    Retry,
    /// Error for the caller.
    Final(ProposeError),
}

impl From<ClientWriteError<TypeConfig>> for WriteRejection {
    fn from(error: ClientWriteError<TypeConfig>) -> Self {
        match error {
            ClientWriteError::ForwardToLeader(forward) => match forward.reason {
                ForwardReason::LeaseExpired => Self::Retry,
                ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => Self::Final(ProposeError::NotLeader {
                    leader: leader(&forward),
                }),
            },
            ClientWriteError::LogEntryDiscarded(_)
            | ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_) => Self::Final(ProposeError::LeaderChanged),
        }
    }
}

/// Returns the leader that a rejection names.
pub(crate) fn leader(forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
    forward.leader_id.map(NodeId::new)
}
