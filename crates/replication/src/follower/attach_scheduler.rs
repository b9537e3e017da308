//! Scheduler of the attach attempts and seeds of detached tenants, with limits and backoff.
//!
//! Attached tenants are in the group's log and not here. A new leader computes this state again.
//!
//! # Invariants
//!
//! 1. At most [`ASKED_MAX`] tenants are asked for at a time, and at most [`SEEDS_MAX`] are seeded.
//! 2. A tenant that was refused or void is asked for again, later each time, up to [`BACKOFF_MAX`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::TenantNumber;
use tokio::time::Instant;

/// Most tenants of a stream that are asked for and not yet attached.
pub(crate) const ASKED_MAX: usize = 1024;
/// Most tenants of a stream that are seeded at a time.
pub(crate) const SEEDS_MAX: usize = 4;
/// Backoff after the first refusal; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest backoff.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Detached tenants of one home, with the phase of each on its way to being attached.
#[derive(Debug, Default)]
pub(crate) struct AttachScheduler {
    tenants: BTreeMap<TenantNumber, ScheduledTenant>,
    /// Tenants in [`Phase::Due`].
    due: BTreeSet<TenantNumber>,
    /// Tenants in [`Phase::Waiting`], by the time at which they are due.
    waiting: BTreeSet<(Instant, TenantNumber)>,
    /// Tenants in [`Phase::Seedable`], by the time from which they may be seeded.
    seedable: BTreeSet<(Instant, TenantNumber)>,
    asked: usize,
    seeding: usize,
}

#[derive(Clone, Copy, Debug)]
struct ScheduledTenant {
    phase: Phase,
    refusals: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be asked for.
    Due,
    /// Asked for on this stream.
    Asked,
    /// To be asked for later.
    Waiting(Instant),
    /// To be seeded, not before this instant.
    Seedable(Instant),
    /// Being seeded.
    Seeding,
}

/// Actions that are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AttachActions {
    /// Tenants that the home is to be asked to attach.
    pub(crate) ask: Vec<TenantNumber>,
    /// Tenants to seed.
    pub(crate) seed: Vec<TenantNumber>,
}

impl AttachScheduler {
    /// Sets the tenants that are detached now: new ones become due, those that are missing are attached and removed.
    /// Returns the new ones.
    pub(crate) fn set_detached(&mut self, now: impl Iterator<Item = TenantNumber>) -> Vec<TenantNumber> {
        let now: BTreeSet<TenantNumber> = now.collect();
        let gone: Vec<_> = self
            .tenants
            .keys()
            .filter(|known| !now.contains(known))
            .copied()
            .collect();
        for tenant in gone {
            self.remove(tenant);
        }
        let new = now.into_iter().filter(|tenant| !self.tenants.contains_key(tenant));
        let new: Vec<_> = new.collect();
        for tenant in &new {
            self.insert(*tenant, Phase::Due, 0);
        }
        new
    }

    /// Makes tenants due again that were asked for on an earlier stream.
    pub(crate) fn reset_asked(&mut self) {
        let asked = self.tenants.iter().filter(|(_, entry)| entry.phase == Phase::Asked);
        let asked: Vec<_> = asked.map(|(tenant, entry)| (*tenant, entry.refusals)).collect();
        for (tenant, refusals) in asked {
            self.insert(tenant, Phase::Due, refusals);
        }
    }

    /// Removes a tenant for which nothing is to be done.
    pub(crate) fn remove(&mut self, tenant: TenantNumber) {
        let Some(entry) = self.tenants.remove(&tenant) else {
            return;
        };
        match entry.phase {
            Phase::Due => {
                self.due.remove(&tenant);
            }
            Phase::Asked => self.asked -= 1,
            Phase::Waiting(at) => {
                self.waiting.remove(&(at, tenant));
            }
            Phase::Seedable(at) => {
                self.seedable.remove(&(at, tenant));
            }
            Phase::Seeding => self.seeding -= 1,
        }
    }

    /// Schedules another attempt after a backoff. The failure of one attempt may be reported more than once.
    pub(crate) fn retry_later(&mut self, tenant: TenantNumber, now: Instant) {
        let entry = self.tenants.get(&tenant);
        match entry.map(|entry| entry.phase) {
            Some(Phase::Seeding | Phase::Waiting(_) | Phase::Seedable(_)) => return,
            Some(Phase::Due | Phase::Asked) | None => {}
        }
        let refusals = entry.map_or(0, |entry| entry.refusals);
        self.insert(tenant, Phase::Waiting(now + backoff(refusals)), refusals + 1);
    }

    /// Schedules a seed.
    pub(crate) fn schedule_seed(&mut self, tenant: TenantNumber, now: Instant) {
        self.seed_at(tenant, now, 0);
    }

    /// Schedules a seed from the beginning after a backoff, so that a home whose history is shorter than a seed takes
    /// is not asked for one seed after the other.
    pub(crate) fn schedule_fresh_seed(&mut self, tenant: TenantNumber, now: Instant) {
        let refusals = self.tenants.get(&tenant).map_or(0, |entry| entry.refusals);
        self.seed_at(tenant, now + backoff(refusals), 1);
    }

    fn seed_at(&mut self, tenant: TenantNumber, at: Instant, refusals: u32) {
        if let Some(entry) = self.tenants.get(&tenant).copied()
            && entry.phase != Phase::Seeding
        {
            self.insert(tenant, Phase::Seedable(at), entry.refusals + refusals);
        }
    }

    /// Makes a tenant due after its seed has ended, or later unless it is `complete`.
    pub(crate) fn finish_seed(&mut self, tenant: TenantNumber, complete: bool, now: Instant) {
        if let Some(entry) = self.tenants.get(&tenant).copied() {
            self.insert(tenant, Phase::Due, entry.refusals);
            if !complete {
                self.retry_later(tenant, now);
            }
        }
    }

    /// Takes the actions that are due now.
    pub(crate) fn next_actions(&mut self, now: Instant) -> AttachActions {
        let mut actions = AttachActions::default();
        while let Some((_, tenant)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.set_phase(tenant, Phase::Due);
        }
        while self.asked < ASKED_MAX
            && let Some(tenant) = self.due.first().copied()
        {
            self.set_phase(tenant, Phase::Asked);
            actions.ask.push(tenant);
        }
        while self.seeding < SEEDS_MAX
            && let Some((_, tenant)) = self.seedable.first().copied().filter(|(at, _)| *at <= now)
        {
            self.set_phase(tenant, Phase::Seeding);
            actions.seed.push(tenant);
        }
        actions
    }

    /// Returns when the next action will be due, if nothing else happens.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let seedable = self.seedable.first().filter(|_| self.seeding < SEEDS_MAX);
        let first = [self.waiting.first(), seedable].into_iter().flatten();
        first.map(|(at, _)| *at).min()
    }

    fn set_phase(&mut self, tenant: TenantNumber, phase: Phase) {
        let refusals = self.tenants.get(&tenant).map_or(0, |entry| entry.refusals);
        self.insert(tenant, phase, refusals);
    }

    fn insert(&mut self, tenant: TenantNumber, phase: Phase, refusals: u32) {
        self.remove(tenant);
        match phase {
            Phase::Due => {
                self.due.insert(tenant);
            }
            Phase::Asked => self.asked += 1,
            Phase::Waiting(at) => {
                self.waiting.insert((at, tenant));
            }
            Phase::Seedable(at) => {
                self.seedable.insert((at, tenant));
            }
            Phase::Seeding => self.seeding += 1,
        }
        self.tenants.insert(tenant, ScheduledTenant { phase, refusals });
    }
}

/// Returns the backoff after so many refusals.
fn backoff(refusals: u32) -> Duration {
    let backoff = BACKOFF_MIN * 2_u32.saturating_pow(refusals.min(16));
    backoff.min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantNumber = TenantNumber::new(1);
    const B: TenantNumber = TenantNumber::new(2);

    fn ask(tenants: &[TenantNumber]) -> AttachActions {
        AttachActions {
            ask: tenants.to_vec(),
            seed: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tenant_is_asked_for_once_per_stream() {
        let (mut scheduler, now) = (AttachScheduler::default(), Instant::now());
        scheduler.set_detached([A, B].into_iter());
        assert_eq!(scheduler.next_actions(now), ask(&[A, B]));
        assert_eq!(scheduler.next_actions(now), AttachActions::default());
        scheduler.set_detached([B].into_iter());
        scheduler.reset_asked();
        assert_eq!(scheduler.next_actions(now), ask(&[B]), "the other one is attached");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_tenant_is_retried_with_backoff() {
        let (mut scheduler, mut now) = (AttachScheduler::default(), Instant::now());
        scheduler.set_detached([A].into_iter());
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(scheduler.next_actions(now), ask(&[A]));
            scheduler.retry_later(A, now);
            assert_eq!(scheduler.next_actions(now), AttachActions::default());
            let due = scheduler.next_due().unwrap();
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits[..4], [50, 100, 200, 400]);
        assert_eq!(waits[11], 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn seeds_are_bounded_and_followed_by_attach() {
        let (mut scheduler, now) = (AttachScheduler::default(), Instant::now());
        let all: Vec<_> = (1..=6).map(TenantNumber::new).collect();
        scheduler.set_detached(all.iter().copied());
        scheduler.next_actions(now);
        for tenant in &all {
            scheduler.schedule_seed(*tenant, now);
        }
        assert_eq!(scheduler.next_actions(now).seed, all[..4]);
        scheduler.finish_seed(all[0], true, now);
        assert_eq!(
            scheduler.next_actions(now),
            AttachActions {
                ask: vec![all[0]],
                seed: vec![all[4]]
            }
        );
        scheduler.finish_seed(all[1], false, now);
        assert_eq!(scheduler.next_actions(now).seed, [all[5]]);
        assert!(scheduler.next_due().is_some(), "the broken seed is begun again later");
    }

    #[tokio::test(start_paused = true)]
    async fn useless_seed_is_repeated_with_backoff() {
        let (mut scheduler, mut now) = (AttachScheduler::default(), Instant::now());
        scheduler.set_detached([A].into_iter());
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(scheduler.next_actions(now), ask(&[A]));
            scheduler.schedule_fresh_seed(A, now);
            assert_eq!(scheduler.next_actions(now), AttachActions::default());
            let due = scheduler.next_due().unwrap();
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(scheduler.next_actions(now).seed, [A]);
            scheduler.finish_seed(A, true, now);
        }
        assert_eq!(waits[..3], [50, 100, 200]);
        assert_eq!(waits[11], 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn asked_tenants_are_bounded() {
        let (mut scheduler, now) = (AttachScheduler::default(), Instant::now());
        let all: Vec<_> = (1..=2 * ASKED_MAX as u64).map(TenantNumber::new).collect();
        scheduler.set_detached(all.iter().copied());
        assert_eq!(scheduler.next_actions(now).ask, all[..ASKED_MAX]);
        scheduler.remove(all[0]);
        scheduler.retry_later(all[1], now);
        assert_eq!(scheduler.next_actions(now).ask, all[ASKED_MAX..ASKED_MAX + 2]);
        scheduler.set_detached(std::iter::empty());
        assert_eq!((scheduler.asked, scheduler.seeding, scheduler.next_due()), (0, 0, None));
    }
}
