//! What the directory's leader does without being asked: it tells the directory its first nodes, and fits tenants to
//! regions that came or went.

use std::{sync::Arc, time::Duration};

use stead_state::directory::{Command, Initial};
use stead_store::group_rows::HalfChanged;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    directory::{Directory, Refusal, Seat},
    supervisor::BoxError,
};

/// Pause after a proposal that was not taken.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const UPKEEP: &str = "keeping the directory up to date";

/// The task.
pub(crate) struct Bootstrap {
    directory: Arc<Directory>,
    initial: Initial,
}

impl Bootstrap {
    /// Returns the task of a voter.
    pub(crate) fn new(directory: Arc<Directory>, initial: Initial) -> Self {
        Self { directory, initial }
    }

    /// Runs until the token fires.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), BoxError> {
        let Some(seat) = self.directory.seat() else {
            return Ok(());
        };
        tokio::select! {
            ended = self.keep(seat) => ended,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn keep(&self, seat: &Seat) -> Result<(), BoxError> {
        let mut leadership = seat.group.watch_leader();
        let mut versions = seat.machine.version();
        loop {
            leadership.borrow_and_update();
            versions.borrow_and_update();
            let missing = match seat.group.is_leader() {
                true => self.missing(seat)?,
                false => None,
            };
            if let Some(command) = missing {
                self.propose(seat, &command).await?;
                continue;
            }
            tokio::select! {
                changed = leadership.changed() => changed?,
                changed = versions.changed() => changed?,
            }
        }
    }

    /// The command that the directory lacks.
    fn missing(&self, seat: &Seat) -> Result<Option<Command>, HalfChanged> {
        seat.machine.read(|directory| {
            if directory.cluster().is_none() {
                return Some(Command::Bootstrap(self.initial.clone()));
            }
            directory.unsettled().then_some(Command::Settle)
        })
    }

    async fn propose(&self, seat: &Seat, command: &Command) -> Result<(), BoxError> {
        match seat.propose_own(command).await {
            Ok((Ok(_), version)) => {
                seat.group.health().succeeded(Some(seat.group.id()), UPKEEP);
                info!(%version, "the directory was brought up to date");
            }
            Ok((Err(rejection), _)) => return Err(rejection.into()),
            Err(Refusal::NotLeader) => sleep(RETRY_PAUSE).await,
            Err(Refusal::Failed(error)) => {
                seat.group.health().retry(Some(seat.group.id()), UPKEEP, &error);
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }
}
