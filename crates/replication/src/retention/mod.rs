//! Retention of a home's feed and history: the retention floor up to which its followers no longer need entries, which
//! the home's leader commits at intervals.
//!
//! # Invariants
//!
//! 1. The entry that a follower's offset names is kept, until the limits move past it: so that a stream which is opened
//!    again at the offset lacks nothing.
//! 2. A tenant that a follower holds without being attached is not moved past its position there, within the limits.
//! 3. No floor moves, within the limits, while a follower's position is unknown; a tenant's floor does not move while
//!    the position of its copy there is unknown.
//! 4. Where a tenant has limits of history of its own, the group's floor does not move it: it is moved by those, after
//!    every follower of the tenant has what is dropped, or the limits of the group give it up.
//! 5. A tenant that a group does not follow, according to the directory view, holds no history for that group, whatever
//!    the group has reported of it.
//! 6. History after the first revision of a running seed is kept, whatever the limits: the pace of the seed bounds it. A
//!    new leader knows of a seed once its follower's stream is open, and waits for that up to [`STREAM_WAIT`].
//! 7. History that was held for a seed is given up like any other once the seed is over, also if the tenant rests.
//! 8. Where there is more history than [`RetentionLimits::keep_len`], that of the loudest tenants goes first: what a quiet one
//!    keeps by age does not depend on what others write.

mod feed_history;
mod shares;
mod tenant;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub use feed_history::RetentionLimits;
use feed_history::{FeedHistory, cutoff_by_age};
use shares::{HistoryMeters, HistoryShares};
use stead_state::{directory, rows::Unreadable, shard::command::RetentionFloor};
use stead_store::shard::ReadView;
use stead_types::{
    DirectoryVersion, GroupId, Revision, TenantNumber, TenantTime,
    planted::{self, Bug},
};
use tenant::{LastChange, RetentionCutoffs, RetentionRequest, TenantRetention};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{follower_progress::FollowerProgress, group_context::GroupContext, proposal_class};

/// Most feed entries that are read under one lock.
const ENTRIES_MAX: usize = 1024;
/// Longest time for which a new leader moves no floor because the stream of a follower is not open.
const STREAM_WAIT: Duration = Duration::from_secs(60);
/// Most records that are examined under one lock when a term begins.
const RECORDS_MAX: usize = 4096;
/// Most tenants with limits of their own whose floors are computed without yielding.
const TENANTS_MAX: usize = 256;

/// Task that moves the retention floors of the tenants that a group owns, until rows cannot be read. It is dropped when
/// leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>, limits: RetentionLimits) {
    let mut ticks = interval(limits.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = RetentionKeeper::default();
    let began = Instant::now();
    keeper.refresh(&context);
    if let Err(unreadable) = keeper.track_held_back(&context).await {
        context.fail_unreadable(unreadable);
        return;
    }
    loop {
        ticks.tick().await;
        if let Err(unreadable) = keeper.update(&context, limits.keep_age).await {
            context.fail_unreadable(unreadable);
            return;
        }
        if began.elapsed() < STREAM_WAIT && keeper.waits_for_streams(&context) {
            continue;
        }
        let now = context.group.logged_time();
        let floor = match keeper.next_floor(&context, now, &limits).await {
            Ok(Some(floor)) => floor,
            Ok(None) => continue,
            Err(unreadable) => {
                context.fail_unreadable(unreadable);
                return;
            }
        };
        match commit(&context, &floor).await {
            Ok(true) => keeper.committed(floor.index, now, &limits),
            Ok(false) => keeper.not_committed(&floor),
            Err(unreadable) => {
                context.fail_unreadable(unreadable);
                return;
            }
        }
    }
}

/// Proposes a floor until no entry up to it is left: one command drops a bounded number of entries. Returns whether
/// that was reached.
async fn commit(context: &GroupContext, floor: &RetentionFloor) -> Result<bool, Unreadable> {
    let command = floor.encode();
    loop {
        if let Err(error) = context
            .group
            .propose(proposal_class::RETENTION, vec![command.clone()])
            .await
        {
            context.record_retry("moving the retention floor", &error);
            return Ok(false);
        }
        context.succeeded("moving the retention floor");
        let ends = context.machine.read(|held| held.feed_bounds())??;
        if ends.is_none_or(|(first, _)| first > floor.index) {
            return Ok(true);
        }
    }
}

/// Follower groups of a home, with the tenants that each follows.
type FollowerTenants = BTreeMap<GroupId, BTreeSet<TenantNumber>>;

/// State of the retention task: the scanned feed, the followers in the directory view and the tenants' own limits.
#[derive(Default)]
struct RetentionKeeper {
    history: FeedHistory,
    /// Index of the last floor that this leader committed.
    committed: u64,
    followers: Option<(DirectoryVersion, FollowerTenants)>,
    tenants: TenantRetention,
    /// Last changes of the active tenants, as of the last entry that was read.
    last_changes: Vec<LastChange>,
    meters: HistoryMeters,
}

impl RetentionKeeper {
    /// Reads the feed entries since the last update.
    async fn update(&mut self, context: &GroupContext, keep_age: Duration) -> Result<(), Unreadable> {
        self.refresh(context);
        loop {
            let is_complete = context.machine.read(|held| self.read_entries(held, keep_age))??;
            if is_complete {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tracks the tenants whose floors an earlier leader held for seeds: the entries by which they would move are dropped.
    async fn track_held_back(&mut self, context: &GroupContext) -> Result<(), Unreadable> {
        let mut from = TenantNumber::new(0);
        loop {
            let (held_back, next) = context.machine.read(|held| {
                let (shard, mut held_back, mut next) = (held.shard(), Vec::new(), None);
                for (examined, (tenant, record)) in shard.records_from(from).enumerate() {
                    if examined == RECORDS_MAX {
                        next = Some(tenant);
                        break;
                    }
                    let live = &record.live;
                    let is_dropped = live.index <= shard.feed_floor() && live.retention_floor < live.revision;
                    held_back.extend((record.owned().is_some() && is_dropped).then_some(tenant));
                }
                (held_back, next)
            })?;
            held_back.into_iter().for_each(|tenant| self.track(tenant));
            let Some(next) = next else { return Ok(()) };
            from = next;
            tokio::task::yield_now().await;
        }
    }

    /// Reads some entries and, with the last of them, the last changes of the active tenants. Returns whether all are
    /// read.
    fn read_entries(&mut self, held: ReadView<'_>, keep_age: Duration) -> Result<bool, Unreadable> {
        let period = u64::try_from(keep_age.as_millis()).unwrap_or(u64::MAX);
        let entries = held.feed(self.history.last(), ENTRIES_MAX)?;
        let is_complete = entries.len() < ENTRIES_MAX;
        for (index, entry) in entries {
            self.history.add(index, entry.time, entry.len);
            self.meters.add(entry.time, entry.len, &entry.touched, period);
            self.tenants.record_changes(index, &entry.touched);
        }
        if is_complete {
            let last = |tenant| {
                let sequence = held.record(tenant)?.live.revision.sequence();
                Some(LastChange { tenant, sequence })
            };
            self.last_changes = self.tenants.active().into_iter().filter_map(last).collect();
        }
        Ok(is_complete)
    }

    /// Returns the floor to commit next, `None` if nothing is to move.
    async fn next_floor(
        &mut self,
        context: &GroupContext,
        now: u64,
        limits: &RetentionLimits,
    ) -> Result<Option<RetentionFloor>, Unreadable> {
        let shares = self.meters.shares(limits.keep_len);
        // Loud tenants have what quiet ones leave.
        let limits = &RetentionLimits {
            keep_len: shares.left,
            ..*limits
        };
        let group = self.group_floor(context, now, limits)?;
        let mut tenants = self.tenant_floors(context, now, limits, &shares).await?;
        // Seeds that begin from here on begin behind every floor that was computed.
        let holds = context.seeds.holds();
        for (tenant, (_, floor)) in &mut tenants {
            if let Some(first) = holds.get(tenant).filter(|first| **first < *floor) {
                *floor = *first;
                self.track(*tenant);
            }
        }
        if let Some(mut floor) = group {
            self.hold_for_seeds(context, &mut floor, &holds, now, limits)?;
            self.hold_for_quiet(context, &mut floor, &shares, now, limits).await?;
            let others = floor
                .tenants
                .into_iter()
                .filter(|(tenant, _)| !tenants.contains_key(tenant));
            floor.tenants = others.collect();
            floor
                .tenants
                .extend(tenants.into_iter().map(|(tenant, (_, floor))| (tenant, floor)));
            return Ok(Some(floor));
        }
        let moved = tenants.into_iter().filter(|(_, (before, floor))| floor > before);
        let tenants: Vec<_> = moved.map(|(tenant, (_, floor))| (tenant, floor)).collect();
        let index = self.committed;
        Ok((!tenants.is_empty()).then_some(RetentionFloor { index, tenants }))
    }

    /// Tells whether the position of a follower is unknown, because it has not opened its stream yet.
    fn waits_for_streams(&self, context: &GroupContext) -> bool {
        let followers = self.followers.iter().flat_map(|(_, followers)| followers.keys());
        followers
            .into_iter()
            .any(|follower| progress_of(context, *follower).is_none())
    }

    /// Lowers a group's floor for the tenants that are being seeded: to what the group would keep anyway, but not above
    /// the first revision of a seed. They are tracked from then on: the floor moves on once the seed is over, also of a
    /// tenant that no further entry changes.
    fn hold_for_seeds(
        &mut self,
        context: &GroupContext,
        floor: &mut RetentionFloor,
        holds: &BTreeMap<TenantNumber, Revision>,
        now: u64,
        limits: &RetentionLimits,
    ) -> Result<(), Unreadable> {
        let cutoff = TenantTime(self.history.cutoff(now, limits.keep_age, limits.keep_len));
        for (tenant, first) in holds {
            self.track(*tenant);
            if let Some((_, own)) = floor.tenants.iter_mut().find(|(of, _)| of == tenant) {
                *own = *first.min(own);
                continue;
            }
            let kept = context.machine.read(|held| {
                let reading = held.reading(*tenant)?;
                Some(reading.last_before(reading.state().retention_floor, cutoff))
            })?;
            if let Some(kept) = kept.transpose()? {
                floor.tenants.push((*tenant, kept.min(*first)));
            }
        }
        Ok(())
    }

    /// Lowers a group's floor for quiet tenants to what their age allows, where others have written so much that it is above
    /// that. They are tracked from then on, as tenants that are seeded are.
    async fn hold_for_quiet(
        &mut self,
        context: &GroupContext,
        floor: &mut RetentionFloor,
        shares: &HistoryShares,
        now: u64,
        limits: &RetentionLimits,
    ) -> Result<(), Unreadable> {
        let by_age = cutoff_by_age(now, limits.keep_age);
        if floor.index <= self.history.last_older(now, limits.keep_age) {
            return Ok(());
        }
        let named: BTreeSet<TenantNumber> = floor.tenants.iter().map(|(tenant, _)| *tenant).collect();
        for (done, tenant) in shares.quiet.difference(&named).enumerate() {
            if done % TENANTS_MAX == TENANTS_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let kept = context.machine.read(|held| {
                let reading = held
                    .reading(*tenant)
                    .filter(|reading| reading.record().owned().is_some())?;
                Some(reading.last_before(reading.state().retention_floor, TenantTime(by_age)))
            })?;
            if let Some(kept) = kept.transpose()? {
                self.track(*tenant);
                floor.tenants.push((*tenant, kept));
            }
        }
        Ok(())
    }

    /// Computes the floors of tenants with limits of their own: the present one and the new one.
    async fn tenant_floors(
        &mut self,
        context: &GroupContext,
        now: u64,
        limits: &RetentionLimits,
        shares: &HistoryShares,
    ) -> Result<BTreeMap<TenantNumber, (Revision, Revision)>, Unreadable> {
        let mut floors = BTreeMap::new();
        let last_changes = std::mem::take(&mut self.last_changes);
        if last_changes.is_empty() {
            return Ok(floors);
        }
        let followers = self.followers.iter().flat_map(|(_, followers)| followers.keys());
        let followers = followers.map(|group| (*group, progress_of(context, *group))).collect();
        let of_loud = RetentionCutoffs {
            now,
            soft: self.history.cutoff(now, limits.keep_age, limits.keep_len),
            hard: self.history.cutoff(now, limits.age_max, limits.len_max),
        };
        let of_quiet = RetentionCutoffs {
            now,
            soft: cutoff_by_age(now, limits.keep_age),
            hard: cutoff_by_age(now, limits.age_max),
        };
        for (done, change) in last_changes.into_iter().enumerate() {
            let tenant = change.tenant;
            let cutoffs = if shares.quiet.contains(&tenant) {
                of_quiet
            } else {
                of_loud
            };
            if done % TENANTS_MAX == TENANTS_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let moved = context.machine.read(|held| {
                let reading = held
                    .reading(tenant)
                    .filter(|reading| reading.record().owned().is_some())?;
                let floor = self.tenants.floor(change, &reading, &followers, cutoffs);
                Some(floor.map(|floor| (reading.state().retention_floor, floor)))
            });
            match moved?.transpose()? {
                Some(moved) => drop(floors.insert(tenant, moved)),
                None => self.tenants.deactivate(tenant),
            }
        }
        Ok(floors)
    }

    /// Computes the group's floor, and the lower floors of tenants that followers hold without being attached.
    fn group_floor(
        &mut self,
        context: &GroupContext,
        now: u64,
        limits: &RetentionLimits,
    ) -> Result<Option<RetentionFloor>, Unreadable> {
        if self.history.last() <= self.committed + 1 {
            return Ok(None);
        }
        let Some((_, followers)) = &self.followers else {
            return Ok(None);
        };
        let mut needed = u64::MAX;
        let mut tenants: BTreeMap<TenantNumber, Revision> = BTreeMap::new();
        for (follower, members) in followers {
            let Some(known) = progress_of(context, *follower) else {
                // Its position is known once its stream is open.
                if !planted::is(Bug::UnknownFollowerHoldsNothing) {
                    needed = 0;
                }
                continue;
            };
            needed = needed.min(known.offset.index.saturating_sub(1));
            for (tenant, revision) in detached_positions(&known, members) {
                tenants
                    .entry(tenant)
                    .and_modify(|floor| *floor = revision.min(*floor))
                    .or_insert(revision);
            }
        }
        let index = self.history.retention_floor(now, needed, limits);
        if index <= self.committed {
            return Ok(None);
        }
        let cutoff = TenantTime(self.history.cutoff(now, limits.age_max, limits.len_max));
        let capped = |(tenant, floor)| {
            let last_before =
                |held: ReadView<'_>| held.reading(tenant).map(|reading| reading.last_before(floor, cutoff));
            let floor = context.machine.read(last_before)?.transpose()?.unwrap_or(floor);
            Ok((tenant, floor))
        };
        let tenants = tenants.into_iter().map(capped).collect::<Result<_, Unreadable>>()?;
        Ok(Some(RetentionFloor { index, tenants }))
    }

    /// Reads followers and tenants' limits from a new version of the directory view.
    fn refresh(&mut self, context: &GroupContext) {
        let version = context.directory_view.version();
        if self.followers.as_ref().is_some_and(|(known, _)| *known == version) {
            return;
        }
        let (followers, requests) = context.directory_view.read(|view| followers_of(view, context.id()));
        self.tenants
            .set_requests(requests, |tenant| groups_of(&followers, tenant), self.history.last());
        self.followers = Some((version, followers));
    }

    /// Tracks a tenant whose history is held for a seed.
    fn track(&mut self, tenant: TenantNumber) {
        let followers = self.followers.as_ref().map(|(_, followers)| followers);
        let groups = || followers.map_or_else(Vec::new, |followers| groups_of(followers, tenant));
        self.tenants.track(tenant, groups, self.history.last());
    }

    /// Notes that a floor was not committed: its tenants are computed again.
    fn not_committed(&mut self, floor: &RetentionFloor) {
        floor
            .tenants
            .iter()
            .for_each(|(tenant, _)| self.tenants.activate(*tenant));
    }

    /// Notes that a floor was committed.
    fn committed(&mut self, floor: u64, now: u64, limits: &RetentionLimits) {
        self.committed = floor;
        self.history.drop_expired(now, limits);
    }
}

/// Returns the tenants of a follower that its offset does not cover, with the position of each; zero if it is unknown.
fn detached_positions(
    known: &FollowerProgress,
    members: &BTreeSet<TenantNumber>,
) -> impl Iterator<Item = (TenantNumber, Revision)> {
    let others = members.iter().filter(|member| !known.covers(**member));
    others.map(|member| {
        let position = known.detached.get(member);
        (*member, position.map_or(Revision::ZERO, |(_, revision)| *revision))
    })
}

/// Returns what a follower has acknowledged to this incarnation of the group.
fn progress_of(context: &GroupContext, follower: GroupId) -> Option<FollowerProgress> {
    let known = context.acknowledgements.of(follower);
    known.filter(|known| known.offset.incarnation == context.group.incarnation())
}

/// Returns the groups that follow a tenant.
fn groups_of(followers: &FollowerTenants, tenant: TenantNumber) -> Vec<GroupId> {
    let groups = followers.iter().filter(|(_, tenants)| tenants.contains(&tenant));
    groups.map(|(group, _)| *group).collect()
}

fn followers_of(
    view: &directory::DirectoryView,
    home: GroupId,
) -> (FollowerTenants, BTreeMap<TenantNumber, RetentionRequest>) {
    let mut followers = FollowerTenants::new();
    let mut requests = BTreeMap::new();
    for tenant in view
        .tenants_from(TenantNumber::new(0))
        .filter(|tenant| tenant.home == home)
    {
        for follower in tenant.follower_groups() {
            followers.entry(follower).or_default().insert(tenant.number);
        }
        requests.extend(RetentionRequest::of(tenant).map(|request| (tenant.number, request)));
    }
    (followers, requests)
}
