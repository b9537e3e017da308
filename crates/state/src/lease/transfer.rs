//! Leadership that goes to a voter with a lease: what a leader without one does.
//!
//! A voter that was started while its region is cut off from the directory has no lease, and it may be elected all the
//! same: Raft knows nothing of leases. Others of its group may hold theirs for a while yet, or for good where only the
//! one voter cannot reach the directory. Leadership goes only from a voter without a lease to one with a lease that
//! lasts, so it never comes back while the other one's counts; where nobody has one it stays.

use std::time::Duration;

use stead_types::NodeId;

use crate::serving::BootTime;

/// Time without a lease after which a leader looks for a voter that has one: its first renewal may be under way.
pub const WITHOUT_MIN: Duration = Duration::from_millis(500);
/// Least time for which the lease of the voter that takes over must last: a transfer is an election.
pub const LEFT_MIN: Duration = Duration::from_secs(2);
/// Pause after the first look; it doubles up to the longest for as long as this voter has no lease.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Memory of one voter of a group of its time without a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseTransfer {
    /// Boot clock since when it has led without a lease.
    since: Option<BootTime>,
    /// Pause after the last look; zero before the first.
    pause: Duration,
    /// Boot clock before which it does not look again; `None` before the first look.
    next: Option<BootTime>,
}

impl LeaseTransfer {
    /// Tells whether the other voters are to be asked for the time that is left of their leases, by whether this one leads
    /// and what is left of its own.
    pub fn is_due(&mut self, now: BootTime, leads: bool, left: Duration) -> bool {
        if !left.is_zero() {
            *self = Self::default();
            return false;
        }
        if !leads {
            // Pauses go on: a voter that is elected again and again does not pass leadership on each time at once.
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now >= since.after(WITHOUT_MIN) && self.next.is_none_or(|next| now >= next)
    }

    /// Returns the voter that leadership goes to, by the answers of the other voters: the one whose lease lasts longest.
    /// `None` if none of them lasts; it is looked again after a pause, also where the transfer fails.
    pub fn choose(&mut self, now: BootTime, answers: impl IntoIterator<Item = (NodeId, Duration)>) -> Option<NodeId> {
        self.pause = self.pause.saturating_mul(2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.next = Some(now.after(self.pause));
        let lasting = answers.into_iter().filter(|(_, left)| *left >= LEFT_MIN);
        lasting.max_by_key(|(node, left)| (*left, *node)).map(|(node, _)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASED: Duration = Duration::from_secs(9);

    fn node(number: u64) -> NodeId {
        NodeId::new(number)
    }

    fn at(millis: u64) -> BootTime {
        BootTime::new(Duration::from_millis(millis))
    }

    #[test]
    fn leader_without_lease_passes_leadership_to_longest_lease() {
        let mut transfer = LeaseTransfer::default();
        assert!(
            !transfer.is_due(at(0), true, Duration::ZERO),
            "its renewal may be under way"
        );
        assert!(transfer.is_due(at(500), true, Duration::ZERO));
        let answers = [
            (node(1), Duration::from_secs(4)),
            (node(2), LEASED),
            (node(3), Duration::ZERO),
        ];
        assert_eq!(transfer.choose(at(500), answers), Some(node(2)));
    }

    #[test]
    fn leader_with_lease_and_voter_that_follows_pass_nothing_on() {
        let mut transfer = LeaseTransfer::default();
        for millis in (0..60_000).step_by(500) {
            assert!(!transfer.is_due(at(millis), true, Duration::from_millis(1)));
            assert!(!transfer.is_due(at(millis), false, Duration::ZERO));
        }
    }

    #[test]
    fn leases_that_do_not_last_are_not_worth_an_election() {
        let mut transfer = LeaseTransfer::default();
        let short = LEFT_MIN - Duration::from_millis(1);
        assert_eq!(
            transfer.choose(at(0), [(node(1), short), (node(2), Duration::ZERO)]),
            None
        );
        assert_eq!(transfer.choose(at(0), []), None);
        assert_eq!(transfer.choose(at(0), [(node(1), LEFT_MIN)]), Some(node(1)));
    }

    /// Where nobody has a lease, and where transfers fail, tries become rare.
    #[test]
    fn tries_of_a_minute_are_bounded() {
        let mut transfer = LeaseTransfer::default();
        let mut tries = 0;
        for millis in (0..60_000).step_by(100) {
            if transfer.is_due(at(millis), true, Duration::ZERO) {
                tries += 1;
                transfer.choose(at(millis), [(node(1), LEASED)]);
            }
        }
        assert!((4..=6).contains(&tries), "{tries}");
    }

    /// A voter that cannot lead although it has a lease: the leader is elected again each time.
    #[test]
    fn pauses_outlast_lost_leadership_and_end_with_a_lease() {
        let mut transfer = LeaseTransfer::default();
        let (mut tries, mut led_at) = (0, 0);
        for millis in (0..60_000).step_by(100) {
            let leads = millis >= led_at;
            if transfer.is_due(at(millis), leads, Duration::ZERO) {
                tries += 1;
                transfer.choose(at(millis), [(node(1), LEASED)]);
                led_at = millis + 300;
            }
        }
        assert!(tries <= 6, "{tries}");
        assert!(!transfer.is_due(at(60_000), true, LEASED));
        assert!(!transfer.is_due(at(60_100), true, Duration::ZERO));
        assert!(transfer.is_due(at(60_600), true, Duration::ZERO), "a new loss");
    }

    /// Leases of three voters run out one after the other while their region is cut off.
    #[test]
    fn leadership_never_comes_back_to_voter_without_lease() {
        let expiry = [0, 9_000, 12_000_u64];
        let left = |voter: usize, now: u64| Duration::from_millis(expiry[voter].saturating_sub(now));
        let (mut transfers, mut leader, mut led) = ([LeaseTransfer::default(); 3], 0, vec![0]);
        for now in (0..60_000).step_by(100) {
            for (voter, transfer) in transfers.iter_mut().enumerate() {
                if !transfer.is_due(at(now), voter == leader, left(voter, now)) {
                    continue;
                }
                let others = (0..3).filter(|other| *other != voter);
                let answers = others.map(|other| (node(other as u64), left(other, now)));
                if let Some(to) = transfer.choose(at(now), answers) {
                    leader = usize::try_from(to.get()).unwrap();
                    led.push(leader);
                }
            }
        }
        assert_eq!(led, [0, 2], "to the longest, and no further");
    }
}
