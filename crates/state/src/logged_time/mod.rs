//! Logged time of a group: the clock that stands in its log, and by which its keys end.
//!
//! It goes on from the last entry by the leader's boot clock, and is steered toward the median of the voters' wall
//! clocks. Appends and heartbeats carry it, so that a new leader goes on from the highest that it has heard.
//!
//! ```text
//!   boot clock ──> advance, at 0.9 to 1.1 of its rate ──> entries, appends, heartbeats ──> hear
//!                     ^                ^
//!   answers of a majority      median of wall clocks <── answers of voters
//! ```
//!
//! Readings of the boot clock are durations since any instant, of a clock that runs through suspend. Times are
//! milliseconds since 1970 outside, microseconds inside.
//!
//! # Invariants
//!
//! 1. It never goes back, whatever is heard, and whoever leads.
//! 2. It goes at 0.9 to 1.1 of the leader's boot clock, whatever wall clocks say.
//! 3. Time counts only while a majority answers: what passes beyond [`Limits::confirmed_for`] after its last answer was
//!    led by nobody for certain. So an outage, an election or a frozen process costs no key its time.
//! 4. The wall clocks of fewer than half of the voters that answer, and fewer than three of them, move it nowhere; those
//!    of half of them at most stop a move. A group of one goes by its own.
//! 5. Each crossing of a bound is noticed once, and its end once.

mod clocks;
mod notice;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::NodeId;

use clocks::Clocks;
pub use clocks::Exchange;
pub use notice::{Alarm, Notice};
use notice::{Alarms, Measured};

/// A distance is made up for over this time, as far as the rate allows: so that nothing jerks near the median.
const HORIZON: Duration = Duration::from_secs(10);
/// The most by which the rate differs from the boot clock's: one part of so many.
const STEER_PART: i64 = 10;
/// Time is counted in steps of at least this: of shorter ones nothing would be left to steer by.
const STEP_MIN: Duration = Duration::from_millis(1);
/// An entry is due when the last one is older than this, so that no restart of all nodes falls further behind.
const ENTRY_INTERVAL_MS: u64 = 10_000;
/// The end of the year 9999: no clock is taken to show more.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// How long what is known of voters counts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So long after a majority answered last, nobody else can lead: time counts.
    pub confirmed_for: Duration,
    /// So long after it answered last, a voter counts as answering.
    pub answered_for: Duration,
}

/// Logged time of one group, on one of its voters.
#[derive(Debug)]
pub struct LoggedTime {
    me: NodeId,
    limits: Limits,
    voters: BTreeSet<NodeId>,
    /// The highest that is known; zero before the group has begun.
    time: i64,
    /// The highest that stands in an entry.
    logged: i64,
    clocks: Clocks,
    leading: Option<Leading>,
    alarms: Alarms,
}

/// What a leader knows, by its boot clock.
#[derive(Debug)]
struct Leading {
    began: Duration,
    /// The time when it began.
    from: i64,
    /// Up to where time has been counted.
    counted: Duration,
    /// When a majority certainly followed.
    confirmed: Duration,
    /// When the last request was sent that a voter has answered.
    answered: BTreeMap<NodeId, Duration>,
}

/// How logged time and the voters' wall clocks are, as the leader sees them. Distances are in microseconds, ahead of the
/// median of the wall clocks; negative ones behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of logged time; none where there is no median.
    pub logged: Option<i64>,
    /// Of each voter's clock that is known; none where there is no median.
    pub clocks: BTreeMap<NodeId, i64>,
    /// Voters that answer, this one included.
    pub answering: usize,
    /// Whether there is a median to steer by.
    pub is_steered: bool,
    /// What is beyond its bound.
    pub alarms: Vec<(Alarm, i64)>,
}

impl LoggedTime {
    /// Logged time of a voter that has found this in its rows and its log; zero for a new group.
    pub fn new(me: NodeId, voters: BTreeSet<NodeId>, limits: Limits, found_ms: u64) -> Self {
        Self {
            me,
            limits,
            voters,
            time: micros(found_ms),
            logged: micros(found_ms),
            clocks: Clocks::default(),
            leading: None,
            alarms: Alarms::default(),
        }
    }

    /// Takes in a time that another member has told.
    pub fn hear(&mut self, now: Duration, time_ms: u64) {
        self.advance(now);
        let heard = micros(time_ms);
        if heard > self.time {
            self.time = heard;
            // What has passed until then is in it.
            if let Some(leading) = &mut self.leading {
                leading.counted = leading.counted.max(now);
            }
        }
    }

    /// Takes in the time of an entry of the log.
    pub fn entry(&mut self, now: Duration, time_ms: u64) {
        self.hear(now, time_ms);
        self.logged = self.logged.max(micros(time_ms));
    }

    /// Takes in who votes; nobody while the membership is not known yet.
    pub fn vote(&mut self, voters: BTreeSet<NodeId>) {
        if !voters.is_empty() && self.voters != voters {
            self.clocks.retain(&voters);
            self.voters = voters;
        }
    }

    /// Takes in the own wall clock: to be looked at as often as heartbeats are sent.
    pub fn own_clock(&mut self, now: Duration, wall_ms: u64) {
        self.advance(now);
        let exchange = Exchange {
            sent: now,
            received: now,
            wall_ms,
        };
        self.clocks.put(self.me, exchange);
    }

    /// Takes in another voter's wall clock.
    pub fn clock(&mut self, voter: NodeId, exchange: Exchange) {
        self.clocks.put(voter, exchange);
    }

    /// Takes in another voter's wall clock, and that it follows this node.
    pub fn answered(&mut self, voter: NodeId, exchange: Exchange) {
        self.clock(voter, exchange);
        if let Some(leading) = &mut self.leading
            && leading.began <= exchange.sent
        {
            let answered = leading.answered.entry(voter).or_default();
            *answered = exchange.sent.max(*answered);
            self.advance(exchange.received);
        }
    }

    /// Begins to lead: a majority has just elected this node.
    pub fn lead(&mut self, now: Duration) {
        self.advance(now);
        if self.time == 0 {
            self.time = self.first(now);
        }
        self.leading = Some(Leading {
            began: now,
            from: self.time,
            counted: now,
            confirmed: now,
            answered: BTreeMap::new(),
        });
    }

    /// Ends leading.
    pub fn follow(&mut self, now: Duration) {
        self.advance(now);
        self.leading = None;
        self.alarms = Alarms::default();
    }

    /// Returns the time: on a leader as it goes on, elsewhere the highest that is known; zero before the group has begun.
    pub fn now(&mut self, now: Duration) -> u64 {
        self.advance(now);
        millis(self.time)
    }

    /// Returns the time for an entry. Who proposes one may lead before that is known here: the first entry of a group has
    /// the time at which the group begins.
    pub fn for_entry(&mut self, now: Duration) -> u64 {
        self.advance(now);
        let time = if self.time == 0 { self.first(now) } else { self.time };
        millis(time)
    }

    /// Tells whether the leader is to write the time down although nobody has written anything for long.
    pub fn is_entry_due(&mut self, now: Duration) -> bool {
        self.advance(now);
        let written = |leading: &Leading| self.logged.max(leading.from);
        self.leading
            .as_ref()
            .is_some_and(|leading| millis(self.time) >= millis(written(leading)) + ENTRY_INTERVAL_MS)
    }

    /// Returns how the clocks are, on a leader.
    pub fn report(&mut self, now: Duration) -> Option<Report> {
        self.advance(now);
        self.leading.as_ref()?;
        let seen = self.clocks.seen(&self.voters, now, self.limits.answered_for);
        let middle = seen.middle(self.voters.len());
        let median = middle.map(|(low, high)| low + (high - low) / 2);
        Some(Report {
            logged: median.map(|median| self.time - median),
            clocks: median.map(|median| seen.distances(median)).unwrap_or_default(),
            answering: seen.len(),
            is_steered: median.is_some(),
            alarms: self.alarms.active(),
        })
    }

    /// Returns which bounds were crossed since the last call, and which hold again.
    pub fn notices(&mut self, now: Duration) -> Vec<Notice> {
        let Some(report) = self.report(now) else {
            return Vec::new();
        };
        let Some(leading) = &self.leading else {
            return Vec::new();
        };
        // Right after an election not everybody can have answered.
        let can_be_steered = self.voters.len() == 1 || self.voters.len() >= clocks::CLOCKS_MIN;
        let is_unsteered = can_be_steered && !report.is_steered && now >= leading.began + self.limits.answered_for;
        let seen = self.clocks.seen(&self.voters, now, self.limits.answered_for);
        let measured = Measured {
            voters: &self.voters,
            error: seen.error(),
            is_unsteered,
        };
        self.alarms.update(&report, measured)
    }

    /// The time at which a group begins, if it were to begin now.
    fn first(&self, now: Duration) -> i64 {
        self.clocks
            .seen(&self.voters, now, Duration::MAX)
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
            // What lies between was led by nobody for certain.
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

    /// When a majority certainly followed: it has answered what was sent then.
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

    /// What is added to the time that has passed, to come closer to the wall clocks.
    fn correction(&self, now: Duration, passed: i64) -> i64 {
        let seen = self.clocks.seen(&self.voters, now, self.limits.answered_for);
        let Some((low, high)) = seen.middle(self.voters.len()) else {
            return 0;
        };
        // Between two middle clocks there is no majority for either way.
        let on = self.time.saturating_add(passed);
        let distance = on.clamp(low, high) - on;
        let share = i128::from(distance) * i128::from(passed) / i128::from(duration_micros(HORIZON));
        let most = (passed / STEER_PART).min(distance.saturating_abs());
        i64::try_from(share).unwrap_or(distance).clamp(-most, most)
    }
}

/// Returns the time of a tenant, whose own clock was at `time` when its group's was at `as_of`, now that the group's is
/// at `now`. It goes on at the group's rate, and its distance to the group's shrinks by a tenth of what passes at most:
/// a tenant that comes from another group, or an older leader's time, neither leaps nor stands still.
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
