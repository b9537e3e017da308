//! Slots of reads that take long: a few run at a time, so that heartbeats, elections and short calls get their turn on
//! the runtime's threads, and each tenant gets its share of them.
//!
//! # Invariants
//!
//! 1. At most [`SLOTS`] slots are taken, and [`TENANT_SLOTS_MAX`] by one tenant.
//! 2. Tenants that wait take turns; the calls of one tenant are served in their order.
//! 3. A call is refused as soon as it cannot be expected to get its turn before its deadline, by the time for which its tenant
//!    has taken slots lately: its caller learns that at once, and the calls that can be served are not delayed by it. Reads
//!    of other tenants, however long, refuse nobody.
//!
//! The number of calls that wait is bounded by their tenants' operations in flight.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stead_types::{Error, ErrorKind, TenantNumber};
use tokio::{sync::oneshot, time::Instant};

use crate::router::rejections;

/// Most long reads of a node at a time.
const SLOTS: usize = 4;
/// Most of one tenant.
const TENANT_SLOTS_MAX: usize = 3;
/// Weight of the times before the newest in the smoothed time for which slots are taken.
const SMOOTHING: u32 = 7;
/// Limit whose name refusals carry.
pub(super) const LIMIT: &str = "node.scans";

/// The slots of a node.
#[derive(Debug, Default)]
pub(super) struct ReadSlots(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    taken: BTreeMap<TenantNumber, usize>,
    /// Calls that wait, of the tenant whose turn is next first.
    waiting: VecDeque<Waiting>,
    /// Smoothed time for which a tenant that has taken slots, or waits, takes one.
    taken_for: BTreeMap<TenantNumber, Duration>,
}

#[derive(Debug)]
struct Waiting {
    tenant: TenantNumber,
    calls: VecDeque<WaitingCall>,
}

#[derive(Debug)]
struct WaitingCall {
    deadline: Instant,
    turn: oneshot::Sender<Result<ReadSlot, Crowded>>,
}

/// A slot, free again when it is dropped.
#[derive(Debug)]
pub(super) struct ReadSlot {
    tenant: TenantNumber,
    since: Instant,
    /// `None` if it was never handed out.
    slots: Option<Arc<ReadSlots>>,
}

/// Reason why a call gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// Its turn would come after its deadline.
    Crowded(Crowded),
    /// Its deadline has passed.
    TimedOut,
}

/// So many long reads wait that a call's turn would come after its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded {
    /// Expected time until its turn.
    wait: Duration,
}

impl NoSlot {
    /// Converts it into the error for the caller.
    pub(super) fn error(self) -> Error {
        let Self::Crowded(Crowded { wait }) = self else {
            return rejections::deadline_exceeded();
        };
        let message = format!(
            "{LIMIT}: at most {SLOTS} scans and large batches are read at a time at this node, {TENANT_SLOTS_MAX} of one \
             tenant, and this one's turn would come in about {} ms, after its deadline; nothing happened: ask for fewer at \
             a time, or with a longer timeout",
            wait.as_millis()
        );
        let limit = LIMIT.to_owned();
        Error::new(ErrorKind::RateLimited { limit, wait }, message)
    }
}

impl ReadSlots {
    /// Waits for a slot, until a deadline.
    pub(super) async fn acquire(self: &Arc<Self>, tenant: TenantNumber, deadline: Instant) -> Result<ReadSlot, NoSlot> {
        loop {
            let turn = {
                let mut slots = self.0.lock();
                if slots.has_room(tenant) {
                    slots.take(tenant);
                    return Ok(self.slot(tenant));
                }
                let (turn, waiting) = oneshot::channel();
                let call = WaitingCall { deadline, turn };
                slots.wait(tenant, call, Instant::now()).map_err(NoSlot::Crowded)?;
                waiting
            };
            match tokio::time::timeout_at(deadline, turn).await {
                Ok(Ok(turn)) => return turn.map_err(NoSlot::Crowded),
                Ok(Err(_unused)) => {}
                Err(_elapsed) => return Err(NoSlot::TimedOut),
            }
        }
    }

    fn slot(self: &Arc<Self>, tenant: TenantNumber) -> ReadSlot {
        ReadSlot {
            tenant,
            since: Instant::now(),
            slots: Some(self.clone()),
        }
    }

    /// Frees a slot, refuses calls that wait in vain, and hands out what is free.
    fn release(self: &Arc<Self>, tenant: TenantNumber, taken_for: Duration) {
        let mut slots = self.0.lock();
        slots.free(tenant);
        let smoothed = slots.taken_for.entry(tenant).or_default();
        *smoothed = (*smoothed * SMOOTHING + taken_for) / (SMOOTHING + 1);
        slots.refuse_crowded(Instant::now());
        while let Some((tenant, call)) = slots.next() {
            slots.take(tenant);
            if let Err(Ok(mut unused)) = call.turn.send(Ok(self.slot(tenant))) {
                unused.slots = None;
                slots.free(tenant);
            }
        }
        let Slots {
            taken,
            waiting,
            taken_for,
        } = &mut *slots;
        taken_for.retain(|tenant, _| taken.contains_key(tenant) || waiting.iter().any(|of| of.tenant == *tenant));
    }
}

impl Slots {
    fn has_room(&self, tenant: TenantNumber) -> bool {
        let of_tenant = self.taken.get(&tenant).copied().unwrap_or_default();
        self.taken.values().sum::<usize>() < SLOTS && of_tenant < TENANT_SLOTS_MAX
    }

    fn take(&mut self, tenant: TenantNumber) {
        *self.taken.entry(tenant).or_default() += 1;
    }

    fn free(&mut self, tenant: TenantNumber) {
        if let Some(taken) = self.taken.get_mut(&tenant) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(&tenant);
            }
        }
    }

    fn wait(&mut self, tenant: TenantNumber, call: WaitingCall, now: Instant) -> Result<(), Crowded> {
        let mut waiting = self.waiting.iter();
        let own = waiting.find(|waiting| waiting.tenant == tenant);
        let before = own.map_or(0, |waiting| waiting.calls.len());
        let tenants = self.waiting.len() + usize::from(own.is_none());
        let taken_for = self.taken_for.get(&tenant).copied().unwrap_or_default();
        call.check(expected_wait(before, tenants, taken_for), now)?;
        match self.waiting.iter_mut().find(|waiting| waiting.tenant == tenant) {
            Some(waiting) => waiting.calls.push_back(call),
            None => self.waiting.push_back(Waiting {
                tenant,
                calls: VecDeque::from([call]),
            }),
        }
        Ok(())
    }

    /// Refuses the calls whose turn would come after their deadline, and forgets those that have gone.
    fn refuse_crowded(&mut self, now: Instant) {
        let tenants = self.waiting.len();
        for Waiting { tenant, calls } in &mut self.waiting {
            let taken_for = self.taken_for.get(tenant).copied().unwrap_or_default();
            let mut kept = VecDeque::with_capacity(calls.len());
            for call in calls.drain(..).filter(|call| !call.turn.is_closed()) {
                let wait = expected_wait(kept.len(), tenants, taken_for);
                match call.check(wait, now) {
                    Ok(()) => kept.push_back(call),
                    Err(crowded) => drop(call.turn.send(Err(crowded))),
                }
            }
            *calls = kept;
        }
        self.waiting.retain(|waiting| !waiting.calls.is_empty());
    }

    /// Takes the next call that may run, of the tenant whose turn it is.
    fn next(&mut self) -> Option<(TenantNumber, WaitingCall)> {
        let turn = self.waiting.iter().position(|waiting| self.has_room(waiting.tenant))?;
        let mut waiting = self.waiting.remove(turn)?;
        let call = waiting.calls.pop_front()?;
        let tenant = waiting.tenant;
        if !waiting.calls.is_empty() {
            self.waiting.push_back(waiting);
        }
        Some((tenant, call))
    }
}

impl WaitingCall {
    fn check(&self, wait: Duration, now: Instant) -> Result<(), Crowded> {
        match wait <= self.deadline.saturating_duration_since(now) {
            true => Ok(()),
            false => Err(Crowded { wait }),
        }
    }
}

/// Returns the least time until the turn of a tenant's call behind `before` others of its own, where so many tenants wait and
/// it takes a slot for so long.
fn expected_wait(before: usize, tenants: usize, taken_for: Duration) -> Duration {
    let own_slots = (SLOTS / tenants.max(1)).clamp(1, TENANT_SLOTS_MAX);
    taken_for.mul_f64((before + 1) as f64 / own_slots as f64)
}

impl Drop for ReadSlot {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.release(self.tenant, self.since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LOUD: TenantNumber = TenantNumber::new(1);
    const QUIET: TenantNumber = TenantNumber::new(2);

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn acquire_now(slots: &Arc<ReadSlots>, tenant: TenantNumber) -> Option<ReadSlot> {
        slots.acquire(tenant, far()).now_or_never().map(Result::unwrap)
    }

    /// Invariant 1.
    #[tokio::test]
    async fn loud_tenant_leaves_slots_to_others() {
        let slots = Arc::new(ReadSlots::default());
        let loud: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, LOUD)).collect();
        assert_eq!(loud.len(), TENANT_SLOTS_MAX);
        let quiet: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, QUIET)).collect();
        assert_eq!(quiet.len(), SLOTS - TENANT_SLOTS_MAX);
    }

    /// Invariant 2.
    #[tokio::test]
    async fn waiting_tenants_take_turns() {
        let slots = Arc::new(ReadSlots::default());
        let mut taken: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, LOUD)).collect();
        taken.extend(std::iter::from_fn(|| acquire_now(&slots, QUIET)));
        let mut loud: Vec<_> = (0..20).map(|_| Box::pin(slots.acquire(LOUD, far()))).collect();
        assert!(loud.iter_mut().all(|call| call.now_or_never().is_none()));
        let mut quiet = Box::pin(slots.acquire(QUIET, far()));
        assert!((&mut quiet).now_or_never().is_none());
        drop(taken.split_off(SLOTS - 1));
        assert!(
            (&mut quiet).now_or_never().is_some(),
            "it waits for one turn of another at most"
        );
        // A call that has gone gives its slot to the next.
        drop(taken);
        let served = loud.iter_mut().filter_map(|call| call.now_or_never()).count();
        assert!(served > 0, "calls that wait go on");
        drop(loud);
        let again = acquire_now(&slots, LOUD);
        assert!(again.is_some());
        drop(again);
        assert!(slots.0.lock().taken.is_empty(), "every slot is free again");
    }

    /// Invariant 3.
    #[tokio::test(start_paused = true)]
    async fn call_whose_turn_would_come_too_late_is_refused_at_once() {
        const TAKEN_FOR: Duration = Duration::from_millis(800);
        let slots = Arc::new(ReadSlots::default());
        let mut taken: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, LOUD)).collect();
        // Nobody knows yet how long a read takes.
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut calls: Vec<_> = (0..100).map(|_| Box::pin(slots.acquire(LOUD, deadline))).collect();
        assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
        tokio::time::advance(TAKEN_FOR).await;
        drop(taken.pop());
        let begun = Instant::now();
        let mut refused = 0;
        calls.retain_mut(|call| match call.now_or_never() {
            Some(Err(NoSlot::Crowded(_))) => {
                refused += 1;
                false
            }
            Some(turn) => {
                taken.extend(turn.ok());
                false
            }
            None => true,
        });
        assert_eq!(begun, Instant::now(), "at once");
        // In the 1.2 s that are left, at 0.1 s a read by three slots, 36 get their turn; one has its slot.
        assert_eq!((calls.len(), refused), (35, 64));
        // In its place another one fits. The next one is refused, but for one with more time, or of a tenant whose turn is next.
        let mut fits = Box::pin(slots.acquire(LOUD, deadline));
        assert!((&mut fits).now_or_never().is_none());
        let late = slots.acquire(LOUD, deadline).now_or_never();
        let Some(Err(refusal)) = late else {
            panic!("not refused: {late:?}");
        };
        let message = refusal.error().to_string();
        assert!(message.contains("node.scans: at most 4 scans"), "{message}");
        assert!(slots.acquire(LOUD, far()).now_or_never().is_none());
        let quiet = acquire_now(&slots, QUIET);
        assert!(quiet.is_some());
        drop((calls, fits, taken, quiet));
        assert!(slots.0.lock().taken.is_empty(), "every slot is free again");
    }

    /// Invariant 3: a neighbour whose reads take long does not refuse short ones.
    #[tokio::test(start_paused = true)]
    async fn slow_reads_of_one_tenant_refuse_nobody_else() {
        let slots = Arc::new(ReadSlots::default());
        for _ in 0..20 {
            let slow: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, LOUD)).collect();
            tokio::time::advance(Duration::from_secs(10)).await;
            drop(slow);
        }
        let _slow: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, LOUD)).collect();
        let mut short = acquire_now(&slots, QUIET);
        tokio::time::advance(Duration::from_millis(5)).await;
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut next = Box::pin(slots.acquire(QUIET, deadline));
        assert!((&mut next).now_or_never().is_none(), "it waits");
        drop(short.take());
        assert!((&mut next).now_or_never().unwrap().is_ok());
    }

    #[test]
    fn expected_wait_counts_own_calls_by_own_share_of_slots() {
        let second = Duration::from_secs(1);
        assert_eq!(expected_wait(5, 1, second), 2 * second);
        assert_eq!(expected_wait(3, 2, second), 2 * second);
        assert_eq!(expected_wait(3, 50, second), 4 * second);
        assert_eq!(expected_wait(99, 1, Duration::ZERO), Duration::ZERO);
    }
}
