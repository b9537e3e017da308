//! A node's directory view, its copy of the directory, shared by everything that runs on the node.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use stead_state::directory::{DirectoryChange, DirectoryView, TenantState};
use stead_types::{DirectoryVersion, TenantName, TenantNumber};
use tokio::{sync::watch, time::timeout};

/// The view, and what changed in it.
struct ViewState {
    view: DirectoryView,
    recent: RecentChanges,
}

/// Ring of the latest changes of tenants, and the version of the last other change.
struct RecentChanges {
    /// Version after which all changes are in the ring.
    since: DirectoryVersion,
    changes: VecDeque<TenantChange>,
    /// Version of the last change of a region, a node or a group.
    topology: DirectoryVersion,
}

/// Change of one tenant.
struct TenantChange {
    version: DirectoryVersion,
    tenant: TenantNumber,
    /// The name that the tenant does not have any more.
    freed: Option<TenantName>,
}

/// Changes of the directory between two versions: rows that are read for it are as of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryDelta {
    /// Version that is reached with these changes; the view's, or an earlier one where there are many.
    pub version: DirectoryVersion,
    /// Tenants with a change.
    pub tenants: BTreeSet<TenantNumber>,
    /// Names that a tenant had and lost; another one may have them now.
    pub freed: BTreeSet<TenantName>,
    /// Whether a region, a node or a group changed.
    pub topology: bool,
}

impl RecentChanges {
    fn starting(version: DirectoryVersion) -> Self {
        Self {
            since: version,
            changes: VecDeque::new(),
            topology: version,
        }
    }

    /// Adds a change that the view is about to apply.
    fn add(&mut self, view: &DirectoryView, version: DirectoryVersion, change: &DirectoryChange) {
        let Some(tenant) = change.tenant() else {
            let is_setting = matches!(change, DirectoryChange::Settings(_) | DirectoryChange::Roles(_));
            self.topology = if is_setting { self.topology } else { version };
            return;
        };
        let keeps_name = matches!(change, DirectoryChange::Tenant(record) if record.state != TenantState::Deleting);
        let before = view.tenant(tenant).filter(|_| !keeps_name);
        let freed = before.map(|before| before.name.clone());
        if self.changes.len() == RECENT_CHANGES_MAX
            && let Some(forgotten) = self.changes.pop_front()
        {
            self.since = forgotten.version;
        }
        self.changes.push_back(TenantChange { version, tenant, freed });
    }

    /// Returns the changes after a version, the oldest first; `None` if the ring does not go back so far.
    fn after(&self, version: DirectoryVersion) -> Option<impl Iterator<Item = &TenantChange>> {
        let first = self.changes.partition_point(|change| change.version <= version);
        (version >= self.since).then(|| self.changes.range(first..))
    }
}

/// Shared handle to a node's directory view; clones share the view.
#[derive(Clone)]
pub struct SharedDirectoryView(Arc<Inner>);

/// Most changes of tenants in the ring; a reader that is further behind looks at all tenants.
const RECENT_CHANGES_MAX: usize = 16_384;

struct Inner {
    state: RwLock<ViewState>,
    version: watch::Sender<DirectoryVersion>,
}

impl SharedDirectoryView {
    /// Returns a handle to a view that was read from disk, or to an empty view.
    pub fn new(view: DirectoryView) -> Self {
        let version = watch::Sender::new(view.version());
        let recent = RecentChanges::starting(view.version());
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
                *recent = RecentChanges::starting(version);
            }
            for change in changes {
                if !reset {
                    recent.add(view, version, &change);
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
        let later = state.recent.after(version)?;
        Some(later.map(|change| change.tenant).collect())
    }

    /// Calls a function with the view and what changed after a version: all of it, or whole versions until `tenants_max`
    /// tenants are reached; `None` if the ring does not go back so far. As in [`SharedDirectoryView::read`] the
    /// function must not wait.
    pub fn read_changes<R>(
        &self,
        since: DirectoryVersion,
        tenants_max: usize,
        read: impl FnOnce(&DirectoryView, Option<DirectoryDelta>) -> R,
    ) -> R {
        let ViewState { view, recent } = &*self.0.state.read();
        let Some(later) = recent.after(since) else {
            return read(view, None);
        };
        let mut delta = DirectoryDelta {
            version: since,
            tenants: BTreeSet::new(),
            freed: BTreeSet::new(),
            topology: recent.topology > since,
        };
        for change in later {
            if delta.tenants.len() >= tenants_max && change.version > delta.version {
                return read(view, Some(delta));
            }
            delta.version = change.version;
            delta.tenants.insert(change.tenant);
            delta.freed.extend(change.freed.clone());
        }
        delta.version = view.version();
        read(view, Some(delta))
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

#[cfg(test)]
mod tests {
    use stead_state::directory::{Region, Tenant};
    use stead_types::{GroupId, Incarnation};

    use super::*;

    fn version(index: u64) -> DirectoryVersion {
        DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn tenant(number: u64, name: &str, state: TenantState) -> DirectoryChange {
        let tenant = Tenant::new(TenantNumber::new(number), name.parse().unwrap(), GroupId::new(1));
        DirectoryChange::Tenant(Box::new(Tenant { state, ..tenant }))
    }

    fn region() -> DirectoryChange {
        DirectoryChange::Region(Region {
            name: "eu-west".parse().unwrap(),
            jurisdiction: "EU".parse().unwrap(),
            drains: Box::default(),
            rehearsed: None,
            leaving: false,
        })
    }

    /// Returns version, tenants and freed names of the changes after a version.
    fn changes(view: &SharedDirectoryView, since: u64, max: usize) -> Option<(u64, Vec<u64>, Vec<String>)> {
        view.read_changes(version(since), max, |_, delta| {
            let delta = delta?;
            let tenants = delta.tenants.iter().map(|tenant| tenant.get());
            let freed = delta.freed.iter().map(ToString::to_string);
            Some((delta.version.index, tenants.collect(), freed.collect()))
        })
    }

    #[test]
    fn delta_has_changed_tenants_and_freed_names() {
        let view = SharedDirectoryView::new(DirectoryView::default());
        view.apply(false, vec![region(), tenant(1, "a", TenantState::Active)], version(1));
        view.apply(false, vec![tenant(2, "b", TenantState::Active)], version(2));
        view.apply(false, vec![tenant(1, "a", TenantState::Deleting)], version(3));
        view.apply(false, vec![tenant(3, "a", TenantState::Active)], version(4));
        view.apply(
            false,
            vec![DirectoryChange::TenantGone(TenantNumber::new(1))],
            version(6),
        );
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(changes(&view, 0, 9), Some((6, vec![1, 2, 3], names(&["a"]))));
        assert_eq!(changes(&view, 2, 9), Some((6, vec![1, 3], names(&["a"]))));
        assert_eq!(changes(&view, 0, 1), Some((1, vec![1], names(&[]))), "whole versions");
        assert_eq!(changes(&view, 6, 9), Some((6, vec![], names(&[]))));
        let topology = |since| view.read_changes(version(since), 9, |_, delta| delta.unwrap().topology);
        assert_eq!([0, 1].map(topology), [true, false]);
    }

    #[test]
    fn delta_is_unknown_before_reset_and_past_ring() {
        let view = SharedDirectoryView::new(DirectoryView::default());
        view.apply(true, vec![tenant(1, "a", TenantState::Active)], version(7));
        assert_eq!(changes(&view, 6, 9), None);
        assert_eq!(changes(&view, 7, 9), Some((7, vec![], vec![])));
        for index in 8..=8 + RECENT_CHANGES_MAX as u64 {
            view.apply(false, vec![tenant(1, "a", TenantState::Active)], version(index));
        }
        assert_eq!(changes(&view, 7, 9), None);
        assert!(changes(&view, 8, 9).is_some());
    }
}
