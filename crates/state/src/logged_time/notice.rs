//! Alarms of logged time: each crossing of a bound is reported once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::NodeId;

use super::{ClockReport, duration_micros};

/// Largest distance of a voter's wall clock from the median.
const CLOCK_DISTANCE_MAX: Duration = Duration::from_secs(2);
/// Largest distance of logged time from the median. An outage leaves it behind, and it recovers a tenth of the time
/// that passes.
const LOGGED_DISTANCE_MAX: Duration = Duration::from_secs(60);

/// Alarm about a bound that is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Logged time is far from the median of the wall clocks.
    LoggedTime,
    /// A voter's wall clock is far from the median.
    Clock(NodeId),
    /// Too few voters answer to tell which clock is right.
    Unsteered,
}

impl Alarm {
    fn bound(self) -> Duration {
        match self {
            Self::LoggedTime => LOGGED_DISTANCE_MAX,
            Self::Clock(_) => CLOCK_DISTANCE_MAX,
            Self::Unsteered => Duration::ZERO,
        }
    }
}

/// Notice of an alarm that was raised or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The bound was crossed, by this distance in microseconds.
    Raised(Alarm, i64),
    /// The bound holds again.
    Ended(Alarm),
}

/// Inputs that a clock report is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurements<'v> {
    pub(super) voters: &'v BTreeSet<NodeId>,
    /// Error bound of its distances.
    pub(super) error: Duration,
    /// Whether there is no median although there could be one.
    pub(super) is_unsteered: bool,
}

impl Measurements<'_> {
    fn may_last(self, alarm: Alarm) -> bool {
        match alarm {
            Alarm::LoggedTime => true,
            Alarm::Clock(voter) => self.voters.contains(&voter),
            Alarm::Unsteered => false,
        }
    }
}

/// Active alarms and their distances.
#[derive(Debug, Default)]
pub(super) struct Alarms(BTreeMap<Alarm, i64>);

impl Alarms {
    pub(super) fn active(&self) -> Vec<(Alarm, i64)> {
        self.0.iter().map(|(alarm, distance)| (*alarm, *distance)).collect()
    }

    /// Updates the alarms from a report, and returns the notices. A distance that is unknown is assumed unchanged.
    pub(super) fn update(&mut self, report: &ClockReport, seen: Measurements<'_>) -> Vec<Notice> {
        let clocks = report
            .clocks
            .iter()
            .map(|(voter, distance)| (Alarm::Clock(*voter), *distance));
        let logged = report.logged.map(|distance| (Alarm::LoggedTime, distance));
        let measured: BTreeMap<Alarm, i64> = clocks.chain(logged).collect();
        let mut found = self.0.clone();
        found.retain(|alarm, _| !measured.contains_key(alarm) && seen.may_last(*alarm));
        let beyond = |(alarm, distance): &(Alarm, i64)| self.is_beyond(*alarm, *distance, seen.error);
        found.extend(measured.into_iter().filter(beyond));
        if seen.is_unsteered {
            found.insert(Alarm::Unsteered, 0);
        }
        let ended = self.0.keys().filter(|alarm| !found.contains_key(alarm));
        let ended = ended.map(|alarm| Notice::Ended(*alarm));
        let raised = found.iter().filter(|(alarm, _)| !self.0.contains_key(alarm));
        let raised = raised.map(|(alarm, distance)| Notice::Raised(*alarm, *distance));
        let notices = ended.chain(raised).collect();
        self.0 = found;
        notices
    }

    /// Tells whether an alarm is active at this distance. It ends at half its bound, so that a distance near the
    /// bound is reported once.
    fn is_beyond(&self, alarm: Alarm, distance: i64, error: Duration) -> bool {
        let is_known = self.0.contains_key(&alarm);
        let bound = duration_micros(if is_known { alarm.bound() / 2 } else { alarm.bound() });
        distance.saturating_abs().saturating_sub(duration_micros(error)) > bound
    }
}
