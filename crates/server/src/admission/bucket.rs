//! Something that flows at a rate: a bucket that holds one second's worth and fills up again. Pure: time is an argument.
//!
//! # Invariants
//!
//! 1. What costs one each, and is charged once [`Bucket::check`] has let it through, is over any time at most the rate
//!    times it and one second's worth.
//! 2. What costs more than there is goes once, and is paid by waiting: nothing is let through until it is.
//! 3. Whoever is refused while others wait is told to come back after them: all who were told the same time would come at
//!    that time, and all but one of them in vain.

use std::time::Duration;

const SECOND_NS: u128 = 1_000_000_000;
/// Those who were refused are told to come back within this time after there is something again.
const TURNS_MAX_NS: u64 = 1_000_000_000;

/// What has been used of a rate, as what is owed: zero when the bucket is full.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// In billionths: a rate of one a second pays one of these in a nanosecond.
    owed: u128,
    /// When that was so, in nanoseconds.
    at_ns: u64,
    /// By which rate it is counted.
    rate: u64,
    /// The last turn that somebody was told to come back for.
    told_ns: u64,
}

impl Bucket {
    /// Tells whether there is one left for something that will be charged `cost`.
    ///
    /// # Errors
    ///
    /// After how long it has its turn.
    pub(crate) fn check(&mut self, now_ns: u64, rate: u64, cost: u64) -> Result<(), Duration> {
        self.settle(now_ns, rate);
        let over = (self.owed + SECOND_NS).saturating_sub(u128::from(rate) * SECOND_NS);
        if over == 0 {
            return Ok(());
        }
        let free_ns = now_ns.saturating_add(takes_ns(over, rate));
        let turn_ns = takes_ns(u128::from(cost) * SECOND_NS, rate);
        let next_ns = self.told_ns.saturating_add(turn_ns);
        self.told_ns = next_ns.clamp(free_ns, free_ns.saturating_add(TURNS_MAX_NS));
        Err(Duration::from_nanos(self.told_ns - now_ns))
    }

    /// Takes what is used, there or not.
    pub(crate) fn charge(&mut self, now_ns: u64, rate: u64, cost: u64) {
        self.settle(now_ns, rate);
        self.owed = self.owed.saturating_add(u128::from(cost) * SECOND_NS);
    }

    /// Tells whether nothing is owed: it is as good as new.
    pub(crate) fn is_full(&self, now_ns: u64) -> bool {
        let paid = u128::from(now_ns.saturating_sub(self.at_ns)) * u128::from(self.rate);
        self.owed <= paid
    }

    fn settle(&mut self, now_ns: u64, rate: u64) {
        let paid = u128::from(now_ns.saturating_sub(self.at_ns)) * u128::from(self.rate);
        self.owed = self.owed.saturating_sub(paid);
        self.at_ns = self.at_ns.max(now_ns);
        if self.rate != rate {
            // Whoever owed a second still owes a second: nobody pays for ever what was used under a higher rate.
            let scaled = self.owed.saturating_mul(u128::from(rate));
            self.owed = scaled / u128::from(self.rate.max(1));
            self.rate = rate;
        }
    }
}

/// How long something in billionths takes at a rate, in nanoseconds.
fn takes_ns(billionths: u128, rate: u64) -> u64 {
    u64::try_from(billionths.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn take(bucket: &mut Bucket, now_ns: u64, rate: u64, cost: u64) -> Result<(), Duration> {
        bucket.check(now_ns, rate, cost)?;
        bucket.charge(now_ns, rate, cost);
        Ok(())
    }

    /// Takes ones until one is refused; how many there were, and how long the refused one is to wait.
    fn drain(bucket: &mut Bucket, now_ns: u64, rate: u64) -> (u64, Duration) {
        let mut taken = 0;
        loop {
            match take(bucket, now_ns, rate, 1) {
                Ok(()) => taken += 1,
                Err(wait) => return (taken, wait),
            }
        }
    }

    #[test]
    fn a_second_s_worth_goes_at_once_and_the_next_one_waits_for_its_turn() {
        for rate in [1, 2, 3, 7, 1_000, 99_999] {
            let mut bucket = Bucket::default();
            let (taken, wait) = drain(&mut bucket, 5, rate);
            assert_eq!(taken, rate);
            let turn_ns = SECOND.div_ceil(rate);
            assert_eq!(wait, Duration::from_nanos(turn_ns));
            assert!(take(&mut bucket, 5 + turn_ns - 1, rate, 1).is_err(), "just before");
            assert_eq!(
                take(&mut bucket, 5 + turn_ns, rate, 1),
                Ok(()),
                "at the time that was named"
            );
            assert!(take(&mut bucket, 5 + turn_ns, rate, 1).is_err(), "and only one");
        }
    }

    /// Invariant 1, of somebody who asks as often as possible.
    #[test]
    fn in_the_long_run_the_rate_holds() {
        let (rate, mut bucket, mut taken) = (250, Bucket::default(), 0);
        for now_ms in 0..10_000 {
            taken += drain(&mut bucket, now_ms * 1_000_000, rate).0;
        }
        assert!(
            (2_740..=2_750).contains(&taken),
            "{taken} in ten seconds at {rate} a second"
        );
    }

    /// Invariant 2.
    #[test]
    fn what_costs_more_than_there_is_goes_once_and_is_owed() {
        let mut bucket = Bucket::default();
        assert_eq!(take(&mut bucket, 0, 100, 350), Ok(()));
        assert_eq!(take(&mut bucket, 0, 100, 1), Err(Duration::from_millis(2_510)));
        bucket.charge(0, 100, 100);
        assert_eq!(take(&mut bucket, 0, 100, 1), Err(Duration::from_millis(3_510)));
        assert_eq!(take(&mut bucket, 3_510 * SECOND / 1_000, 100, 1), Ok(()));
    }

    /// Invariant 3: a hundred who ask at once need two attempts each, not a hundred.
    #[test]
    fn who_is_refused_is_told_a_turn_of_its_own_and_has_it() {
        let (rate, mut bucket) = (100, Bucket::default());
        drain(&mut bucket, 0, rate);
        let told: Vec<Duration> = (0..100).map(|_| take(&mut bucket, 0, rate, 1).unwrap_err()).collect();
        // The drain's own refusal had the first turn.
        for (place, wait) in (2..).zip(&told) {
            assert_eq!(
                *wait,
                (place * Duration::from_millis(10)).min(Duration::from_millis(1_010))
            );
        }
        for wait in told {
            assert_eq!(take(&mut bucket, wait.as_nanos() as u64, rate, 1), Ok(()));
        }
    }

    #[test]
    fn turns_go_a_second_ahead_at_most_and_are_as_long_as_what_is_asked_for() {
        let mut bucket = Bucket::default();
        bucket.charge(0, 1_000, 1_000);
        let waits = [1, 250, 250, 400, 400, 1].map(|cost| {
            let wait = take(&mut bucket, 0, 1_000, cost).unwrap_err();
            wait.as_millis()
        });
        assert_eq!(waits, [1, 251, 501, 901, 1_001, 1_001]);
        // Nobody came: who asks later is served, and who is refused then is the first.
        let later = 2 * SECOND;
        assert_eq!(take(&mut bucket, later, 1_000, 1_000), Ok(()));
        assert_eq!(take(&mut bucket, later, 1_000, 1), Err(Duration::from_millis(1)));
    }

    #[test]
    fn who_owes_when_the_rate_changes_waits_as_long_as_before() {
        let mut bucket = Bucket::default();
        bucket.charge(0, 1_000, 1_000);
        assert_eq!(take(&mut bucket, 0, 2, 1), Err(Duration::from_millis(500)));
        assert_eq!(take(&mut bucket, SECOND / 2, 2, 1), Ok(()));
        assert!(!bucket.is_full(SECOND));
        assert!(bucket.is_full(2 * SECOND));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut bucket = Bucket::default();
        drain(&mut bucket, SECOND, 10);
        assert!(take(&mut bucket, 0, 10, 1).is_err());
        assert!(take(&mut bucket, SECOND, 10, 1).is_err());
        assert_eq!(take(&mut bucket, u64::MAX, u64::MAX, u64::MAX), Ok(()));
    }
}
