//! Groups operations by deadline, so that one with a long deadline does not delay one with a short deadline.

use std::time::Duration;

use tokio::time::Instant;

/// Widest spread of the deadlines in a group: the operation with the earliest deadline may wait so much too long.
const DEADLINE_SPREAD_MAX: Duration = Duration::from_millis(50);

/// Groups items by deadline. A group that gets no result is answered at its last deadline.
pub(super) fn group_by_deadline<T>(mut all: Vec<T>, deadline: impl Fn(&T) -> Instant) -> Vec<Vec<T>> {
    all.sort_by_key(&deadline);
    let mut parts: Vec<Vec<T>> = Vec::new();
    for one in all {
        match parts.last_mut() {
            Some(part) if deadline(&one) <= deadline(&part[0]) + DEADLINE_SPREAD_MAX => part.push(one),
            Some(_) | None => parts.push(vec![one]),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn group_by_deadline_separates_distant_deadlines() {
        let now = Instant::now();
        let at = |millis: &u64| now + Duration::from_millis(*millis);
        let parts = group_by_deadline(vec![30_000, 100, 5_000, 149, 151, 101, 5_050], at);
        assert_eq!(
            parts,
            [vec![100, 101, 149], vec![151], vec![5_000, 5_050], vec![30_000]]
        );
        assert!(group_by_deadline(Vec::new(), at).is_empty());
    }
}
