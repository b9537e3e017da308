//! Digests of a machine's state at the same entries in all replicas of a group, so that replicas that differ are found.
//!
//! # Invariants
//!
//! 1. What is taken at an entry depends on the log alone: two replicas that both have a digest of one entry took it of the
//!    same part of the state. A replica that has just opened or installed its state leaves one out, but takes none that
//!    another one would not.
//! 2. One digest looks at [`TENANTS_MAX`] tenants or little more, however many there are; all have had their turn after
//!    as many digests as there are parts.

use std::collections::VecDeque;

/// Logged time between two digests, in milliseconds.
pub const INTERVAL_MS: u64 = 10_000;

/// Digests that are kept: others ask for those of a moment ago.
const KEPT_MAX: usize = 8;

/// Tenants that one digest looks at, so that applying does not wait long.
const TENANTS_MAX: usize = 2048;

/// The digest of a part of a machine's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// The entry after which it was taken.
    pub index: u64,
    /// The digest.
    pub digest: u128,
}

/// A part of the tenants: those whose number leaves this remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    remainder: u64,
    parts: u64,
}

impl Part {
    /// Tells whether a number is in it.
    pub fn has(self, number: u64) -> bool {
        number % self.parts == self.remainder
    }
}

/// The last digests of one replica, and when the next one is due.
#[derive(Debug, Default)]
pub struct Digests {
    /// Of the last entry that had a time.
    round: Option<u64>,
    kept: VecDeque<StateDigest>,
}

impl Digests {
    /// Notes an entry of this logged time, which was applied to a state of so many tenants. Returns the part whose digest is
    /// to be taken after it.
    pub fn due(&mut self, time_ms: u64, tenants: usize) -> Option<Part> {
        let round = time_ms / INTERVAL_MS;
        let before = self.round.replace(round)?;
        let parts = tenants.div_ceil(TENANTS_MAX).max(1) as u64;
        let remainder = round % parts;
        (before < round).then_some(Part { remainder, parts })
    }

    /// Keeps a digest that was taken.
    pub fn keep(&mut self, taken: StateDigest) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(taken);
    }

    /// Returns those that are kept, in the order of their entries.
    pub fn kept(&self) -> Vec<StateDigest> {
        self.kept.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_take_digests_after_the_same_entries() {
        // Invariant 1: the second one has opened in the middle.
        let times = [5_000, 9_999, 10_000, 19_000, 35_000, 35_001, 41_000];
        let taken = |from: usize| -> Vec<usize> {
            let mut digests = Digests::default();
            let due = |(index, time): (usize, &u64)| digests.due(*time, 3).map(|_| index);
            times.iter().enumerate().skip(from).filter_map(due).collect()
        };
        assert_eq!(taken(0), [2, 4, 6]);
        for from in 0..times.len() {
            let all = taken(0);
            assert!(taken(from).iter().all(|index| all.contains(index)));
        }
        assert_eq!(taken(2), [4, 6], "it does not know whether the first one was due");
    }

    #[test]
    fn every_tenant_has_its_turn() {
        // Invariant 2.
        let tenants = 5 * TENANTS_MAX;
        let mut digests = Digests::default();
        digests.due(0, tenants);
        let mut seen = vec![0; tenants];
        for round in 1..=5 {
            let part = digests.due(round * INTERVAL_MS, tenants).unwrap();
            let of_part = (0..tenants).filter(|number| part.has(*number as u64));
            let mut len = 0;
            of_part.for_each(|number| {
                seen[number] += 1;
                len += 1;
            });
            assert_eq!(len, TENANTS_MAX);
        }
        assert!(seen.into_iter().all(|times| times == 1));
    }

    #[test]
    fn only_the_last_digests_are_kept() {
        let mut digests = Digests::default();
        (0..20).for_each(|index| digests.keep(StateDigest { index, digest: 7 }));
        let kept: Vec<u64> = digests.kept().iter().map(|digest| digest.index).collect();
        assert_eq!(kept, (12..20).collect::<Vec<_>>());
    }
}
