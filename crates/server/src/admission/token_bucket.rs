//! Token bucket that holds one second of its rate and refills continuously. It also hands out turns up to one second
//! ahead. Pure: time is an argument.
//!
//! # Invariants
//!
//! 1. Operations of cost one that are charged after [`TokenBucket::check`] has passed are, over any time, at most the
//!    rate times that time and one second's worth.
//! 2. An operation that costs more than is left passes once, and its debt is paid by waiting: nothing passes until it
//!    is paid.
//! 3. An operation that is refused while others wait gets a turn after theirs: with the same time for all, all would
//!    come at that time, and all but one of them in vain.

use std::time::Duration;

const SECOND_NS: u128 = 1_000_000_000;
/// Longest time ahead for which turns are handed out.
const TURNS_MAX_NS: u64 = 1_000_000_000;

/// Token bucket, stored as a debt: zero when the bucket is full.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TokenBucket {
    /// Debt in billionths of a token: a rate of one a second pays one of these in a nanosecond.
    debt: u128,
    /// Time of the debt, in nanoseconds.
    updated_ns: u64,
    /// The rate at which it refills.
    rate: u64,
    /// The last turn that was handed out.
    last_turn_ns: u64,
}

impl TokenBucket {
    /// Checks that a token is left for an operation that will be charged `cost`.
    ///
    /// # Errors
    ///
    /// The time until its turn.
    pub(crate) fn check(&mut self, now_ns: u64, rate: u64, cost: u64) -> Result<(), Duration> {
        self.refill(now_ns, rate);
        let over = (self.debt + SECOND_NS).saturating_sub(u128::from(rate) * SECOND_NS);
        if over == 0 {
            return Ok(());
        }
        let free_ns = now_ns.saturating_add(duration_ns(over, rate));
        let turn_ns = duration_ns(u128::from(cost) * SECOND_NS, rate);
        let next_ns = self.last_turn_ns.saturating_add(turn_ns);
        self.last_turn_ns = next_ns.clamp(free_ns, free_ns.saturating_add(TURNS_MAX_NS));
        Err(Duration::from_nanos(self.last_turn_ns - now_ns))
    }

    /// Charges a cost, even beyond the tokens that are left.
    pub(crate) fn charge(&mut self, now_ns: u64, rate: u64, cost: u64) {
        self.refill(now_ns, rate);
        self.debt = self.debt.saturating_add(u128::from(cost) * SECOND_NS);
    }

    /// Tells whether the bucket is full, as a new one is.
    pub(crate) fn is_full(&self, now_ns: u64) -> bool {
        let paid = u128::from(now_ns.saturating_sub(self.updated_ns)) * u128::from(self.rate);
        self.debt <= paid
    }

    fn refill(&mut self, now_ns: u64, rate: u64) {
        let paid = u128::from(now_ns.saturating_sub(self.updated_ns)) * u128::from(self.rate);
        self.debt = self.debt.saturating_sub(paid);
        self.updated_ns = self.updated_ns.max(now_ns);
        if self.rate != rate {
            // The debt is scaled, so that a second of debt stays a second: what was used under a higher rate is not
            // paid for ever.
            let scaled = self.debt.saturating_mul(u128::from(rate));
            self.debt = scaled / u128::from(self.rate.max(1));
            self.rate = rate;
        }
    }
}

/// Returns the time in nanoseconds that a debt in billionths takes at a rate.
fn duration_ns(billionths: u128, rate: u64) -> u64 {
    u64::try_from(billionths.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn take(bucket: &mut TokenBucket, now_ns: u64, rate: u64, cost: u64) -> Result<(), Duration> {
        bucket.check(now_ns, rate, cost)?;
        bucket.charge(now_ns, rate, cost);
        Ok(())
    }

    /// Takes single tokens until one is refused; returns their number and the wait of the refused one.
    fn drain(bucket: &mut TokenBucket, now_ns: u64, rate: u64) -> (u64, Duration) {
        let mut taken = 0;
        loop {
            match take(bucket, now_ns, rate, 1) {
                Ok(()) => taken += 1,
                Err(wait) => return (taken, wait),
            }
        }
    }

    #[test]
    fn bucket_allows_one_second_burst_then_waits() {
        for rate in [1, 2, 3, 7, 1_000, 99_999] {
            let mut bucket = TokenBucket::default();
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

    /// Invariant 1, for a caller that asks as often as possible.
    #[test]
    fn bucket_long_run_rate_holds() {
        let (rate, mut bucket, mut taken) = (250, TokenBucket::default(), 0);
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
    fn bucket_oversized_cost_passes_once_as_debt() {
        let mut bucket = TokenBucket::default();
        assert_eq!(take(&mut bucket, 0, 100, 350), Ok(()));
        assert_eq!(take(&mut bucket, 0, 100, 1), Err(Duration::from_millis(2_510)));
        bucket.charge(0, 100, 100);
        assert_eq!(take(&mut bucket, 0, 100, 1), Err(Duration::from_millis(3_510)));
        assert_eq!(take(&mut bucket, 3_510 * SECOND / 1_000, 100, 1), Ok(()));
    }

    /// Invariant 3: a hundred who ask at once need two attempts each, not a hundred.
    #[test]
    fn bucket_hands_each_refused_caller_its_own_turn() {
        let (rate, mut bucket) = (100, TokenBucket::default());
        drain(&mut bucket, 0, rate);
        let waits: Vec<Duration> = (0..100).map(|_| take(&mut bucket, 0, rate, 1).unwrap_err()).collect();
        // The refusal in `drain` had the first turn.
        for (place, wait) in (2..).zip(&waits) {
            assert_eq!(
                *wait,
                (place * Duration::from_millis(10)).min(Duration::from_millis(1_010))
            );
        }
        for wait in waits {
            assert_eq!(take(&mut bucket, wait.as_nanos() as u64, rate, 1), Ok(()));
        }
    }

    /// Turns are as long as the cost that is asked for.
    #[test]
    fn bucket_turns_are_bounded_to_one_second_ahead() {
        let mut bucket = TokenBucket::default();
        bucket.charge(0, 1_000, 1_000);
        let waits = [1, 250, 250, 400, 400, 1].map(|cost| {
            let wait = take(&mut bucket, 0, 1_000, cost).unwrap_err();
            wait.as_millis()
        });
        assert_eq!(waits, [1, 251, 501, 901, 1_001, 1_001]);
        // The turns were not used: a later caller is served, and the next refused one has the first turn.
        let later = 2 * SECOND;
        assert_eq!(take(&mut bucket, later, 1_000, 1_000), Ok(()));
        assert_eq!(take(&mut bucket, later, 1_000, 1), Err(Duration::from_millis(1)));
    }

    /// A caller with debt waits as long as before when the rate changes.
    #[test]
    fn bucket_rate_change_keeps_waiting_time() {
        let mut bucket = TokenBucket::default();
        bucket.charge(0, 1_000, 1_000);
        assert_eq!(take(&mut bucket, 0, 2, 1), Err(Duration::from_millis(500)));
        assert_eq!(take(&mut bucket, SECOND / 2, 2, 1), Ok(()));
        assert!(!bucket.is_full(SECOND));
        assert!(bucket.is_full(2 * SECOND));
    }

    #[test]
    fn bucket_ignores_clock_going_back() {
        let mut bucket = TokenBucket::default();
        drain(&mut bucket, SECOND, 10);
        assert!(take(&mut bucket, 0, 10, 1).is_err());
        assert!(take(&mut bucket, SECOND, 10, 1).is_err());
        assert_eq!(take(&mut bucket, u64::MAX, u64::MAX, u64::MAX), Ok(()));
    }
}
