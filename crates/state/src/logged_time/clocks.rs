//! Wall clocks of a group's voters, and their median.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::NodeId;

use super::{duration_micros, micros};

/// Fewest clocks with a majority against a wrong one.
pub(super) const CLOCKS_MIN: usize = 3;
/// Longest round trip of a usable sample: a longer one bounds the clock too loosely.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// A request to a voter and its response, timed by the sender's boot clock.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Time at which the request was sent.
    pub sent: Duration,
    /// Time at which the response was received.
    pub received: Duration,
    /// Wall clock of the responder when it responded.
    pub wall_ms: u64,
}

/// Latest sample of each voter's clock.
#[derive(Debug, Default)]
pub(super) struct VoterClocks(BTreeMap<NodeId, ClockSample>);

#[derive(Clone, Copy, Debug)]
struct ClockSample {
    wall: i64,
    /// Own boot clock at which the sample was taken, and its error bound.
    at: Duration,
    error: Duration,
}

/// Readings of the usable clocks at one instant.
#[derive(Debug)]
pub(super) struct ClockReadings {
    shown: BTreeMap<NodeId, i64>,
    error: Duration,
}

impl VoterClocks {
    pub(super) fn put(&mut self, voter: NodeId, exchange: Exchange) {
        let round_trip = exchange.received.saturating_sub(exchange.sent);
        if round_trip <= ROUND_TRIP_MAX {
            let sample = ClockSample {
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

    /// Returns the current readings of the voters' clocks that were sampled within this time.
    pub(super) fn readings(&self, voters: &BTreeSet<NodeId>, now: Duration, within: Duration) -> ClockReadings {
        let counts = |(voter, sample): &(&NodeId, &ClockSample)| {
            voters.contains(*voter) && now.saturating_sub(sample.at) <= within
        };
        let counting: Vec<_> = self.0.iter().filter(counts).collect();
        let shown = |sample: &ClockSample| {
            sample
                .wall
                .saturating_add(duration_micros(now.saturating_sub(sample.at)))
        };
        ClockReadings {
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

impl ClockReadings {
    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    /// Returns the error bound of the readings.
    pub(super) fn error(&self) -> Duration {
        self.error
    }

    /// Returns the two middle clocks, the same one twice if their number is odd; none where there are too few clocks.
    pub(super) fn middle(&self, voters: usize) -> Option<(i64, i64)> {
        let is_enough = self.shown.len() >= CLOCKS_MIN || voters == 1;
        let sorted = self.sorted();
        let high = sorted.get(sorted.len() / 2).copied();
        is_enough.then_some((self.lower_middle()?, high?))
    }

    /// Returns the middle clock, the earlier one of two.
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
