//! Projection of a history to one register per key, which is all that linearizability needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::{Call, Item, NEVER, Operation};

/// Action of an event on its register. A value is the position of its write in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wrote this value.
    Write(usize),
    /// Removed the value.
    Clear,
    /// Returned this value, or none.
    Read(Option<usize>),
}

/// Part of an operation that concerns one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Position of the operation in its history.
    pub operation: usize,
    /// Instant at which it was sent.
    pub invoked: u64,
    /// Instant of its response; [`NEVER`] if there was none.
    pub returned: u64,
    /// Its action.
    pub action: Action,
}

/// The registers of a history, with their events in the order of invocation.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    /// Events by key.
    pub by_key: BTreeMap<Bytes, Vec<Event>>,
    /// Reads of a value that was never written to that key: position of the read, and the key.
    pub garbage_reads: Vec<(usize, Bytes)>,
}

impl Registers {
    /// Returns the registers of writes and linearizable reads; reads without a response constrain nothing.
    pub(super) fn new(operations: &[Operation]) -> Self {
        let mut this = Self::default();
        let writes = this.writes(operations);
        let keys: BTreeSet<Bytes> = operations.iter().filter_map(key).collect();
        for (index, operation) in operations.iter().enumerate() {
            this.add(index, operation, &writes, &keys);
        }
        this
    }

    /// Returns which operation wrote which value to which key.
    fn writes(&self, operations: &[Operation]) -> HashMap<(Bytes, Bytes), usize> {
        let mut writes = HashMap::new();
        for (index, operation) in operations.iter().enumerate() {
            if let Call::Put { key, value } = &operation.call {
                let repeated = writes.insert((key.clone(), value.clone()), index);
                assert!(
                    repeated.is_none(),
                    "value {value:?} of {key:?} was written twice, by this test"
                );
            }
        }
        writes
    }

    fn add(
        &mut self,
        index: usize,
        operation: &Operation,
        writes: &HashMap<(Bytes, Bytes), usize>,
        keys: &BTreeSet<Bytes>,
    ) {
        let returned = operation.returned();
        let event = |action| Event {
            operation: index,
            invoked: operation.invoked,
            returned,
            action,
        };
        match (&operation.call, &operation.response) {
            (Call::Put { key, .. }, _) => self.push(key, event(Action::Write(index))),
            (Call::Delete { key }, Some(response)) if !response.changed => self.push(key, event(Action::Read(None))),
            (Call::Delete { key }, _) => self.push(key, event(Action::Clear)),
            (Call::Get { .. } | Call::Scan { .. }, Some(response)) if operation.call.is_linearizable() => {
                let seen: HashMap<&Bytes, &Item> = response.items.iter().map(|item| (&item.key, item)).collect();
                for item in &response.items {
                    if !writes.contains_key(&(item.key.clone(), item.value.clone())) {
                        self.garbage_reads.push((index, item.key.clone()));
                    }
                }
                for key in keys.iter().filter(|key| operation.call.touches(key)) {
                    let value = seen
                        .get(key)
                        .map(|item| writes.get(&(key.clone(), item.value.clone())).copied());
                    match value {
                        Some(None) => {}
                        Some(Some(write)) => self.push(key, event(Action::Read(Some(write)))),
                        None => self.push(key, event(Action::Read(None))),
                    }
                }
            }
            (Call::Get { .. } | Call::Scan { .. }, _) => {}
        }
    }

    fn push(&mut self, key: &Bytes, event: Event) {
        self.by_key.entry(key.clone()).or_default().push(event);
    }
}

fn key(operation: &Operation) -> Option<Bytes> {
    match &operation.call {
        Call::Put { key, .. } | Call::Delete { key } | Call::Get { key, .. } => Some(key.clone()),
        Call::Scan { .. } => None,
    }
}

impl Event {
    /// Whether its response never came.
    pub fn is_open(&self) -> bool {
        self.returned == NEVER
    }
}
