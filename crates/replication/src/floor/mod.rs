//! The floor of a home: up to where its followers no longer need the past, committed now and then.
//!
//! # Invariants
//!
//! 1. The entry that a follower's offset names is kept, until the limits move past it: so that a stream which is opened
//!    again knows whether anything behind it is missing.
//! 2. A tenant that a follower holds without being attached is not moved past its position there, within the limits.

mod history;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use history::History;
pub use history::Limits;
use stead_raft::Clock;
use stead_state::{directory::View, shard::command::Floor};
use stead_types::{DirectoryVersion, GroupId, Revision, TenantNumber};
use tokio::time::{MissedTickBehavior, interval};

use crate::local::Local;

/// How often the floor moves at most.
const INTERVAL: Duration = Duration::from_secs(10);
/// Entries that are looked at under one lock.
const ENTRIES_MAX: usize = 1024;
/// Whose turn a floor takes in the group.
const CLASS: u64 = (1 << 63) + (1 << 62);

/// Moves the floor of the tenants that a group owns. Never returns; it is dropped when leadership ends.
pub(crate) async fn keep(local: Arc<Local>, clock: Clock, limits: Limits) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = Keeper::default();
    loop {
        ticks.tick().await;
        if let Err(unreadable) = keeper.look(&local).await {
            local.broken.report(unreadable);
            return;
        }
        let Some(floor) = keeper.floor(&local, clock(), &limits) else {
            continue;
        };
        let index = floor.index;
        match local.group.propose(CLASS, vec![floor.encode()]).await {
            Ok(_) => keeper.moved(index),
            Err(error) => tracing::debug!(group = %local.id(), %error, "the floor was not moved"),
        }
    }
}

#[derive(Default)]
struct Keeper {
    history: History,
    /// The last floor that was committed by this leader.
    committed: u64,
    followers: Option<(DirectoryVersion, BTreeSet<GroupId>)>,
}

impl Keeper {
    /// Takes in the entries since the last look.
    async fn look(&mut self, local: &Local) -> Result<(), stead_state::rows::Unreadable> {
        loop {
            let entries = local.machine.read(|held| held.feed(self.history.last(), ENTRIES_MAX))?;
            let is_all = entries.len() < ENTRIES_MAX;
            for (index, entry) in entries {
                self.history.add(index, entry.time, entry.len);
            }
            if is_all {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    fn floor(&mut self, local: &Local, now: u64, limits: &Limits) -> Option<Floor> {
        let followers = self.followers(local);
        let mut needed = u64::MAX;
        let mut tenants: BTreeMap<TenantNumber, Revision> = BTreeMap::new();
        for follower in followers {
            let known = local.acknowledged.of(follower).filter(|known| !known.all_detached);
            let incarnation = local.group.incarnation();
            let Some(known) = known.filter(|known| known.offset.incarnation == incarnation) else {
                // What it has will be known once its stream is open.
                needed = 0;
                continue;
            };
            needed = needed.min(known.offset.index.saturating_sub(1));
            for (tenant, (_, revision)) in known.detached {
                tenants
                    .entry(tenant)
                    .and_modify(|floor| *floor = revision.min(*floor))
                    .or_insert(revision);
            }
        }
        let index = self.history.floor(now, needed, limits);
        let tenants = tenants.into_iter().collect();
        (index > self.committed).then_some(Floor { index, tenants })
    }

    /// Returns the groups that follow any tenant of this one.
    fn followers(&mut self, local: &Local) -> BTreeSet<GroupId> {
        let version = local.views.version();
        if let Some((known, followers)) = &self.followers
            && *known == version
        {
            return followers.clone();
        }
        let followers = local.views.read(|view| followers_of(view, local.id()));
        self.followers = Some((version, followers.clone()));
        followers
    }

    fn moved(&mut self, floor: u64) {
        self.committed = floor;
        self.history.forget(floor);
    }
}

fn followers_of(view: &View, home: GroupId) -> BTreeSet<GroupId> {
    let tenants = view
        .tenants_from(TenantNumber::new(0))
        .filter(|tenant| tenant.home == home);
    tenants
        .flat_map(|tenant| tenant.follower_groups().collect::<Vec<_>>())
        .collect()
}
