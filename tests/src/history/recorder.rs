//! Writes histories down while clients run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use stead_types::Revision;

use super::{Answer, Call, History, Item, Operation};

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

/// A call that has been sent. Dropped without a word, it stays open for ever.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    recorder: Recorder,
    tenant: String,
    number: u64,
}

impl Recorder {
    /// Notes that a session sends a call.
    pub fn invoke(&self, tenant: &str, session: u32, call: Call) -> Ticket {
        let mut inner = self.lock();
        let number = inner.tick();
        let operation = Operation {
            session,
            invoked: number,
            call,
            answer: None,
        };
        inner
            .tenants
            .entry(tenant.to_owned())
            .or_default()
            .insert(number, operation);
        Ticket {
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

impl Ticket {
    /// Notes the answer to a write.
    pub fn wrote(self, revision: Revision, changed: bool) {
        self.answered(revision, changed, Vec::new());
    }

    /// Notes the answer to a read.
    pub fn read(self, revision: Revision, items: Vec<Item>) {
        self.answered(revision, false, items);
    }

    /// Notes that the call has certainly had no effect: it is forgotten.
    pub fn had_no_effect(self) {
        let mut inner = self.recorder.lock();
        if let Some(operations) = inner.tenants.get_mut(&self.tenant) {
            operations.remove(&self.number);
        }
    }

    fn answered(self, revision: Revision, changed: bool, items: Vec<Item>) {
        let mut inner = self.recorder.lock();
        let returned = inner.tick();
        let operation = inner
            .tenants
            .get_mut(&self.tenant)
            .and_then(|operations| operations.get_mut(&self.number));
        let operation = operation.expect("the ticket's call was recorded");
        operation.answer = Some(Answer {
            returned,
            revision,
            changed,
            items,
        });
    }
}
