//! Keeps this node's view of the directory: read from disk at start, then followed change by change.

use std::time::Duration;

use futures::StreamExt;
use stead_api::{
    peer_codec::PeerAlarms,
    proto::internal::v1::{WatchRequest, WatchResponse},
};
use stead_replication::Views;
use stead_state::{codec::Malformed, directory::Change};
use stead_store::view::ViewRows;
use stead_types::{DirectoryVersion, Incarnation, NodeId};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Directory, Seat};
use crate::supervisor::BoxError;

/// Pause before another voter is tried.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Pause after what a voter sent could not be read: it will not become readable soon.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);
/// Changes taken at once.
const CHANGES_MAX: usize = 1_000;
/// How long a voter may take to begin its answer.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// How long a view may take to reach a version that the directory's leader has shown.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// The task that keeps a view.
pub(crate) struct ViewFollower {
    directory: std::sync::Arc<Directory>,
    views: Views,
    rows: ViewRows,
    alarms: PeerAlarms,
    pending: Pending,
}

/// A message of a voter, read.
struct Read {
    reset: bool,
    changes: Vec<Change>,
    reached: Option<DirectoryVersion>,
}

/// Changes that have not reached a version yet.
#[derive(Default)]
struct Pending {
    /// They are all there is.
    reset: bool,
    changes: Vec<Change>,
}

impl ViewFollower {
    /// Returns the task; `views` holds what `rows` had.
    pub(crate) fn new(directory: std::sync::Arc<Directory>, views: Views, rows: ViewRows, alarms: PeerAlarms) -> Self {
        Self {
            directory,
            views,
            rows,
            alarms,
            pending: Pending::default(),
        }
    }

    /// Follows until the token fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let directory = self.directory.clone();
        if let Some(seat) = directory.seat() {
            tokio::select! {
                ended = self.follow_seat(seat) => return ended,
                () = stop.cancelled() => return Ok(()),
            }
        }
        tokio::select! {
            ended = self.follow_voters() => ended,
            () = stop.cancelled() => Ok(()),
        }
    }

    /// A voter follows its own machine.
    async fn follow_seat(&mut self, seat: &Seat) -> Result<(), BoxError> {
        let mut versions = seat.machine.version();
        loop {
            versions.borrow_and_update();
            let since = seat.machine.changes_since(self.views.version(), CHANGES_MAX)?;
            let reached = since.version;
            let changes = since
                .changes
                .into_iter()
                .map(Change::decode)
                .collect::<Result<Vec<_>, _>>()?;
            self.take(since.is_snapshot, changes, Some(reached))?;
            if reached < *versions.borrow() {
                continue;
            }
            if versions.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn follow_voters(&mut self) -> Result<(), BoxError> {
        let directory = self.directory.clone();
        loop {
            for (id, client) in directory.voters() {
                let from = self.views.version();
                let request = WatchRequest {
                    incarnation: from.incarnation.0,
                    index: from.index,
                };
                let mut client = client.clone();
                let opened = timeout(OPEN_MAX, client.watch(request)).await;
                let Ok(Ok(stream)) = opened else { continue };
                debug!(voter = %id, %from, "following the directory");
                let mut stream = stream.into_inner();
                loop {
                    tokio::select! {
                        message = stream.next() => match message.map(|message| message.map(read)) {
                            Some(Ok(Ok(Read { reset, changes, reached }))) => self.take(reset, changes, reached)?,
                            Some(Ok(Err(malformed))) => {
                                self.unreadable(*id, &malformed);
                                sleep(UNREADABLE_PAUSE).await;
                                break;
                            }
                            Some(Err(status)) => {
                                self.alarms.note(&status);
                                break;
                            }
                            None => break,
                        },
                        () = falls_behind(&directory, &self.views) => {
                            warn!(voter = %id, view = %self.views.version(), "the voter that is followed is behind");
                            break;
                        }
                    }
                }
                self.pending = Pending::default();
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Raises the alarm: the view stays as it is, and with it this node's groups, until another voter is readable.
    fn unreadable(&self, voter: NodeId, malformed: &Malformed) {
        self.alarms.unreadable();
        let view = self.views.version();
        error!(
            %voter, %view, error = malformed as &dyn std::error::Error,
            "changes of the directory cannot be read, and the view stays behind: does the voter run a newer version?"
        );
    }

    /// Takes in changes; they count together once they reach a version.
    fn take(&mut self, reset: bool, changes: Vec<Change>, reached: Option<DirectoryVersion>) -> Result<(), BoxError> {
        if reset {
            self.pending = Pending {
                reset,
                changes: Vec::new(),
            };
        }
        self.pending.changes.extend(changes);
        let Some(version) = reached else { return Ok(()) };
        let Pending { reset, changes } = std::mem::take(&mut self.pending);
        self.rows.write(reset, &changes, version)?;
        if reset {
            info!(%version, things = changes.len(), "the view was loaded anew");
        }
        self.views.take(reset, changes, version);
        Ok(())
    }
}

fn read(message: WatchResponse) -> Result<Read, Malformed> {
    let changes = message.changes.into_iter().map(Change::decode);
    let version = DirectoryVersion {
        incarnation: Incarnation(message.incarnation),
        index: message.index,
    };
    Ok(Read {
        reset: message.reset,
        changes: changes.collect::<Result<Vec<_>, _>>()?,
        reached: (version != DirectoryVersion::ZERO).then_some(version),
    })
}

/// Returns when the directory has shown a version that the view does not reach in time.
async fn falls_behind(directory: &Directory, views: &Views) {
    let mut shown = directory.shown();
    loop {
        let version = *shown.borrow_and_update();
        if !views.reach(version, BEHIND_MAX).await {
            return;
        }
        if shown.changed().await.is_err() {
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
        fn arbitrary_changes_are_read_or_refused(changes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let known = Change::TenantGone(TenantNumber::new(7)).encode();
            let all: Vec<bytes::Bytes> = changes.into_iter().map(bytes::Bytes::from).chain([known]).collect();
            let message = WatchResponse { changes: all.clone(), ..WatchResponse::default() };
            let is_readable = all.into_iter().all(|change| Change::decode(change).is_ok());
            prop_assert_eq!(read(message).is_ok(), is_readable);
        }
    }

    #[test]
    fn one_unknown_change_refuses_its_whole_message() {
        let known = Change::TenantGone(TenantNumber::new(7)).encode();
        let message = |changes| WatchResponse {
            changes,
            index: 3,
            ..WatchResponse::default()
        };
        let reached = read(message(vec![known.clone()])).map(|read| read.reached.map(|version| version.index));
        assert_eq!(reached, Ok(Some(3)));
        assert!(read(message(vec![known, bytes::Bytes::from_static(b"\xc8?")])).is_err());
    }
}
