//! Recent changes of fences, which lease responses carry: with them a lease counts before the full view has followed.

use std::collections::{BTreeMap, VecDeque};

use stead_types::{Epoch, GroupId, TenantNumber};

use super::Tenant;

/// Most changes that are kept.
pub const FENCE_CHANGES_MAX: usize = 100_000;

/// Change of a tenant's fence or of its members.
#[derive(Clone, Debug)]
pub(super) struct FenceChange {
    index: u64,
    tenant: TenantNumber,
    /// The fence, if it changed.
    fence: Option<Epoch>,
    /// Members before or after the change.
    groups: Box<[GroupId]>,
}

impl FenceChange {
    /// Returns the change from one record of a tenant to the next one, if it matters: a fence that differs, or a member
    /// that is one no more, because a later fence concerns its lease too. `None` for `after`: the tenant is gone.
    pub(super) fn between(index: u64, before: &Tenant, after: Option<&Tenant>) -> Option<Self> {
        let fence = after.map_or(Epoch::MAX, Tenant::fence);
        let fence = Some(fence).filter(|fence| *fence != before.fence());
        let holds = |group: GroupId| after.is_some_and(|after| after.member(group).is_some());
        if fence.is_none() && before.members.iter().all(|member| holds(member.group)) {
            return None;
        }
        let members = after.map_or(&[][..], |after| &after.members);
        let mut groups: Vec<GroupId> = before
            .members
            .iter()
            .chain(members)
            .map(|member| member.group)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        Some(Self {
            index,
            tenant: before.number,
            fence,
            groups: groups.into(),
        })
    }
}

/// Recent changes of fences and members, in memory only: empty after a start, bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct FenceHistory {
    /// All changes after this index are held.
    complete_after: u64,
    changes: VecDeque<FenceChange>,
}

/// It is not part of the directory's state: replicas that started at different times differ in it.
impl PartialEq for FenceHistory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for FenceHistory {}

impl FenceHistory {
    /// Returns an empty history of a directory at this index.
    pub(super) fn after(index: u64) -> Self {
        Self {
            complete_after: index,
            changes: VecDeque::new(),
        }
    }

    pub(super) fn extend(&mut self, changes: impl IntoIterator<Item = FenceChange>) {
        self.changes.extend(changes);
        while self.changes.len() > FENCE_CHANGES_MAX {
            if let Some(oldest) = self.changes.pop_front() {
                self.complete_after = oldest.index;
            }
        }
    }

    /// Returns the fences that changed after an index, of tenants of which one of the groups was a member at any version
    /// since; `None` if the history does not reach back so far.
    pub(super) fn since(&self, index: u64, groups: &[GroupId]) -> Option<Vec<(TenantNumber, Epoch)>> {
        if index < self.complete_after {
            return None;
        }
        let from = self.changes.partition_point(|change| change.index <= index);
        let (mut fences, mut concerned) = (BTreeMap::new(), BTreeMap::new());
        for change in self.changes.range(from..) {
            if let Some(fence) = change.fence {
                fences.insert(change.tenant, fence);
            }
            let concerns = change.groups.iter().any(|group| groups.contains(group));
            *concerned.entry(change.tenant).or_insert(false) |= concerns;
        }
        fences.retain(|tenant, _| concerned.get(tenant) == Some(&true));
        Some(fences.into_iter().collect())
    }
}
