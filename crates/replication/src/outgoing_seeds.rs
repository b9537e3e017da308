//! Seeds that a home sends: what each needs of the history, how far it is, and how fast the tenant may be written
//! meanwhile. On the group's leader; a new one learns of a seed when its follower opens a stream or goes on with it.
//!
//! # Invariants
//!
//! 1. History is held from a seed's first revision on until its copy is attached, the seed has ended, or its follower
//!    has been gone for long.
//! 2. A seed that could not catch up is not begun again before [`FAILURE_LIFETIME`] has passed or the tenant's record in the
//!    directory has changed.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use stead_state::seed_pace::{SeedFailure, SeedFailureReason, SeedPace, SeedSample, SeedVerdict};
use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, Sequence, TenantNumber};
use tokio::time::Instant;

use crate::{
    history_meter::HistoryMeter,
    seed_progress::{SeedLimits, SeedPhase, SeedProgress},
};

/// Time for which a failed seed is refused.
pub(crate) const FAILURE_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Time between two lines of the log about the progress of a seed.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

type SeedKey = (TenantNumber, GroupId);

/// The seeds of one home group.
#[derive(Debug)]
pub struct OutgoingSeeds {
    limits: SeedLimits,
    origin: Instant,
    seeds: Mutex<BTreeMap<SeedKey, OutgoingSeed>>,
    /// Number of running seeds: most often none, and then no lock is taken for a write.
    running: AtomicUsize,
}

/// Position of a follower in a seed that it begins or goes on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeedStart {
    pub(crate) epoch: Epoch,
    /// Revision after which it needs the history.
    pub(crate) first: Revision,
    /// Live keys that it has.
    pub(crate) keys: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Size of the tenant, if that is known.
    pub(crate) state: Option<TenantUsage>,
}

#[derive(Debug)]
struct OutgoingSeed {
    epoch: Epoch,
    first: Revision,
    phase: SeedPhase,
    keys: u64,
    bytes: u64,
    /// Size of the tenant when it began, or when this node began to lead; `None` until that is known. Keys that
    /// are written later are in the history: here they would count twice.
    state: Option<TenantUsage>,
    /// Bytes of state that were sent while this node has led, client windows included.
    loaded: u64,
    /// Whether all keys were sent, and client windows are.
    has_all_keys: bool,
    /// Last change that was sent while it catches up.
    sent: Sequence,
    history: HistoryMeter,
    requests: u64,
    pace: SeedPace,
    slowed_to: Option<u64>,
    begun_at: Instant,
    logged_at: Instant,
    /// When it failed, and the version of the tenant's record in the directory then.
    failed_at: Option<(Instant, DirectoryVersion)>,
}

/// Usage of a tenant's live copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TenantUsage {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

impl OutgoingSeeds {
    /// Returns a home's seeds, of which there are none.
    pub(crate) fn new(limits: SeedLimits) -> Self {
        Self {
            limits,
            origin: Instant::now(),
            seeds: Mutex::default(),
            running: AtomicUsize::new(0),
        }
    }

    /// Forgets all seeds: a term of leadership begins.
    pub(crate) fn clear(&self) {
        self.change(BTreeMap::clear);
    }

    /// Records that a seed begins, or goes on: it holds history from now on.
    ///
    /// # Errors
    ///
    /// It could not catch up before.
    pub(crate) fn begin(&self, tenant: TenantNumber, follower: GroupId, start: SeedStart) -> Result<(), SeedFailure> {
        self.change(|seeds| {
            let known = seeds.get_mut(&(tenant, follower));
            if let Some(failure) = known.as_ref().and_then(|known| known.refusal()) {
                return Err(failure);
            }
            match known.filter(|known| known.is_running()) {
                Some(known) if known.epoch == start.epoch && known.first == start.first => {
                    (known.phase, known.keys, known.bytes) = (SeedPhase::Loading, start.keys, start.bytes);
                    (known.state, known.has_all_keys) = (known.state.or(start.state), false);
                }
                Some(_) | None => {
                    seeds.insert((tenant, follower), OutgoingSeed::new(start, self.limits.history_max));
                }
            }
            Ok(())
        })
    }

    /// Records that a follower has all chunks of a seed, and the history up to a revision: it catches up from there.
    ///
    /// # Errors
    ///
    /// The seed could not catch up before.
    pub(crate) fn catch_up(
        &self,
        tenant: TenantNumber,
        follower: GroupId,
        epoch: Epoch,
        reached: Revision,
    ) -> Result<(), SeedFailure> {
        self.change(|seeds| {
            let known = seeds.get_mut(&(tenant, follower));
            if let Some(failure) = known.as_ref().and_then(|known| known.refusal()) {
                return Err(failure);
            }
            match known.filter(|known| known.is_running()) {
                Some(known) if known.epoch == epoch && known.first <= reached => known.catch_up_from(reached),
                Some(_) | None => {
                    let start = SeedStart {
                        epoch,
                        first: reached,
                        keys: 0,
                        bytes: 0,
                        state: None,
                    };
                    let mut seed = OutgoingSeed::new(start, self.limits.history_max);
                    seed.catch_up_from(reached);
                    seeds.insert((tenant, follower), seed);
                }
            }
            Ok(())
        })
    }

    /// Records that a part of the state was sent. One whose changes are all replaced since has no keys, and is an advance
    /// all the same.
    pub(crate) fn record_chunk(&self, tenant: TenantNumber, follower: GroupId, keys: u64, bytes: u64) {
        self.update(tenant, follower, |seed| {
            seed.keys += keys;
            seed.bytes += bytes;
            seed.loaded += bytes.max(1);
        });
    }

    /// Records that a part of the client windows was sent, in bytes: they follow the last key.
    pub(crate) fn record_windows(&self, tenant: TenantNumber, follower: GroupId, bytes: u64) {
        self.update(tenant, follower, |seed| {
            seed.has_all_keys = true;
            seed.loaded += bytes.max(1);
        });
    }

    /// Records that history was sent up to a change.
    pub(crate) fn record_sent(&self, tenant: TenantNumber, follower: GroupId, sent: Revision) {
        self.update(tenant, follower, |seed| seed.sent = seed.sent.max(sent.sequence()));
    }

    /// Records that the copy is attached: the seed is over.
    pub(crate) fn complete(&self, tenant: TenantNumber, follower: GroupId) {
        if self.running.load(Ordering::Relaxed) == 0 {
            return;
        }
        let removed = self.change(|seeds| seeds.remove(&(tenant, follower)));
        if let Some(seed) = removed.filter(OutgoingSeed::is_running) {
            let took_s = seed.begun_at.elapsed().as_secs();
            tracing::info!(%tenant, %follower, took_s, history_bytes = seed.history.len(), "seed is complete");
        }
    }

    /// Tells whether a seed of a tenant is running.
    pub(crate) fn is_seeding(&self, tenant: TenantNumber, follower: GroupId) -> bool {
        let is_any = self.running.load(Ordering::Relaxed) > 0;
        is_any
            && self
                .seeds
                .lock()
                .get(&(tenant, follower))
                .is_some_and(OutgoingSeed::is_running)
    }

    /// Tells whether a seed could not catch up, and may not begin again yet.
    pub(crate) fn is_refused(&self, tenant: TenantNumber, follower: GroupId) -> bool {
        self.seeds
            .lock()
            .get(&(tenant, follower))
            .is_some_and(|seed| seed.refusal().is_some())
    }

    /// Tells whether a seed has failed.
    pub(crate) fn is_over(&self, tenant: TenantNumber, follower: GroupId) -> bool {
        self.seeds
            .lock()
            .get(&(tenant, follower))
            .is_some_and(|seed| !seed.is_running())
    }

    /// Returns why a seed has failed since the tenant's record has this version: what was planned later was not tried.
    pub(crate) fn failure(
        &self,
        tenant: TenantNumber,
        follower: GroupId,
        version: DirectoryVersion,
    ) -> Option<SeedFailure> {
        let seeds = self.seeds.lock();
        let seed = seeds.get(&(tenant, follower))?;
        seed.failed_at.filter(|(_, of)| *of == version)?;
        match seed.phase {
            SeedPhase::Failed(failure) => Some(failure),
            SeedPhase::Loading | SeedPhase::CatchingUp => None,
        }
    }

    /// Returns the tenants whose history is held, each with the revision after which it is.
    pub(crate) fn holds(&self) -> BTreeMap<TenantNumber, Revision> {
        let mut holds = BTreeMap::new();
        for ((tenant, _), seed) in self.seeds.lock().iter().filter(|(_, seed)| seed.is_running()) {
            let first = holds.entry(*tenant).or_insert(seed.first);
            *first = seed.first.min(*first);
        }
        holds
    }

    /// Returns the running and the failed seeds, each with its epoch and the change up to which its history is
    /// measured.
    pub(crate) fn keys(&self) -> Vec<(TenantNumber, GroupId, Epoch, Sequence)> {
        let seeds = self.seeds.lock();
        let key = |((tenant, follower), seed): (&SeedKey, &OutgoingSeed)| {
            (*tenant, *follower, seed.epoch, seed.history.reached())
        };
        seeds.iter().map(key).collect()
    }

    /// Removes a seed: its tenant is not this group's to send any more.
    pub(crate) fn remove(&self, tenant: TenantNumber, follower: GroupId) {
        self.change(|seeds| seeds.remove(&(tenant, follower)));
    }

    /// Adds measured history to a seed.
    pub(crate) fn record_history(&self, tenant: TenantNumber, follower: GroupId, len: u64, reached: Sequence) {
        self.update(tenant, follower, |seed| seed.history.add(len, reached));
    }

    /// Decides how a seed goes on, or whether its failure is over; `version` is that of the tenant's record in the
    /// directory.
    pub(crate) fn observe(
        &self,
        tenant: TenantNumber,
        follower: GroupId,
        usage: TenantUsage,
        version: DirectoryVersion,
    ) {
        let now = Instant::now();
        let at = now.saturating_duration_since(self.origin);
        self.change(|seeds| {
            let Some(seed) = seeds.get_mut(&(tenant, follower)) else {
                return;
            };
            if let Some((failed_at, failed_version)) = seed.failed_at {
                if now - failed_at >= FAILURE_LIFETIME || version != failed_version {
                    seeds.remove(&(tenant, follower));
                }
                return;
            }
            seed.state.get_or_insert(usage);
            let before = seed.slowed_to;
            match seed.pace.observe(seed.sample(at)) {
                SeedVerdict::Free => seed.slowed_to = None,
                SeedVerdict::Slow { bytes_per_second } => seed.slowed_to = Some(bytes_per_second),
                SeedVerdict::End(failure) => {
                    (seed.phase, seed.slowed_to) = (SeedPhase::Failed(failure), None);
                    seed.failed_at = Some((now, version));
                    tracing::warn!(%tenant, %follower, %failure, "seed ended without a copy");
                }
                SeedVerdict::Release => {
                    tracing::warn!(%tenant, %follower, "seed does not advance; history is no longer kept for it");
                    seeds.remove(&(tenant, follower));
                    return;
                }
            }
            seed.log(tenant, follower, before, now);
        });
    }

    /// Returns the rate that a tenant's writers are slowed to, in bytes of requests a second.
    pub fn write_rate(&self, tenant: TenantNumber) -> Option<u64> {
        if self.running.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let seeds = self.seeds.lock();
        of_tenant(&seeds, tenant).filter_map(|(_, seed)| seed.slowed_to).min()
    }

    /// Counts an admitted write request of a tenant.
    pub fn record_request(&self, tenant: TenantNumber, len: u64) {
        if self.running.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut seeds = self.seeds.lock();
        let range = (tenant, GroupId::new(0))..=(tenant, GroupId::new(u32::MAX));
        for (_, seed) in seeds.range_mut(range) {
            seed.requests += len;
        }
    }

    /// Returns the progress of each seed.
    pub fn progress(&self) -> Vec<SeedProgress> {
        let seeds = self.seeds.lock();
        seeds
            .iter()
            .map(|((tenant, follower), seed)| seed.progress(*tenant, *follower))
            .collect()
    }

    fn update(&self, tenant: TenantNumber, follower: GroupId, change: impl FnOnce(&mut OutgoingSeed)) {
        if let Some(seed) = self.seeds.lock().get_mut(&(tenant, follower)) {
            change(seed);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<SeedKey, OutgoingSeed>) -> T) -> T {
        let mut seeds = self.seeds.lock();
        let result = change(&mut seeds);
        let running = seeds.values().filter(|seed| seed.is_running()).count();
        self.running.store(running, Ordering::Relaxed);
        result
    }
}

fn of_tenant(
    seeds: &BTreeMap<SeedKey, OutgoingSeed>,
    tenant: TenantNumber,
) -> impl Iterator<Item = (&SeedKey, &OutgoingSeed)> {
    seeds.range((tenant, GroupId::new(0))..=(tenant, GroupId::new(u32::MAX)))
}

impl OutgoingSeed {
    fn new(start: SeedStart, history_max: u64) -> Self {
        let now = Instant::now();
        Self {
            epoch: start.epoch,
            first: start.first,
            phase: SeedPhase::Loading,
            keys: start.keys,
            bytes: start.bytes,
            state: start.state,
            loaded: 0,
            has_all_keys: false,
            sent: start.first.sequence(),
            history: HistoryMeter::new(start.first.sequence()),
            requests: 0,
            pace: SeedPace::new(history_max),
            slowed_to: None,
            begun_at: now,
            logged_at: now,
            failed_at: None,
        }
    }

    fn is_running(&self) -> bool {
        self.failed_at.is_none()
    }

    /// Returns why the seed may not begin again yet. One that has stalled may, once its follower is back.
    fn refusal(&self) -> Option<SeedFailure> {
        match self.phase {
            SeedPhase::Failed(failure) if failure.reason == SeedFailureReason::CannotCatchUp => Some(failure),
            SeedPhase::Failed(_) | SeedPhase::Loading | SeedPhase::CatchingUp => None,
        }
    }

    fn catch_up_from(&mut self, reached: Revision) {
        self.phase = SeedPhase::CatchingUp;
        self.sent = self.sent.max(reached.sequence());
    }

    fn sample(&self, at: Duration) -> SeedSample {
        let is_loading = self.phase == SeedPhase::Loading && !self.has_all_keys;
        SeedSample {
            at,
            history: self.history.len(),
            caught_up: self.history.len_up_to(self.sent),
            loaded: self.loaded,
            left: if is_loading {
                self.state.map_or(0, |state| state.bytes.saturating_sub(self.bytes))
            } else {
                0
            },
            requests: self.requests,
        }
    }

    fn progress(&self, tenant: TenantNumber, follower: GroupId) -> SeedProgress {
        let is_loaded = self.phase == SeedPhase::CatchingUp;
        let total = self.state.unwrap_or_default();
        let has = |part: u64, total: u64| if is_loaded { total } else { part.min(total) };
        SeedProgress {
            tenant,
            follower,
            phase: self.phase,
            keys: has(self.keys, total.keys),
            keys_total: total.keys,
            bytes: has(self.bytes, total.bytes),
            bytes_total: total.bytes,
            history: self.history.len(),
            bytes_to_go: self.pace.bytes_to_go(),
            time_to_go: self.pace.time_to_go().filter(|_| self.is_running()),
            rates: self.pace.rates(),
            writers_slowed_to: self.slowed_to,
        }
    }

    /// Logs that writers are slowed or free again, and how far the seed is.
    fn log(&mut self, tenant: TenantNumber, follower: GroupId, before: Option<u64>, now: Instant) {
        let progress = self.progress(tenant, follower);
        match (before, self.slowed_to) {
            (None, Some(bytes_per_second)) => tracing::warn!(
                %tenant, %follower, bytes_per_second, history_bytes = progress.history,
                "writers of the tenant are slowed until its seed is complete"
            ),
            (Some(_), None) => tracing::info!(%tenant, %follower, "writers of the tenant are no longer slowed"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if self.is_running() && now - self.logged_at >= LOG_INTERVAL {
            self.logged_at = now;
            tracing::info!(
                %tenant, %follower, phase = ?self.phase, keys = progress.keys, keys_total = progress.keys_total,
                bytes = progress.bytes, bytes_total = progress.bytes_total, history_bytes = progress.history,
                time_to_go_s = progress.time_to_go.map(|time| time.as_secs()), "seed goes on"
            );
        }
    }
}

#[cfg(test)]
#[path = "outgoing_seeds_test.rs"]
mod outgoing_seeds_test;
