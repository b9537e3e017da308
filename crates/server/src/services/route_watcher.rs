//! Watch of routes: a snapshot, page by page, or what its caller lacks, then the changes.
//!
//! # Invariants
//!
//! 1. Once a message with a version is sent, its caller has the newest state of every route that it watches as of that
//!    version, or a newer one.
//! 2. After the snapshot a message costs what has changed, however many tenants there are. A watcher that is further
//!    behind than the node remembers changes gets a new snapshot.
//! 3. A watcher keeps one page of routes at most, or the changes of one version.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, stream};
use stead_api::{
    convert,
    proto::v1::{DirectoryServiceWatchResponse, Route},
};
use stead_replication::{DirectoryDelta, SharedDirectoryView};
use stead_state::{
    authorization::Need,
    directory::{DirectoryView, Tenant, TenantState},
};
use stead_types::{DirectoryVersion, TenantName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::routes::{regions, route};
use crate::auth::Access;

/// Most routes in one message.
const MESSAGE_ROUTES_MAX: usize = 1_000;
/// Longest time for this node's view to reach the version that a caller has.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// A watch of routes, and what its caller has.
pub(super) struct RouteWatcher {
    directory_view: SharedDirectoryView,
    versions: watch::Receiver<DirectoryVersion>,
    stop: CancellationToken,
    filter: RouteFilter,
    stage: Stage,
    /// Messages that are made, and not sent.
    queued: VecDeque<DirectoryServiceWatchResponse>,
}

/// Routes to watch: those of some names that the caller may see. A role that is granted later shows no route that has not
/// changed since: a caller that misses one looks it up.
#[derive(Debug)]
pub(super) struct RouteFilter {
    /// Names to watch; none: all.
    pub(super) names: BTreeSet<TenantName>,
    /// Caller.
    pub(super) access: Access,
}

impl RouteFilter {
    fn includes(&self, view: &DirectoryView, name: &TenantName) -> bool {
        (self.names.is_empty() || self.names.contains(name)) && self.access.allows_in(view, &Need::Member(name))
    }
}

#[derive(Debug)]
enum Stage {
    /// The caller has all changes up to a version that the view may not have reached.
    Resuming(DirectoryVersion),
    /// A snapshot is to be sent.
    Snapshot,
    /// The snapshot has been sent up to a name; it began at this version.
    Paging(DirectoryVersion, TenantName),
    /// The caller has everything up to this version.
    Following(DirectoryVersion),
}

impl RouteWatcher {
    /// Returns a watch of some names, or of all if there are none; `from` is the version that its caller has.
    pub(super) fn new(
        directory_view: SharedDirectoryView,
        filter: RouteFilter,
        from: Option<DirectoryVersion>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            versions: directory_view.watch(),
            directory_view,
            stop,
            filter,
            stage: from.map_or(Stage::Snapshot, Stage::Resuming),
            queued: VecDeque::new(),
        }
    }

    /// Returns its messages; the stream ends when the node stops.
    pub(super) fn into_messages(self) -> impl Stream<Item = Result<DirectoryServiceWatchResponse, Status>> + Send {
        stream::unfold(self, |mut watcher| async move {
            let message = watcher.next().await?;
            Some((Ok(message), watcher))
        })
    }

    async fn next(&mut self) -> Option<DirectoryServiceWatchResponse> {
        loop {
            if let Some(message) = self.queued.pop_front() {
                return Some(message);
            }
            match self.stage {
                Stage::Resuming(from) => self.resume(from).await,
                Stage::Snapshot => self.send_snapshot(),
                Stage::Paging(version, ref after) => {
                    let after = after.clone();
                    self.send_page(version, Some(&after));
                }
                Stage::Following(sent) => {
                    self.versions.borrow_and_update();
                    if !self.send_changes(sent) {
                        tokio::select! {
                            changed = self.versions.changed() => changed.ok()?,
                            () = self.stop.cancelled() => return None,
                        }
                    }
                }
            }
        }
    }

    /// Begins after a version that the caller has. Its first message says what was reached since, even if that is
    /// nothing.
    async fn resume(&mut self, from: DirectoryVersion) {
        let is_behind = from > self.directory_view.version();
        if is_behind && !self.directory_view.wait_for(from, BEHIND_MAX).await {
            self.stage = Stage::Snapshot;
            return;
        }
        let directory_view = self.directory_view.clone();
        let reached = directory_view.read_changes(from, MESSAGE_ROUTES_MAX, |view, delta| {
            let delta = delta?;
            self.queue(self.changes(view, &delta), delta.version);
            Some(delta.version)
        });
        self.stage = reached.map_or(Stage::Snapshot, Stage::Following);
    }

    fn send_snapshot(&mut self) {
        if self.filter.names.is_empty() {
            return self.send_page(self.directory_view.version(), None);
        }
        let (message, version) = self.directory_view.read(|view| {
            let visible = self.filter.names.iter().filter(|name| self.filter.includes(view, name));
            let named = visible.filter_map(|name| view.tenant_named(name));
            let message = DirectoryServiceWatchResponse {
                reset: true,
                regions: regions(view),
                routes: named.map(|tenant| route(view, tenant)).collect(),
                version: super::routes::version(view),
                ..Default::default()
            };
            (message, view.version())
        });
        self.queued.push_back(message);
        self.stage = Stage::Following(version);
    }

    /// Sends the routes after a name. Later pages are as of later versions: what changed meanwhile is sent again.
    fn send_page(&mut self, begun: DirectoryVersion, after: Option<&TenantName>) {
        let (mut message, last) = self.directory_view.read(|view| {
            let page: Vec<&Arc<Tenant>> = view.tenants_after(after).take(MESSAGE_ROUTES_MAX).collect();
            let last = page.get(MESSAGE_ROUTES_MAX - 1).map(|tenant| tenant.name.clone());
            let is_first = after.is_none();
            let message = DirectoryServiceWatchResponse {
                reset: is_first,
                regions: if is_first { regions(view) } else { Vec::new() },
                routes: page
                    .iter()
                    .filter(|tenant| self.filter.includes(view, &tenant.name))
                    .map(|tenant| route(view, tenant))
                    .collect(),
                ..Default::default()
            };
            (message, last)
        });
        self.stage = match last {
            Some(last) => Stage::Paging(begun, last),
            None => {
                message.version = Some(convert::id::from_directory_version(begun));
                Stage::Following(begun)
            }
        };
        self.queued.push_back(message);
    }

    /// Sends what changed after a version; false if the view has reached no later one.
    fn send_changes(&mut self, sent: DirectoryVersion) -> bool {
        let directory_view = self.directory_view.clone();
        let reached = directory_view.read_changes(sent, MESSAGE_ROUTES_MAX, |view, delta| {
            let Some(delta) = delta else { return Stage::Snapshot };
            if delta.version > sent {
                let message = self.changes(view, &delta);
                // A filtered watch is told of versions that change what it watches, and of no other.
                if self.filter.names.is_empty() || message != DirectoryServiceWatchResponse::default() {
                    self.queue(message, delta.version);
                }
            }
            Stage::Following(delta.version)
        });
        let is_new = !matches!(reached, Stage::Following(version) if version == sent);
        self.stage = reached;
        is_new
    }

    /// Returns a message with all changes of a delta that are watched.
    fn changes(&self, view: &DirectoryView, delta: &DirectoryDelta) -> DirectoryServiceWatchResponse {
        let is_watched = |name: &TenantName| self.filter.includes(view, name);
        let tenants = delta.tenants.iter().filter_map(|number| view.tenant(*number));
        let changed = tenants.filter(|tenant| tenant.state != TenantState::Deleting && is_watched(&tenant.name));
        let removed = delta
            .freed
            .iter()
            .filter(|name| is_watched(name) && view.tenant_named(name).is_none());
        DirectoryServiceWatchResponse {
            regions: if delta.topology { regions(view) } else { Vec::new() },
            routes: changed.map(|tenant| route(view, tenant)).collect(),
            removed_tenants: removed.map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    /// Queues a message that reaches a version, in parts if it has many routes.
    fn queue(&mut self, mut message: DirectoryServiceWatchResponse, version: DirectoryVersion) {
        while message.routes.len() > MESSAGE_ROUTES_MAX {
            let rest: Vec<Route> = message.routes.split_off(MESSAGE_ROUTES_MAX);
            self.queued.push_back(message);
            message = DirectoryServiceWatchResponse {
                routes: rest,
                ..Default::default()
            };
        }
        message.version = Some(convert::id::from_directory_version(version));
        self.queued.push_back(message);
    }
}

#[cfg(test)]
#[path = "route_watcher_test.rs"]
mod route_watcher_test;
