//! Clocks of a node, and the logged time of its groups, which [`stead_state::logged_time`] decides.
//!
//! # Invariants
//!
//! 1. Every time that is sent or written is observed first: a group never falls behind a time that it has known.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stead_state::logged_time::{Alarm, ClockReport, Exchange, Limits, LoggedTime, Notice};
use stead_types::{GroupId, NodeId};

/// Clocks of a node.
#[derive(Clone)]
pub struct Clocks {
    /// Wall clock, in milliseconds since 1970.
    pub wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Boot clock, which runs through suspend and never goes back, as the time since any instant.
    pub boot: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clocks").finish_non_exhaustive()
    }
}

/// Logged time of one group on this node.
#[derive(Debug)]
pub(crate) struct GroupClock {
    group: GroupId,
    clocks: Clocks,
    time: Mutex<LoggedTime>,
}

/// Configuration of a group's clock.
#[derive(Clone, Debug)]
pub(crate) struct ClockConfig {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) limits: Limits,
}

/// Clock sample from a message of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerClockSample {
    /// When the request of this response was sent, by the own boot clock.
    pub(crate) sent: Duration,
    pub(crate) wall_ms: u64,
    /// Whether the peer follows this node.
    pub(crate) follows: bool,
}

impl GroupClock {
    /// Creates the clock of a voter whose rows and log have reached this time.
    pub(crate) fn new(clocks: Clocks, config: ClockConfig, found_ms: u64) -> Self {
        let time = LoggedTime::new(config.node, config.voters, config.limits, found_ms);
        Self {
            group: config.group,
            clocks,
            time: Mutex::new(time),
        }
    }

    /// Returns the boot clock's time.
    pub(crate) fn boot(&self) -> Duration {
        (self.clocks.boot)()
    }

    /// Returns the wall clock's time.
    pub(crate) fn wall_ms(&self) -> u64 {
        (self.clocks.wall)()
    }

    /// Returns the group's logged time; zero before it has begun.
    pub(crate) fn now(&self) -> u64 {
        self.time.lock().now(self.boot())
    }

    /// Returns the logged time for an entry that is proposed now.
    pub(crate) fn time_for_entry(&self) -> u64 {
        self.time.lock().time_for_entry(self.boot())
    }

    /// Records the logged time that another member knows.
    pub(crate) fn observe_time(&self, time_ms: u64) {
        self.time.lock().observe(self.boot(), time_ms);
    }

    /// Records the logged time of an entry of the log.
    pub(crate) fn observe_entry(&self, time_ms: u64) {
        self.time.lock().observe_entry(self.boot(), time_ms);
    }

    /// Records the clock sample of another voter's response.
    pub(crate) fn observe_response(&self, voter: NodeId, sample: PeerClockSample) {
        let exchange = Exchange {
            sent: sample.sent,
            received: self.boot(),
            wall_ms: sample.wall_ms,
        };
        let mut time = self.time.lock();
        if sample.follows {
            time.record_reply(voter, exchange);
        } else {
            time.record_clock(voter, exchange);
        }
    }

    /// Records that this node has become the leader.
    pub(crate) fn lead(&self) {
        let (now, wall_ms) = (self.boot(), self.wall_ms());
        let mut time = self.time.lock();
        time.record_own_clock(now, wall_ms);
        time.start_leading(now);
    }

    /// Records that this node does not lead.
    pub(crate) fn follow(&self) {
        self.time.lock().stop_leading(self.boot());
    }

    /// Samples the own wall clock, and logs alarms that began or ended. To be called as often as heartbeats are sent.
    pub(crate) fn check_wall_clock(&self, voters: BTreeSet<NodeId>) {
        let (now, wall_ms) = (self.boot(), self.wall_ms());
        let notices = {
            let mut time = self.time.lock();
            time.set_voters(voters);
            time.record_own_clock(now, wall_ms);
            time.take_notices(now)
        };
        notices.into_iter().for_each(|notice| self.log_notice(notice));
    }

    /// Tells whether the logged time is to be written in an entry of its own, since nothing else is written.
    pub(crate) fn is_entry_due(&self) -> bool {
        self.time.lock().is_entry_due(self.boot())
    }

    /// Returns a report of the clocks; none on a node that does not lead.
    pub(crate) fn report(&self) -> Option<ClockReport> {
        self.time.lock().report(self.boot())
    }

    fn log_notice(&self, notice: Notice) {
        let group = self.group;
        match notice {
            Notice::Raised(Alarm::Clock(node), micros) => {
                let ahead_s = seconds(micros);
                tracing::warn!(
                    %group, %node, ahead_s,
                    "wall clock of a node is far from the median of its group: check NTP there; no key expires by that clock"
                );
            }
            Notice::Raised(Alarm::LoggedTime, micros) => {
                let ahead_s = seconds(micros);
                tracing::warn!(
                    %group, ahead_s,
                    "logged time is far from the median of the wall clocks: it catches up at a tenth of the passing time"
                );
            }
            Notice::Raised(Alarm::Unsteered, _) => {
                tracing::warn!(%group, "fewer than three voters respond: logged time follows the boot clock alone");
            }
            Notice::Ended(Alarm::Clock(node)) => {
                tracing::info!(%group, %node, "wall clock of a node is near the median again");
            }
            Notice::Ended(Alarm::LoggedTime) => tracing::info!(%group, "logged time is near the wall clocks again"),
            Notice::Ended(Alarm::Unsteered) => tracing::info!(%group, "logged time is steered by wall clocks again"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
impl GroupClock {
    /// Creates a clock that stands still.
    pub(crate) fn fixed() -> Self {
        let clocks = Clocks {
            wall: Arc::new(|| 0),
            boot: Arc::new(|| Duration::ZERO),
        };
        let limits = Limits {
            confirmed_for: Duration::ZERO,
            answered_for: Duration::ZERO,
        };
        let config = ClockConfig {
            group: GroupId::new(1),
            node: NodeId::new(1),
            voters: BTreeSet::from([NodeId::new(1)]),
            limits,
        };
        Self::new(clocks, config, 0)
    }
}
