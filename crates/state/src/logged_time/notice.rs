//! Which bounds are crossed, told once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::NodeId;

use super::{Report, duration_micros};

/// How far a voter's wall clock may be from the median of all.
const CLOCK_DISTANCE_MAX: Duration = Duration::from_secs(2);
/// How far logged time may be from the median. An outage leaves it behind, and it makes up for a tenth of what passes.
const LOGGED_DISTANCE_MAX: Duration = Duration::from_secs(60);

/// What may be beyond its bound.
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

/// A bound that was crossed, or that holds again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Crossed, by this distance in microseconds.
    Raised(Alarm, i64),
    /// It holds again.
    Ended(Alarm),
}

/// What a report is to be held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'v> {
    pub(super) voters: &'v BTreeSet<NodeId>,
    /// How far off its distances may be.
    pub(super) error: Duration,
    /// Whether there is no median although there could be one.
    pub(super) is_unsteered: bool,
}

impl Measured<'_> {
    fn may_last(self, alarm: Alarm) -> bool {
        match alarm {
            Alarm::LoggedTime => true,
            Alarm::Clock(voter) => self.voters.contains(&voter),
            Alarm::Unsteered => false,
        }
    }
}

/// What is beyond its bound, and how far.
#[derive(Debug, Default)]
pub(super) struct Alarms(BTreeMap<Alarm, i64>);

impl Alarms {
    pub(super) fn active(&self) -> Vec<(Alarm, i64)> {
        self.0.iter().map(|(alarm, distance)| (*alarm, *distance)).collect()
    }

    /// Takes in how clocks are. A distance that cannot be told is taken to be what it was.
    pub(super) fn update(&mut self, report: &Report, seen: Measured<'_>) -> Vec<Notice> {
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

    /// A bound holds again at half of it: a distance around it is told once.
    fn is_beyond(&self, alarm: Alarm, distance: i64, error: Duration) -> bool {
        let is_known = self.0.contains_key(&alarm);
        let bound = duration_micros(if is_known { alarm.bound() / 2 } else { alarm.bound() });
        distance.saturating_abs().saturating_sub(duration_micros(error)) > bound
    }
}
