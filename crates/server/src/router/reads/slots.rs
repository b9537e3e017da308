//! Slots of reads that take long: a few run at a time, so that heartbeats, elections and short calls get their turn on
//! the runtime's threads, and each tenant gets its share of them.
//!
//! # Invariants
//!
//! 1. At most [`SLOTS`] slots are taken, and [`TENANT_SLOTS_MAX`] by one tenant.
//! 2. Tenants that wait take turns; the calls of one tenant are served in their order.
//!
//! The number of calls that wait is bounded by their tenants' operations in flight.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use stead_types::TenantNumber;
use tokio::sync::oneshot;

/// Most long reads of a node at a time.
const SLOTS: usize = 4;
/// Most of one tenant.
const TENANT_SLOTS_MAX: usize = 3;

/// The slots of a node.
#[derive(Debug, Default)]
pub(super) struct ReadSlots(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    taken: BTreeMap<TenantNumber, usize>,
    /// Calls that wait, of the tenant whose turn is next first.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    tenant: TenantNumber,
    calls: VecDeque<oneshot::Sender<ReadSlot>>,
}

/// A slot, free again when it is dropped.
#[derive(Debug)]
pub(super) struct ReadSlot {
    tenant: TenantNumber,
    /// `None` if it was never handed out.
    slots: Option<Arc<ReadSlots>>,
}

impl ReadSlots {
    /// Waits for a slot.
    pub(super) async fn acquire(self: &Arc<Self>, tenant: TenantNumber) -> ReadSlot {
        loop {
            let waiting = {
                let mut slots = self.0.lock();
                if slots.has_room(tenant) {
                    slots.take(tenant);
                    return self.slot(tenant);
                }
                let (call, waiting) = oneshot::channel();
                slots.wait(tenant, call);
                waiting
            };
            if let Ok(slot) = waiting.await {
                return slot;
            }
        }
    }

    fn slot(self: &Arc<Self>, tenant: TenantNumber) -> ReadSlot {
        ReadSlot {
            tenant,
            slots: Some(self.clone()),
        }
    }

    /// Frees a slot, and hands out what is free.
    fn release(self: &Arc<Self>, tenant: TenantNumber) {
        let mut slots = self.0.lock();
        slots.free(tenant);
        while let Some((tenant, call)) = slots.next() {
            slots.take(tenant);
            if let Err(mut unused) = call.send(self.slot(tenant)) {
                unused.slots = None;
                slots.free(tenant);
            }
        }
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

    fn wait(&mut self, tenant: TenantNumber, call: oneshot::Sender<ReadSlot>) {
        match self.waiting.iter_mut().find(|waiting| waiting.tenant == tenant) {
            Some(waiting) => waiting.calls.push_back(call),
            None => self.waiting.push_back(Waiting {
                tenant,
                calls: VecDeque::from([call]),
            }),
        }
    }

    /// Takes the next call that may run, of the tenant whose turn it is.
    fn next(&mut self) -> Option<(TenantNumber, oneshot::Sender<ReadSlot>)> {
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

impl Drop for ReadSlot {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.release(self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LOUD: TenantNumber = TenantNumber::new(1);
    const QUIET: TenantNumber = TenantNumber::new(2);

    /// Invariant 1.
    #[tokio::test]
    async fn loud_tenant_leaves_slots_to_others() {
        let slots = Arc::new(ReadSlots::default());
        let loud: Vec<_> = std::iter::from_fn(|| slots.acquire(LOUD).now_or_never()).collect();
        assert_eq!(loud.len(), TENANT_SLOTS_MAX);
        let quiet: Vec<_> = std::iter::from_fn(|| slots.acquire(QUIET).now_or_never()).collect();
        assert_eq!(quiet.len(), SLOTS - TENANT_SLOTS_MAX);
    }

    /// Invariant 2.
    #[tokio::test]
    async fn waiting_tenants_take_turns() {
        let slots = Arc::new(ReadSlots::default());
        let mut taken: Vec<_> = std::iter::from_fn(|| slots.acquire(LOUD).now_or_never()).collect();
        taken.extend(std::iter::from_fn(|| slots.acquire(QUIET).now_or_never()));
        let mut loud: Vec<_> = (0..20).map(|_| Box::pin(slots.acquire(LOUD))).collect();
        assert!(loud.iter_mut().all(|call| call.now_or_never().is_none()));
        let mut quiet = Box::pin(slots.acquire(QUIET));
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
        let again = slots.acquire(LOUD).now_or_never();
        assert!(again.is_some());
        drop(again);
        assert!(slots.0.lock().taken.is_empty(), "every slot is free again");
    }
}
