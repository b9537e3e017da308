//! Pulls of a group, complete or under way: what its leader tells the directory of again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::Mutex;
use stead_state::shard::record::OperationId;
use stead_types::{GroupId, TenantNumber};
use tokio::time::Instant;

/// Shortest time between two reports of how far a pull is: the directory counts a group of which it hears nothing for two
/// seconds as silent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Pulls of this group of which the directory is to hear.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<BTreeMap<TenantNumber, PullState>>);

/// A pull that has brought changes into the group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PullOrigin {
    /// Number of the promotion.
    pub(crate) operation: OperationId,
    /// The group that the changes come from.
    pub(crate) from: GroupId,
}

#[derive(Clone, Copy, Debug)]
struct PullState {
    origin: PullOrigin,
    is_complete: bool,
    /// Whether more is in the log than was told.
    has_news: bool,
    /// When it was told last.
    told: Instant,
}

impl Pulls {
    /// Returns the pulls of some tenants of which the directory is to hear: those that are complete, and those that have got
    /// further for some time.
    pub(crate) fn due_among(&self, tenants: &BTreeSet<TenantNumber>) -> BTreeMap<TenantNumber, PullOrigin> {
        let pulls = self.0.lock();
        let due = tenants.iter().filter_map(|tenant| {
            let pull = pulls.get(tenant)?;
            let is_due = pull.is_complete || (pull.has_news && pull.told.elapsed() >= PROGRESS_INTERVAL);
            is_due.then_some((*tenant, pull.origin))
        });
        due.collect()
    }

    /// Records that a pull is complete.
    pub(crate) fn complete(&self, tenant: TenantNumber, origin: PullOrigin) {
        let state = PullState {
            origin,
            is_complete: true,
            has_news: true,
            told: Instant::now(),
        };
        self.0.lock().insert(tenant, state);
    }

    /// Records that a pull has got further; returns whether the directory is to hear of it.
    pub(crate) fn progress(&self, tenant: TenantNumber, origin: PullOrigin) -> bool {
        let mut pulls = self.0.lock();
        let begun = PullState {
            origin,
            is_complete: false,
            has_news: false,
            told: Instant::now(),
        };
        let pull = pulls.entry(tenant).or_insert(begun);
        if pull.origin != origin || pull.is_complete {
            *pull = begun;
        }
        pull.has_news = true;
        pull.told.elapsed() >= PROGRESS_INTERVAL
    }

    /// Records that the directory has heard of the pulls of some tenants.
    pub(crate) fn told(&self, tenants: &BTreeSet<TenantNumber>) {
        let mut pulls = self.0.lock();
        for tenant in tenants {
            if let Some(pull) = pulls.get_mut(tenant) {
                pull.has_news = false;
                pull.told = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TENANT: TenantNumber = TenantNumber::new(7);

    fn origin(operation: u64) -> PullOrigin {
        PullOrigin {
            operation: OperationId(operation),
            from: GroupId::new(5),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pull_under_way_is_told_of_at_intervals_and_only_with_news() {
        let (pulls, all) = (Pulls::default(), BTreeSet::from([TENANT]));
        assert!(!pulls.progress(TENANT, origin(1)), "it has begun just now");
        assert!(pulls.due_among(&all).is_empty());
        advance(PROGRESS_INTERVAL).await;
        assert!(pulls.progress(TENANT, origin(1)));
        assert_eq!(pulls.due_among(&all), BTreeMap::from([(TENANT, origin(1))]));
        pulls.told(&all);
        advance(PROGRESS_INTERVAL).await;
        assert!(pulls.due_among(&all).is_empty(), "it has got no further");
    }

    #[tokio::test(start_paused = true)]
    async fn complete_pull_is_told_of_until_another_begins() {
        let (pulls, all) = (Pulls::default(), BTreeSet::from([TENANT]));
        pulls.complete(TENANT, origin(1));
        pulls.told(&all);
        assert_eq!(pulls.due_among(&all), BTreeMap::from([(TENANT, origin(1))]));
        assert!(!pulls.progress(TENANT, origin(2)));
        assert!(pulls.due_among(&all).is_empty());
    }
}
