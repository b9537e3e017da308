//! Checker of revisions: they must be an order that explains every response. A second linearizability check,
//! independent of [`super::linearizability`].
//!
//! # Invariants
//!
//! 1. A revision belongs to one change.
//! 2. An operation that is sent after another returned has a higher revision if it is a change, and at least the same
//!    if it is a linearizable read.
//! 3. A read, of whatever level, shows the state of its revision: for each key the last change at or below it.
//!
//! A history that passes is linearizable: order it by revision, a change before the reads of its revision. The reverse
//! does not hold, a server may give the right responses and the wrong revisions.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use stead_types::Revision;

use super::Violation;
use crate::history::{Call, History, NEVER, Operation, Response};

/// Finds responses that the revisions do not explain.
pub fn check(history: &History) -> Vec<Violation> {
    let (changes, mut violations) = Changes::new(history);
    violations.extend(changes.order(history));
    for (index, operation) in history.operations().iter().enumerate() {
        violations.extend(changes.state(history, index, operation));
    }
    violations
}

/// Index of the known changes: those that were acknowledged, and those that a read has shown.
#[derive(Default)]
pub(super) struct Changes {
    /// Which operation made the change.
    pub(super) by_revision: BTreeMap<Revision, usize>,
    /// The changes of each key; `true` for one that removed it.
    pub(super) by_key: HashMap<Bytes, BTreeMap<Revision, bool>>,
    /// The revision of each operation that made a change, if a response or a read names it.
    pub(super) of_operation: HashMap<usize, Revision>,
    /// The writes by key and value.
    pub(super) writes: HashMap<(Bytes, Bytes), usize>,
    /// Invocations of each key's puts of unknown outcome, in order.
    pub(super) open_puts: HashMap<Bytes, Vec<u64>>,
    /// Invocation of each key's first delete without a response.
    open_deletes: HashMap<Bytes, u64>,
}

impl Changes {
    pub(super) fn new(history: &History) -> (Self, Vec<Violation>) {
        let mut this = Self::default();
        let mut violations = Vec::new();
        for (index, operation) in history.operations().iter().enumerate() {
            let (key, removed) = match &operation.call {
                Call::Put { key, value } => {
                    this.writes.insert((key.clone(), value.clone()), index);
                    (key, false)
                }
                Call::Delete { key } => (key, true),
                Call::Get { .. } | Call::Scan { .. } => continue,
            };
            if let Some(response) = operation.response.as_ref().filter(|response| response.changed) {
                violations.extend(this.add(key, response.revision, index, removed));
            }
        }
        for operation in history.operations() {
            for item in operation.response.iter().flat_map(|response| &response.items) {
                let write = this.writes.get(&(item.key.clone(), item.value.clone())).copied();
                if let Some(write) = write.filter(|write| !this.of_operation.contains_key(write)) {
                    violations.extend(this.add(&item.key, item.modified, write, false));
                }
            }
        }
        this.note_open(history);
        (this, violations)
    }

    fn note_open(&mut self, history: &History) {
        for (index, operation) in history.operations().iter().enumerate() {
            match &operation.call {
                Call::Put { key, .. } if !self.of_operation.contains_key(&index) => {
                    self.open_puts.entry(key.clone()).or_default().push(operation.invoked);
                }
                Call::Delete { key } if operation.response.is_none() => {
                    self.open_deletes.entry(key.clone()).or_insert(operation.invoked);
                }
                Call::Put { .. } | Call::Delete { .. } | Call::Get { .. } | Call::Scan { .. } => {}
            }
        }
    }

    fn add(&mut self, key: &Bytes, revision: Revision, operation: usize, removed: bool) -> Option<Violation> {
        self.of_operation.insert(operation, revision);
        self.by_key.entry(key.clone()).or_default().insert(revision, removed);
        let one = self.by_revision.insert(revision, operation)?;
        Some(Violation::DuplicateRevision { one, other: operation })
    }

    /// Compares revisions with real time (invariant 2).
    fn order(&self, history: &History) -> Vec<Violation> {
        let operations = history.operations();
        let mut violations = Vec::new();
        let revision_of = |index: usize| {
            let from_response = operations[index].response.as_ref().map(|response| response.revision);
            self.of_operation.get(&index).copied().or(from_response)
        };
        let mut returns: Vec<usize> = (0..operations.len())
            .filter(|index| operations[*index].call.is_linearizable() && operations[*index].returned() != NEVER)
            .collect();
        returns.sort_by_key(|index| operations[*index].returned());
        let mut returns = returns.into_iter().peekable();
        let mut highest: Option<(Revision, usize)> = None;
        for (index, operation) in operations.iter().enumerate() {
            while let Some(earlier) = returns.next_if(|earlier| operations[*earlier].returned() < operation.invoked) {
                let revision = revision_of(earlier).expect("it returned");
                highest = highest.max(Some((revision, earlier)));
            }
            let (Some(revision), Some((before, earlier))) = (revision_of(index), highest) else {
                continue;
            };
            let is_change = self.of_operation.contains_key(&index);
            if operation.call.is_linearizable() && (revision < before || (is_change && revision == before)) {
                violations.push(Violation::RevisionRegression { earlier, later: index });
            }
        }
        violations
    }

    /// Compares the items of one read with the state of its revision (invariant 3).
    fn state(&self, history: &History, index: usize, operation: &Operation) -> Vec<Violation> {
        let Some(response) = operation.response.as_ref().filter(|response| !response.changed) else {
            return Vec::new();
        };
        let mut violations = Vec::new();
        for item in &response.items {
            let write = self.writes.get(&(item.key.clone(), item.value.clone())).copied();
            let known = write.and_then(|write| self.of_operation.get(&write));
            let last = self.last(&item.key, response.revision).map(|(revision, _)| revision);
            if known != Some(&item.modified) || last != Some(item.modified) {
                violations.push(Violation::WrongSnapshot {
                    read: index,
                    key: item.key.clone(),
                });
            }
            if let Some(write) = write.filter(|write| operation.is_before(&history.operations()[*write])) {
                violations.push(Violation::FutureRead { read: index, write });
            }
        }
        let missing = self.missing(operation, response).into_iter();
        violations.extend(missing.map(|key| Violation::WrongSnapshot {
            read: index,
            key: key.clone(),
        }));
        violations
    }

    /// Returns the keys that the state of the response's revision has and the response does not show.
    fn missing(&self, operation: &Operation, response: &Response) -> Vec<&Bytes> {
        let mut missing: Vec<&Bytes> = match &operation.call {
            Call::Put { .. } => Vec::new(),
            Call::Delete { key } | Call::Get { key, .. } => {
                self.by_key.get_key_value(key).map(|(key, _)| key).into_iter().collect()
            }
            Call::Scan { prefix, .. } => self.by_key.keys().filter(|key| key.starts_with(prefix)).collect(),
        };
        let shown: HashSet<&Bytes> = response.items.iter().map(|item| &item.key).collect();
        missing.retain(|key| {
            let is_there = self.last(key, response.revision).is_some_and(|(_, removed)| !removed);
            // A delete without a response, whose revision is not known, may have removed it.
            let may_be_gone = self
                .open_deletes
                .get(*key)
                .is_some_and(|sent| *sent < response.returned);
            is_there && !shown.contains(*key) && !may_be_gone
        });
        missing
    }

    fn last(&self, key: &Bytes, at: Revision) -> Option<(Revision, bool)> {
        let (revision, removed) = self.by_key.get(key)?.range(..=at).next_back()?;
        Some((*revision, *removed))
    }
}

#[cfg(test)]
#[path = "revisions_test.rs"]
mod tests;
