//! A voter's own part of the directory.

use std::sync::Arc;

use bytes::Bytes;
use stead_raft::{Group, ProposeError, ReadIndexError};
use stead_state::directory::{Answer, Command};
use stead_store::directory::DirectoryMachine;
use stead_types::{DirectoryVersion, Error, ErrorKind};

/// All commands of the directory share one class.
const CLASS: u64 = 0;

/// What a node that votes in the directory has of it.
#[derive(Clone)]
pub(crate) struct Seat {
    /// The group.
    pub(crate) group: Group,
    /// Its machine.
    pub(crate) machine: Arc<DirectoryMachine>,
}

/// Why a voter could not answer.
pub(crate) enum Refusal {
    /// It does not lead; nothing happened.
    NotLeader,
    /// For the caller.
    Failed(Error),
}

impl Seat {
    /// Returns the version at a read index that was confirmed after this call.
    pub(crate) async fn version(&self) -> Result<DirectoryVersion, Refusal> {
        match self.group.read_index().await {
            Ok(_) => Ok(*self.machine.version().borrow()),
            Err(ReadIndexError::NotLeader { .. }) => Err(Refusal::NotLeader),
            Err(error @ (ReadIndexError::NoQuorum | ReadIndexError::Overloaded | ReadIndexError::Stopped)) => Err(
                Refusal::Failed(Error::new(ErrorKind::NoLeader, format!("directory: {error}"))),
            ),
        }
    }

    /// Proposes a command and returns its answer, with a version at which it had been applied.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<(Answer, DirectoryVersion), Refusal> {
        let answers = self.group.propose(CLASS, vec![command]).await.map_err(refusal)?;
        let answer = answers.into_iter().next().and_then(|answer| answer.downcast().ok());
        let unanswered = || Error::new(ErrorKind::Internal, "the directory gave no answer: this is a bug");
        let answer: Box<Answer> = answer.ok_or_else(|| Refusal::Failed(unanswered()))?;
        let version = *self.machine.version().borrow();
        Ok((*answer, version))
    }

    /// Proposes a command of the node's own.
    pub(crate) async fn propose_own(&self, command: &Command) -> Result<(Answer, DirectoryVersion), Refusal> {
        self.propose(command.encode()).await
    }
}

fn refusal(error: ProposeError) -> Refusal {
    match error {
        ProposeError::NotLeader { .. } => Refusal::NotLeader,
        ProposeError::Overloaded | ProposeError::Stopped => {
            Refusal::Failed(Error::new(ErrorKind::Unavailable, format!("directory: {error}")))
        }
        ProposeError::TimedOut | ProposeError::LeaderChanged | ProposeError::Unknown => {
            let message = format!("directory: {error}; look whether it was done before asking again");
            Refusal::Failed(Error::new(ErrorKind::OutcomeUnknown { key: None }, message))
        }
    }
}
