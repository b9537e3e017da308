//! Lower bound of a tenant's logged time, as a client knows it without a call.

use std::time::Duration;

use parking_lot::Mutex;
use stead_types::TenantTime;
use tokio::time::Instant;

/// Lower bound of a tenant's logged time, which goes on between responses.
///
/// A response shows the time of the tenant's last change, which may be long ago. The time that has passed here since
/// then has passed there as well, up to a tenth, and but for the time without a leader. Nothing is decided by this
/// bound: it says when to ask, and which deadline to write, which is then compared with the time of the response.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<ClockReading>>);

#[derive(Clone, Copy, Debug)]
struct ClockReading {
    time: TenantTime,
    at: Instant,
    /// Whether it came with a change made just then.
    is_recent: bool,
}

/// A response that is further behind the extrapolated time did not just overtake another one.
const LAG_MAX: Duration = Duration::from_secs(1);

impl ClockReading {
    fn now(self) -> TenantTime {
        let passed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        TenantTime(self.time.0.saturating_add(passed))
    }
}

impl Clock {
    /// Learns from a response; `changed`: it is the first response to a change.
    pub(super) fn observe(&self, time: TenantTime, changed: bool) {
        let mut reading = self.0.lock();
        let is_recent = changed || reading.is_some_and(|reading| reading.is_recent);
        // Logged time stands still while the home has no leader: the time that has passed here did not pass there.
        let stood_still = |before: &ClockReading| changed && before.now() > after(time, LAG_MAX);
        match &mut *reading {
            Some(before) if before.now() > time && !stood_still(before) => before.is_recent = is_recent,
            Some(_) | None => {
                *reading = Some(ClockReading {
                    time,
                    at: Instant::now(),
                    is_recent,
                });
            }
        }
    }

    /// Returns the lower bound; zero before the first response.
    pub(super) fn now(&self) -> TenantTime {
        self.0.lock().map_or(TenantTime(0), ClockReading::now)
    }

    /// Returns the tenant's time where it is known to within the latency of a response.
    pub(super) fn recent(&self) -> Option<TenantTime> {
        self.0.lock().filter(|reading| reading.is_recent).map(ClockReading::now)
    }
}

/// Returns the time after a duration.
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
    async fn clock_advances_by_itself_and_never_goes_back() {
        let clock = Clock::default();
        assert_eq!((clock.now(), clock.recent()), (TenantTime(0), None));
        clock.observe(TenantTime(1_000), false);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!((clock.now(), clock.recent()), (TenantTime(1_500), None));
        clock.observe(TenantTime(1_200), false);
        assert_eq!(clock.now(), TenantTime(1_500), "an old change says nothing new");
        clock.observe(TenantTime(9_000), true);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(clock.recent(), Some(TenantTime(9_001)));
        clock.observe(TenantTime(9_000), false);
        assert_eq!(clock.recent(), Some(TenantTime(9_001)));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_is_corrected_after_outage_of_home() {
        let clock = Clock::default();
        clock.observe(TenantTime(1_000), true);
        tokio::time::advance(Duration::from_secs(15)).await;
        clock.observe(TenantTime(2_000), false);
        assert_eq!(clock.now(), TenantTime(16_000), "an old change says nothing new");
        clock.observe(TenantTime(2_000), true);
        assert_eq!(clock.now(), TenantTime(2_000));
    }
}
