//! Age and size of a home's feed in segments, so that the feed is not scanned again for each retention decision.
//!
//! # Invariants
//!
//! 1. There are at most as many segments as the limits let live: one for each [`SEGMENT_AGE`] and for each
//!    [`SEGMENT_LEN`].
//! 2. A segment is remembered until the limits are past it, also when its entries are gone: tenants with a retention
//!    floor of their own are held to the same limits.

use std::{collections::VecDeque, time::Duration};

/// Logged time, and bytes, after which a segment is closed.
const SEGMENT_AGE: Duration = Duration::from_secs(1);
const SEGMENT_LEN: u64 = 1 << 20;

/// Bounds of the history that a home keeps for its readers and followers. The defaults of the settings that a node has
/// for them are the ones defined here.
#[derive(Clone, Copy, Debug)]
pub struct RetentionLimits {
    /// Age up to which history is kept although every follower has it, unless it is more than `keep_len`: for pages,
    /// watches and returning followers.
    pub keep_age: Duration,
    /// Bytes that are kept although every follower has them, unless they are older than `keep_age`.
    pub keep_len: u64,
    /// Age after which history is dropped, even for a follower that lacks it: the follower is seeded then.
    pub age_max: Duration,
    /// Bytes beyond which history is dropped, even for a follower that lacks it.
    pub len_max: u64,
    /// Shortest time between two moves of the retention floor.
    pub interval: Duration,
}

/// Default age for tenants without a limit of their own: [`TenantLimit::HistoryAge`].
///
/// [`TenantLimit::HistoryAge`]: stead_types::TenantLimit::HistoryAge
const KEEP_AGE: Duration = Duration::from_secs(10 * 60);

impl Default for RetentionLimits {
    fn default() -> Self {
        Self {
            keep_age: KEEP_AGE,
            keep_len: 64 << 20,
            age_max: Duration::from_secs(24 * 3600),
            len_max: 256 << 20,
            interval: Duration::from_secs(10),
        }
    }
}

/// Segments of the feed, oldest first.
#[derive(Debug, Default)]
pub(crate) struct FeedHistory {
    segments: VecDeque<Segment>,
    len: u64,
    last: u64,
}

#[derive(Debug)]
struct Segment {
    /// Index of its last entry.
    last: u64,
    /// Logged time of its first entry, in milliseconds.
    time: u64,
    len: u64,
}

impl FeedHistory {
    /// Adds an entry: its index, logged time in milliseconds, and length.
    pub(crate) fn add(&mut self, index: u64, time: u64, len: u64) {
        self.last = index;
        self.len += len;
        let age_ms = SEGMENT_AGE.as_millis() as u64;
        match self.segments.back_mut() {
            Some(segment) if segment.len < SEGMENT_LEN && time < segment.time + age_ms => {
                segment.last = index;
                segment.len += len;
            }
            Some(_) | None => self.segments.push_back(Segment { last: index, time, len }),
        }
    }

    /// Returns the index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Returns the highest entry that may be dropped at logged time `now`, if every follower has the entries up to
    /// `needed`: never the last entry.
    pub(crate) fn retention_floor(&self, now: u64, needed: u64, limits: &RetentionLimits) -> u64 {
        let kept = self.last_expired(now, limits.keep_age, limits.keep_len);
        let capped = self.last_expired(now, limits.age_max, limits.len_max);
        kept.min(needed).max(capped).min(self.last.saturating_sub(1))
    }

    /// Returns the logged time before which an age and a length allow entries to be dropped.
    pub(crate) fn cutoff(&self, now: u64, age: Duration, len_max: u64) -> u64 {
        let by_age = cutoff_by_age(now, age);
        let expired = self.expired_segments(now, age, len_max);
        let by_len = self
            .segments
            .get(expired)
            .filter(|_| expired > 0)
            .map_or(0, |segment| segment.time);
        by_age.max(by_len)
    }

    /// Returns the last entry that is older than `age`.
    pub(crate) fn last_older(&self, now: u64, age: Duration) -> u64 {
        self.last_expired(now, age, u64::MAX)
    }

    /// Returns the last entry that is older than `age`, or before the last `len_max` bytes.
    fn last_expired(&self, now: u64, age: Duration, len_max: u64) -> u64 {
        let expired = self.expired_segments(now, age, len_max);
        let last = expired.checked_sub(1).and_then(|last| self.segments.get(last));
        last.map_or(0, |segment| segment.last)
    }

    /// Returns how many of the oldest segments are older than `age`, or before the last `len_max` bytes. A segment
    /// expires as a whole, with its last entry: the next segment begins after that.
    fn expired_segments(&self, now: u64, age: Duration, len_max: u64) -> usize {
        let oldest = cutoff_by_age(now, age);
        let mut len = self.len;
        let is_expired = |segment: &&Segment| {
            let is_kept = segment.time + SEGMENT_AGE.as_millis() as u64 > oldest && len <= len_max;
            len -= segment.len;
            !is_kept
        };
        self.segments.iter().take_while(is_expired).count()
    }

    /// Drops the segments that are beyond the limits.
    pub(crate) fn drop_expired(&mut self, now: u64, limits: &RetentionLimits) {
        let expired = self.expired_segments(now, limits.age_max, limits.len_max);
        self.len -= self.segments.drain(..expired).map(|segment| segment.len).sum::<u64>();
    }
}

/// Returns the logged time before which an age allows entries to be dropped.
pub(super) fn cutoff_by_age(now: u64, age: Duration) -> u64 {
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RetentionLimits = RetentionLimits {
        keep_age: Duration::from_secs(10),
        keep_len: 10 << 20,
        age_max: Duration::from_secs(100),
        len_max: 100 << 20,
        interval: Duration::from_secs(10),
    };

    #[test]
    fn default_keep_age_is_the_default_tenant_limit() {
        let limit = stead_types::TenantLimit::HistoryAge.default_value();
        assert_eq!(limit.map(Duration::from_millis), Some(KEEP_AGE));
    }

    fn history(entries: u64, every_ms: u64, len: u64) -> FeedHistory {
        let mut history = FeedHistory::default();
        for index in 1..=entries {
            history.add(index, index * every_ms, len);
        }
        history
    }

    #[test]
    fn acknowledged_history_is_kept_for_keep_age() {
        let history = history(100, 1000, 10);
        let now = 100_000;
        assert_eq!(history.retention_floor(now, u64::MAX, &LIMITS), 89);
        assert_eq!(history.retention_floor(now, 40, &LIMITS), 40, "a follower needs it");
        assert_eq!(
            history.retention_floor(now + 60_000, 10, &LIMITS),
            59,
            "no longer for it"
        );
    }

    #[test]
    fn history_bytes_are_bounded_and_last_entry_stays() {
        let mut history = history(200, 1000, 1 << 20);
        assert_eq!(history.retention_floor(200_000, u64::MAX, &LIMITS), 190);
        assert_eq!(history.retention_floor(200_000, 0, &LIMITS), 100);
        assert_eq!(history.retention_floor(u64::MAX / 2, 0, &LIMITS), 199);
        history.drop_expired(200_000, &LIMITS);
        assert_eq!(history.retention_floor(200_000, 0, &LIMITS), 0);
        assert_eq!(
            history.retention_floor(200_000, u64::MAX, &LIMITS),
            190,
            "what is within the limits is remembered"
        );
        assert_eq!(history.last(), 200);
    }

    #[test]
    fn cutoff_follows_the_stricter_of_age_and_bytes() {
        let now = 200_000;
        let cutoff = |history: &FeedHistory, now| history.cutoff(now, LIMITS.age_max, LIMITS.len_max);
        assert_eq!(cutoff(&history(200, 1000, 10), now), 100_000, "by age");
        assert_eq!(cutoff(&history(200, 1000, 2 << 20), now), 151_000, "by bytes");
        assert_eq!(cutoff(&history(20, 1000, 10), 20_000), 0);
    }
}
