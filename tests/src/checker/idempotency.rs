//! Checker of idempotency: no write is applied twice, however often it was sent.
//!
//! # Invariants
//!
//! 1. A value has one revision: the one in its write's response, and the one with which every read shows it.
//! 2. A key's version counts its changes since it was created. The known changes are a lower bound; together with the
//!    open writes that no read has shown they are an upper bound.

use super::{Violation, revisions::Changes};
use crate::history::{History, Item};

/// Finds writes that were applied twice.
pub fn check(history: &History) -> Vec<Violation> {
    let (changes, _) = Changes::new(history);
    let mut violations = Vec::new();
    for (index, operation) in history.operations().iter().enumerate() {
        for item in operation.response.iter().flat_map(|response| &response.items) {
            let Some(&write) = changes.writes.get(&(item.key.clone(), item.value.clone())) else {
                continue;
            };
            if changes.of_operation.get(&write) != Some(&item.modified) {
                violations.push(Violation::DuplicateApply { write, seen: index });
            }
            if !is_explained(&changes, item, operation.returned()) {
                violations.push(Violation::WrongVersion {
                    read: index,
                    key: item.key.clone(),
                });
            }
        }
    }
    violations
}

fn is_explained(changes: &Changes, item: &Item, seen: u64) -> bool {
    let Some(of_key) = changes.by_key.get(&item.key).filter(|_| item.created <= item.modified) else {
        return false;
    };
    let since = of_key.range(item.created..=item.modified);
    if since.clone().any(|(_, removed)| *removed) {
        return false;
    }
    let known = since.count() as u64;
    let open = changes
        .open_puts
        .get(&item.key)
        .map_or(0, |sent| sent.partition_point(|sent| *sent < seen)) as u64;
    (known..=known + open).contains(&item.version)
}

#[cfg(test)]
#[path = "idempotency_test.rs"]
mod tests;
