//! The floor of a home: up to where its followers no longer need the past, committed now and then.
//!
//! # Invariants
//!
//! 1. The entry that a follower's offset names is kept, until the limits move past it: so that a stream which is opened
//!    again knows whether anything behind it is missing.
//! 2. A tenant that a follower holds without being attached is not moved past its position there, within the limits.
//! 3. Nothing moves, within the limits, while it is not known where a follower is; a tenant does not move while it is not
//!    known where its copy is there.
//! 4. Where a tenant has limits of history of its own, the group's floor does not move it: it is moved by those, after
//!    every follower of its own has what goes, or the limits of the group give it up.
//! 5. A tenant that a group does not follow, as the view has it, holds nothing, whatever the group has said of it.

mod history;
mod own;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use history::History;
pub use history::Limits;
use own::{KeptFrom, Own, Wanted};
use stead_state::{directory, rows::Unreadable, shard::command::Floor};
use stead_store::shard::View;
use stead_types::{
    DirectoryVersion, GroupId, Revision, Sequence, TenantNumber, TenantTime,
    planted::{self, Bug},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{local::Local, source::acknowledged::Follower};

/// Entries that are looked at under one lock.
const ENTRIES_MAX: usize = 1024;
/// Tenants with limits of their own that are looked at in one go.
const TENANTS_MAX: usize = 256;
/// Whose turn a floor takes in the group.
const CLASS: u64 = (1 << 63) + (1 << 62);

/// Moves the floor of the tenants that a group owns. Never returns; it is dropped when leadership ends.
pub(crate) async fn keep(local: Arc<Local>, limits: Limits) {
    let mut ticks = interval(limits.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = Keeper::default();
    loop {
        ticks.tick().await;
        if let Err(unreadable) = keeper.look(&local).await {
            local.unreadable(unreadable);
            return;
        }
        let now = local.group.logged_time();
        let floor = match keeper.floor(&local, now, &limits).await {
            Ok(Some(floor)) => floor,
            Ok(None) => continue,
            Err(unreadable) => {
                local.unreadable(unreadable);
                return;
            }
        };
        match move_to(&local, &floor).await {
            Ok(true) => keeper.moved(floor.index, now, &limits),
            Ok(false) => keeper.not_moved(&floor),
            Err(unreadable) => {
                local.unreadable(unreadable);
                return;
            }
        }
    }
}

/// Commits a floor as often as it takes until nothing below it is left: one command forgets so many entries at most.
/// Tells whether it came so far.
async fn move_to(local: &Local, floor: &Floor) -> Result<bool, Unreadable> {
    let command = floor.encode();
    loop {
        if let Err(error) = local.group.propose(CLASS, vec![command.clone()]).await {
            local.retry("moving the floor", &error);
            return Ok(false);
        }
        local.succeeded("moving the floor");
        let ends = local.machine.read(|held| held.feed_ends())??;
        if ends.is_none_or(|(first, _)| first > floor.index) {
            return Ok(true);
        }
    }
}

/// The groups that follow any tenant of a home, and which.
type Followers = BTreeMap<GroupId, BTreeSet<TenantNumber>>;

#[derive(Default)]
struct Keeper {
    history: History,
    /// The last floor that was committed by this leader.
    committed: u64,
    followers: Option<(DirectoryVersion, Followers)>,
    own: Own,
    /// The last changes of those that are to be looked at, as of the last entry that was taken in.
    lasts: Vec<(TenantNumber, Sequence)>,
}

impl Keeper {
    /// Takes in the entries since the last look.
    async fn look(&mut self, local: &Local) -> Result<(), Unreadable> {
        self.refresh(local);
        loop {
            let is_all = local.machine.read(|held| self.take_in(held))??;
            if is_all {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes in some entries; with the last of them, where the tenants are that are to be looked at.
    fn take_in(&mut self, held: View<'_>) -> Result<bool, Unreadable> {
        let entries = held.feed(self.history.last(), ENTRIES_MAX)?;
        let is_all = entries.len() < ENTRIES_MAX;
        for (index, entry) in entries {
            self.history.add(index, entry.time, entry.len);
            self.own.touched(index, &entry.touched);
        }
        if is_all {
            let last = |tenant| Some((tenant, held.record(tenant)?.live.revision.sequence()));
            self.lasts = self.own.active().into_iter().filter_map(last).collect();
        }
        Ok(is_all)
    }

    async fn floor(&mut self, local: &Local, now: u64, limits: &Limits) -> Result<Option<Floor>, Unreadable> {
        let group = self.group_floor(local, now, limits)?;
        let own = self.own_floors(local, now, limits).await?;
        if let Some(mut floor) = group {
            let others = floor
                .tenants
                .into_iter()
                .filter(|(tenant, _)| !own.contains_key(tenant));
            floor.tenants = others.collect();
            floor
                .tenants
                .extend(own.into_iter().map(|(tenant, (_, floor))| (tenant, floor)));
            return Ok(Some(floor));
        }
        let moved = own.into_iter().filter(|(_, (before, floor))| floor > before);
        let tenants: Vec<_> = moved.map(|(tenant, (_, floor))| (tenant, floor)).collect();
        let index = self.committed;
        Ok((!tenants.is_empty()).then_some(Floor { index, tenants }))
    }

    /// The floors of tenants with limits of their own, before and after.
    async fn own_floors(
        &mut self,
        local: &Local,
        now: u64,
        limits: &Limits,
    ) -> Result<BTreeMap<TenantNumber, (Revision, Revision)>, Unreadable> {
        let mut floors = BTreeMap::new();
        let lasts = std::mem::take(&mut self.lasts);
        if lasts.is_empty() {
            return Ok(floors);
        }
        let followers = self.followers.iter().flat_map(|(_, followers)| followers.keys());
        let followers = followers.map(|group| (*group, known(local, *group))).collect();
        let from = KeptFrom {
            now,
            unneeded: self.history.kept_from(now, limits.keep_age, limits.keep_len),
            needed: self.history.kept_from(now, limits.age_max, limits.len_max),
        };
        for (done, (tenant, last)) in lasts.into_iter().enumerate() {
            if done % TENANTS_MAX == TENANTS_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let moved = local.machine.read(|held| {
                let reading = held
                    .reading(tenant)
                    .filter(|reading| reading.record().owned().is_some())?;
                let floor = self.own.floor((tenant, last), &reading, &followers, from);
                Some(floor.map(|floor| (reading.state().floor, floor)))
            });
            match moved?.transpose()? {
                Some(moved) => drop(floors.insert(tenant, moved)),
                None => self.own.rest(tenant),
            }
        }
        Ok(floors)
    }

    fn group_floor(&mut self, local: &Local, now: u64, limits: &Limits) -> Result<Option<Floor>, Unreadable> {
        if self.history.last() <= self.committed + 1 {
            return Ok(None);
        }
        let Some((_, followers)) = &self.followers else {
            return Ok(None);
        };
        let mut needed = u64::MAX;
        let mut tenants: BTreeMap<TenantNumber, Revision> = BTreeMap::new();
        for (follower, members) in followers {
            let Some(known) = known(local, *follower) else {
                // What it has will be known once its stream is open.
                if !planted::is(Bug::UnknownFollowerHoldsNothing) {
                    needed = 0;
                }
                continue;
            };
            needed = needed.min(known.offset.index.saturating_sub(1));
            for (tenant, revision) in behind(&known, members) {
                tenants
                    .entry(tenant)
                    .and_modify(|floor| *floor = revision.min(*floor))
                    .or_insert(revision);
            }
        }
        let index = self.history.floor(now, needed, limits);
        if index <= self.committed {
            return Ok(None);
        }
        let kept_from = TenantTime(self.history.kept_from(now, limits.age_max, limits.len_max));
        let capped = |(tenant, floor)| {
            let last_before = |held: View<'_>| {
                held.reading(tenant)
                    .map(|reading| reading.last_before(floor, kept_from))
            };
            let floor = local.machine.read(last_before)?.transpose()?.unwrap_or(floor);
            Ok((tenant, floor))
        };
        let tenants = tenants.into_iter().map(capped).collect::<Result<_, Unreadable>>()?;
        Ok(Some(Floor { index, tenants }))
    }

    /// Takes in a new view.
    fn refresh(&mut self, local: &Local) {
        let version = local.views.version();
        if self.followers.as_ref().is_some_and(|(known, _)| *known == version) {
            return;
        }
        let (followers, wanted) = local.views.read(|view| followers_of(view, local.id()));
        self.own.want(wanted, self.history.last());
        self.followers = Some((version, followers));
    }

    /// The floor was not committed: what was to move is looked at again.
    fn not_moved(&mut self, floor: &Floor) {
        floor.tenants.iter().for_each(|(tenant, _)| self.own.again(*tenant));
    }

    fn moved(&mut self, floor: u64, now: u64, limits: &Limits) {
        self.committed = floor;
        self.history.forget(now, limits);
    }
}

/// Returns the tenants of a follower that its offset does not speak for, and what it has of each; zero of what is not
/// known.
fn behind(known: &Follower, members: &BTreeSet<TenantNumber>) -> impl Iterator<Item = (TenantNumber, Revision)> {
    let others = members.iter().filter(|member| !known.speaks_for(**member));
    others.map(|member| {
        let position = known.detached.get(member);
        (*member, position.map_or(Revision::ZERO, |(_, revision)| *revision))
    })
}

/// Returns what a follower has acknowledged to this incarnation of the group.
fn known(local: &Local, follower: GroupId) -> Option<Follower> {
    let known = local.acknowledged.of(follower);
    known.filter(|known| known.offset.incarnation == local.group.incarnation())
}

fn followers_of(view: &directory::View, home: GroupId) -> (Followers, BTreeMap<TenantNumber, Wanted>) {
    let mut followers = Followers::new();
    let mut wanted = BTreeMap::new();
    for tenant in view
        .tenants_from(TenantNumber::new(0))
        .filter(|tenant| tenant.home == home)
    {
        for follower in tenant.follower_groups() {
            followers.entry(follower).or_default().insert(tenant.number);
        }
        wanted.extend(Wanted::of(tenant).map(|wanted| (tenant.number, wanted)));
    }
    (followers, wanted)
}
