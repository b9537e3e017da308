//! Retention of tenants with history limits of their own, and of tenants whose history was held for a seed: the retention
//! floor of each.
//!
//! A floor is computed only for tenants that have such limits and changed, or were held, until none of their history can
//! be dropped.
//!
//! # Invariants
//!
//! 1. A floor does not pass what a follower of the tenant has not got yet, but for what the limits of the group give
//!    up.
//! 2. A floor does not go back.
//! 3. What is known of one tenant's entries is bounded by [`RANGES_MAX`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stead_state::{
    directory,
    rows::{Unreadable, feed::TouchedTenant},
    shard::read::TenantReader,
};
use stead_types::{GroupId, Revision, Sequence, TenantLimit, TenantNumber, TenantTime};

use crate::follower_progress::FollowerProgress;

/// Most entry ranges of a tenant that are kept until its followers have them; beyond it, pairs are merged.
const RANGES_MAX: usize = 256;

/// History limits of one tenant, and the followers that its history is kept for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RetentionRequest {
    /// Age in milliseconds; without it, the group's soft cutoff counts.
    pub(super) age_ms: Option<u64>,
    /// Most revisions, counted from the newest.
    pub(super) count: Option<u64>,
    /// The groups that follow it.
    pub(super) followers: Vec<GroupId>,
}

impl RetentionRequest {
    /// Returns the request of a tenant, `None` if it has no history limits of its own.
    pub(super) fn of(tenant: &directory::Tenant) -> Option<Self> {
        let limits = tenant.own.as_deref()?.limits;
        let age_ms = limits.get(TenantLimit::HistoryAge);
        let count = limits.get(TenantLimit::HistoryCount);
        (age_ms.is_some() || count.is_some()).then(|| Self {
            age_ms,
            count,
            followers: tenant.follower_groups().collect(),
        })
    }
}

/// Logged times, in milliseconds, before which the group drops history.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetentionCutoffs {
    /// The present logged time, from which a tenant's own age is counted.
    pub(super) now: u64,
    /// Cutoff of history that every follower has.
    pub(super) soft: u64,
    /// Cutoff of history that a follower lacks.
    pub(super) hard: u64,
}

/// The last change of a tenant, as of the entries that were recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastChange {
    pub(super) tenant: TenantNumber,
    pub(super) sequence: Sequence,
}

/// The tenants of a home that have limits of their own.
#[derive(Debug, Default)]
pub(super) struct TenantRetention {
    tenants: BTreeMap<TenantNumber, TrackedTenant>,
    /// Tenants whose floor may still move.
    active: BTreeSet<TenantNumber>,
}

/// Request of one tenant, and its entries that followers may lack.
#[derive(Debug)]
struct TrackedTenant {
    request: RetentionRequest,
    /// Set where it has no limits of its own, or not any more: it is dropped from the map once its history is as the group
    /// keeps it.
    is_leaving: bool,
    /// Entries that a follower may lack, in log order.
    ranges: VecDeque<EntryRange>,
}

/// Consecutive entries that changed one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntryRange {
    /// Index of the last entry.
    index: u64,
    /// The first change.
    first: Sequence,
}

impl TenantRetention {
    /// Replaces all requests by those of a new directory view, when entries up to `seen` were recorded. It is not known
    /// which of these changed a tenant that is new here, so any may have. `followers_of` returns the followers of a tenant
    /// without a request.
    pub(super) fn set_requests(
        &mut self,
        mut requests: BTreeMap<TenantNumber, RetentionRequest>,
        followers_of: impl Fn(TenantNumber) -> Vec<GroupId>,
        seen: u64,
    ) {
        for (tenant, tracked) in &mut self.tenants {
            let now = requests.remove(tenant);
            tracked.is_leaving = now.is_none();
            let now = now.unwrap_or_else(|| RetentionRequest {
                followers: followers_of(*tenant),
                ..RetentionRequest::default()
            });
            if now.followers != tracked.request.followers {
                tracked.ranges = all_up_to(seen);
            }
            if now != tracked.request {
                self.active.insert(*tenant);
            }
            tracked.request = now;
        }
        for (tenant, request) in requests {
            let tracked = TrackedTenant {
                request,
                is_leaving: false,
                ranges: all_up_to(seen),
            };
            self.tenants.insert(tenant, tracked);
            self.active.insert(tenant);
        }
    }

    /// Tracks a tenant whose floor is held back, when entries up to `seen` were recorded: the entries by which the group's
    /// floor would have moved it are dropped meanwhile. It is tracked until its history is as the group keeps it, although
    /// it may not change any more.
    pub(super) fn track(&mut self, tenant: TenantNumber, followers: impl FnOnce() -> Vec<GroupId>, seen: u64) {
        self.tenants.entry(tenant).or_insert_with(|| TrackedTenant {
            request: RetentionRequest {
                followers: followers(),
                ..RetentionRequest::default()
            },
            is_leaving: true,
            ranges: all_up_to(seen),
        });
        self.active.insert(tenant);
    }

    /// Records the tenants that an entry changed.
    pub(super) fn record_changes(&mut self, index: u64, touched: &[TouchedTenant]) {
        if self.tenants.is_empty() {
            return;
        }
        for change in touched {
            if let Some(tracked) = self.tenants.get_mut(&change.tenant) {
                tracked.add(EntryRange {
                    index,
                    first: change.first,
                });
                self.active.insert(change.tenant);
            }
        }
    }

    /// Returns the tenants whose floor is to be computed.
    pub(super) fn active(&self) -> Vec<TenantNumber> {
        self.active.iter().copied().collect()
    }

    /// Computes the floor that a tenant should have: at least the one that it has.
    pub(super) fn floor(
        &mut self,
        change: LastChange,
        reading: &TenantReader<'_>,
        followers: &BTreeMap<GroupId, Option<FollowerProgress>>,
        cutoffs: RetentionCutoffs,
    ) -> Result<Revision, Unreadable> {
        let (tenant, last) = (change.tenant, change.sequence);
        let floor = reading.state().retention_floor;
        let Some(tracked) = self.tenants.get_mut(&tenant) else {
            self.active.remove(&tenant);
            return Ok(floor);
        };
        let acknowledged = tracked.acknowledged(tenant, last, followers);
        let cutoff_ms = tracked
            .request
            .age_ms
            .map_or(cutoffs.soft, |age| cutoffs.now.saturating_sub(age));
        let mut target = reading.last_before(floor, TenantTime(cutoff_ms.max(cutoffs.hard)))?;
        if let Some(count) = tracked.request.count {
            target = target.max(reading.revision_of(first_of_newest(last, count))?);
        }
        if target.sequence() > acknowledged {
            target = reading.revision_of(acknowledged)?;
        }
        let given_up = reading.last_before(floor, TenantTime(cutoffs.hard))?;
        let moved = target.max(given_up).max(floor);
        tracked.drop_ranges(acknowledged.max(moved.sequence()), last);
        if moved.sequence() >= last {
            self.active.remove(&tenant);
            if tracked.is_leaving {
                self.tenants.remove(&tenant);
            }
        }
        Ok(moved)
    }

    /// Makes a tenant active although it did not change.
    pub(super) fn activate(&mut self, tenant: TenantNumber) {
        if self.tenants.contains_key(&tenant) {
            self.active.insert(tenant);
        }
    }

    /// Makes a tenant inactive that this group does not hold any more.
    pub(super) fn deactivate(&mut self, tenant: TenantNumber) {
        self.active.remove(&tenant);
        if self.tenants.get(&tenant).is_some_and(|tracked| tracked.is_leaving) {
            self.tenants.remove(&tenant);
        }
    }
}

impl TrackedTenant {
    fn add(&mut self, range: EntryRange) {
        if self.ranges.len() >= RANGES_MAX {
            let ranges = std::mem::take(&mut self.ranges);
            let pairs = ranges.into_iter().collect::<Vec<_>>();
            self.ranges = pairs.chunks(2).map(merge).collect();
        }
        self.ranges.push_back(range);
    }

    /// Returns the last change that every follower has, of those up to `last`.
    fn acknowledged(
        &self,
        tenant: TenantNumber,
        last: Sequence,
        followers: &BTreeMap<GroupId, Option<FollowerProgress>>,
    ) -> Sequence {
        let has = |group: &GroupId| {
            let known = followers.get(group).and_then(Option::as_ref);
            let Some(known) = known.filter(|known| known.is_known(tenant)) else {
                // Its position is known once its stream is open.
                return Sequence::ZERO;
            };
            match known.detached.get(&tenant) {
                Some((_, revision)) => revision.sequence(),
                None => {
                    let missing = self.ranges.iter().find(|range| range.index > known.offset.index);
                    missing.map_or(last, |range| range.first.prev())
                }
            }
        };
        self.request.followers.iter().map(has).fold(last, Sequence::min)
    }

    /// Drops the ranges up to a change: every follower has them, or they are beyond the limits.
    fn drop_ranges(&mut self, up_to: Sequence, last: Sequence) {
        while !self.ranges.is_empty() {
            let end = self.ranges.get(1).map_or(last, |next| next.first.prev());
            if end > up_to {
                return;
            }
            self.ranges.pop_front();
        }
    }
}

/// Returns the range of all entries up to one, any of which may have changed a tenant.
fn all_up_to(index: u64) -> VecDeque<EntryRange> {
    let first = Sequence::ZERO;
    VecDeque::from([EntryRange { index, first }])
}

fn merge(pair: &[EntryRange]) -> EntryRange {
    EntryRange {
        index: pair[pair.len() - 1].index,
        first: pair[0].first,
    }
}

/// Returns the sequence of the oldest of the newest `count` changes.
fn first_of_newest(last: Sequence, count: u64) -> Sequence {
    Sequence::new((last.get() + 1).saturating_sub(count)).unwrap_or(Sequence::ZERO)
}

#[cfg(test)]
mod tests {
    use stead_types::{Epoch, FeedOffset, Incarnation};

    use super::*;
    use crate::{
        acknowledgements::{Acknowledgements, StreamOpening},
        follower_progress::AttachedTenant,
        wire::TenantPosition,
    };
    use stead_state::shard::record::AttachNumber;

    const T: TenantNumber = TenantNumber::new(7);
    const F: [GroupId; 2] = [GroupId::new(2), GroupId::new(3)];

    fn sequence(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn tracked(ranges: impl IntoIterator<Item = (u64, u64)>) -> TrackedTenant {
        let mut tracked = TrackedTenant {
            request: RetentionRequest {
                followers: F.into(),
                ..RetentionRequest::default()
            },
            is_leaving: false,
            ranges: VecDeque::new(),
        };
        for (index, first) in ranges {
            let first = sequence(first);
            tracked.add(EntryRange { index, first });
        }
        tracked
    }

    enum Progress {
        Attached(u64),
        Detached(u64),
        Unknown,
    }

    fn follower(position: Progress) -> Option<FollowerProgress> {
        let acknowledgements = Acknowledgements::default();
        acknowledgements.start_term(1);
        let offset = |index| FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        };
        let attached = AttachedTenant::at(&TenantPosition {
            tenant: T,
            epoch: Epoch::FIRST,
            revision: Revision::ZERO,
            attach: AttachNumber(1),
            seed: None,
        });
        let (offset, attached, detached) = match position {
            Progress::Attached(index) => (offset(index), [(T, attached)].into(), BTreeMap::new()),
            Progress::Detached(at) => {
                let at = (Epoch::FIRST, Revision::new(Epoch::FIRST, sequence(at)));
                (offset(1_000), BTreeMap::new(), [(T, at)].into())
            }
            Progress::Unknown => (offset(1_000), BTreeMap::new(), BTreeMap::new()),
        };
        acknowledgements.open_stream(StreamOpening {
            follower: F[0],
            term: 1,
            offset,
            attached,
            detached,
        });
        acknowledgements.of(F[0])
    }

    /// Invariant 1.
    #[test]
    fn acknowledged_is_the_position_of_the_slowest_follower() {
        let tracked = tracked([(10, 1), (20, 4), (30, 9)]);
        let has = |a, b| {
            let followers = [(F[0], follower(a)), (F[1], follower(b))].into();
            tracked.acknowledged(T, sequence(12), &followers).get()
        };
        assert_eq!(has(Progress::Attached(30), Progress::Attached(99)), 12);
        assert_eq!(
            has(Progress::Attached(29), Progress::Attached(99)),
            8,
            "not the entry of its offset's successor"
        );
        assert_eq!(has(Progress::Attached(20), Progress::Attached(10)), 3);
        assert_eq!(has(Progress::Attached(9), Progress::Attached(30)), 0);
        assert_eq!(
            has(Progress::Attached(30), Progress::Detached(5)),
            5,
            "its own position counts, not the offset"
        );
        assert_eq!(has(Progress::Unknown, Progress::Attached(30)), 0);
        let one = [(F[0], follower(Progress::Attached(30)))].into();
        assert_eq!(
            tracked.acknowledged(T, sequence(12), &one).get(),
            0,
            "nothing is known of the other one"
        );
    }

    #[test]
    fn acknowledged_entry_ranges_are_dropped() {
        let mut tracked = tracked([(10, 1), (20, 4), (30, 9)]);
        for (up_to, left) in [(2, 3), (3, 2), (7, 2), (8, 1), (11, 1), (12, 0)] {
            tracked.drop_ranges(sequence(up_to), sequence(12));
            assert_eq!(tracked.ranges.len(), left, "up to {up_to}");
        }
    }

    /// Invariant 3.
    #[test]
    fn entry_ranges_are_merged_beyond_ranges_max() {
        let tracked = tracked((1..=100_000).map(|number| (10 * number, number)));
        assert!(tracked.ranges.len() <= RANGES_MAX, "{}", tracked.ranges.len());
        let at = |index| {
            [
                (F[0], follower(Progress::Attached(index))),
                (F[1], follower(Progress::Attached(u64::MAX))),
            ]
            .into()
        };
        for index in [0, 9, 5_000, 999_990, 1_000_000] {
            let has = tracked.acknowledged(T, sequence(100_000), &at(index)).get();
            assert!(has <= index / 10, "{has} of {}", index / 10);
        }
        assert_eq!(
            tracked.acknowledged(T, sequence(100_000), &at(1_000_000)).get(),
            100_000
        );
    }
}
