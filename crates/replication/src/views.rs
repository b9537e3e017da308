//! A node's copy of the directory, shared by everything that runs on the node.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use stead_state::directory::View;
use stead_types::DirectoryVersion;
use tokio::{sync::watch, time::timeout};

/// The view of a node; clones share it.
#[derive(Clone)]
pub struct Views(Arc<Inner>);

struct Inner {
    view: RwLock<View>,
    version: watch::Sender<DirectoryVersion>,
}

impl Views {
    /// Returns a handle to a view that was read from disk, or to an empty one.
    pub fn new(view: View) -> Self {
        let version = watch::Sender::new(view.version());
        Self(Arc::new(Inner {
            view: RwLock::new(view),
            version,
        }))
    }

    /// Reads the view; nothing may wait inside.
    pub fn read<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        read(&self.0.view.read())
    }

    /// Changes the view, then wakes everybody who waits for its version.
    pub fn change(&self, change: impl FnOnce(&mut View)) {
        let version = {
            let mut view = self.0.view.write();
            change(&mut view);
            view.version()
        };
        self.0
            .version
            .send_if_modified(|known| std::mem::replace(known, version) != version);
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
