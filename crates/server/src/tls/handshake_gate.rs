//! Bound of handshakes: how many run at once, and how many begin in a second; of all, and of one source. A handshake costs a
//! signature, and a stranger can ask for one; without the bound of a source one stranger could take all of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::HandshakeLimits;

/// Part of each limit that one source may take.
const SOURCE_SHARE: u32 = 4;
/// Most sources that are told apart: further ones share one bound.
const SOURCES_MAX: usize = 4_096;

/// Handshakes of one listener.
#[derive(Debug)]
pub(crate) struct HandshakeGate {
    in_flight: Semaphore,
    rate: Mutex<Rate>,
    source_in_flight_max: u32,
    source_per_second: f64,
    sources: Mutex<BTreeMap<Source, SourceUse>>,
}

/// Turn of one handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct HandshakeTurn<'a> {
    _permit: SemaphorePermit<'a>,
    _of_source: Option<SourceTurn<'a>>,
}

/// Source of connections: an address, or the network that one subscriber has with IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Address(IpAddr),
    /// Sources beyond [`SOURCES_MAX`].
    Others,
}

/// Use of handshakes by one source.
#[derive(Clone, Copy, Debug)]
struct SourceUse {
    rate: Rate,
    in_flight: u32,
}

/// Turn among those of one source.
#[derive(Debug)]
struct SourceTurn<'a> {
    gate: &'a HandshakeGate,
    source: Source,
}

/// Token bucket of one second's worth.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    fn full(per_second: f64, now: Instant) -> Self {
        Self {
            per_second,
            tokens: per_second,
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let since: Duration = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.per_second);
    }

    /// Takes a token; returns false when there is none.
    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl Source {
    /// Returns the source of an address. A machine is no source to itself: what shares it could harm it otherwise.
    fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return None;
        }
        Some(Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        }))
    }
}

impl HandshakeGate {
    pub(crate) fn new(limits: HandshakeLimits) -> Self {
        let share = |limit: u32| (limit / SOURCE_SHARE).max(1);
        Self {
            in_flight: Semaphore::new(usize::try_from(limits.in_flight_max).unwrap_or(usize::MAX)),
            rate: Mutex::new(Rate::full(f64::from(limits.per_second_max), Instant::now())),
            source_in_flight_max: share(limits.in_flight_max),
            source_per_second: f64::from(share(limits.per_second_max)),
            sources: Mutex::default(),
        }
    }

    /// Waits for a turn among those that are in flight; `None` if too many have begun in this second, or the source has too
    /// many.
    pub(crate) async fn enter(&self, from: Option<IpAddr>) -> Option<HandshakeTurn<'_>> {
        // First, so that a source which has too many takes nothing from the others.
        let of_source = match from.and_then(Source::of) {
            None => None,
            Some(source) => Some(self.enter_source(source, Instant::now())?),
        };
        if !self.rate.lock().take(Instant::now()) {
            return None;
        }
        Some(HandshakeTurn {
            _permit: self.in_flight.acquire().await.ok()?,
            _of_source: of_source,
        })
    }

    fn enter_source(&self, source: Source, now: Instant) -> Option<SourceTurn<'_>> {
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            sources.retain(|_, of| {
                of.rate.fill(now);
                of.in_flight > 0 || of.rate.tokens < of.rate.per_second
            });
        }
        let source = if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            Source::Others
        } else {
            source
        };
        let of = sources.entry(source).or_insert_with(|| SourceUse {
            rate: Rate::full(self.source_per_second, now),
            in_flight: 0,
        });
        if of.in_flight >= self.source_in_flight_max || !of.rate.take(now) {
            return None;
        }
        of.in_flight += 1;
        Some(SourceTurn { gate: self, source })
    }
}

impl Drop for SourceTurn<'_> {
    fn drop(&mut self) {
        if let Some(of) = self.gate.sources.lock().get_mut(&self.source) {
            of.in_flight -= 1;
        }
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
    const WIDE: HandshakeLimits = HandshakeLimits {
        in_flight_max: 40,
        per_second_max: 400,
        ..LIMITS
    };

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_beyond_the_rate_are_refused_until_a_token_is_there() {
        let gate = HandshakeGate::new(LIMITS);
        for _ in 0..4 {
            assert!(gate.enter(None).await.is_some());
        }
        assert!(gate.enter(None).await.is_none());
        tokio::time::advance(Duration::from_millis(250)).await;
        assert!(gate.enter(None).await.is_some());
        assert!(gate.enter(None).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_beyond_those_in_flight_wait() {
        let gate = HandshakeGate::new(LIMITS);
        let (first, _second) = (gate.enter(None).await.unwrap(), gate.enter(None).await.unwrap());
        let mut third = Box::pin(gate.enter(None));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!(third.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn source_takes_a_share_of_the_rate() {
        let gate = HandshakeGate::new(WIDE);
        let stranger = address("203.0.113.7");
        let mut begun = 0;
        for _ in 0..1_000 {
            begun += usize::from(gate.enter(stranger).await.is_some());
        }
        assert_eq!(begun, 100, "a quarter of those of all");
        // Refused connections of the stranger have cost the others nothing.
        for other in 0..=255 {
            assert!(gate.enter(address(&format!("198.51.100.{other}"))).await.is_some());
        }
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(gate.enter(stranger).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn source_takes_a_share_of_those_in_flight() {
        let gate = HandshakeGate::new(WIDE);
        // With IPv6 a stranger has a whole network.
        let stranger = |number: usize| address(&format!("2001:db8::{number:x}"));
        let mut held = Vec::new();
        for number in 0..40 {
            held.extend(gate.enter(stranger(number)).await);
        }
        assert_eq!(held.len(), 10);
        let other = address("2001:db8:0:1::1");
        assert!(gate.enter(other).now_or_never().flatten().is_some());
        held.pop();
        assert!(gate.enter(stranger(99)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn machine_itself_is_no_source() {
        let gate = HandshakeGate::new(WIDE);
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            for _ in 0..120 {
                assert!(gate.enter(address(loopback)).await.is_some(), "{loopback}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_bounded() {
        let gate = HandshakeGate::new(HandshakeLimits {
            in_flight_max: 100_000,
            per_second_max: 100_000,
            ..LIMITS
        });
        let from = |number: u32| Some(IpAddr::from(std::net::Ipv4Addr::from_bits(0x0100_0000 + number)));
        for number in 0..2 * SOURCES_MAX as u32 {
            assert!(gate.enter(from(number)).await.is_some());
        }
        assert_eq!(gate.sources.lock().len(), SOURCES_MAX + 1);
        // Those whose second is over are forgotten.
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(gate.enter(from(1_000_000)).await.is_some());
        assert_eq!(gate.sources.lock().len(), 1);
    }
}
