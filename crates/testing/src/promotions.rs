//! Promotions under load: which acknowledged writes are gone, and whether each is inside the window that the report names.

use std::time::{Duration, SystemTime};

use stead_client::{
    Admin, OperationFilter, OperationInfo, OperationOutcome, PromotedTenant, PromotionReport, PromotionRequest,
};
use stead_types::Epoch;
use tokio::time::{Instant, sleep};

use crate::{
    load::Acknowledgement,
    moves::{Error, ended_within},
};

/// Longest time for the directory to elect a leader, where its own was lost with the region.
const ELECTION: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Result of a promotion that has ended.
#[derive(Debug)]
pub struct Promotion {
    /// Its operation.
    pub operation: OperationInfo,
    /// Decisions of the promotion.
    pub report: PromotionReport,
    /// From the call until it returned: the fence was recorded then.
    pub confirmed_after: Duration,
    /// Time at which it had returned.
    pub fenced_by: Instant,
}

/// Begins a promotion and waits for its end, also one that cannot promote every tenant.
///
/// # Errors
///
/// It is refused, does not end in time, or is cancelled.
pub async fn promote(admin: &Admin, request: PromotionRequest, within: Duration) -> Result<Promotion, Error> {
    let (asked, since) = (Instant::now(), SystemTime::now());
    let begun = loop {
        match admin.promote(request.clone()).await {
            Ok(begun) => break begun,
            Err(error) if asked.elapsed() > ELECTION => return Err(error.into()),
            // The directory's leader may have died with the region, and what it was asked for may have begun.
            Err(_) => {
                if let Some(begun) = begun_since(admin, since).await {
                    break begun;
                }
                sleep(POLL_INTERVAL).await;
            }
        }
    };
    let fenced_by = Instant::now();
    let operation = ended_within(admin, &begun.name, within).await?;
    let is_done = matches!(
        operation.outcome,
        Some(OperationOutcome::Promoted(_) | OperationOutcome::Failed(_))
    );
    if !is_done {
        return Err(Error::Failed(operation.name.clone(), operation.outcome));
    }
    Ok(Promotion {
        report: admin.promotion_report(&operation.name).await?,
        operation,
        confirmed_after: fenced_by.duration_since(asked),
        fenced_by,
    })
}

/// Returns a promotion that was begun since a time, if there is one.
async fn begun_since(admin: &Admin, since: SystemTime) -> Option<OperationInfo> {
    let operations = admin.operations(&OperationFilter::default()).await.ok()?;
    let is_new = |operation: &OperationInfo| operation.promotion.is_some() && operation.created >= Some(since);
    operations.into_iter().find(is_new)
}

impl Promotion {
    /// Returns what was decided for a tenant.
    pub fn tenant(&self, name: &str) -> Option<&PromotedTenant> {
        self.report.tenants.iter().find(|tenant| tenant.tenant == name)
    }

    /// Returns the longest time from the fence until a new home served.
    pub fn longest(&self) -> Option<Duration> {
        let taken = |tenant: &PromotedTenant| tenant.times.ended?.duration_since(tenant.times.fenced?).ok();
        self.report.tenants.iter().filter_map(taken).max()
    }
}

/// Wall clock of this process at an instant of its monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    instant: Instant,
    time: SystemTime,
}

impl WallClock {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    fn at(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.time + later,
            None => self.time - self.instant.duration_since(instant),
        }
    }
}

/// Returns the number of writes that were certainly acknowledged outside a window: before it begins or after it ends. A
/// bound that is not known bounds nothing; clocks may differ by `tolerance`.
pub fn outside_window(
    clock: WallClock,
    gone: &[Acknowledgement],
    (from, to): (Option<SystemTime>, Option<SystemTime>),
    tolerance: Duration,
) -> usize {
    let is_outside = |write: &&Acknowledgement| {
        let is_early = from.is_some_and(|from| clock.at(write.acknowledged) + tolerance < from);
        let is_late = to.is_some_and(|to| clock.at(write.sent) > to + tolerance);
        is_early || is_late
    };
    gone.iter().filter(is_outside).count()
}

/// Returns the number of writes of the epoch before the promotion that were certainly acknowledged after one of its own.
pub fn overlapping(writes: &[Acknowledgement], promoted: Epoch) -> usize {
    let after = writes.iter().filter(|write| write.revision.epoch() >= promoted);
    let Some(first) = after.map(|write| write.acknowledged).min() else {
        return 0;
    };
    let before = writes.iter().filter(|write| write.revision.epoch() < promoted);
    before.filter(|write| write.sent > first).count()
}

/// Returns the first acknowledgement of a write in an epoch or a later one.
pub fn first_in(writes: &[Acknowledgement], epoch: Epoch) -> Option<Instant> {
    let of_epoch = writes.iter().filter(|write| write.revision.epoch() >= epoch);
    of_epoch.map(|write| write.acknowledged).min()
}

#[cfg(test)]
mod tests {
    use stead_types::{Revision, Sequence};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn write(start: Instant, sent: u32, acknowledged: u32, epoch: u32) -> Acknowledgement {
        Acknowledgement {
            number: 1,
            sent: start + sent * MS,
            acknowledged: start + acknowledged * MS,
            revision: Revision::new(Epoch::new(epoch).unwrap(), Sequence::new(1).unwrap()),
        }
    }

    #[test]
    fn lost_write_outside_window_is_counted() {
        let clock = WallClock::now();
        let at = |ms: u32| Some(clock.time + ms * MS);
        let gone = [write(clock.instant, 10, 20, 1), write(clock.instant, 110, 120, 1)];
        let outside = |from, to| outside_window(clock, &gone, (from, to), Duration::ZERO);
        assert_eq!(outside(at(20), at(110)), 0);
        assert_eq!(outside(at(21), at(110)), 1, "acknowledged before it begins");
        assert_eq!(outside(at(20), at(109)), 1, "sent after it ends");
        assert_eq!(outside(None, None), 0);
        assert_eq!(outside_window(clock, &gone, (at(21), at(109)), MS), 0);
    }

    #[test]
    fn write_of_old_epoch_sent_after_new_one_served_overlaps() {
        let start = Instant::now();
        let writes = [write(start, 0, 10, 1), write(start, 30, 40, 3), write(start, 35, 60, 1)];
        assert_eq!(
            overlapping(&writes, Epoch::new(3).unwrap()),
            0,
            "they were in flight together"
        );
        let late = [&writes[..], &[write(start, 41, 60, 1)]].concat();
        assert_eq!(overlapping(&late, Epoch::new(3).unwrap()), 1);
        assert_eq!(first_in(&late, Epoch::new(2).unwrap()), Some(start + 40 * MS));
    }
}
