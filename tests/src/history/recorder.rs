//! Recorder of histories while clients run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use stead_types::Revision;

use super::{Call, History, Item, Operation, Response};

/// Records the calls of many clients to many tenants. Its clock counts invocations and returns, so no two are at the
/// same instant.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    clock: u64,
    tenants: BTreeMap<String, BTreeMap<u64, Operation>>,
}

/// Call that has been sent and has no response yet. If it is dropped, the call stays open for ever.
#[derive(Debug)]
#[must_use]
pub struct PendingCall {
    recorder: Recorder,
    tenant: String,
    number: u64,
}

impl Recorder {
    /// Records that a session sends a call.
    pub fn invoke(&self, tenant: &str, session: u32, call: Call) -> PendingCall {
        let mut inner = self.lock();
        let number = inner.tick();
        let operation = Operation {
            session,
            invoked: number,
            call,
            response: None,
        };
        inner
            .tenants
            .entry(tenant.to_owned())
            .or_default()
            .insert(number, operation);
        PendingCall {
            recorder: self.clone(),
            tenant: tenant.to_owned(),
            number,
        }
    }

    /// Returns the history of each tenant.
    pub fn histories(&self) -> BTreeMap<String, History> {
        let of = |operations: &BTreeMap<u64, Operation>| History::new(operations.values().cloned().collect());
        self.lock()
            .tenants
            .iter()
            .map(|(tenant, operations)| (tenant.clone(), of(operations)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl PendingCall {
    /// Records the response to a write.
    pub fn complete_write(self, revision: Revision, changed: bool) {
        self.complete(revision, changed, Vec::new());
    }

    /// Records the response to a read.
    pub fn complete_read(self, revision: Revision, items: Vec<Item>) {
        self.complete(revision, false, items);
    }

    /// Removes the call from the history, because it certainly had no effect.
    pub fn discard(self) {
        let mut inner = self.recorder.lock();
        if let Some(operations) = inner.tenants.get_mut(&self.tenant) {
            operations.remove(&self.number);
        }
    }

    fn complete(self, revision: Revision, changed: bool, items: Vec<Item>) {
        let mut inner = self.recorder.lock();
        let returned = inner.tick();
        let operation = inner
            .tenants
            .get_mut(&self.tenant)
            .and_then(|operations| operations.get_mut(&self.number));
        let operation = operation.expect("the pending call was recorded");
        operation.response = Some(Response {
            returned,
            revision,
            changed,
            items,
        });
    }
}
