//! Decisions about free disk space: whether a group takes writes that need some, how often to look, and who should lead.
//!
//! Writes are refused before they are proposed while there is still a reserve, because a disk that is really full stops
//! what makes room again, too: deletes, checkpoints, compaction, elections.

use std::time::Duration;

use stead_types::NodeId;

/// Least time between two looks, and the most.
pub const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Most time between two looks.
pub const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Most bytes a second by which a disk is expected to fill: the looks are as frequent as that asks for.
const FILL_RATE_MAX: u64 = 256 << 20;

/// Free disk space of a voter, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterRoom {
    /// The voter.
    pub node: NodeId,
    /// Its free bytes; `None` where they are not known.
    pub free: Option<u64>,
}

/// Voter on whose account a group refuses writes that need room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortOfRoom {
    /// The voter.
    pub node: NodeId,
    /// Its free bytes.
    pub free: u64,
}

impl VoterRoom {
    fn is_short(&self, reserve: u64) -> bool {
        self.free.is_some_and(|free| free < reserve)
    }

    fn has_room(&self, reserve: u64) -> bool {
        self.free.is_some_and(|free| reserve <= free)
    }
}

/// Decides whether a group takes writes that need room, and names the voter with the least where it does not.
///
/// A majority of the voters must have the reserve. Voters that are not known count only once another one is known to lack
/// it: at a start nothing is known. The leader itself must have half of it: a write goes into its own log first.
///
/// # Errors
///
/// The voter with the least room.
pub fn check_writes(reserve: u64, leader: VoterRoom, others: &[VoterRoom]) -> Result<(), ShortOfRoom> {
    let all = || std::iter::once(&leader).chain(others);
    let majority = others.len().div_ceil(2) + 1;
    let is_led_by_short = leader.is_short(reserve / 2);
    let are_short = all().any(|voter| voter.is_short(reserve));
    if !is_led_by_short && (!are_short || majority <= all().filter(|voter| voter.has_room(reserve)).count()) {
        return Ok(());
    }
    let short = all().filter_map(|voter| {
        let free = voter.free?;
        Some(ShortOfRoom { node: voter.node, free })
    });
    short.min_by_key(|short| short.free).map_or(Ok(()), Err)
}

/// Chooses the voter that should lead instead of one that lacks the reserve: the one with the most room, and clearly more
/// than the reserve, so that it does not hand the group back at once.
pub fn choose_leader(reserve: u64, leader: VoterRoom, others: &[VoterRoom]) -> Option<NodeId> {
    if !leader.is_short(reserve) {
        return None;
    }
    let clearly = reserve.saturating_add(reserve / 4);
    let roomy = others.iter().filter(|voter| voter.has_room(clearly));
    roomy.max_by_key(|voter| voter.free).map(|voter| voter.node)
}

/// Returns the time until the next look, given the least free space that was seen: soon enough that the reserve is not
/// used up in between, by however fast a writer.
pub fn look_interval(reserve: u64, least_free: u64) -> Duration {
    // At and below the reserve the interval is the least one.
    let spare = least_free.saturating_sub(reserve);
    let millis = spare.saturating_mul(1_000) / FILL_RATE_MAX;
    Duration::from_millis(millis).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 100;

    fn voter(node: u64, free: impl Into<Option<u64>>) -> VoterRoom {
        let free = free.into();
        VoterRoom {
            node: NodeId::new(node),
            free,
        }
    }

    fn refused_by(leader: VoterRoom, others: &[VoterRoom]) -> Option<u64> {
        check_writes(RESERVE, leader, others)
            .err()
            .map(|short| short.node.get())
    }

    #[test]
    fn majority_with_room_takes_writes() {
        let (roomy, full) = (voter(1, 500), voter(3, 0));
        assert_eq!(refused_by(roomy, &[voter(2, 100), full]), None);
        assert_eq!(refused_by(roomy, &[voter(2, 99), full]), Some(3));
        assert_eq!(refused_by(roomy, &[voter(2, 99)]), Some(2), "both of two are needed");
        assert_eq!(refused_by(voter(1, 99), &[]), Some(1));
        let five = [voter(2, 200), voter(3, 200), voter(4, 1), voter(5, 2)];
        assert_eq!(refused_by(roomy, &five), None);
    }

    #[test]
    fn unknown_voter_counts_once_another_is_short() {
        let unknown = |node| voter(node, None);
        assert_eq!(refused_by(voter(1, 500), &[unknown(2), unknown(3)]), None);
        assert_eq!(refused_by(unknown(1), &[]), None);
        assert_eq!(refused_by(voter(1, 500), &[unknown(2), voter(3, 7)]), Some(3));
    }

    #[test]
    fn leader_needs_half_of_the_reserve() {
        let others = [voter(2, 500), voter(3, 500)];
        assert_eq!(refused_by(voter(1, 50), &others), None);
        assert_eq!(refused_by(voter(1, 49), &others), Some(1));
    }

    #[test]
    fn short_leader_gives_way_to_voter_with_most_room() {
        let choose = |leader, others: &[VoterRoom]| choose_leader(RESERVE, leader, others).map(NodeId::get);
        assert_eq!(choose(voter(1, 99), &[voter(2, 125), voter(3, 300)]), Some(3));
        assert_eq!(choose(voter(1, 99), &[voter(2, 124), voter(3, None)]), None);
        assert_eq!(choose(voter(1, 100), &[voter(2, 500)]), None);
    }

    #[test]
    fn looks_are_frequent_near_the_reserve() {
        let (reserve, mib) = (256 << 20, 1 << 20);
        assert_eq!(look_interval(reserve, 0), LOOK_INTERVAL_MIN);
        assert_eq!(look_interval(reserve, reserve), LOOK_INTERVAL_MIN);
        assert_eq!(look_interval(reserve, reserve + 128 * mib), Duration::from_millis(500));
        assert_eq!(look_interval(reserve, u64::MAX), LOOK_INTERVAL_MAX);
    }
}
