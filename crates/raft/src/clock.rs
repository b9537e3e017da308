//! The clocks of a node, and what its groups make of them: logged time, decided by [`stead_state::logged_time`].
//!
//! # Invariants
//!
//! 1. Every time that is sent or written is heard first: what a group has once known it goes on from.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stead_state::logged_time::{Alarm, Exchange, Limits, LoggedTime, Notice, Report};
use stead_types::{GroupId, NodeId};

/// The clocks of a node.
#[derive(Clone)]
pub struct Clocks {
    /// Tells the wall clock's milliseconds since 1970.
    pub wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Tells the time since any instant, by a clock that runs through suspend and never goes back.
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

/// Who a group's clock belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Voter {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) limits: Limits,
}

/// What a message said of its sender's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// When what it answers was sent, by the own boot clock.
    pub(crate) sent: Duration,
    pub(crate) wall_ms: u64,
    /// It follows this node.
    pub(crate) follows: bool,
}

impl GroupClock {
    /// The clock of a voter whose rows and log have come to this time.
    pub(crate) fn new(clocks: Clocks, voter: Voter, found_ms: u64) -> Self {
        let time = LoggedTime::new(voter.node, voter.voters, voter.limits, found_ms);
        Self {
            group: voter.group,
            clocks,
            time: Mutex::new(time),
        }
    }

    /// The boot clock now.
    pub(crate) fn boot(&self) -> Duration {
        (self.clocks.boot)()
    }

    /// The wall clock now.
    pub(crate) fn wall_ms(&self) -> u64 {
        (self.clocks.wall)()
    }

    /// The group's time now; zero before it has begun.
    pub(crate) fn now(&self) -> u64 {
        self.time.lock().now(self.boot())
    }

    /// The time for an entry that is proposed now.
    pub(crate) fn for_entry(&self) -> u64 {
        self.time.lock().for_entry(self.boot())
    }

    /// Takes in what another member knows.
    pub(crate) fn hear(&self, time_ms: u64) {
        self.time.lock().hear(self.boot(), time_ms);
    }

    /// Takes in the time of an entry of the log.
    pub(crate) fn entry(&self, time_ms: u64) {
        self.time.lock().entry(self.boot(), time_ms);
    }

    /// Takes in another voter's answer.
    pub(crate) fn answered(&self, voter: NodeId, heard: Heard) {
        let exchange = Exchange {
            sent: heard.sent,
            received: self.boot(),
            wall_ms: heard.wall_ms,
        };
        let mut time = self.time.lock();
        if heard.follows {
            time.answered(voter, exchange);
        } else {
            time.clock(voter, exchange);
        }
    }

    /// Takes in that this node leads, since just now.
    pub(crate) fn lead(&self) {
        let (now, wall_ms) = (self.boot(), self.wall_ms());
        let mut time = self.time.lock();
        time.own_clock(now, wall_ms);
        time.lead(now);
    }

    /// Takes in that this node does not lead.
    pub(crate) fn follow(&self) {
        self.time.lock().follow(self.boot());
    }

    /// Looks at the own clock, and tells of bounds that were crossed. To be called as often as heartbeats are sent.
    pub(crate) fn look(&self, voters: BTreeSet<NodeId>) {
        let (now, wall_ms) = (self.boot(), self.wall_ms());
        let notices = {
            let mut time = self.time.lock();
            time.vote(voters);
            time.own_clock(now, wall_ms);
            time.notices(now)
        };
        notices.into_iter().for_each(|notice| self.tell(notice));
    }

    /// Tells whether the time is to be written down although nobody writes.
    pub(crate) fn is_entry_due(&self) -> bool {
        self.time.lock().is_entry_due(self.boot())
    }

    /// How the clocks are; none on a node that does not lead.
    pub(crate) fn report(&self) -> Option<Report> {
        self.time.lock().report(self.boot())
    }

    fn tell(&self, notice: Notice) {
        let group = self.group;
        match notice {
            Notice::Raised(Alarm::Clock(node), micros) => {
                let ahead_s = seconds(micros);
                tracing::warn!(
                    %group, %node, ahead_s,
                    "a node's wall clock is far from the median of its group's: look at NTP there; no key ends by it"
                );
            }
            Notice::Raised(Alarm::LoggedTime, micros) => {
                let ahead_s = seconds(micros);
                tracing::warn!(
                    %group, ahead_s,
                    "logged time is far from the median of the wall clocks: it makes up for a tenth of what passes"
                );
            }
            Notice::Raised(Alarm::Unsteered, _) => {
                tracing::warn!(%group, "fewer than three voters answer: logged time goes by the boot clock alone");
            }
            Notice::Ended(Alarm::Clock(node)) => {
                tracing::info!(%group, %node, "a node's wall clock is near the median again");
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
    /// A clock that stands still.
    pub(crate) fn standing() -> Self {
        let clocks = Clocks {
            wall: Arc::new(|| 0),
            boot: Arc::new(|| Duration::ZERO),
        };
        let limits = Limits {
            confirmed_for: Duration::ZERO,
            answered_for: Duration::ZERO,
        };
        let voter = Voter {
            group: GroupId::new(1),
            node: NodeId::new(1),
            voters: BTreeSet::from([NodeId::new(1)]),
            limits,
        };
        Self::new(clocks, voter, 0)
    }
}
