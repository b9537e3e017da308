//! Tenants on their way to being attached: whom to ask for, whom to let wait, whom to seed.
//!
//! What is attached stands in the group's log and is not held here. Everything here is worked out again by a new
//! leader.
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
/// The first wait after a refusal; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest wait.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Tenants that are not attached.
#[derive(Debug, Default)]
pub(crate) struct Flux {
    tenants: BTreeMap<TenantNumber, Entry>,
    /// Those in [`Phase::Due`].
    due: BTreeSet<TenantNumber>,
    /// Those in [`Phase::Waiting`], by when they are due.
    waiting: BTreeSet<(Instant, TenantNumber)>,
    /// Those in [`Phase::Seedable`], by when they may be seeded.
    seedable: BTreeSet<(Instant, TenantNumber)>,
    asked: usize,
    seeding: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
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

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Todo {
    /// Ask the home to attach these.
    pub(crate) ask: Vec<TenantNumber>,
    /// Seed these.
    pub(crate) seed: Vec<TenantNumber>,
}

impl Flux {
    /// Takes in which tenants are detached now: new ones are to be asked for, those that are gone are attached. Returns
    /// the new ones.
    pub(crate) fn detached(&mut self, now: impl Iterator<Item = TenantNumber>) -> Vec<TenantNumber> {
        let now: BTreeSet<TenantNumber> = now.collect();
        let gone: Vec<_> = self
            .tenants
            .keys()
            .filter(|known| !now.contains(known))
            .copied()
            .collect();
        for tenant in gone {
            self.forget(tenant);
        }
        let new = now.into_iter().filter(|tenant| !self.tenants.contains_key(tenant));
        let new: Vec<_> = new.collect();
        for tenant in &new {
            self.enter(*tenant, Phase::Due, 0);
        }
        new
    }

    /// Takes in that a stream was opened: what was asked for on another one is to be asked for again.
    pub(crate) fn opened(&mut self) {
        let asked = self.tenants.iter().filter(|(_, entry)| entry.phase == Phase::Asked);
        let asked: Vec<_> = asked.map(|(tenant, entry)| (*tenant, entry.refusals)).collect();
        for (tenant, refusals) in asked {
            self.enter(tenant, Phase::Due, refusals);
        }
    }

    /// Takes in that there is nothing to be done about a tenant.
    pub(crate) fn forget(&mut self, tenant: TenantNumber) {
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

    /// Takes in that a tenant was not attached, or is not any more. One attempt may be told to have failed more than once.
    pub(crate) fn refused(&mut self, tenant: TenantNumber, now: Instant) {
        let entry = self.tenants.get(&tenant);
        match entry.map(|entry| entry.phase) {
            Some(Phase::Seeding | Phase::Waiting(_) | Phase::Seedable(_)) => return,
            Some(Phase::Due | Phase::Asked) | None => {}
        }
        let refusals = entry.map_or(0, |entry| entry.refusals);
        self.enter(tenant, Phase::Waiting(now + wait(refusals)), refusals + 1);
    }

    /// Takes in that a tenant must be seeded.
    pub(crate) fn needs_seed(&mut self, tenant: TenantNumber, now: Instant) {
        self.seed_at(tenant, now, 0);
    }

    /// Takes in that a tenant must be seeded again from the beginning: later each time, so that a home whose history is
    /// shorter than a seed takes is not asked for one after the other.
    pub(crate) fn needs_new_seed(&mut self, tenant: TenantNumber, now: Instant) {
        let refusals = self.tenants.get(&tenant).map_or(0, |entry| entry.refusals);
        self.seed_at(tenant, now + wait(refusals), 1);
    }

    fn seed_at(&mut self, tenant: TenantNumber, at: Instant, refusals: u32) {
        if let Some(entry) = self.tenants.get(&tenant).copied()
            && entry.phase != Phase::Seeding
        {
            self.enter(tenant, Phase::Seedable(at), entry.refusals + refusals);
        }
    }

    /// Takes in that a seed has come to its end; `complete` if all its chunks are in.
    pub(crate) fn seeded(&mut self, tenant: TenantNumber, complete: bool, now: Instant) {
        if let Some(entry) = self.tenants.get(&tenant).copied() {
            self.enter(tenant, Phase::Due, entry.refusals);
            if !complete {
                self.refused(tenant, now);
            }
        }
    }

    /// Returns what is to be done now, and takes it as done.
    pub(crate) fn todo(&mut self, now: Instant) -> Todo {
        let mut todo = Todo::default();
        while let Some((_, tenant)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.turn(tenant, Phase::Due);
        }
        while self.asked < ASKED_MAX
            && let Some(tenant) = self.due.first().copied()
        {
            self.turn(tenant, Phase::Asked);
            todo.ask.push(tenant);
        }
        while self.seeding < SEEDS_MAX
            && let Some((_, tenant)) = self.seedable.first().copied().filter(|(at, _)| *at <= now)
        {
            self.turn(tenant, Phase::Seeding);
            todo.seed.push(tenant);
        }
        todo
    }

    /// Returns when there will be something to do, if nothing else happens.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let seedable = self.seedable.first().filter(|_| self.seeding < SEEDS_MAX);
        let first = [self.waiting.first(), seedable].into_iter().flatten();
        first.map(|(at, _)| *at).min()
    }

    fn turn(&mut self, tenant: TenantNumber, phase: Phase) {
        let refusals = self.tenants.get(&tenant).map_or(0, |entry| entry.refusals);
        self.enter(tenant, phase, refusals);
    }

    fn enter(&mut self, tenant: TenantNumber, phase: Phase, refusals: u32) {
        self.forget(tenant);
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
        self.tenants.insert(tenant, Entry { phase, refusals });
    }
}

/// Returns how long to wait after so many refusals.
fn wait(refusals: u32) -> Duration {
    let wait = BACKOFF_MIN * 2_u32.saturating_pow(refusals.min(16));
    wait.min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantNumber = TenantNumber::new(1);
    const B: TenantNumber = TenantNumber::new(2);

    fn ask(tenants: &[TenantNumber]) -> Todo {
        Todo {
            ask: tenants.to_vec(),
            seed: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_is_asked_for_once_and_again_on_a_new_stream() {
        let (mut flux, now) = (Flux::default(), Instant::now());
        flux.detached([A, B].into_iter());
        assert_eq!(flux.todo(now), ask(&[A, B]));
        assert_eq!(flux.todo(now), Todo::default());
        flux.detached([B].into_iter());
        flux.opened();
        assert_eq!(flux.todo(now), ask(&[B]), "the other one is attached");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_tenant_is_asked_for_later_each_time() {
        let (mut flux, mut now) = (Flux::default(), Instant::now());
        flux.detached([A].into_iter());
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(flux.todo(now), ask(&[A]));
            flux.refused(A, now);
            assert_eq!(flux.todo(now), Todo::default());
            let due = flux.next_due().unwrap();
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits[..4], [50, 100, 200, 400]);
        assert_eq!(waits[11], 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn seeds_are_bounded_and_lead_back_to_asking() {
        let (mut flux, now) = (Flux::default(), Instant::now());
        let all: Vec<_> = (1..=6).map(TenantNumber::new).collect();
        flux.detached(all.iter().copied());
        flux.todo(now);
        for tenant in &all {
            flux.needs_seed(*tenant, now);
        }
        assert_eq!(flux.todo(now).seed, all[..4]);
        flux.seeded(all[0], true, now);
        assert_eq!(
            flux.todo(now),
            Todo {
                ask: vec![all[0]],
                seed: vec![all[4]]
            }
        );
        flux.seeded(all[1], false, now);
        assert_eq!(flux.todo(now).seed, [all[5]]);
        assert!(flux.next_due().is_some(), "the broken seed is begun again later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_that_was_of_no_use_is_begun_again_later_each_time() {
        let (mut flux, mut now) = (Flux::default(), Instant::now());
        flux.detached([A].into_iter());
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(flux.todo(now), ask(&[A]));
            flux.needs_new_seed(A, now);
            assert_eq!(flux.todo(now), Todo::default());
            let due = flux.next_due().unwrap();
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(flux.todo(now).seed, [A]);
            flux.seeded(A, true, now);
        }
        assert_eq!(waits[..3], [50, 100, 200]);
        assert_eq!(waits[11], 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_is_bounded_and_counted() {
        let (mut flux, now) = (Flux::default(), Instant::now());
        let all: Vec<_> = (1..=2 * ASKED_MAX as u64).map(TenantNumber::new).collect();
        flux.detached(all.iter().copied());
        assert_eq!(flux.todo(now).ask, all[..ASKED_MAX]);
        flux.forget(all[0]);
        flux.refused(all[1], now);
        assert_eq!(flux.todo(now).ask, all[ASKED_MAX..ASKED_MAX + 2]);
        flux.detached(std::iter::empty());
        assert_eq!((flux.asked, flux.seeding, flux.next_due()), (0, 0, None));
    }
}
