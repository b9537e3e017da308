//! Logged time of a group: the clock in its log entries, by which its keys expire.
//!
//! It continues from the last entry by the leader's boot clock, and is steered toward the median of the voters' wall
//! clocks. Appends and heartbeats carry it, so that a new leader continues from the highest time that it has
//! observed.
//!
//! ```text
//!   boot clock ──> advance, at 0.9 to 1.1 of its rate ──> entries, appends, heartbeats ──> observe
//!                     ^                ^
//!   responses of a majority    median of wall clocks <── responses of voters
//! ```
//!
//! Readings of the boot clock are durations since any instant, of a clock that runs through suspend. Times are
//! milliseconds since 1970 outside, microseconds inside.
//!
//! # Invariants
//!
//! 1. It never goes back, whatever is observed, and whoever leads.
//! 2. It goes at 0.9 to 1.1 of the leader's boot clock, whatever wall clocks say.
//! 3. Time counts only while a majority answers: for what passes beyond [`Limits::confirmed_for`] after its last
//!    answer there was no certain leader. So an outage, an election or a frozen process costs no key its time.
//! 4. The wall clocks of fewer than half of the voters that answer, and fewer than three of them, move it nowhere;
//!    those of half of them at most stop a move. A group of one goes by its own.
//! 5. Each crossing of a bound is noticed once, and its end once.

mod clocks;
mod notice;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::NodeId;

pub use clocks::Exchange;
use clocks::VoterClocks;
pub use notice::{Alarm, Notice};
use notice::{Alarms, Measurements};

/// Time over which a distance to the median is corrected, as far as the rate allows: small distances are corrected
/// smoothly.
const HORIZON: Duration = Duration::from_secs(10);
/// Largest correction of the rate: one part of this many.
const STEER_PART: i64 = 10;
/// Shortest step in which time is counted: a shorter one would leave no microsecond to steer by.
const STEP_MIN: Duration = Duration::from_millis(1);
/// Longest time without an entry: bounds how far a restart of all nodes falls back.
const ENTRY_INTERVAL_MS: u64 = 10_000;
/// End of the year 9999: the latest time accepted from a clock.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Validity times of responses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time after a majority's last response in which no other node can lead: logged time advances.
    pub confirmed_for: Duration,
    /// Time after a voter's last response in which it counts as answering.
    pub answered_for: Duration,
}

/// Logged time of one group, on one of its voters.
#[derive(Debug)]
pub struct LoggedTime {
    me: NodeId,
    limits: Limits,
    voters: BTreeSet<NodeId>,
    /// Highest time known; zero before the group has begun.
    time: i64,
    /// Highest time in an entry.
    logged: i64,
    clocks: VoterClocks,
    leading: Option<LeaderState>,
    alarms: Alarms,
}

/// State of a leader, by its boot clock.
#[derive(Debug)]
struct LeaderState {
    began: Duration,
    /// Logged time when it was elected.
    from: i64,
    /// Boot clock up to which time has been counted.
    counted: Duration,
    /// Last instant at which a majority certainly followed.
    confirmed: Duration,
    /// Send time of the last request that each voter has answered.
    answered: BTreeMap<NodeId, Duration>,
}

/// Logged time and wall clocks of the voters, as the leader sees them. Distances are in microseconds ahead of the
/// median of the wall clocks; negative ones behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockReport {
    /// Distance of logged time; none where there is no median.
    pub logged: Option<i64>,
    /// Distance of each known clock of a voter; none where there is no median.
    pub clocks: BTreeMap<NodeId, i64>,
    /// Number of voters that answer, this one included.
    pub answering: usize,
    /// Whether there is a median to steer by.
    pub is_steered: bool,
    /// Active alarms, with their distances.
    pub alarms: Vec<(Alarm, i64)>,
}

impl LoggedTime {
    /// Returns the logged time of a voter that recovered this time from its rows and its log; zero for a new group.
    pub fn new(me: NodeId, voters: BTreeSet<NodeId>, limits: Limits, recovered_ms: u64) -> Self {
        Self {
            me,
            limits,
            voters,
            time: micros(recovered_ms),
            logged: micros(recovered_ms),
            clocks: VoterClocks::default(),
            leading: None,
            alarms: Alarms::default(),
        }
    }

    /// Observes a time that another member has sent.
    pub fn observe(&mut self, now: Duration, time_ms: u64) {
        self.advance(now);
        let heard = micros(time_ms);
        if heard > self.time {
            self.time = heard;
            // The observed time includes what has passed until now.
            if let Some(leading) = &mut self.leading {
                leading.counted = leading.counted.max(now);
            }
        }
    }

    /// Observes the time of a log entry.
    pub fn observe_entry(&mut self, now: Duration, time_ms: u64) {
        self.observe(now, time_ms);
        self.logged = self.logged.max(micros(time_ms));
    }

    /// Sets the voters; empty while the membership is not known yet, which changes nothing.
    pub fn set_voters(&mut self, voters: BTreeSet<NodeId>) {
        if !voters.is_empty() && self.voters != voters {
            self.clocks.retain(&voters);
            self.voters = voters;
        }
    }

    /// Records the own wall clock: called as often as heartbeats are sent.
    pub fn record_own_clock(&mut self, now: Duration, wall_ms: u64) {
        self.advance(now);
        let exchange = Exchange {
            sent: now,
            received: now,
            wall_ms,
        };
        self.clocks.put(self.me, exchange);
    }

    /// Records another voter's wall clock.
    pub fn record_clock(&mut self, voter: NodeId, exchange: Exchange) {
        self.clocks.put(voter, exchange);
    }

    /// Records another voter's wall clock, and that it follows this node.
    pub fn record_reply(&mut self, voter: NodeId, exchange: Exchange) {
        self.record_clock(voter, exchange);
        if let Some(leading) = &mut self.leading
            && leading.began <= exchange.sent
        {
            let answered = leading.answered.entry(voter).or_default();
            *answered = exchange.sent.max(*answered);
            self.advance(exchange.received);
        }
    }

    /// Starts leading: a majority has just elected this node.
    pub fn start_leading(&mut self, now: Duration) {
        self.advance(now);
        if self.time == 0 {
            self.time = self.initial_time(now);
        }
        self.leading = Some(LeaderState {
            began: now,
            from: self.time,
            counted: now,
            confirmed: now,
            answered: BTreeMap::new(),
        });
    }

    /// Stops leading.
    pub fn stop_leading(&mut self, now: Duration) {
        self.advance(now);
        self.leading = None;
        self.alarms = Alarms::default();
    }

    /// Returns logged time: advancing on a leader, elsewhere the highest time known; zero before the group has begun.
    pub fn now(&mut self, now: Duration) -> u64 {
        self.advance(now);
        millis(self.time)
    }

    /// Returns the time for an entry. A proposer may lead before that is known here: the first entry of a group gets
    /// the time at which the group begins.
    pub fn time_for_entry(&mut self, now: Duration) -> u64 {
        self.advance(now);
        let time = if self.time == 0 {
            self.initial_time(now)
        } else {
            self.time
        };
        millis(time)
    }

    /// Tells whether the leader should write an entry because the last one is too old.
    pub fn is_entry_due(&mut self, now: Duration) -> bool {
        self.advance(now);
        let written = |leading: &LeaderState| self.logged.max(leading.from);
        self.leading
            .as_ref()
            .is_some_and(|leading| millis(self.time) >= millis(written(leading)) + ENTRY_INTERVAL_MS)
    }

    /// Returns the state of the clocks, on a leader.
    pub fn report(&mut self, now: Duration) -> Option<ClockReport> {
        self.advance(now);
        self.leading.as_ref()?;
        let readings = self.clocks.readings(&self.voters, now, self.limits.answered_for);
        let middle = readings.middle(self.voters.len());
        let median = middle.map(|(low, high)| low + (high - low) / 2);
        Some(ClockReport {
            logged: median.map(|median| self.time - median),
            clocks: median.map(|median| readings.distances(median)).unwrap_or_default(),
            answering: readings.len(),
            is_steered: median.is_some(),
            alarms: self.alarms.active(),
        })
    }

    /// Returns the alarms that were raised or have ended since the last call.
    pub fn take_notices(&mut self, now: Duration) -> Vec<Notice> {
        let Some(report) = self.report(now) else {
            return Vec::new();
        };
        let Some(leading) = &self.leading else {
            return Vec::new();
        };
        // Right after an election not all voters can have answered.
        let can_be_steered = self.voters.len() == 1 || self.voters.len() >= clocks::CLOCKS_MIN;
        let is_unsteered = can_be_steered && !report.is_steered && now >= leading.began + self.limits.answered_for;
        let readings = self.clocks.readings(&self.voters, now, self.limits.answered_for);
        let measured = Measurements {
            voters: &self.voters,
            error: readings.error(),
            is_unsteered,
        };
        self.alarms.update(&report, measured)
    }

    /// Returns the time at which a group begins if it begins now.
    fn initial_time(&self, now: Duration) -> i64 {
        self.clocks
            .readings(&self.voters, now, Duration::MAX)
            .lower_middle()
            .unwrap_or(0)
    }

    fn advance(&mut self, now: Duration) {
        let confirmed = self.confirmed(now);
        let Some(leading) = &mut self.leading else { return };
        let end = now.min(leading.confirmed.saturating_add(self.limits.confirmed_for));
        let elapsed = end.saturating_sub(leading.counted);
        let steered = if elapsed < STEP_MIN { None } else { Some(elapsed) };
        if steered.is_some() {
            leading.counted = end;
        }
        if confirmed > leading.confirmed {
            // There was no certain leader in between.
            if confirmed > leading.confirmed.saturating_add(self.limits.confirmed_for) {
                leading.counted = leading.counted.max(confirmed);
            }
            leading.confirmed = confirmed;
        }
        if let Some(elapsed) = steered {
            let passed = duration_micros(elapsed);
            let step = passed + self.correction(now, passed);
            self.time = self.time.saturating_add(step).min(micros(TIME_MS_MAX));
        }
    }

    /// Returns the send time of the requests that a majority has answered: it certainly followed then.
    fn confirmed(&self, now: Duration) -> Duration {
        let Some(leading) = &self.leading else {
            return Duration::ZERO;
        };
        let sent = |voter: &NodeId| match *voter == self.me {
            true => now,
            false => leading.answered.get(voter).copied().unwrap_or_default(),
        };
        let mut sent: Vec<Duration> = self.voters.iter().map(sent).collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        let majority = self.voters.len() / 2;
        sent.get(majority)
            .map_or(leading.began, |sent| leading.began.max(*sent))
    }

    /// Returns the correction that is added to the elapsed time to approach the wall clocks.
    fn correction(&self, now: Duration, passed: i64) -> i64 {
        let readings = self.clocks.readings(&self.voters, now, self.limits.answered_for);
        let Some((low, high)) = readings.middle(self.voters.len()) else {
            return 0;
        };
        // Between the two middle clocks there is no majority for either direction.
        let on = self.time.saturating_add(passed);
        let distance = on.clamp(low, high) - on;
        let share = i128::from(distance) * i128::from(passed) / i128::from(duration_micros(HORIZON));
        let most = (passed / STEER_PART).min(distance.saturating_abs());
        i64::try_from(share).unwrap_or(distance).clamp(-most, most)
    }
}

/// Returns the time of a tenant whose own clock was at `time` when its group's was at `as_of`, now that the group's
/// is at `now`. It advances at the group's rate, and its distance to the group's shrinks by a tenth of the elapsed
/// time at most: a tenant that comes from another group, or an older leader's time, neither leaps nor stands still.
pub fn tenant_time(time: u64, as_of: u64, now: u64) -> u64 {
    let passed = now.saturating_sub(as_of);
    let most = passed / STEER_PART.unsigned_abs();
    let on = time.saturating_add(passed);
    if time <= as_of {
        on.saturating_add(most.min(as_of - time))
    } else {
        on - most.min(time - as_of)
    }
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis.min(TIME_MS_MAX) * 1_000).expect("the year 9999 is far below the end of 64 bits")
}

fn millis(micros: i64) -> u64 {
    u64::try_from(micros / 1_000).unwrap_or(0)
}

fn duration_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod logged_time_test;
