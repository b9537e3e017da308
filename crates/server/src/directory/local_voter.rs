//! The local voter of the directory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stead_raft::{Clocks, ProposeError, ReadIndexError, TypedGroup};
use stead_state::directory::{Command, DirectoryResult};
use stead_store::directory::DirectoryMachine;
use stead_types::{DirectoryVersion, Error, ErrorKind};

use super::lease_grants::LeaseGrants;
use crate::host::storage_unavailable;

/// Proposal class: all commands of the directory share one.
const CLASS: u64 = 0;

/// This node's voter in the directory: its group and state machine.
#[derive(Clone)]
pub(crate) struct LocalVoter {
    /// The group.
    pub(crate) group: TypedGroup<DirectoryMachine>,
    /// Its state machine.
    pub(crate) machine: Arc<DirectoryMachine>,
    /// The leases that it grants while it leads.
    pub(super) grants: Arc<LeaseGrants>,
}

/// Error of a voter.
pub(crate) enum VoterError {
    /// It does not lead; nothing happened.
    NotLeader,
    /// An error for the caller.
    Failed(Error),
}

impl LocalVoter {
    /// Returns the voter of a group and its state machine; leases are timed by these clocks.
    pub(crate) fn new(group: TypedGroup<DirectoryMachine>, machine: Arc<DirectoryMachine>, clocks: Clocks) -> Self {
        Self {
            group,
            machine,
            grants: Arc::new(LeaseGrants::new(clocks)),
        }
    }

    /// Returns the version at a read index that was confirmed after this call.
    pub(crate) async fn version(&self) -> Result<DirectoryVersion, VoterError> {
        self.confirm_leadership().await?;
        Ok(*self.machine.version().borrow())
    }

    /// Waits until everything committed before this call is applied, confirmed by a round that begins after it.
    pub(super) async fn confirm_leadership(&self) -> Result<(), VoterError> {
        match self.group.read_index().await {
            Ok(_) => Ok(()),
            Err(ReadIndexError::NotLeader { .. }) => Err(VoterError::NotLeader),
            Err(error @ (ReadIndexError::NoQuorum | ReadIndexError::Overloaded | ReadIndexError::Stopped)) => Err(
                VoterError::Failed(Error::new(ErrorKind::NoLeader, format!("directory: {error}"))),
            ),
        }
    }

    /// Proposes a command and returns its result, with a version at which it had been applied.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<(DirectoryResult, DirectoryVersion), VoterError> {
        // Such a leader could commit the command only once its voters are back, so that nobody would know what became of it.
        if self.group.is_leader() && !self.group.is_connected() {
            return Err(VoterError::Failed(self.no_majority()));
        }
        let answers = self.group.propose(CLASS, vec![command]).await.map_err(voter_error)?;
        let unanswered = || {
            Error::new(
                ErrorKind::Internal,
                "the directory returned no result: this is a bug, please report it",
            )
        };
        let answer = answers.into_iter().next();
        let answer = answer.ok_or_else(|| VoterError::Failed(unanswered()))?;
        let version = *self.machine.version().borrow();
        Ok((answer, version))
    }

    fn no_majority(&self) -> Error {
        let voters: Vec<String> = self.group.metrics().voters.iter().map(ToString::to_string).collect();
        let message = format!(
            "the directory has lost its majority: too few of its voters, nodes {}, respond; nothing was executed; \
             `stead node list` shows which do",
            voters.join(", ")
        );
        Error::new(ErrorKind::NoLeader, message)
    }

    /// Encodes and proposes a command, with what only the leader knows: a request to raise the feature level names no
    /// nodes that support it.
    pub(crate) async fn propose_command(
        &self,
        command: &Command,
    ) -> Result<(DirectoryResult, DirectoryVersion), VoterError> {
        if let Command::RaiseFeatureLevel(by, level, supporting) = command
            && supporting.is_empty()
        {
            let ttl = self
                .machine
                .read(|directory| directory.view().settings().lease_ttl_ms)
                .map_err(|incomplete| VoterError::Failed(storage_unavailable(&incomplete)))?;
            let supporting = self.supporting(*level, Duration::from_millis(ttl));
            let command = Command::RaiseFeatureLevel(by.clone(), *level, supporting);
            return self.propose(command.encode()).await;
        }
        self.propose(command.encode()).await
    }
}

fn voter_error(error: ProposeError) -> VoterError {
    match error {
        ProposeError::NotLeader { .. } => VoterError::NotLeader,
        ProposeError::Overloaded | ProposeError::Stopped => {
            VoterError::Failed(Error::new(ErrorKind::Unavailable, format!("directory: {error}")))
        }
        ProposeError::TimedOut | ProposeError::LeaderChanged | ProposeError::Unknown => {
            let message = format!("directory: {error}; check whether the command was applied before you retry");
            VoterError::Failed(Error::new(ErrorKind::OutcomeUnknown { key: None }, message))
        }
    }
}
