//! Maintenance by the directory's leader: it writes the initial cluster and adjusts tenants to regions that were added
//! or removed.

use std::{sync::Arc, time::Duration};

use stead_state::directory::{Command, InitialCluster};
use stead_store::group_rows::IncompleteChange;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    directory::{DirectoryClient, LocalVoter, VoterError},
    supervisor::BoxError,
};

/// Pause before a failed proposal is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const TASK_NAME: &str = "keeping the directory up to date";

/// The maintenance task, on each voter of the directory. Only the leader proposes.
pub(crate) struct DirectoryMaintenance {
    directory: Arc<DirectoryClient>,
    initial: InitialCluster,
}

impl DirectoryMaintenance {
    /// Returns the task.
    pub(crate) fn new(directory: Arc<DirectoryClient>, initial: InitialCluster) -> Self {
        Self { directory, initial }
    }

    /// Runs until the token fires.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), BoxError> {
        let Some(local_voter) = self.directory.local_voter() else {
            return Ok(());
        };
        tokio::select! {
            ended = self.maintain(local_voter) => ended,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn maintain(&self, local_voter: &LocalVoter) -> Result<(), BoxError> {
        let mut leadership = local_voter.group.watch_leader();
        let mut versions = local_voter.machine.version();
        loop {
            leadership.borrow_and_update();
            versions.borrow_and_update();
            let needed_command = match local_voter.group.is_leader() {
                true => self.needed_command(local_voter)?,
                false => None,
            };
            if let Some(command) = needed_command {
                self.propose(local_voter, &command).await?;
                continue;
            }
            tokio::select! {
                changed = leadership.changed() => changed?,
                changed = versions.changed() => changed?,
            }
        }
    }

    /// Returns the next command that the directory needs, if any.
    fn needed_command(&self, local_voter: &LocalVoter) -> Result<Option<Command>, IncompleteChange> {
        local_voter.machine.read(|directory| {
            if directory.cluster().is_none() {
                return Some(Command::Bootstrap(self.initial.clone()));
            }
            directory.needs_member_refresh().then_some(Command::RefreshMembers)
        })
    }

    async fn propose(&self, local_voter: &LocalVoter, command: &Command) -> Result<(), BoxError> {
        match local_voter.propose_command(command).await {
            Ok((Ok(_), version)) => {
                local_voter
                    .group
                    .health()
                    .succeeded(Some(local_voter.group.id()), TASK_NAME);
                info!(%version, "directory updated");
            }
            Ok((Err(rejection), _)) => return Err(rejection.into()),
            Err(VoterError::NotLeader) => sleep(RETRY_PAUSE).await,
            Err(VoterError::Failed(error)) => {
                local_voter
                    .group
                    .health()
                    .retry(Some(local_voter.group.id()), TASK_NAME, &error);
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }
}
