//! Ranges of keys without a live one, which scans have found: later scans skip them, so that the head of a queue costs
//! the same however many keys were removed before it.
//!
//! Memory of one replica. It changes how fast a scan is, never what it returns.
//!
//! # Invariants
//!
//! 1. Each row of a range is a tombstone whose revision is at most the range's; keys between them have no row.
//! 2. Ranges do not overlap, and there are at most [`RANGES_MAX`].

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use stead_types::Revision;

use crate::rows::Order;

/// Most ranges that are remembered; beyond, the one whose last delete is the oldest is forgotten.
const RANGES_MAX: usize = 1_024;

/// Range of rows of which none is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRange {
    /// Key of the first row.
    pub start: Bytes,
    /// Key of the first row after the range.
    pub end: Bytes,
    /// Lowest revision that shows no live key in the range.
    pub revision: Revision,
}

/// Known ranges without a live key, by the first row.
#[derive(Debug, Default)]
pub struct DeadRanges(BTreeMap<Bytes, RangeEnd>);

#[derive(Debug)]
struct RangeEnd {
    end: Bytes,
    revision: Revision,
}

impl DeadRanges {
    /// Returns the range that a scan reaches next from a position: one that contains the row, or in descending order the
    /// rows right before it.
    pub fn find(&self, position: &[u8], order: Order) -> Option<DeadRange> {
        let upper = match order {
            Order::Ascending => Bound::Included(position),
            Order::Descending => Bound::Excluded(position),
        };
        let (start, known) = self.0.range::<[u8], _>((Bound::Unbounded, upper)).next_back()?;
        let reaches = match order {
            Order::Ascending => position < &known.end[..],
            Order::Descending => position <= &known.end[..],
        };
        reaches.then(|| DeadRange {
            start: start.clone(),
            end: known.end.clone(),
            revision: known.revision,
        })
    }

    /// Adds a range, joined with those that it touches.
    pub fn insert(&mut self, mut range: DeadRange) {
        if range.start >= range.end {
            return;
        }
        while let Some((start, known)) = self.0.range::<Bytes, _>(..=&range.end).next_back()
            && known.end >= range.start
        {
            let start = start.clone();
            range.end = known.end.clone().max(range.end);
            range.revision = known.revision.max(range.revision);
            self.0.remove(&start);
            range.start = start.min(range.start);
        }
        let DeadRange { start, end, revision } = range;
        self.0.insert(start, RangeEnd { end, revision });
        if self.0.len() > RANGES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.revision);
            if let Some(start) = oldest.map(|(start, _)| start.clone()) {
                self.0.remove(&start);
            }
        }
    }

    /// Takes a row that is written out of the range that contains it.
    pub fn revive(&mut self, row: &Bytes) {
        let Some(found) = self.find(row, Order::Ascending) else {
            return;
        };
        self.0.remove(&found.start);
        let after = DeadRange {
            start: [&row[..], &[0]].concat().into(),
            ..found.clone()
        };
        let before = DeadRange {
            end: row.clone(),
            ..found
        };
        // They do not touch: the row is between them.
        self.insert(before);
        self.insert(after);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: &'static str, end: &'static str, revision: &str) -> DeadRange {
        DeadRange {
            start: start.into(),
            end: end.into(),
            revision: revision.parse().unwrap(),
        }
    }

    #[test]
    fn touching_ranges_are_joined_and_split_by_a_written_row() {
        let mut ranges = DeadRanges::default();
        ranges.insert(range("b", "d", "1.5"));
        ranges.insert(range("f", "g", "1.9"));
        ranges.insert(range("d", "f", "1.7"));
        let all = range("b", "g", "1.9");
        for (position, order) in [
            ("b", Order::Ascending),
            ("f", Order::Ascending),
            ("g", Order::Descending),
        ] {
            assert_eq!(ranges.find(position.as_bytes(), order), Some(all.clone()), "{position}");
        }
        assert_eq!(ranges.find(b"g", Order::Ascending), None);
        assert_eq!(ranges.find(b"b", Order::Descending), None);
        ranges.revive(&"c".into());
        assert_eq!(ranges.find(b"c", Order::Ascending), None);
        assert_eq!(ranges.find(b"c", Order::Descending), Some(range("b", "c", "1.9")));
        assert_eq!(ranges.find(b"c1", Order::Ascending), Some(range("c\0", "g", "1.9")));
    }

    #[test]
    fn range_whose_last_delete_is_oldest_is_forgotten() {
        let mut ranges = DeadRanges::default();
        for at in 0..RANGES_MAX as u64 + 1 {
            ranges.insert(DeadRange {
                start: format!("{at:05}a").into(),
                end: format!("{at:05}b").into(),
                revision: Revision::from_u64(1_000_000 - at),
            });
        }
        assert_eq!(ranges.0.len(), RANGES_MAX);
        let last = format!("{RANGES_MAX:05}a");
        assert_eq!(ranges.find(last.as_bytes(), Order::Ascending), None);
        assert!(ranges.find(b"00000a", Order::Ascending).is_some());
    }

    proptest! {
        /// Invariant 1, against a set of single keys.
        #[test]
        fn ranges_contain_exactly_the_rows_that_are_dead(
            steps in prop::collection::vec((any::<bool>(), 0_u8..40, 1_u8..8), 1..60),
        ) {
            let (mut ranges, mut dead) = (DeadRanges::default(), [false; 64]);
            for (inserts, at, len) in steps {
                if inserts {
                    dead[usize::from(at)..usize::from(at + len)].fill(true);
                    ranges.insert(DeadRange {
                        start: vec![at].into(),
                        end: vec![at + len].into(),
                        revision: Revision::from_u64(1),
                    });
                } else {
                    dead[usize::from(at)] = false;
                    ranges.revive(&vec![at].into());
                }
                for key in 0..64_u8 {
                    let found = ranges.find(&[key], Order::Ascending).is_some();
                    prop_assert_eq!(found, dead[usize::from(key)], "key {}", key);
                }
            }
        }
    }
}
