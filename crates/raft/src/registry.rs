//! Registry of a node's members, by which the handle of the node and the service for peers find them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stead_types::GroupId;

use crate::member::Member;

/// Members of one node by group.
#[derive(Default)]
pub(crate) struct Registry(Mutex<BTreeMap<GroupId, Slot>>);

enum Slot {
    /// Being opened.
    Opening,
    Open(Arc<Member>),
}

impl Registry {
    /// Returns the member of a group, if it is open.
    pub(crate) fn member(&self, group: GroupId) -> Option<Arc<Member>> {
        match self.0.lock().get(&group) {
            Some(Slot::Open(member)) => Some(member.clone()),
            Some(Slot::Opening) | None => None,
        }
    }

    /// Returns the members that are open.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        let groups = self.0.lock();
        let open = groups.values().filter_map(|slot| match slot {
            Slot::Open(member) => Some(member.clone()),
            Slot::Opening => None,
        });
        open.collect()
    }

    /// Reserves a group for opening. Returns false if it is open or being opened.
    pub(crate) fn reserve(&self, group: GroupId) -> bool {
        let mut groups = self.0.lock();
        let is_free = !groups.contains_key(&group);
        if is_free {
            groups.insert(group, Slot::Opening);
        }
        is_free
    }

    /// Adds the member of a reserved group.
    pub(crate) fn open(&self, member: Arc<Member>) {
        self.0.lock().insert(member.sender.group, Slot::Open(member));
    }

    /// Removes a group, whether it was opened or only reserved.
    pub(crate) fn remove(&self, group: GroupId) {
        self.0.lock().remove(&group);
    }
}
