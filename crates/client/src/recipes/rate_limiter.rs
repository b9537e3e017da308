//! A rate limit in one round trip.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stead_api::convert::key;
use stead_types::{Error, TenantTime};

use super::{clock::Clock, whole_milliseconds};
use crate::{Header, Increment, Tenant, Write};

/// Admits so much in each window of time, all over the world.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use std::time::Duration;
///
/// use stead_client::recipes::{Admission, RateLimiter};
///
/// let requests = RateLimiter::new(&acme, "limits/requests", 100, Duration::from_secs(1))?;
/// match requests.admit(1).await? {
///     Admission::Admitted(admitted) => println!("go on, {:?} left in this window", admitted.left),
///     Admission::Wait(wait) => println!("try again in {wait:?}"),
/// }
/// # Ok(()) }
/// ```
///
/// **Keys.** One, a decimal number: what was admitted in the window of its last change. Windows follow each other from
/// the beginning of 1970, by the tenant's clock; one of 60 s begins with each minute.
///
/// **Guaranteed.** The sum of what is admitted in one window of the tenant's time is never above the limit, whoever asks
/// from wherever, through retries, deaths of nodes and moves: the home decides, and decides each request once. The
/// tenant's clock never goes back.
///
/// **Costs.** One round trip to the tenant's home and one write there. A refusal writes nothing.
///
/// **Not guaranteed.** A fixed window admits up to twice the limit within one window's length that lies across the
/// border of two. After an error with an unknown outcome the request may have been counted; it was not admitted, so
/// that less gets through than the limit and never more. Who waits is not served in turn. A forced promotion that loses
/// writes forgets what they counted.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    tenant: Tenant,
    key: Bytes,
    limit: u64,
    window: Duration,
    clock: Arc<Clock>,
}

/// What a limiter says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what was asked for may not be admitted"]
pub enum Admission {
    /// It is counted: go on.
    Admitted(Admitted),
    /// It is not: the next window begins after this long at the latest.
    Wait(Duration),
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What this window still admits; absent if an earlier attempt of this call had been counted and what it came to is
    /// no longer kept.
    pub left: Option<u64>,
    /// Where the answer comes from; its revision is the count's.
    pub header: Header,
}

impl RateLimiter {
    /// Returns a limiter of what is counted under a key: `limit` in each `window`, which is whole milliseconds. Everybody
    /// who uses the key must give the same two; another window's length begins a new count.
    ///
    /// # Errors
    ///
    /// A key, a limit or a window that cannot be.
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

    /// Counts so much if the window has room for all of it.
    ///
    /// # Errors
    ///
    /// As [`Tenant::increment_with`]: it was not admitted, but with an unknown outcome it may have been counted. More than
    /// the limit at once, which no window ever admits.
    pub async fn admit(&self, amount: u64) -> Result<Admission, Error> {
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
            .increment_with(self.key.clone(), increment, &Write::default())
            .await?;
        let is_first = answer.admitted && !answer.repeated;
        self.clock.saw(answer.header.tenant_time, is_first);
        if !answer.admitted {
            return Ok(Admission::Wait(until_next(self.clock.now(), self.window)));
        }
        Ok(Admission::Admitted(Admitted {
            left: answer.value.map(|value| left(limit, value)),
            header: answer.header,
        }))
    }

    /// Waits until it is admitted, from window to window. Dropping the future ends the waiting.
    ///
    /// # Errors
    ///
    /// As [`RateLimiter::admit`].
    pub async fn wait(&self, amount: u64) -> Result<Admitted, Error> {
        loop {
            match self.admit(amount).await? {
                Admission::Admitted(admitted) => return Ok(admitted),
                Admission::Wait(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

/// Both numbers were checked when the limiter was made.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is left of a limit; nothing where a higher one had been admitted.
fn left(limit: i64, counted: i64) -> u64 {
    u64::try_from(limit.saturating_sub(counted)).unwrap_or(0)
}

/// How long it is to the next window from this time on. The true time is later, so the window begins no later.
fn until_next(now: TenantTime, window: Duration) -> Duration {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(window - now.0 % window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_limit_that_was_lowered() {
        let lefts = [(10, 3), (10, 10), (10, 25), (10, -2)].map(|(limit, counted)| left(limit, counted));
        assert_eq!(lefts, [7, 0, 0, 12]);
    }

    #[test]
    fn the_next_window_is_awaited_to_its_first_millisecond() {
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
