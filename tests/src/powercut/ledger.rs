//! What writers were told, held against what is found afterwards.
//!
//! # Invariants
//!
//! 1. An acknowledged write is found once, at its revision.
//! 2. A write of unknown outcome is found at most once, at any time; one that was refused is never found.
//! 3. Nothing is found that nobody wrote.
//! 4. Of each key the last change found is its state.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_client::Revision;

/// A value that is written once, to one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// What a writer knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged, with this revision.
    Acknowledged(Revision),
    /// It may have happened, or may yet.
    Unknown,
    /// It has not happened and never will.
    Refused,
}

/// A change that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its revision.
    pub revision: Revision,
    /// What it wrote.
    pub write: Write,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged write is gone.
    Lost(Write, Revision),
    /// It is at another revision than its writer was told.
    Moved(Write, Revision, Revision),
    /// A write that was refused, or that was found before, or that nobody made.
    Unexpected(Found),
    /// Two changes have one revision, or they are out of order.
    Order(Revision, Revision),
    /// A key is not in the state that its last change made.
    State(Bytes),
}

/// What writers were told and what was found of it. Only what is not settled is kept one by one.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged and not looked for yet.
    acknowledged: BTreeMap<Write, Revision>,
    unknown: BTreeMap<Write, ()>,
    /// The last change of each key.
    state: BTreeMap<Bytes, Found>,
    /// The last change that was looked at.
    last: Option<Revision>,
    settled: u64,
}

impl Ledger {
    /// Notes what a writer was told.
    pub fn note(&mut self, write: Write, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged(revision) => drop(self.acknowledged.insert(write, revision)),
            Outcome::Unknown => drop(self.unknown.insert(write, ())),
            Outcome::Refused => {}
        }
    }

    /// Returns how many acknowledged writes were found.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Returns the last change that was looked at: the next ones are those behind it.
    pub fn last(&self) -> Option<Revision> {
        self.last
    }

    /// Returns the last change of each key.
    pub fn state(&self) -> &BTreeMap<Bytes, Found> {
        &self.state
    }

    /// Settles what was acknowledged by the changes found behind [`Ledger::last`], and returns what must not be.
    pub fn settle(&mut self, found: Vec<Found>) -> Vec<Violation> {
        let mut violations = Vec::new();
        for change in found {
            if let Some(last) = self.last.filter(|last| change.revision <= *last) {
                violations.push(Violation::Order(last, change.revision));
            }
            self.last = Some(change.revision);
            let known = self.acknowledged.remove(&change.write);
            if known.is_some() {
                self.settled += 1;
            }
            match known {
                Some(told) if told == change.revision => {}
                Some(told) => violations.push(Violation::Moved(change.write.clone(), told, change.revision)),
                None if self.unknown.remove(&change.write).is_some() => {}
                None => violations.push(Violation::Unexpected(change.clone())),
            }
            self.state.insert(change.write.key.clone(), change);
        }
        let lost = std::mem::take(&mut self.acknowledged);
        violations.extend(lost.into_iter().map(|(write, told)| Violation::Lost(write, told)));
        violations
    }

    /// Holds a state that was read against the changes found so far.
    pub fn compare(&self, state: &BTreeMap<Bytes, (Bytes, Revision)>) -> Vec<Violation> {
        let keys: std::collections::BTreeSet<&Bytes> = self.state.keys().chain(state.keys()).collect();
        let differing = keys.into_iter().filter(|key| {
            let expected = self.state.get(*key).map(|found| (&found.write.value, found.revision));
            expected != state.get(*key).map(|(value, revision)| (value, *revision))
        });
        differing.map(|key| Violation::State(key.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &'static str, value: &'static str) -> Write {
        Write {
            key: key.into(),
            value: value.into(),
        }
    }

    fn found(revision: u64, key: &'static str, value: &'static str) -> Found {
        Found {
            revision: Revision::from_u64(revision),
            write: write(key, value),
        }
    }

    fn told(revision: u64) -> Outcome {
        Outcome::Acknowledged(Revision::from_u64(revision))
    }

    #[test]
    fn ledger_takes_what_was_acknowledged_and_what_may_have_happened() {
        let mut ledger = Ledger::default();
        ledger.note(write("a", "1"), told(1));
        ledger.note(write("b", "2"), Outcome::Unknown);
        ledger.note(write("b", "3"), Outcome::Refused);
        assert_eq!(ledger.settle(vec![found(1, "a", "1")]), []);
        // Invariant 2: it may happen later, but once.
        assert_eq!(ledger.settle(vec![found(2, "b", "2")]), []);
        assert_eq!(ledger.settled(), 1);
        let again = found(3, "b", "2");
        assert_eq!(ledger.settle(vec![again.clone()]), [Violation::Unexpected(again)]);
    }

    #[test]
    fn ledger_tells_lost_moved_and_invented_writes() {
        // Invariants 1 to 3.
        let mut ledger = Ledger::default();
        ledger.note(write("a", "1"), told(1));
        ledger.note(write("a", "2"), told(2));
        ledger.note(write("a", "3"), Outcome::Refused);
        let violations = ledger.settle(vec![found(3, "a", "2"), found(3, "a", "3")]);
        let (two, three) = (Revision::from_u64(2), Revision::from_u64(3));
        let expected = [
            Violation::Moved(write("a", "2"), two, three),
            Violation::Order(three, three),
            Violation::Unexpected(found(3, "a", "3")),
            Violation::Lost(write("a", "1"), Revision::from_u64(1)),
        ];
        assert_eq!(violations, expected);
    }

    #[test]
    fn ledger_compares_a_state_with_the_last_changes() {
        // Invariant 4.
        let mut ledger = Ledger::default();
        ledger.note(write("a", "1"), told(1));
        ledger.note(write("a", "2"), told(2));
        assert_eq!(ledger.settle(vec![found(1, "a", "1"), found(2, "a", "2")]), []);
        let state = |value: &'static str, revision| {
            BTreeMap::from([(Bytes::from("a"), (Bytes::from(value), Revision::from_u64(revision)))])
        };
        assert_eq!(ledger.compare(&state("2", 2)), []);
        assert_eq!(ledger.compare(&state("1", 1)), [Violation::State("a".into())]);
        assert_eq!(ledger.compare(&BTreeMap::new()), [Violation::State("a".into())]);
    }
}
