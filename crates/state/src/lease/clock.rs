//! Readings of a node's clocks, and the margins that their rates require.
//!
//! Only rates matter: [`DRIFT_PART`] bounds the rate of any boot clock against any other. A paused virtual machine may
//! stop its boot clock, which no reading of that clock alone shows; its wall clock is set right afterwards, and then
//! both disagree about the time that has passed.

use std::time::Duration;

use crate::serving::BootTime;

/// Drift, as one part of this many: 1 % between any two clocks.
pub const DRIFT_PART: u32 = 100;
/// Difference between wall clock and boot clock, beyond the drift, that does not point to a pause. A shorter pause goes
/// unnoticed, so whoever waits for a lease adds it.
pub const PAUSE_TOLERANCE: Duration = Duration::from_millis(50);
/// Resolution of [`BootTime`]: a time between two readings may be this much shorter than they show.
const RESOLUTION: Duration = Duration::from_millis(1);

/// Readings of a node's boot clock and wall clock at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeTime {
    /// The boot clock.
    pub boot: BootTime,
    /// The wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl NodeTime {
    /// Tells whether both clocks disagree about the time since an earlier reading by more than the drift of it and
    /// [`PAUSE_TOLERANCE`] (protocol.md "Leases", rule 6).
    pub fn shows_pause_since(self, earlier: Self) -> bool {
        let boot = self.boot.since(earlier.boot);
        let wall = i128::from(self.wall_ms) - i128::from(earlier.wall_ms);
        let difference = wall.abs_diff(i128::try_from(boot.as_millis()).unwrap_or(i128::MAX));
        difference > (boot / DRIFT_PART + PAUSE_TOLERANCE).as_millis()
    }
}

/// Returns the time after which a lease with this ttl has run out, whichever clock counts it: the ttl, the drift of it,
/// an unnoticed pause and the resolution of the clocks, in whole milliseconds.
pub fn wait_time(ttl: Duration) -> Duration {
    let wait = ttl.saturating_add(ttl / DRIFT_PART).saturating_add(PAUSE_TOLERANCE);
    let whole = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    whole.saturating_add(RESOLUTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(boot: u64, wall_ms: u64) -> NodeTime {
        NodeTime {
            boot: BootTime(boot),
            wall_ms,
        }
    }

    /// Rule 6: more than 1 % and 50 ms, either way.
    #[test]
    fn pause_is_shown_beyond_drift_and_tolerance() {
        let asked = reading(1_000, 500_000);
        let later = |wall| reading(11_000, wall).shows_pause_since(asked);
        assert!(!later(510_000));
        assert!(!later(510_150), "1 % of 10 s, and 50 ms");
        assert!(later(510_151));
        assert!(!later(509_850));
        assert!(later(509_849));
        assert!(later(0), "a wall clock may go back");
    }

    /// Rules 6 and 7: `ttl * (1 + drift)`, and the 50 ms.
    #[test]
    fn wait_time_adds_drift_and_pause_and_resolution() {
        assert_eq!(wait_time(Duration::from_secs(60)), Duration::from_millis(60_651));
        assert_eq!(wait_time(Duration::MAX), Duration::from_millis(u64::MAX) + RESOLUTION);
    }
}
