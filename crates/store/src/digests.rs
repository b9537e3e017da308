//! Digests of a machine's state after the same entries in all replicas of a group, so that diverged replicas are found.
//!
//! # Invariants
//!
//! 1. The digest taken after an entry depends on the log alone: two replicas that both have a digest of one entry took
//!    it of the same partition of the tenants. A replica that has just opened or installed its state leaves one out,
//!    but takes none that another one would not.
//! 2. One digest covers [`TENANTS_MAX`] tenants or little more, however many there are; all are covered after as many
//!    digests as there are partitions.

use std::collections::VecDeque;

/// Logged time between two digests, in milliseconds.
pub const INTERVAL_MS: u64 = 10_000;

/// Most digests that are kept: other voters ask for recent ones.
const DIGESTS_KEPT_MAX: usize = 8;

/// Tenants that one digest covers, so that applying does not wait long.
const TENANTS_MAX: usize = 2048;

/// Digest of one partition of a machine's tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// The entry after which it was taken.
    pub index: u64,
    /// The digest.
    pub digest: u128,
}

/// Partition of the tenants: those whose number has this remainder modulo the number of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPartition {
    remainder: u64,
    parts: u64,
}

impl TenantPartition {
    /// Tells whether the partition contains a tenant number.
    pub fn contains(self, number: u64) -> bool {
        number % self.parts == self.remainder
    }
}

/// Recent digests of one replica, and the schedule of the next one.
#[derive(Debug, Default)]
pub struct DigestHistory {
    /// Interval number of the last entry that had a time.
    round: Option<u64>,
    recent: VecDeque<StateDigest>,
}

impl DigestHistory {
    /// Records an entry of this logged time, which was applied to a state of this many tenants. Returns the partition
    /// whose digest is to be taken after it.
    pub fn due(&mut self, time_ms: u64, tenants: usize) -> Option<TenantPartition> {
        let round = time_ms / INTERVAL_MS;
        let before = self.round.replace(round)?;
        let parts = tenants.div_ceil(TENANTS_MAX).max(1) as u64;
        let remainder = round % parts;
        (before < round).then_some(TenantPartition { remainder, parts })
    }

    /// Adds a digest, and drops the oldest beyond the limit.
    pub fn record(&mut self, taken: StateDigest) {
        if self.recent.len() == DIGESTS_KEPT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(taken);
    }

    /// Returns the recent digests in the order of their entries.
    pub fn recent(&self) -> Vec<StateDigest> {
        self.recent.iter().copied().collect()
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
            let mut digests = DigestHistory::default();
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
    fn digests_cover_every_tenant_once_per_cycle() {
        // Invariant 2.
        let tenants = 5 * TENANTS_MAX;
        let mut digests = DigestHistory::default();
        digests.due(0, tenants);
        let mut seen = vec![0; tenants];
        for round in 1..=5 {
            let part = digests.due(round * INTERVAL_MS, tenants).unwrap();
            let of_part = (0..tenants).filter(|number| part.contains(*number as u64));
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
    fn only_recent_digests_are_kept() {
        let mut digests = DigestHistory::default();
        (0..20).for_each(|index| digests.record(StateDigest { index, digest: 7 }));
        let recent: Vec<u64> = digests.recent().iter().map(|digest| digest.index).collect();
        assert_eq!(recent, (12..20).collect::<Vec<_>>());
    }
}
