//! What comes together need not be wanted equally long.

use std::time::Duration;

use tokio::time::Instant;

/// How far apart the deadlines may be of what is answered together: whoever stops waiting first waits so much too long.
const APART_MAX: Duration = Duration::from_millis(50);

/// Splits what came together by when its callers stop waiting. Where nothing is heard of a part, all of it is answered at
/// its last deadline.
pub(super) fn by_deadline<T>(mut all: Vec<T>, deadline: impl Fn(&T) -> Instant) -> Vec<Vec<T>> {
    all.sort_by_key(&deadline);
    let mut parts: Vec<Vec<T>> = Vec::new();
    for one in all {
        match parts.last_mut() {
            Some(part) if deadline(&one) <= deadline(&part[0]) + APART_MAX => part.push(one),
            Some(_) | None => parts.push(vec![one]),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wanted_for_long_keeps_nobody_who_is_in_a_hurry() {
        let now = Instant::now();
        let at = |millis: &u64| now + Duration::from_millis(*millis);
        let parts = by_deadline(vec![30_000, 100, 5_000, 149, 151, 101, 5_050], at);
        assert_eq!(
            parts,
            [vec![100, 101, 149], vec![151], vec![5_000, 5_050], vec![30_000]]
        );
        assert!(by_deadline(Vec::new(), at).is_empty());
    }
}
