//! Bound of handshakes: how many run at once, and how many begin in a second. A handshake costs a signature, and a
//! stranger can ask for one.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::HandshakeLimits;

/// Handshakes of one listener.
#[derive(Debug)]
pub(crate) struct HandshakeGate {
    in_flight: Semaphore,
    rate: Mutex<Rate>,
}

/// Token bucket of one second's worth.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    /// Takes a token; returns false when there is none.
    fn take(&mut self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.per_second);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl HandshakeGate {
    pub(crate) fn new(limits: HandshakeLimits) -> Self {
        let per_second = f64::from(limits.per_second_max);
        Self {
            in_flight: Semaphore::new(usize::try_from(limits.in_flight_max).unwrap_or(usize::MAX)),
            rate: Mutex::new(Rate {
                per_second,
                tokens: per_second,
                filled: Instant::now(),
            }),
        }
    }

    /// Waits for a turn among those that are in flight; `None` if too many have begun in this second.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if !self.rate.lock().take(Instant::now()) {
            return None;
        }
        self.in_flight.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LIMITS: HandshakeLimits = HandshakeLimits {
        in_flight_max: 2,
        per_second_max: 4,
        timeout: Duration::from_secs(1),
    };

    #[tokio::test(start_paused = true)]
    async fn handshakes_beyond_the_rate_are_refused_until_a_token_is_there() {
        let gate = HandshakeGate::new(LIMITS);
        for _ in 0..4 {
            assert!(gate.enter().await.is_some());
        }
        assert!(gate.enter().await.is_none());
        tokio::time::advance(Duration::from_millis(250)).await;
        assert!(gate.enter().await.is_some());
        assert!(gate.enter().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_beyond_those_in_flight_wait() {
        let gate = HandshakeGate::new(LIMITS);
        let (first, _second) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let mut third = Box::pin(gate.enter());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!(third.await.is_some());
    }
}
