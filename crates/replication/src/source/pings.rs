//! Pings of a follower that wait for the stream to pass their read index.
//!
//! # Invariants
//!
//! 1. A ping is answered with an offset at or above that of the stream's last batch at or below its read index, and
//!    only behind that batch.

use std::collections::VecDeque;

/// Most waiting pings of a stream; more are not answered.
pub(crate) const PINGS_MAX: usize = 64;

/// Waiting pings, each with its read index.
#[derive(Debug, Default)]
pub(crate) struct ReceivedPings(VecDeque<(u64, u64)>);

impl ReceivedPings {
    /// Adds a ping with its read index: everything that was committed before it came is at or below the index.
    pub(crate) fn add_confirmed(&mut self, number: u64, index: u64) {
        if self.0.len() < PINGS_MAX {
            self.0.push_back((number, index));
        }
    }

    /// Takes the newest ping whose read index the stream has passed. Older ones prove nothing beyond it.
    pub(crate) fn take_passed(&mut self, scanned_index: u64) -> Option<u64> {
        let newest = self
            .0
            .iter()
            .filter(|(_, index)| *index <= scanned_index)
            .map(|(number, _)| *number)
            .max();
        self.0.retain(|(_, index)| *index > scanned_index);
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_waits_until_stream_passes_its_read_index() {
        let mut pings = ReceivedPings::default();
        pings.add_confirmed(1, 10);
        pings.add_confirmed(2, 12);
        pings.add_confirmed(3, 20);
        assert_eq!(pings.take_passed(9), None);
        assert_eq!(pings.take_passed(15), Some(2));
        assert_eq!(pings.take_passed(15), None);
        assert_eq!(pings.take_passed(20), Some(3));
    }
}
