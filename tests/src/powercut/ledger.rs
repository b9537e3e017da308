//! Ledger of writes and their outcomes, compared with the changes that are found after a power cut.
//!
//! # Invariants
//!
//! 1. An acknowledged write is found once, at its revision.
//! 2. A write of unknown outcome is found at most once, at any time; one that was refused is never found.
//! 3. No change is found that was never written.
//! 4. The state of each key is its last change found.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_client::Revision;

/// Write of a value that is written once, to one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueWrite {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// Outcome of a write, as its writer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was acknowledged, with this revision.
    Acknowledged(Revision),
    /// It may have happened, or may yet.
    Unknown,
    /// It has not happened and never will.
    Refused,
}

/// Change that was found after the power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedChange {
    /// Its revision.
    pub revision: Revision,
    /// Its key and value.
    pub write: UniqueWrite,
}

/// Violation of one of the invariants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerViolation {
    /// An acknowledged write is lost.
    Lost(UniqueWrite, Revision),
    /// An acknowledged write is at another revision than in its response.
    Moved(UniqueWrite, Revision, Revision),
    /// A change of a write that was refused, that was found before, or that was never sent.
    Unexpected(ObservedChange),
    /// Two changes have one revision, or they are out of order.
    Order(Revision, Revision),
    /// A key does not have the state of its last change.
    State(Bytes),
}

/// Ledger of writes. Only writes that are not verified yet are kept one by one.
#[derive(Debug, Default)]
pub struct WriteLedger {
    /// Acknowledged and not verified yet.
    acknowledged: BTreeMap<UniqueWrite, Revision>,
    unknown: BTreeMap<UniqueWrite, ()>,
    /// The last change of each key.
    state: BTreeMap<Bytes, ObservedChange>,
    /// The last change that was checked.
    last: Option<Revision>,
    verified: u64,
}

impl WriteLedger {
    /// Records the outcome of a write.
    pub fn record(&mut self, write: UniqueWrite, outcome: WriteOutcome) {
        match outcome {
            WriteOutcome::Acknowledged(revision) => drop(self.acknowledged.insert(write, revision)),
            WriteOutcome::Unknown => drop(self.unknown.insert(write, ())),
            WriteOutcome::Refused => {}
        }
    }

    /// Returns how many acknowledged writes were found.
    pub fn verified(&self) -> u64 {
        self.verified
    }

    /// Returns the last change that was checked: the next ones are those after it.
    pub fn last(&self) -> Option<Revision> {
        self.last
    }

    /// Returns the last change of each key.
    pub fn state(&self) -> &BTreeMap<Bytes, ObservedChange> {
        &self.state
    }

    /// Checks acknowledged writes against the changes found after [`WriteLedger::last`], and returns the violations.
    pub fn check_changes(&mut self, found: Vec<ObservedChange>) -> Vec<LedgerViolation> {
        let mut violations = Vec::new();
        for change in found {
            if let Some(last) = self.last.filter(|last| change.revision <= *last) {
                violations.push(LedgerViolation::Order(last, change.revision));
            }
            self.last = Some(change.revision);
            let known = self.acknowledged.remove(&change.write);
            if known.is_some() {
                self.verified += 1;
            }
            match known {
                Some(expected) if expected == change.revision => {}
                Some(expected) => {
                    violations.push(LedgerViolation::Moved(change.write.clone(), expected, change.revision))
                }
                None if self.unknown.remove(&change.write).is_some() => {}
                None => violations.push(LedgerViolation::Unexpected(change.clone())),
            }
            self.state.insert(change.write.key.clone(), change);
        }
        let lost = std::mem::take(&mut self.acknowledged);
        violations.extend(
            lost.into_iter()
                .map(|(write, expected)| LedgerViolation::Lost(write, expected)),
        );
        violations
    }

    /// Compares a state that was read with the changes found so far.
    pub fn check_state(&self, state: &BTreeMap<Bytes, (Bytes, Revision)>) -> Vec<LedgerViolation> {
        let keys: std::collections::BTreeSet<&Bytes> = self.state.keys().chain(state.keys()).collect();
        let differing = keys.into_iter().filter(|key| {
            let expected = self.state.get(*key).map(|found| (&found.write.value, found.revision));
            expected != state.get(*key).map(|(value, revision)| (value, *revision))
        });
        differing.map(|key| LedgerViolation::State(key.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &'static str, value: &'static str) -> UniqueWrite {
        UniqueWrite {
            key: key.into(),
            value: value.into(),
        }
    }

    fn found(revision: u64, key: &'static str, value: &'static str) -> ObservedChange {
        ObservedChange {
            revision: Revision::from_u64(revision),
            write: write(key, value),
        }
    }

    fn acknowledged(revision: u64) -> WriteOutcome {
        WriteOutcome::Acknowledged(Revision::from_u64(revision))
    }

    #[test]
    fn ledger_accepts_acknowledged_and_unknown_writes() {
        let mut ledger = WriteLedger::default();
        ledger.record(write("a", "1"), acknowledged(1));
        ledger.record(write("b", "2"), WriteOutcome::Unknown);
        ledger.record(write("b", "3"), WriteOutcome::Refused);
        assert_eq!(ledger.check_changes(vec![found(1, "a", "1")]), []);
        // Invariant 2: it may happen later, but once.
        assert_eq!(ledger.check_changes(vec![found(2, "b", "2")]), []);
        assert_eq!(ledger.verified(), 1);
        let again = found(3, "b", "2");
        assert_eq!(
            ledger.check_changes(vec![again.clone()]),
            [LedgerViolation::Unexpected(again)]
        );
    }

    #[test]
    fn ledger_reports_lost_moved_and_unwritten_changes() {
        // Invariants 1 to 3.
        let mut ledger = WriteLedger::default();
        ledger.record(write("a", "1"), acknowledged(1));
        ledger.record(write("a", "2"), acknowledged(2));
        ledger.record(write("a", "3"), WriteOutcome::Refused);
        let violations = ledger.check_changes(vec![found(3, "a", "2"), found(3, "a", "3")]);
        let (two, three) = (Revision::from_u64(2), Revision::from_u64(3));
        let expected = [
            LedgerViolation::Moved(write("a", "2"), two, three),
            LedgerViolation::Order(three, three),
            LedgerViolation::Unexpected(found(3, "a", "3")),
            LedgerViolation::Lost(write("a", "1"), Revision::from_u64(1)),
        ];
        assert_eq!(violations, expected);
    }

    #[test]
    fn ledger_reports_state_differing_from_last_changes() {
        // Invariant 4.
        let mut ledger = WriteLedger::default();
        ledger.record(write("a", "1"), acknowledged(1));
        ledger.record(write("a", "2"), acknowledged(2));
        assert_eq!(ledger.check_changes(vec![found(1, "a", "1"), found(2, "a", "2")]), []);
        let state = |value: &'static str, revision| {
            BTreeMap::from([(Bytes::from("a"), (Bytes::from(value), Revision::from_u64(revision)))])
        };
        assert_eq!(ledger.check_state(&state("2", 2)), []);
        assert_eq!(ledger.check_state(&state("1", 1)), [LedgerViolation::State("a".into())]);
        assert_eq!(
            ledger.check_state(&BTreeMap::new()),
            [LedgerViolation::State("a".into())]
        );
    }
}
