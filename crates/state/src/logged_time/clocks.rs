//! The wall clocks of a group's voters, and their middle.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::NodeId;

use super::{duration_micros, micros};

/// With fewer clocks than these there is no majority against a wrong one.
pub(super) const CLOCKS_MIN: usize = 3;
/// An answer that took longer says too little of the time at which it was given.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// A question to a voter and its answer, by the asker's boot clock.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When the question was sent.
    pub sent: Duration,
    /// When the answer came.
    pub received: Duration,
    /// The wall clock of who answered, when it answered.
    pub wall_ms: u64,
}

/// The last that is known of each clock.
#[derive(Debug, Default)]
pub(super) struct Clocks(BTreeMap<NodeId, Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    wall: i64,
    /// When it showed that, by the own boot clock, and how far off that may be.
    at: Duration,
    error: Duration,
}

/// The clocks that count at some instant: what each shows then.
#[derive(Debug)]
pub(super) struct Seen {
    shown: BTreeMap<NodeId, i64>,
    error: Duration,
}

impl Clocks {
    pub(super) fn put(&mut self, voter: NodeId, exchange: Exchange) {
        let round_trip = exchange.received.saturating_sub(exchange.sent);
        if round_trip <= ROUND_TRIP_MAX {
            let sample = Sample {
                wall: micros(exchange.wall_ms),
                at: exchange.sent + round_trip / 2,
                error: round_trip / 2,
            };
            self.0.insert(voter, sample);
        }
    }

    pub(super) fn retain(&mut self, voters: &BTreeSet<NodeId>) {
        self.0.retain(|voter, _| voters.contains(voter));
    }

    /// Returns what voters' clocks show now that were seen within this time.
    pub(super) fn seen(&self, voters: &BTreeSet<NodeId>, now: Duration, within: Duration) -> Seen {
        let counts =
            |(voter, sample): &(&NodeId, &Sample)| voters.contains(*voter) && now.saturating_sub(sample.at) <= within;
        let counting: Vec<_> = self.0.iter().filter(counts).collect();
        let shown = |sample: &Sample| {
            sample
                .wall
                .saturating_add(duration_micros(now.saturating_sub(sample.at)))
        };
        Seen {
            error: counting
                .iter()
                .map(|(_, sample)| sample.error)
                .max()
                .unwrap_or_default(),
            shown: counting
                .into_iter()
                .map(|(voter, sample)| (*voter, shown(sample)))
                .collect(),
        }
    }
}

impl Seen {
    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    /// How far off what is shown may be.
    pub(super) fn error(&self) -> Duration {
        self.error
    }

    /// Returns the two middle clocks, the same one twice if their number is odd; none where they are too few to go by.
    pub(super) fn middle(&self, voters: usize) -> Option<(i64, i64)> {
        let is_enough = self.shown.len() >= CLOCKS_MIN || voters == 1;
        let sorted = self.sorted();
        let high = sorted.get(sorted.len() / 2).copied();
        is_enough.then_some((self.lower_middle()?, high?))
    }

    /// Returns the middle clock, of two the earlier one.
    pub(super) fn lower_middle(&self) -> Option<i64> {
        let sorted = self.sorted();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }

    pub(super) fn distances(&self, median: i64) -> BTreeMap<NodeId, i64> {
        self.shown
            .iter()
            .map(|(voter, shown)| (*voter, shown - median))
            .collect()
    }

    fn sorted(&self) -> Vec<i64> {
        let mut sorted: Vec<i64> = self.shown.values().copied().collect();
        sorted.sort_unstable();
        sorted
    }
}
