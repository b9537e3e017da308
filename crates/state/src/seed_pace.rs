//! Pace of a running seed, decided at the home: whether the tenant's writers are slowed so that the copy can catch up,
//! and whether the seed ends because it cannot.
//!
//! History since the seed's start is kept for it. Up to the cap writers are free; beyond it they are slowed; at
//! [`HISTORY_CAPS_MAX`] caps, or as soon as it is clear that the seed would get there, it ends.
//!
//! # Invariants
//!
//! 1. Writers are slowed only while more history is kept than the cap and the copy advances, and never below
//!    [`WRITE_PERCENT_MIN`] percent of their rate at the seed's start.
//! 2. No seed ends while the history kept for it is within the cap.
//! 3. Every seed ends while its tenant is written to: it is complete, or its history reaches the bound.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::codec::{Malformed, Reader, Writer};

/// Least rate that slowed writers keep, in percent of their rate at the seed's start.
pub const WRITE_PERCENT_MIN: u64 = 80;
/// Caps of history at which a seed ends in any case.
pub const HISTORY_CAPS_MAX: u64 = 2;
/// Part of a cap beyond the cap over which writers are slowed down to the least rate.
const SLOWING_DIVISOR: u64 = 4;
/// Time over which rates are measured.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Time without an advance of the copy after which it counts as stalled.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Time for which it must have been clear that the seed cannot be completed before it ends.
const HOPELESS_AFTER: Duration = Duration::from_secs(10);
/// Time without an advance after which history is no longer kept for a seed: its follower is gone.
pub const RELEASED_AFTER: Duration = Duration::from_secs(10 * 60);

/// Amounts of a running seed at one moment, in bytes since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedSample {
    /// Time, by any clock that does not go back.
    pub at: Duration,
    /// History that the tenant's writers have made.
    pub history: u64,
    /// History that the copy has taken in.
    pub caught_up: u64,
    /// State that the copy has taken in.
    pub loaded: u64,
    /// State that the copy has still to take in.
    pub left: u64,
    /// Write requests that were admitted.
    pub requests: u64,
}

/// Rates of a running seed, in bytes a second over the last [`RATE_WINDOW`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedRates {
    /// State and history that the copy takes in.
    pub copy: u64,
    /// History that writers make.
    pub write: u64,
    /// Write requests that are admitted.
    pub requests: u64,
}

/// Decision about a running seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedVerdict {
    /// Writers are not slowed.
    Free,
    /// The tenant's writers are slowed to this rate of requests.
    Slow {
        /// Bytes of requests a second.
        bytes_per_second: u64,
    },
    /// The seed ends; what was copied is not used.
    End(SeedFailure),
    /// The copy has not advanced for so long that nothing is kept for it any more.
    Release,
}

/// Reason for the end of a seed that was not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedFailureReason {
    /// Writers make more history than the copy can take in, even slowed down.
    CannotCatchUp,
    /// The copy does not advance, and no more history may be kept for it.
    Stalled,
}

/// Figures of a seed that has ended without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedFailure {
    /// Why it ended.
    pub reason: SeedFailureReason,
    /// Bytes a second that the copy took in.
    pub copy_rate: u64,
    /// Bytes of history a second that writers made.
    pub write_rate: u64,
    /// Bytes of history that were kept for the seed.
    pub history: u64,
    /// Bytes of history beyond which writers are slowed: the cap.
    pub history_max: u64,
}

/// Pace of one seed: its latest samples, and what was decided from them.
#[derive(Clone, Debug)]
pub struct SeedPace {
    history_max: u64,
    /// The last samples, oldest first: no more than [`RATE_WINDOW`] and one.
    samples: VecDeque<SeedSample>,
    first: Option<SeedSample>,
    /// Rate of requests at the start, once a window has passed.
    start_rate: Option<u64>,
    /// Rate of requests that slowed writers are measured by, since they are slowed.
    base_rate: Option<u64>,
    advanced_at: Duration,
    hopeless_since: Option<Duration>,
}

impl SeedPace {
    /// Returns the pace of a seed that begins, with its cap of history.
    pub fn new(history_max: u64) -> Self {
        Self {
            history_max,
            samples: VecDeque::new(),
            first: None,
            start_rate: None,
            base_rate: None,
            advanced_at: Duration::ZERO,
            hopeless_since: None,
        }
    }

    /// Adds a sample and decides.
    pub fn observe(&mut self, sample: SeedSample) -> SeedVerdict {
        self.add(sample);
        let idle = sample.at.saturating_sub(self.advanced_at);
        let base = self
            .base_rate
            .unwrap_or_else(|| base_rate(self.start_rate, self.first, sample));
        // Known before the cap is reached, so that nobody is slowed for a copy that will not be.
        let is_hopeless = self.is_hopeless(sample, base);
        if sample.history <= self.history_max {
            return if idle >= RELEASED_AFTER {
                SeedVerdict::Release
            } else {
                SeedVerdict::Free
            };
        }
        if idle >= STALLED_AFTER {
            return self.end(SeedFailureReason::Stalled);
        }
        self.base_rate = Some(base);
        if is_hopeless || sample.history > self.history_max.saturating_mul(HISTORY_CAPS_MAX) {
            return self.end(SeedFailureReason::CannotCatchUp);
        }
        if base == 0 {
            return SeedVerdict::Free;
        }
        let bytes_per_second = mul_div(base, self.write_percent(sample.history), 100).saturating_add(1);
        SeedVerdict::Slow { bytes_per_second }
    }

    fn add(&mut self, sample: SeedSample) {
        let first = *self.first.get_or_insert(sample);
        let taken = |sample: &SeedSample| sample.loaded.saturating_add(sample.caught_up);
        if self.samples.back().is_none_or(|last| taken(&sample) > taken(last)) {
            self.advanced_at = sample.at;
        }
        self.samples.push_back(sample);
        // One sample as old as the window stays, to measure from.
        while self
            .samples
            .get(1)
            .is_some_and(|next| next.at + RATE_WINDOW <= sample.at)
        {
            self.samples.pop_front();
        }
        if self.start_rate.is_none() && first.at + RATE_WINDOW <= sample.at {
            self.start_rate = Some(self.rates().requests);
        }
    }

    /// Returns the rates over the last window; zero before there are two samples.
    pub fn rates(&self) -> SeedRates {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return SeedRates::default();
        };
        let time = last.at.saturating_sub(first.at);
        let of = |amount: fn(&SeedSample) -> u64| per_second(amount(last).saturating_sub(amount(first)), time);
        SeedRates {
            copy: of(|sample| sample.loaded.saturating_add(sample.caught_up)),
            write: of(|sample| sample.history),
            requests: of(|sample| sample.requests),
        }
    }

    /// Returns the bytes that the copy lacks.
    pub fn bytes_to_go(&self) -> u64 {
        self.samples.back().map_or(0, |last| last.left + backlog(last))
    }

    /// Returns the time until the copy is complete at the present rates; `None`: at these it never is.
    pub fn time_to_go(&self) -> Option<Duration> {
        let (last, rates) = (self.samples.back()?, self.rates());
        time_to_go(last.left, backlog(last), rates.copy, rates.write)
    }

    /// Returns the share of their rate at the start that writers keep with so much history.
    fn write_percent(&self, history: u64) -> u64 {
        let over = history.saturating_sub(self.history_max);
        let range = (self.history_max / SLOWING_DIVISOR).max(1);
        100 - mul_div(over.min(range), 100 - WRITE_PERCENT_MIN, range)
    }

    /// Tells whether it has been clear for a while that the copy cannot be completed below the bound, at the least rate
    /// of the writers.
    fn is_hopeless(&mut self, sample: SeedSample, base: u64) -> bool {
        let is_measured = self
            .samples
            .front()
            .is_some_and(|first| first.at + RATE_WINDOW <= sample.at);
        let rates = self.rates();
        let least = mul_div(base, WRITE_PERCENT_MIN, 100);
        let write = if rates.requests > least {
            mul_div(rates.write, least, rates.requests)
        } else {
            rates.write
        };
        let fits = time_to_go(sample.left, backlog(&sample), rates.copy, write).is_some_and(|time| {
            let made = u128::from(write) * time.as_millis() / 1_000;
            u128::from(sample.history) + made <= u128::from(self.history_max) * u128::from(HISTORY_CAPS_MAX)
        });
        if fits || !is_measured {
            self.hopeless_since = None;
            return false;
        }
        let since = *self.hopeless_since.get_or_insert(sample.at);
        sample.at.saturating_sub(since) >= HOPELESS_AFTER
    }

    fn end(&self, reason: SeedFailureReason) -> SeedVerdict {
        let rates = self.rates();
        SeedVerdict::End(SeedFailure {
            reason,
            copy_rate: rates.copy,
            write_rate: rates.write,
            history: self.samples.back().map_or(0, |last| last.history),
            history_max: self.history_max,
        })
    }
}

/// Returns the rate of requests that slowed writers are measured by: that of the seed's start, or the mean since then
/// where that is higher, so that a load that began later is not cut off.
fn base_rate(start: Option<u64>, first: Option<SeedSample>, now: SeedSample) -> u64 {
    let mean = first.map_or(0, |first| {
        per_second(
            now.requests.saturating_sub(first.requests),
            now.at.saturating_sub(first.at),
        )
    });
    start.unwrap_or(0).max(mean)
}

fn backlog(sample: &SeedSample) -> u64 {
    sample.history.saturating_sub(sample.caught_up)
}

/// Returns the time until `left` and the history that is made meanwhile are taken in.
fn time_to_go(left: u64, backlog: u64, copy: u64, write: u64) -> Option<Duration> {
    if left == 0 && backlog == 0 {
        return Some(Duration::ZERO);
    }
    // State first, then history: all of it at the rate that is left of the copy's beside the writers'.
    let spare = copy.checked_sub(write).filter(|spare| *spare > 0)?;
    let millis = (u128::from(left) + u128::from(backlog)) * 1_000 / u128::from(spare);
    Some(Duration::from_millis(u64::try_from(millis).ok()?))
}

fn per_second(amount: u64, time: Duration) -> u64 {
    let millis = time.as_millis();
    if millis == 0 {
        return 0;
    }
    u64::try_from(u128::from(amount) * 1_000 / millis).unwrap_or(u64::MAX)
}

fn mul_div(value: u64, by: u64, divisor: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(divisor.max(1))).unwrap_or(u64::MAX)
}

impl SeedFailure {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u8(match self.reason {
            SeedFailureReason::CannotCatchUp => 0,
            SeedFailureReason::Stalled => 1,
        });
        w.varint(self.copy_rate).varint(self.write_rate);
        w.varint(self.history).varint(self.history_max);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            reason: match r.u8()? {
                0 => SeedFailureReason::CannotCatchUp,
                1 => SeedFailureReason::Stalled,
                2.. => return Err(r.malformed()),
            },
            copy_rate: r.varint()?,
            write_rate: r.varint()?,
            history: r.varint()?,
            history_max: r.varint()?,
        })
    }
}

impl fmt::Display for SeedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            copy_rate,
            write_rate,
            history,
            history_max,
            ..
        } = self;
        match self.reason {
            SeedFailureReason::CannotCatchUp => write!(
                f,
                "the copy cannot catch up at this rate: it takes in {copy_rate} bytes a second, writers make \
                 {write_rate} bytes of history a second"
            )?,
            SeedFailureReason::Stalled => write!(
                f,
                "the copy has not advanced for {} s, and writers make {write_rate} bytes of history a second",
                STALLED_AFTER.as_secs()
            )?,
        }
        write!(
            f,
            "; {history} bytes of history were kept for it (storage.seed_history_bytes_max: {history_max}); limit the \
             tenant's bytes-per-second, raise storage.seed_history_bytes_max or net.seed_bytes_per_second_max, or copy \
             it when less is written"
        )
    }
}

#[cfg(test)]
#[path = "seed_pace_test.rs"]
mod seed_pace_test;
