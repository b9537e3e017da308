//! Pings that a stream has sent and that are not answered yet.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Most pings that are remembered; the oldest are given up for new ones. The home leaves pings unanswered while its
/// group has no majority.
const PINGS_MAX: usize = 64;

/// Pings by number.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    waiting: VecDeque<(u64, Instant)>,
    sent: u64,
}

impl Pings {
    /// Notes a ping and returns its number.
    pub(crate) fn send(&mut self, now: Instant) -> u64 {
        if self.waiting.len() == PINGS_MAX {
            self.waiting.pop_front();
        }
        self.sent += 1;
        self.waiting.push_back((self.sent, now));
        self.sent
    }

    /// Returns when an answered ping was sent. It and those before it are forgotten: they would prove less.
    pub(crate) fn answered(&mut self, number: u64) -> Option<Instant> {
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
    async fn an_answer_is_taken_once_and_stands_for_those_before_it() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        let second = now + Duration::from_secs(1);
        let (one, two) = (pings.send(now), pings.send(second));
        assert_eq!(pings.answered(two), Some(second));
        assert_eq!(pings.answered(one), None);
        assert_eq!(pings.answered(two), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_go_on_however_many_were_lost() {
        let (mut pings, now) = (Pings::default(), Instant::now());
        for _ in 0..10 * PINGS_MAX {
            pings.send(now);
        }
        let last = pings.send(now);
        assert_eq!(pings.waiting.len(), PINGS_MAX);
        assert_eq!(pings.answered(last), Some(now));
    }
}
