//! Updater of this node's directory view: the view is read from disk at start, then updated change by change.

use std::time::Duration;

use futures::StreamExt;
use stead_api::{
    peer_codec::PeerAlarms,
    proto::internal::v1::{WatchRequest, WatchResponse},
};
use stead_replication::SharedDirectoryView;
use stead_state::{codec::Malformed, directory::DirectoryChange};
use stead_store::directory_view::DirectoryViewRows;
use stead_types::{DirectoryVersion, GroupId, Incarnation, NodeId};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{DirectoryClient, LocalVoter, voter_search};
use crate::supervisor::BoxError;

/// Pause before the voters are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Pause after a message that could not be read: a retry soon would not help.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);
/// Most changes read at once.
const CHANGES_MAX: usize = 1_000;
/// Longest time for a voter to open the stream.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// Longest time for the view to reach a version that the directory's leader has shown; then another voter is followed.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// Time without contact to its group after which a voter follows others.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// Rounds over the voters without an answer after which other nodes are asked who votes.
const ROUNDS_MAX: u32 = 10;

/// Time for which voters of a later incarnation are followed before they are tried anew: a snapshot may be large.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// The task that updates the directory view.
pub(crate) struct ViewUpdater {
    directory: std::sync::Arc<DirectoryClient>,
    directory_view: SharedDirectoryView,
    rows: DirectoryViewRows,
    alarms: PeerAlarms,
    own: NodeId,
    pending: PendingChanges,
}

/// A decoded message of a voter.
struct DirectoryUpdate {
    reset: bool,
    changes: Vec<DirectoryChange>,
    reached: Option<DirectoryVersion>,
}

impl DirectoryUpdate {
    /// Tells whether it leads to a version before an incarnation.
    fn is_before(&self, incarnation: Incarnation) -> bool {
        self.reached.is_some_and(|reached| reached.incarnation < incarnation)
    }
}

/// Error of a node that a recovery of the directory has left out.
#[derive(Debug, thiserror::Error)]
#[error(
    "the directory was recovered, as its incarnation {}, without this node, which votes in incarnation {}: start the node \
     again, it votes there no more and goes on with its groups",
    .later.0, .own.0
)]
struct LeftOut {
    own: Incarnation,
    later: Incarnation,
}

/// Waits until another voter has named a later incarnation of the directory.
async fn later_incarnation(local_voter: &LocalVoter) -> Incarnation {
    let mut later = local_voter.group.later_incarnation();
    loop {
        let named = *later.borrow_and_update();
        if let Some(named) = named {
            return named;
        }
        if later.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Waits until the local voter has heard nothing of its group for a while.
async fn until_silent(local_voter: &LocalVoter) {
    let mut connected = local_voter.group.watch_connected();
    loop {
        if connected.wait_for(|connected| !connected).await.is_err() {
            return std::future::pending().await;
        }
        let again = timeout(SILENT_MAX, connected.wait_for(|connected| *connected));
        if again.await.is_err() {
            return;
        }
    }
}

/// Waits until the local voter hears of its group again.
async fn until_connected(local_voter: &LocalVoter) {
    let mut connected = local_voter.group.watch_connected();
    if connected.wait_for(|connected| *connected).await.is_err() {
        std::future::pending().await
    }
}

/// Changes whose version is not complete yet.
#[derive(Default)]
struct PendingChanges {
    /// They replace the whole view.
    reset: bool,
    changes: Vec<DirectoryChange>,
}

impl ViewUpdater {
    /// Returns the task; `directory_view` holds what `rows` had.
    pub(crate) fn new(
        directory: std::sync::Arc<DirectoryClient>,
        directory_view: SharedDirectoryView,
        rows: DirectoryViewRows,
        alarms: PeerAlarms,
        own: NodeId,
    ) -> Self {
        Self {
            directory,
            directory_view,
            rows,
            alarms,
            own,
            pending: PendingChanges::default(),
        }
    }

    /// Runs until the token fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let directory = self.directory.clone();
        if let Some(local_voter) = directory.local_voter() {
            let later = loop {
                tokio::select! {
                    ended = self.follow_local_voter(local_voter) => return ended,
                    later = later_incarnation(local_voter) => break later,
                    // It may vote no more, without having been told: the others' view says so.
                    () = until_silent(local_voter) => {}
                    () = stop.cancelled() => return Ok(()),
                }
                tokio::select! {
                    ended = self.follow_voters(Incarnation(0)) => return ended,
                    later = later_incarnation(local_voter) => break later,
                    () = until_connected(local_voter) => self.pending = PendingChanges::default(),
                    () = stop.cancelled() => return Ok(()),
                }
            };
            return self.leave_directory(later, stop).await;
        }
        tokio::select! {
            ended = self.follow_voters(Incarnation(0)) => ended,
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Loads the view of a later incarnation of the directory, durably, and stops the node: it votes in none of that one,
    /// and what it still answered as a voter would be of another directory.
    async fn leave_directory(&mut self, later: Incarnation, stop: CancellationToken) -> Result<(), BoxError> {
        let own = self.directory_view.version().incarnation;
        error!(
            own = own.0,
            later = later.0,
            "the directory was recovered without this node: loading its view, then this node stops"
        );
        self.pending = PendingChanges::default();
        let view = self.directory_view.clone();
        let begins = DirectoryVersion {
            incarnation: later,
            index: 0,
        };
        loop {
            tokio::select! {
                ended = self.follow_voters(later) => return ended,
                reached = view.wait_for(begins, LEAVE_MAX) => if reached { break },
                () = stop.cancelled() => return Ok(()),
            }
        }
        self.rows.checkpoint()?;
        Err(Box::new(LeftOut { own, later }))
    }

    /// Updates the view from this node's own state machine.
    async fn follow_local_voter(&mut self, local_voter: &LocalVoter) -> Result<(), BoxError> {
        let mut versions = local_voter.machine.version();
        loop {
            versions.borrow_and_update();
            let since = local_voter
                .machine
                .changes_since(self.directory_view.version(), CHANGES_MAX)?;
            let reached = since.version;
            if reached < self.directory_view.version() {
                // A voter that was just added is behind the view that it has from the others.
                if versions.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let changes = since
                .changes
                .into_iter()
                .map(DirectoryChange::decode)
                .collect::<Result<Vec<_>, _>>()?;
            self.apply_changes(since.is_snapshot, changes, Some(reached))?;
            if reached < *versions.borrow() {
                continue;
            }
            if versions.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Follows voters of this incarnation or a later one, and of none before that of the view.
    async fn follow_voters(&mut self, least: Incarnation) -> Result<(), BoxError> {
        let directory = self.directory.clone();
        for round in 1_u32.. {
            if round % ROUNDS_MAX == 0 {
                self.find_voters().await;
            }
            for voter in directory.voters().iter() {
                let id = &voter.node;
                let from = self.directory_view.version();
                let request = WatchRequest {
                    incarnation: from.incarnation.0,
                    index: from.index,
                };
                let mut client = voter.client.clone();
                let opened = timeout(OPEN_MAX, client.watch(request)).await;
                let Ok(Ok(stream)) = opened else { continue };
                debug!(voter = %id, %from, "following the directory");
                let mut stream = stream.into_inner();
                loop {
                    tokio::select! {
                        message = stream.next() => match message.map(|message| message.map(decode)) {
                            Some(Ok(Ok(update))) if update.is_before(least.max(self.directory_view.version().incarnation)) => {
                                warn!(voter = %id, "this voter was left out of a recovery of the directory, trying another one");
                                break;
                            }
                            Some(Ok(Ok(DirectoryUpdate { reset, changes, reached }))) => self.apply_changes(reset, changes, reached)?,
                            Some(Ok(Err(malformed))) => {
                                self.report_unreadable(*id, &malformed);
                                sleep(UNREADABLE_PAUSE).await;
                                break;
                            }
                            Some(Err(status)) => {
                                self.alarms.record_status(&status);
                                break;
                            }
                            None => break,
                        },
                        () = wait_until_behind(&directory, &self.directory_view) => {
                            warn!(voter = %id, view = %self.directory_view.version(), "the followed voter is behind, trying another one");
                            break;
                        }
                    }
                }
                self.pending = PendingChanges::default();
            }
            sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }

    /// Logs and counts a message that cannot be read. The view stays behind, and with it this node's groups, until
    /// another voter can be read.
    fn report_unreadable(&self, voter: NodeId, malformed: &Malformed) {
        self.alarms.record_unreadable();
        let view = self.directory_view.version();
        error!(
            %voter, %view, error = malformed as &dyn std::error::Error,
            "cannot decode changes of the directory, the view stays behind: run one version on all nodes"
        );
    }

    /// Applies changes; they become visible together once they reach a version.
    fn apply_changes(
        &mut self,
        reset: bool,
        changes: Vec<DirectoryChange>,
        reached: Option<DirectoryVersion>,
    ) -> Result<(), BoxError> {
        if reset {
            self.pending = PendingChanges {
                reset,
                changes: Vec::new(),
            };
        }
        self.pending.changes.extend(changes);
        let Some(version) = reached else { return Ok(()) };
        let PendingChanges { reset, changes } = std::mem::take(&mut self.pending);
        self.rows.write(reset, &changes, version)?;
        if reset {
            info!(%version, things = changes.len(), "directory view reloaded");
        }
        self.directory_view.apply(reset, changes, version);
        self.follow_voters_of_view()?;
        Ok(())
    }
}

impl ViewUpdater {
    /// Asks other nodes who votes in the directory: none of the voters that this node knows answers.
    async fn find_voters(&self) {
        let own = self.own;
        let addresses: Vec<String> = self.directory_view.read(|view| {
            let others = view.nodes().filter(|node| node.number != own && node.has_joined());
            others.map(|node| node.addresses.client.clone()).collect()
        });
        let Some(mut voters) = voter_search::find(self.directory.connect(), &addresses).await else {
            return;
        };
        voters.retain(|(voter, _)| *voter != own);
        if let Err(error) = self.directory.set_voters(&voters) {
            warn!(%error, "a voter of the directory cannot be dialled");
        }
    }

    /// Directs the client of the directory to the voters that the view has.
    fn follow_voters_of_view(&self) -> Result<(), BoxError> {
        let own = self.own;
        let voters: Vec<(NodeId, String)> = self.directory_view.read(|view| {
            let directory = view.group(GroupId::DIRECTORY);
            let voters = directory.map(|directory| directory.voters.clone()).unwrap_or_default();
            let others = voters.into_iter().filter(|voter| *voter != own);
            let address = |voter: NodeId| Some((voter, view.node(voter)?.addresses.peer.clone()));
            others
                .filter_map(address)
                .filter(|(_, address)| !address.is_empty())
                .collect()
        });
        if !voters.is_empty() {
            self.directory.set_voters(&voters)?;
        }
        Ok(())
    }
}

fn decode(message: WatchResponse) -> Result<DirectoryUpdate, Malformed> {
    let changes = message.changes.into_iter().map(DirectoryChange::decode);
    let version = DirectoryVersion {
        incarnation: Incarnation(message.incarnation),
        index: message.index,
    };
    Ok(DirectoryUpdate {
        reset: message.reset,
        changes: changes.collect::<Result<Vec<_>, _>>()?,
        reached: (version != DirectoryVersion::ZERO).then_some(version),
    })
}

/// Waits until the directory has shown a version that the view does not reach in time.
async fn wait_until_behind(directory: &DirectoryClient, directory_view: &SharedDirectoryView) {
    let mut highest = directory.watch_highest_version();
    loop {
        let version = *highest.borrow_and_update();
        if !directory_view.wait_for(version, BEHIND_MAX).await {
            return;
        }
        if highest.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::TenantNumber;

    use super::*;

    proptest! {
        #[test]
        fn decode_accepts_only_decodable_changes(changes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let known = DirectoryChange::TenantGone(TenantNumber::new(7)).encode();
            let all: Vec<bytes::Bytes> = changes.into_iter().map(bytes::Bytes::from).chain([known]).collect();
            let message = WatchResponse { changes: all.clone(), ..WatchResponse::default() };
            let is_readable = all.into_iter().all(|change| DirectoryChange::decode(change).is_ok());
            prop_assert_eq!(decode(message).is_ok(), is_readable);
        }
    }

    #[test]
    fn decode_unknown_change_refuses_whole_message() {
        let known = DirectoryChange::TenantGone(TenantNumber::new(7)).encode();
        let message = |changes| WatchResponse {
            changes,
            index: 3,
            ..WatchResponse::default()
        };
        let reached = decode(message(vec![known.clone()])).map(|update| update.reached.map(|version| version.index));
        assert_eq!(reached, Ok(Some(3)));
        assert!(decode(message(vec![known, bytes::Bytes::from_static(b"\xc8?")])).is_err());
    }
}
