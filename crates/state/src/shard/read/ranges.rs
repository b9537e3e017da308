//! Disjoint ranges of keys.

use bytes::Bytes;

/// Disjoint ranges of keys in their order: first key, and the first key after the range, `None` for the end of the
/// tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRanges(Vec<(Bytes, Option<Bytes>)>);

impl KeyRanges {
    /// Returns the range of all keys.
    pub fn all() -> Self {
        Self(vec![(Bytes::new(), None)])
    }

    /// Returns the ranges: first key, and first key behind; `None`: to the end.
    pub fn iter(&self) -> impl Iterator<Item = &(Bytes, Option<Bytes>)> {
        self.0.iter()
    }

    /// Returns these ranges; those that overlap or touch are merged.
    pub fn new(mut ranges: Vec<(Bytes, Option<Bytes>)>) -> Self {
        ranges.sort();
        let mut disjoint: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match disjoint.last_mut() {
                Some((_, last)) if last.as_ref().is_none_or(|last| start <= *last) => {
                    let reaches_further = match (&*last, &end) {
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(last), Some(end)) => end > last,
                    };
                    if reaches_further {
                        *last = end;
                    }
                }
                Some(_) | None => disjoint.push((start, end)),
            }
        }
        Self(disjoint)
    }

    /// Tells whether a key is in one of the ranges.
    pub fn contains(&self, key: &[u8]) -> bool {
        let behind = self.0.partition_point(|(start, _)| start <= key);
        let range = behind.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    /// Returns the range at this position.
    pub fn get(&self, place: usize) -> Option<&(Bytes, Option<Bytes>)> {
        self.0.get(place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merged_ranges_contain_keys_of_any_range(ranges in prop::collection::vec((0u8..9, prop::option::of(0u8..9)), 0..6), key in 0u8..9) {
            let bytes = |byte: u8| Bytes::copy_from_slice(&[byte]);
            let is_in_any = ranges.iter().any(|(start, end)| *start <= key && end.is_none_or(|end| key < end));
            let some: Vec<_> = ranges
                .into_iter()
                .filter(|(start, end)| end.is_none_or(|end| *start < end))
                .map(|(start, end)| (bytes(start), end.map(bytes)))
                .collect();
            let disjoint = KeyRanges::new(some);
            prop_assert_eq!(disjoint.contains(&[key]), is_in_any);
            for pair in disjoint.0.windows(2) {
                prop_assert!(pair[0].1.as_ref().is_some_and(|end| *end < pair[1].0));
            }
        }
    }
}
