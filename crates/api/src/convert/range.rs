//! Conversions of key ranges.

use bytes::Bytes;
use stead_types::Error;

use super::key;

/// Reads the intersection of a range and a prefix: its first key, and the first key after it, `None` for the end of the
/// tenant. `at` is the prefix of the fields' names in errors.
pub fn bounds(at: &str, start: &Bytes, end: &Bytes, prefix: &Bytes) -> Result<(Bytes, Option<Bytes>), Error> {
    key::bound(&format!("{at}start"), start)?;
    key::bound(&format!("{at}end"), end)?;
    key::bound(&format!("{at}prefix"), prefix)?;
    let end = Some(end.clone()).filter(|end| !end.is_empty());
    let end = match (end, prefix_end(prefix)) {
        (Some(end), Some(prefix_end)) => Some(end.min(prefix_end)),
        (end, prefix_end) => end.or(prefix_end),
    };
    Ok((start.clone().max(prefix.clone()), end))
}

/// Returns the first key after all that begin with a prefix, if there is one.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bounds_hold_where_range_and_prefix_hold(
            start in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            end in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            key in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 1..5),
        ) {
            let holds = start <= key && (end.is_empty() || key < end) && key.starts_with(&prefix);
            let (first, after) = bounds("", &start.into(), &end.into(), &prefix.into()).unwrap();
            let inside = first <= key && after.is_none_or(|after| key < after);
            prop_assert_eq!(inside, holds);
        }
    }
}
