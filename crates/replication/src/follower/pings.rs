//! Pings that a stream has sent and that have no response yet.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Most pings without a response; the oldest are dropped for new ones. The home does not respond while its group has no
/// majority.
const PINGS_MAX: usize = 64;

/// Pings without a response, by number.
#[derive(Debug, Default)]
pub(crate) struct SentPings {
    waiting: VecDeque<(u64, Instant)>,
    sent: u64,
}

impl SentPings {
    /// Records a ping and returns its number.
    pub(crate) fn send(&mut self, now: Instant) -> u64 {
        if self.waiting.len() == PINGS_MAX {
            self.waiting.pop_front();
        }
        self.sent += 1;
        self.waiting.push_back((self.sent, now));
        self.sent
    }

    /// Returns when a ping with a response was sent. It and the pings before it are removed: they would prove less.
    pub(crate) fn take_answered(&mut self, number: u64) -> Option<Instant> {
        let mut sent = None;
        while let Some((passed, at)) = self.waiting.pop_front_if(|(waiting, _)| *waiting <= number) {
            sent = (passed == number).then_some(at);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pong_removes_its_ping_and_earlier_ones() {
        let (mut pings, now) = (SentPings::default(), Instant::now());
        let second = now + Duration::from_secs(1);
        let (one, two) = (pings.send(now), pings.send(second));
        assert_eq!(pings.take_answered(two), Some(second));
        assert_eq!(pings.take_answered(one), None);
        assert_eq!(pings.take_answered(two), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_without_response_are_bounded() {
        let (mut pings, now) = (SentPings::default(), Instant::now());
        for _ in 0..10 * PINGS_MAX {
            pings.send(now);
        }
        let last = pings.send(now);
        assert_eq!(pings.waiting.len(), PINGS_MAX);
        assert_eq!(pings.take_answered(last), Some(now));
    }
}
