//! Rate limiter with fixed windows, in one round trip.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stead_api::convert::key;
use stead_types::{Error, TenantTime};

use super::{clock::Clock, whole_milliseconds};
use crate::{Header, Increment, Tenant, WriteOptions};

/// Rate limiter that admits a fixed amount in each window of time, across all regions.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use std::time::Duration;
///
/// use stead_client::recipes::{RateLimitDecision, RateLimiter};
///
/// let requests = RateLimiter::new(&acme, "limits/requests", 100, Duration::from_secs(1))?;
/// match requests.admit(1).await? {
///     RateLimitDecision::Admitted(admitted) => println!("go on, {:?} left in this window", admitted.remaining),
///     RateLimitDecision::Wait(wait) => println!("try again in {wait:?}"),
/// }
/// # Ok(()) }
/// ```
///
/// **Keys.** One, a decimal number: the amount admitted in the window of its last change. Windows follow each other
/// from the beginning of 1970, by the tenant's logged time; one of 60 s begins with each minute.
///
/// **Guaranteed.** The sum of admitted amounts in one window of the tenant's time is never above the limit, from any
/// number of callers in any region, through retries, deaths of nodes and moves: the home decides, and decides each
/// request once. The tenant's logged time never goes back.
///
/// **Costs.** One round trip to the tenant's home and one write there. A refusal writes nothing.
///
/// **Not guaranteed.** A fixed window admits up to twice the limit within one window's length that lies across the
/// border of two. After an error with an unknown outcome the request may have been counted; it was not admitted, so
/// that less gets through than the limit and never more. Waiting callers are not served in order. A forced promotion
/// that loses writes forgets what they counted.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    tenant: Tenant,
    key: Bytes,
    limit: u64,
    window: Duration,
    clock: Arc<Clock>,
}

/// Decision of a rate limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what was asked for may not be admitted"]
pub enum RateLimitDecision {
    /// The amount is admitted and counted.
    Admitted(RateLimitPermit),
    /// The amount is not admitted: the next window begins after this wait at the latest.
    Wait(Duration),
}

/// Admitted amount, with the rest of its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitPermit {
    /// Amount that this window still admits; absent if an earlier attempt of this call was counted and its outcome is
    /// no longer kept.
    pub remaining: Option<u64>,
    /// Metadata of the response; its revision is the count's.
    pub header: Header,
}

impl RateLimiter {
    /// Returns a limiter for a key: `limit` in each `window`, which is whole milliseconds. All callers that use the key
    /// must give the same two; another window's length begins a new count.
    ///
    /// # Errors
    ///
    /// An invalid key, limit or window.
    pub fn new(tenant: &Tenant, key: impl Into<Bytes>, limit: u64, window: Duration) -> Result<Self, Error> {
        if i64::try_from(limit).is_err() {
            let message = format!("limit: at most {}, not {limit}", i64::MAX);
            return Err(Error::invalid("limit", message));
        }
        let key = key.into();
        key::key("key", &key)?;
        Ok(Self {
            tenant: tenant.clone(),
            key,
            limit,
            window: whole_milliseconds("window", window)?,
            clock: Arc::default(),
        })
    }

    /// Counts an amount if the window has room for all of it.
    ///
    /// # Errors
    ///
    /// As [`Tenant::increment_with`]: it was not admitted, but with an unknown outcome it may have been counted. An
    /// amount above the limit is invalid, because no window ever admits it.
    pub async fn admit(&self, amount: u64) -> Result<RateLimitDecision, Error> {
        if amount > self.limit {
            let message = format!(
                "amount: {amount} is more than the limit of {}: ask for less",
                self.limit
            );
            return Err(Error::invalid("amount", message));
        }
        let (limit, delta) = (signed(self.limit), signed(amount));
        let increment = Increment {
            ceiling: Some(limit),
            window: Some(self.window),
            ..Increment::by(delta)
        };
        let answer = self
            .tenant
            .increment_with(self.key.clone(), increment, &WriteOptions::default())
            .await?;
        let is_first = answer.admitted && !answer.repeated;
        self.clock.observe(answer.header.tenant_time, is_first);
        if !answer.admitted {
            return Ok(RateLimitDecision::Wait(until_next(self.clock.now(), self.window)));
        }
        Ok(RateLimitDecision::Admitted(RateLimitPermit {
            remaining: answer.value.map(|value| remaining(limit, value)),
            header: answer.header,
        }))
    }

    /// Waits until the amount is admitted, from window to window. Dropping the future ends the waiting.
    ///
    /// # Errors
    ///
    /// As [`RateLimiter::admit`].
    pub async fn wait(&self, amount: u64) -> Result<RateLimitPermit, Error> {
        loop {
            match self.admit(amount).await? {
                RateLimitDecision::Admitted(admitted) => return Ok(admitted),
                RateLimitDecision::Wait(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

/// Converts a number that was checked when the limiter was built.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the rest of a limit; zero where a higher limit had been used up.
fn remaining(limit: i64, counted: i64) -> u64 {
    u64::try_from(limit.saturating_sub(counted)).unwrap_or(0)
}

/// Returns the wait until the next window. The true time is later, so the window begins no later.
fn until_next(now: TenantTime, window: Duration) -> Duration {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(window - now.0 % window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_of_lowered_limit_is_zero() {
        let lefts = [(10, 3), (10, 10), (10, 25), (10, -2)].map(|(limit, counted)| remaining(limit, counted));
        assert_eq!(lefts, [7, 0, 0, 12]);
    }

    #[test]
    fn wait_ends_at_first_millisecond_of_next_window() {
        let window = Duration::from_secs(1);
        for (now, wait) in [(0, 1_000), (1, 999), (999, 1), (1_000, 1_000), (61_250, 750)] {
            assert_eq!(
                until_next(TenantTime(now), window),
                Duration::from_millis(wait),
                "{now}"
            );
        }
    }
}
