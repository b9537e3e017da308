//! Ranges of keys.

use bytes::Bytes;
use stead_types::Error;

use super::key;

/// Reads a range and a prefix that must both hold: the first key, and the first one behind, `None` for the end of the
/// tenant. `at` stands before the fields' names.
pub fn bounds(at: &str, (start, end): (&Bytes, &Bytes), prefix: &Bytes) -> Result<(Bytes, Option<Bytes>), Error> {
    key::bound(&format!("{at}start"), start)?;
    key::bound(&format!("{at}end"), end)?;
    key::bound(&format!("{at}prefix"), prefix)?;
    let end = Some(end.clone()).filter(|end| !end.is_empty());
    let end = match (end, behind(prefix)) {
        (Some(end), Some(behind)) => Some(end.min(behind)),
        (end, behind) => end.or(behind),
    };
    Ok((start.clone().max(prefix.clone()), end))
}

/// Returns the first key behind all that begin with a prefix, if there is one.
fn behind(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut behind = prefix[..=last].to_vec();
    behind[last] += 1;
    Some(behind.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_inside_if_range_and_prefix_both_hold(
            start in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            end in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            key in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 1..5),
        ) {
            let holds = start <= key && (end.is_empty() || key < end) && key.starts_with(&prefix);
            let (first, behind) = bounds("", (&start.into(), &end.into()), &prefix.into()).unwrap();
            let inside = first <= key && behind.is_none_or(|behind| key < behind);
            prop_assert_eq!(inside, holds);
        }
    }
}
