//! Pings that wait for the stream to pass their read index.
//!
//! # Invariants
//!
//! 1. A ping is answered with an offset at or above that of the stream's last batch at or below its read index, and
//!    only behind that batch.

use std::collections::VecDeque;

/// Most pings of a stream that wait; more are not answered.
pub(crate) const PINGS_MAX: usize = 64;

/// Pings by read index.
#[derive(Debug, Default)]
pub(crate) struct Pings(VecDeque<(u64, u64)>);

impl Pings {
    /// Takes in that everything committed before a ping came is at or below this index.
    pub(crate) fn confirmed(&mut self, number: u64, index: u64) {
        if self.0.len() < PINGS_MAX {
            self.0.push_back((number, index));
        }
    }

    /// Returns the newest ping whose read index the stream's place has passed. Older ones say nothing beyond it.
    pub(crate) fn passed(&mut self, place: u64) -> Option<u64> {
        let newest = self
            .0
            .iter()
            .filter(|(_, index)| *index <= place)
            .map(|(number, _)| *number)
            .max();
        self.0.retain(|(_, index)| *index > place);
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_waits_for_the_stream() {
        let mut pings = Pings::default();
        pings.confirmed(1, 10);
        pings.confirmed(2, 12);
        pings.confirmed(3, 20);
        assert_eq!(pings.passed(9), None);
        assert_eq!(pings.passed(15), Some(2));
        assert_eq!(pings.passed(15), None);
        assert_eq!(pings.passed(20), Some(3));
    }
}
