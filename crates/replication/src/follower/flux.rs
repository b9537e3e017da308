//! Tenants on their way to being attached: whom to ask for, whom to let wait, whom to seed.
//!
//! What is attached stands in the group's log and is not held here. Everything here is worked out again by a new
//! leader.
//!
//! # Invariants
//!
//! 1. At most [`ASKED_MAX`] tenants are asked for at a time, and at most [`SEEDS_MAX`] are seeded.
//! 2. A tenant that was refused or void is asked for again, later each time, up to [`BACKOFF_MAX`].

use std::{collections::BTreeMap, time::Duration};

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
    /// To be seeded.
    Seedable,
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
    /// Takes in which tenants are detached now: new ones are to be asked for, those that are gone are attached.
    pub(crate) fn detached(&mut self, now: impl Iterator<Item = TenantNumber>) {
        let mut before = std::mem::take(&mut self.tenants);
        for tenant in now {
            let phase = Phase::Due;
            let entry = before.remove(&tenant).unwrap_or(Entry { phase, refusals: 0 });
            self.tenants.insert(tenant, entry);
        }
        self.count();
    }

    /// Takes in that a stream was opened: what was asked for on another one is to be asked for again.
    pub(crate) fn opened(&mut self) {
        for entry in self.tenants.values_mut() {
            if entry.phase == Phase::Asked {
                entry.phase = Phase::Due;
            }
        }
        self.count();
    }

    /// Takes in that a tenant was not attached, or is not any more.
    pub(crate) fn refused(&mut self, tenant: TenantNumber, now: Instant) {
        let phase = Phase::Due;
        let entry = self.tenants.entry(tenant).or_insert(Entry { phase, refusals: 0 });
        if entry.phase == Phase::Seeding {
            return;
        }
        let wait = BACKOFF_MIN * 2_u32.saturating_pow(entry.refusals.min(16));
        entry.phase = Phase::Waiting(now + wait.min(BACKOFF_MAX));
        entry.refusals += 1;
        self.count();
    }

    /// Takes in that a tenant must be seeded.
    pub(crate) fn needs_seed(&mut self, tenant: TenantNumber) {
        if let Some(entry) = self.tenants.get_mut(&tenant)
            && entry.phase != Phase::Seeding
        {
            entry.phase = Phase::Seedable;
        }
        self.count();
    }

    /// Takes in that a seed has come to its end; `complete` if all its chunks are in.
    pub(crate) fn seeded(&mut self, tenant: TenantNumber, complete: bool, now: Instant) {
        if let Some(entry) = self.tenants.get_mut(&tenant) {
            entry.phase = Phase::Due;
            if !complete {
                self.refused(tenant, now);
            }
        }
        self.count();
    }

    /// Returns what is to be done now, and takes it as done.
    pub(crate) fn todo(&mut self, now: Instant) -> Todo {
        let mut todo = Todo::default();
        for (tenant, entry) in &mut self.tenants {
            match entry.phase {
                Phase::Waiting(until) if until > now => {}
                Phase::Due | Phase::Waiting(_) => {
                    if self.asked < ASKED_MAX {
                        self.asked += 1;
                        entry.phase = Phase::Asked;
                        todo.ask.push(*tenant);
                    }
                }
                Phase::Seedable => {
                    if self.seeding < SEEDS_MAX {
                        self.seeding += 1;
                        entry.phase = Phase::Seeding;
                        todo.seed.push(*tenant);
                    }
                }
                Phase::Asked | Phase::Seeding => {}
            }
        }
        todo
    }

    /// Returns when there will be something to do, if nothing else happens.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let until = |entry: &Entry| match entry.phase {
            Phase::Waiting(until) => Some(until),
            Phase::Due | Phase::Asked | Phase::Seedable | Phase::Seeding => None,
        };
        self.tenants.values().filter_map(until).min()
    }

    fn count(&mut self) {
        let of = |phase| self.tenants.values().filter(|entry| entry.phase == phase).count();
        (self.asked, self.seeding) = (of(Phase::Asked), of(Phase::Seeding));
    }
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
            flux.needs_seed(*tenant);
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
}
