//! Small protocols that services need and that are easy to get wrong: a [`Lock`] with a fencing token, a
//! [`RateLimiter`], and [`Credits`] that are reserved, settled and never lost.
//!
//! Each is built from ordinary calls on ordinary keys, which every language can make: the content of the keys is part
//! of its documentation. Each documents its guarantees, its costs and its limits. All of them hold while nodes die,
//! leaders change and a tenant moves. A forced promotion without the old home's last writes takes back those writes, as
//! it does with any other (`Forked`); a recipe's keys are cut at one revision all together, so that they still agree
//! with each other.

mod clock;
mod credits;
mod lock;
mod rate_limiter;

pub use credits::{Account, Credits, Overdraft, Reservation, SettleOutcome};
pub use lock::{Lock, LockGuard};
pub use rate_limiter::{RateLimitDecision, RateLimitPermit, RateLimiter};

use std::time::Duration;

use stead_types::Error;

/// Checks that a duration is a positive number of whole milliseconds, as logged time counts them.
fn whole_milliseconds(field: &str, time: Duration) -> Result<Duration, Error> {
    if time.is_zero() || !time.subsec_nanos().is_multiple_of(1_000_000) {
        let message = format!("{field}: a whole number of milliseconds, at least one, not {time:?}");
        return Err(Error::invalid(field, message));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::{Client, Config};

    fn can_be_spawned<T: Send>(future: T) {
        drop(future);
    }

    #[tokio::test]
    async fn recipe_futures_are_send() {
        let tenant = Client::lazy(Config::new(["127.0.0.1:1"]))
            .unwrap()
            .tenant("acme")
            .unwrap();
        let ttl = Duration::from_secs(1);
        let lock = Lock::new(&tenant, "lock", ttl).unwrap();
        can_be_spawned(lock.acquire());
        can_be_spawned(lock.try_acquire());
        let limiter = RateLimiter::new(&tenant, "limit", 1, ttl).unwrap();
        can_be_spawned(limiter.wait(1));
        let credits = Credits::new(&tenant, "credits").unwrap();
        can_be_spawned(credits.reserve("a", 1, ttl));
        can_be_spawned(credits.reclaim());
        can_be_spawned(credits.account());
        can_be_spawned(credits.grant("a", 1));
    }

    #[tokio::test]
    async fn invalid_recipe_arguments_are_rejected() {
        let tenant = Client::lazy(Config::new(["127.0.0.1:1"]))
            .unwrap()
            .tenant("acme")
            .unwrap();
        let second = Duration::from_secs(1);
        for ttl in [Duration::ZERO, Duration::from_micros(1_500)] {
            assert!(Lock::new(&tenant, "lock", ttl).is_err());
            assert!(RateLimiter::new(&tenant, "limit", 1, ttl).is_err());
            let credits = Credits::new(&tenant, "credits").unwrap();
            assert!(credits.reserve("a", 1, ttl).await.is_err());
        }
        assert!(Lock::new(&tenant, "", second).is_err());
        assert!(RateLimiter::new(&tenant, "", 1, second).is_err());
        assert!(Credits::new(&tenant, "").is_err());
        assert!(Credits::new(&tenant, &"a".repeat(2_000)).is_err());
    }
}
