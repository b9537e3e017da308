//! What can go wrong with a request to a group, and whether it may be repeated.

use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use stead_types::{GroupId, NodeId};

use crate::types::TypeConfig;

/// Why a proposal was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead the group. Nothing happened.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// Too many bytes wait to be proposed. Nothing happened.
    #[error("too much waits to be proposed")]
    Overloaded,
    /// The group is being shut down. Nothing happened.
    #[error("the group is stopping")]
    Stopped,
    /// The deadline passed before the entry was known to be applied: it may have happened or may yet happen.
    #[error("the deadline passed before the entry was known to be applied")]
    TimedOut,
    /// The leader changed before the entry was known to be committed: it may have happened or may yet happen.
    #[error("the leader changed before the entry was known to be committed")]
    LeaderChanged,
    /// The group stopped before the entry was applied: it may have happened or may yet happen.
    #[error("the group stopped before the entry was applied")]
    Unknown,
}

impl ProposeError {
    /// Tells whether the proposal certainly changes nothing, now or later.
    pub fn has_no_effect(self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::Overloaded | Self::Stopped => true,
            Self::TimedOut | Self::LeaderChanged | Self::Unknown => false,
        }
    }
}

/// Why this node may not answer a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// A majority did not confirm in time that this node leads.
    #[error("a majority did not confirm the leader in time")]
    NoQuorum,
    /// Too many reads wait.
    #[error("too many reads wait")]
    Overloaded,
    /// The group is being shut down.
    #[error("the group is stopping")]
    Stopped,
}

/// Why a group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The node already runs it.
    #[error("group {0} is already open on this node")]
    AlreadyOpen(GroupId),
    /// Its rows are gone, and there is no other voter.
    #[error(
        "the rows of group {group} are gone, what was purged from its log stood only there, and it has no other voter to \
         get it from: bring the rows back from a backup; rows that could not be opened were set aside beside them"
    )]
    RowsLost {
        /// Which group.
        group: GroupId,
    },
    /// Its log or its machine cannot be read.
    #[error("group {group} cannot be opened")]
    Unreadable {
        /// Which group.
        group: GroupId,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a group's leadership or membership was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// It did not come about in time; it may yet.
    #[error("the change did not come about in time")]
    TimedOut,
    /// The group refused it.
    #[error("the group refused the change")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The group is being shut down.
    #[error("the group is stopping")]
    Stopped,
}

/// What openraft's refusal of a write comes to.
pub(crate) enum Refusal {
    /// No majority has confirmed the leader lately, as right after an election: certainly not proposed, ask again.
    NotYet,
    /// For the caller.
    Final(ProposeError),
}

impl From<ClientWriteError<TypeConfig>> for Refusal {
    fn from(error: ClientWriteError<TypeConfig>) -> Self {
        match error {
            ClientWriteError::ForwardToLeader(forward) => match forward.reason {
                ForwardReason::LeaseExpired => Self::NotYet,
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

/// Whom a refusal names.
pub(crate) fn leader(forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
    forward.leader_id.map(NodeId::new)
}
