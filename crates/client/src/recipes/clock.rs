//! What a client can know of a tenant's clock without asking: a time that it has certainly reached.

use std::time::Duration;

use parking_lot::Mutex;
use stead_types::TenantTime;
use tokio::time::Instant;

/// A lower bound of a tenant's time, which goes on between answers.
///
/// An answer shows the time of the tenant's last change, which may be long ago. What has passed here since then has
/// passed there as well, up to a tenth, and but for the time without a leader. Nothing is decided by this bound: it says
/// when to ask, and what to write down that is then compared with the time of the answer.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    time: TenantTime,
    at: Instant,
    /// It came with a change made just then.
    is_recent: bool,
}

/// An answer that is this much behind what was reckoned did not just overtake another one.
const AHEAD_MAX: Duration = Duration::from_secs(1);

impl Seen {
    fn now(self) -> TenantTime {
        let passed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        TenantTime(self.time.0.saturating_add(passed))
    }
}

impl Clock {
    /// Learns from an answer; `changed`: it is the first answer to a change.
    pub(super) fn saw(&self, time: TenantTime, changed: bool) {
        let mut seen = self.0.lock();
        let is_recent = changed || seen.is_some_and(|seen| seen.is_recent);
        // A tenant's time stands still while its home has no leader: what has passed here did not pass there.
        let stood_still = |before: &Seen| changed && before.now() > after(time, AHEAD_MAX);
        match &mut *seen {
            Some(before) if before.now() > time && !stood_still(before) => before.is_recent = is_recent,
            Some(_) | None => {
                *seen = Some(Seen {
                    time,
                    at: Instant::now(),
                    is_recent,
                });
            }
        }
    }

    /// Returns what the tenant's time is at least; zero before the first answer.
    pub(super) fn now(&self) -> TenantTime {
        self.0.lock().map_or(TenantTime(0), Seen::now)
    }

    /// Returns the tenant's time where it is known to within an answer's way.
    pub(super) fn recent(&self) -> Option<TenantTime> {
        self.0.lock().filter(|seen| seen.is_recent).map(Seen::now)
    }
}

/// Returns the time after so long.
pub(super) fn after(time: TenantTime, wait: Duration) -> TenantTime {
    TenantTime(
        time.0
            .saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_goes_on_by_itself_and_never_back() {
        let clock = Clock::default();
        assert_eq!((clock.now(), clock.recent()), (TenantTime(0), None));
        clock.saw(TenantTime(1_000), false);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!((clock.now(), clock.recent()), (TenantTime(1_500), None));
        clock.saw(TenantTime(1_200), false);
        assert_eq!(clock.now(), TenantTime(1_500), "an old change says nothing new");
        clock.saw(TenantTime(9_000), true);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(clock.recent(), Some(TenantTime(9_001)));
        clock.saw(TenantTime(9_000), false);
        assert_eq!(clock.recent(), Some(TenantTime(9_001)));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_is_corrected_after_an_outage_in_which_the_tenants_stood_still() {
        let clock = Clock::default();
        clock.saw(TenantTime(1_000), true);
        tokio::time::advance(Duration::from_secs(15)).await;
        clock.saw(TenantTime(2_000), false);
        assert_eq!(clock.now(), TenantTime(16_000), "an old change says nothing new");
        clock.saw(TenantTime(2_000), true);
        assert_eq!(clock.now(), TenantTime(2_000));
    }
}
