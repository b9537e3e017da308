//! A node's directory view, its copy of the directory, shared by everything that runs on the node.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use stead_state::directory::{DirectoryChange, DirectoryView};
use stead_types::{DirectoryVersion, TenantNumber};
use tokio::{sync::watch, time::timeout};

/// The view, and the tenants that changed in it.
struct ViewState {
    view: DirectoryView,
    recent: RecentChanges,
}

/// Ring of the latest changes of tenants.
struct RecentChanges {
    /// Version after which all changes are in the ring.
    since: DirectoryVersion,
    changes: VecDeque<(DirectoryVersion, TenantNumber)>,
}

impl RecentChanges {
    fn add(&mut self, version: DirectoryVersion, tenant: TenantNumber) {
        if self.changes.len() == RECENT_CHANGES_MAX
            && let Some((forgotten, _)) = self.changes.pop_front()
        {
            self.since = forgotten;
        }
        self.changes.push_back((version, tenant));
    }
}

/// Shared handle to a node's directory view; clones share the view.
#[derive(Clone)]
pub struct SharedDirectoryView(Arc<Inner>);

/// Most changes of tenants in the ring; a reader that is further behind looks at all tenants.
const RECENT_CHANGES_MAX: usize = 4_096;

struct Inner {
    state: RwLock<ViewState>,
    version: watch::Sender<DirectoryVersion>,
}

impl SharedDirectoryView {
    /// Returns a handle to a view that was read from disk, or to an empty view.
    pub fn new(view: DirectoryView) -> Self {
        let version = watch::Sender::new(view.version());
        let recent = RecentChanges {
            since: view.version(),
            changes: VecDeque::new(),
        };
        Self(Arc::new(Inner {
            state: RwLock::new(ViewState { view, recent }),
            version,
        }))
    }

    /// Calls a function with the view under its lock; the function must not wait. A task that holds a machine's state
    /// may read the view, never the other way round: both are locks, and opposite orders would deadlock.
    pub fn read<R>(&self, read: impl FnOnce(&DirectoryView) -> R) -> R {
        read(&self.0.state.read().view)
    }

    /// Applies changes up to a version, to an empty view if `reset`, then wakes the tasks that wait for the version.
    pub fn apply(&self, reset: bool, changes: Vec<DirectoryChange>, version: DirectoryVersion) {
        {
            let ViewState { view, recent } = &mut *self.0.state.write();
            if reset {
                *view = DirectoryView::default();
                *recent = RecentChanges {
                    since: version,
                    changes: VecDeque::new(),
                };
            }
            for change in changes {
                if let Some(tenant) = change.tenant().filter(|_| !reset) {
                    recent.add(version, tenant);
                }
                view.apply(change);
            }
            view.reach(version);
        }
        self.0
            .version
            .send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// Returns the tenants that changed after a version; `None` if the ring does not go back so far.
    pub fn tenants_changed_since(&self, version: DirectoryVersion) -> Option<BTreeSet<TenantNumber>> {
        let state = self.0.state.read();
        let RecentChanges { since, changes } = &state.recent;
        let later = changes.iter().rev().take_while(|(changed, _)| *changed > version);
        (version >= *since).then(|| later.map(|(_, tenant)| *tenant).collect())
    }

    /// Returns the version of the directory that the view has.
    pub fn version(&self) -> DirectoryVersion {
        *self.0.version.borrow()
    }

    /// Returns a receiver of the view's version.
    pub fn watch(&self) -> watch::Receiver<DirectoryVersion> {
        self.0.version.subscribe()
    }

    /// Waits until the view has a version; returns whether it did in time.
    pub async fn wait_for(&self, version: DirectoryVersion, within: Duration) -> bool {
        let mut versions = self.watch();
        let reached = versions.wait_for(|known| *known >= version);
        matches!(timeout(within, reached).await, Ok(Ok(_)))
    }
}

impl std::fmt::Debug for SharedDirectoryView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedDirectoryView")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
