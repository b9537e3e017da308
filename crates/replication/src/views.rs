//! A node's copy of the directory, shared by everything that runs on the node.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use stead_state::directory::{Change, View};
use stead_types::{DirectoryVersion, TenantNumber};
use tokio::{sync::watch, time::timeout};

struct Kept {
    view: View,
    touched: Touched,
}

/// Which tenants changed lately.
struct Touched {
    /// Everything that changed after this version is remembered.
    since: DirectoryVersion,
    changes: VecDeque<(DirectoryVersion, TenantNumber)>,
}

impl Touched {
    fn add(&mut self, version: DirectoryVersion, tenant: TenantNumber) {
        if self.changes.len() == TOUCHED_MAX
            && let Some((forgotten, _)) = self.changes.pop_front()
        {
            self.since = forgotten;
        }
        self.changes.push_back((version, tenant));
    }
}

/// The view of a node; clones share it.
#[derive(Clone)]
pub struct Views(Arc<Inner>);

/// Changes of tenants that are remembered; whoever is further behind looks at all tenants.
const TOUCHED_MAX: usize = 4_096;

struct Inner {
    view: RwLock<Kept>,
    version: watch::Sender<DirectoryVersion>,
}

impl Views {
    /// Returns a handle to a view that was read from disk, or to an empty one.
    pub fn new(view: View) -> Self {
        let version = watch::Sender::new(view.version());
        let touched = Touched {
            since: view.version(),
            changes: VecDeque::new(),
        };
        Self(Arc::new(Inner {
            view: RwLock::new(Kept { view, touched }),
            version,
        }))
    }

    /// Reads the view; nothing may wait inside. Whoever holds a machine's state may read the view, never the other way
    /// round: both are locks, and two tasks that take them in different orders stop one another.
    pub fn read<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        read(&self.0.view.read().view)
    }

    /// Takes in changes up to a version, or with `reset` everything there is, then wakes everybody who waits for it.
    pub fn take(&self, reset: bool, changes: Vec<Change>, version: DirectoryVersion) {
        {
            let Kept { view, touched } = &mut *self.0.view.write();
            if reset {
                *view = View::default();
                *touched = Touched {
                    since: version,
                    changes: VecDeque::new(),
                };
            }
            for change in changes {
                if let Some(tenant) = change.tenant().filter(|_| !reset) {
                    touched.add(version, tenant);
                }
                view.apply(change);
            }
            view.reach(version);
        }
        self.0
            .version
            .send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// Returns the tenants that changed after a version; `None` if that is no longer known.
    pub fn touched_since(&self, version: DirectoryVersion) -> Option<BTreeSet<TenantNumber>> {
        let kept = self.0.view.read();
        let Touched { since, changes } = &kept.touched;
        let later = changes.iter().rev().take_while(|(changed, _)| *changed > version);
        (version >= *since).then(|| later.map(|(_, tenant)| *tenant).collect())
    }

    /// Returns how much of the directory the view has.
    pub fn version(&self) -> DirectoryVersion {
        *self.0.version.borrow()
    }

    /// Returns a receiver that sees each version that the view reaches.
    pub fn watch(&self) -> watch::Receiver<DirectoryVersion> {
        self.0.version.subscribe()
    }

    /// Waits until the view has reached a version; tells whether it did in time.
    pub async fn reach(&self, version: DirectoryVersion, within: Duration) -> bool {
        let mut versions = self.watch();
        let reached = versions.wait_for(|known| *known >= version);
        matches!(timeout(within, reached).await, Ok(Ok(_)))
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
