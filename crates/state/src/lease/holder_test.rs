//! One test for each clause of protocol.md "Leases", rules 1 to 6, that the holder keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, TenantNumber};

use super::{
    AttemptNumber, LeaseAnswer, Renewal,
    clock::NodeTime,
    holder::{ATTEMPTS_MAX, LeaseHolder, ServedTenant},
};
use crate::{
    serving::{self, BootTime, NotServing, ServingState},
    shard::record::{Role, TenantRecord},
};

const TTL: Duration = Duration::from_secs(60);
const GROUP: GroupId = GroupId::new(1);
const TENANT: TenantNumber = TenantNumber::new(7);
const OWNED: Epoch = Epoch::FIRST;

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn groups() -> BTreeSet<GroupId> {
    BTreeSet::from([GROUP])
}

/// Clocks after so many seconds; the wall clock agrees.
fn at(seconds: u64) -> NodeTime {
    NodeTime {
        boot: BootTime(1_000 * seconds),
        wall_ms: 1_700_000_000_000 + 1_000 * seconds,
    }
}

fn answer(renewal: &Renewal, index: u64) -> LeaseAnswer {
    LeaseAnswer {
        attempt: renewal.attempt,
        version: version(index),
        ttl: TTL,
        fences: None,
    }
}

fn fenced(epoch: u32) -> Option<BTreeMap<TenantNumber, Epoch>> {
    Some(BTreeMap::from([(TENANT, Epoch::new(epoch).unwrap())]))
}

/// A holder whose view is at a version.
struct Node {
    holder: LeaseHolder,
    view: DirectoryVersion,
}

impl Node {
    fn new(view: u64) -> Self {
        Self {
            holder: LeaseHolder::default(),
            view: version(view),
        }
    }

    fn begin(&mut self, seconds: u64) -> Renewal {
        self.holder.begin(at(seconds), self.view, groups())
    }

    fn renew(&mut self, seconds: u64, index: u64) {
        let renewal = self.begin(seconds);
        assert!(self.holder.answer(answer(&renewal, index)));
    }

    fn state(&mut self, now: NodeTime) -> ServingState {
        let served = ServedTenant {
            group: GROUP,
            tenant: TENANT,
            fence: OWNED,
            view: self.view,
        };
        self.holder.serving_state(now, served, true)
    }

    /// Makes the serving check for a tenant that is owned in epoch 1.
    fn check(&mut self, seconds: u64) -> Result<Epoch, NotServing> {
        let record = TenantRecord {
            role: Role::Owner,
            epoch: OWNED,
            ..TenantRecord::unknown()
        };
        serving::check(&record, &self.state(at(seconds)))
    }

    fn left(&mut self, seconds: u64) -> Duration {
        self.holder.left(at(seconds), self.view, GROUP)
    }

    fn serves(&mut self, seconds: u64) -> bool {
        self.check(seconds).is_ok()
    }
}

#[test]
fn holder_without_answer_does_not_serve() {
    let mut node = Node::new(5);
    assert_eq!(node.check(0), Err(NotServing::NoLease));
    node.begin(0);
    assert_eq!(node.check(0), Err(NotServing::NoLease));
}

/// Rule 1: "an answer counts from its own attempt's send".
#[test]
fn lease_counts_from_send_of_own_attempt() {
    let mut node = Node::new(5);
    let first = node.begin(0);
    let second = node.begin(20);
    assert!(
        node.holder.answer(answer(&first, 5)),
        "arrives after the second was sent"
    );
    assert!(node.serves(59));
    assert_eq!(node.check(60), Err(NotServing::NoLease));
    assert!(node.holder.answer(answer(&second, 5)));
    assert!(node.serves(79));
    assert!(!node.serves(80));
}

/// Rule 1: "each attempt has its own number, echoed in the answer".
#[test]
fn answer_of_unknown_attempt_is_ignored() {
    let mut node = Node::new(5);
    let renewal = node.begin(0);
    let unknown = AttemptNumber(renewal.attempt.0 + 1);
    let stray = LeaseAnswer {
        attempt: unknown,
        ..answer(&renewal, 5)
    };
    assert!(!node.holder.answer(stray));
    assert!(!node.serves(0));
    assert!(node.holder.answer(answer(&renewal, 5)));
    assert!(
        !node.holder.answer(answer(&renewal, 9)),
        "the second answer of one attempt"
    );
    assert_ne!(node.begin(1).attempt, renewal.attempt);
}

/// Rule 3: "it counts once the holder's view has reached V".
#[test]
fn lease_counts_once_view_has_reached_its_version() {
    let mut node = Node::new(5);
    node.renew(0, 6);
    assert_eq!(node.check(1), Err(NotServing::LeasePending(version(6))));
    node.view = version(6);
    assert!(node.serves(1));
}

/// Rule 3: "pairs are never merged": a later expiry does not count until its own version is reached.
#[test]
fn later_expiry_does_not_prolong_earlier_version() {
    let mut node = Node::new(5);
    node.renew(0, 5);
    node.renew(15, 9);
    assert!(node.serves(59));
    assert_eq!(node.check(60), Err(NotServing::LeasePending(version(9))));
    node.view = version(9);
    assert!(node.serves(74));
    assert!(!node.serves(75));
}

/// Rule 3: a pending lease is not given up for a newer one, or a view that lags by more than a renewal's interval would
/// reach the version of none.
#[test]
fn view_lagging_by_more_than_a_renewal_reaches_a_lease() {
    let mut node = Node::new(0);
    for second in 0..200_u64 {
        // The directory has one version a second, and the view lags by twenty.
        node.view = version((second + 1).saturating_sub(20));
        if second % 15 == 0 {
            node.renew(second, second + 1);
        }
        assert_eq!(node.serves(second), second >= 20, "after {second} s");
    }
}

/// Rule 3: with the fence changes of the answer it counts before the view has reached its version, fences included.
#[test]
fn lease_with_fence_changes_counts_before_view() {
    let mut node = Node::new(5);
    let renewal = node.begin(0);
    let fences = Some(BTreeMap::new());
    assert!(node.holder.answer(LeaseAnswer {
        fences,
        ..answer(&renewal, 9)
    }));
    assert!(node.serves(1));
    let renewal = node.begin(15);
    assert!(node.holder.answer(LeaseAnswer {
        fences: fenced(3),
        ..answer(&renewal, 12)
    }));
    assert_eq!(node.check(16), Err(NotServing::Fenced(Epoch::new(3).unwrap())));
    node.view = version(12);
    assert!(node.serves(16), "from its version on the view decides alone");
}

/// Rule 3: "where the directory no longer has those changes the lease counts by the view alone"; the one before stays.
#[test]
fn lease_without_fence_changes_leaves_earlier_one() {
    let mut node = Node::new(5);
    let renewal = node.begin(0);
    let fences = Some(BTreeMap::new());
    assert!(node.holder.answer(LeaseAnswer {
        fences,
        ..answer(&renewal, 9)
    }));
    node.renew(15, 20);
    assert!(node.serves(59));
    assert_eq!(node.check(60), Err(NotServing::LeasePending(version(20))));
}

/// Rule 3: the changes are those since the version that the attempt named.
#[test]
fn fence_changes_do_not_help_view_behind_attempt() {
    let mut node = Node::new(5);
    let renewal = node.begin(0);
    let fences = Some(BTreeMap::new());
    assert!(node.holder.answer(LeaseAnswer {
        fences,
        ..answer(&renewal, 9)
    }));
    node.view = version(4);
    assert_eq!(node.check(1), Err(NotServing::LeasePending(version(9))));
}

/// Rule 3: "a lease counted this way permits serving only".
#[test]
fn lease_counted_early_permits_no_proposals() {
    let mut node = Node::new(5);
    node.renew(0, 5);
    let renewal = node.begin(15);
    let fences = Some(BTreeMap::new());
    assert!(node.holder.answer(LeaseAnswer {
        fences,
        ..answer(&renewal, 9)
    }));
    let full = |node: &mut Node, seconds| node.holder.full_lease(at(seconds), node.view, GROUP);
    let held = full(&mut node, 16).unwrap();
    assert_eq!((held.version, held.asked), (version(5), BootTime(0)));
    assert_eq!(held.left, Duration::from_secs(44));
    assert_eq!(node.holder.left(at(16), node.view, GROUP), Duration::from_secs(59));
    assert_eq!(full(&mut node, 60), None);
    assert!(node.serves(60));
    node.view = version(9);
    assert_eq!(full(&mut node, 60).unwrap().asked, BootTime(15_000));
}

/// "Views, leases and reports of another incarnation do not count."
#[test]
fn lease_of_another_incarnation_does_not_count() {
    let mut node = Node::new(5);
    let renewal = node.begin(0);
    let newer = DirectoryVersion {
        incarnation: Incarnation(2),
        index: 1,
    };
    assert!(node.holder.answer(LeaseAnswer {
        version: newer,
        fences: Some(BTreeMap::new()),
        ..answer(&renewal, 0)
    }));
    assert_eq!(node.check(1), Err(NotServing::LeasePending(newer)));
    node.view = newer;
    assert!(node.serves(1));
    node.view = DirectoryVersion {
        incarnation: Incarnation(3),
        index: 1,
    };
    assert!(!node.serves(1));
    assert_eq!(node.holder.full_lease(at(1), node.view, GROUP), None);
}

/// Invariant 4: the directory has noted the grant for the groups that the attempt named, and for no other.
#[test]
fn lease_holds_only_for_named_groups() {
    let mut node = Node::new(5);
    node.renew(0, 5);
    let other = GroupId::new(2);
    let served = ServedTenant {
        group: other,
        tenant: TENANT,
        fence: OWNED,
        view: node.view,
    };
    assert_eq!(
        node.holder.serving_state(at(1), served, true).lease,
        serving::Lease::Absent
    );
    assert_eq!(node.holder.full_lease(at(1), node.view, other), None);
    assert_eq!(node.holder.left(at(1), node.view, other), Duration::ZERO);
    let both = BTreeSet::from([GROUP, other]);
    assert_eq!(
        node.holder.renew_at(&both),
        BootTime(0),
        "a new group is asked for at once"
    );
}

/// Rule 6: after a pause the lease is dropped, and asked for anew at once.
#[test]
fn pause_drops_leases_and_attempts() {
    let mut node = Node::new(5);
    node.renew(0, 5);
    let before = node.begin(10);
    // The boot clock stood still for ten seconds; somebody has set the wall clock right.
    let paused = NodeTime {
        boot: at(20).boot,
        wall_ms: at(30).wall_ms,
    };
    assert_eq!(node.state(paused).lease, serving::Lease::Absent);
    assert_eq!(node.holder.renew_at(&groups()), BootTime(0));
    assert!(!node.holder.answer(answer(&before, 5)), "it was begun before the pause");
    assert!(!node.serves(20), "a wall clock that goes back brings no lease back");
    node.renew(21, 5);
    assert!(node.serves(22));
}

/// Rule 6: a lease whose answer comes after the pause is measured from its own attempt.
#[test]
fn pause_while_attempt_is_under_way_is_noticed_at_its_answer() {
    let mut node = Node::new(5);
    let renewal = node.begin(0);
    assert!(node.holder.answer(answer(&renewal, 5)));
    let paused = NodeTime {
        boot: at(1).boot,
        wall_ms: at(2).wall_ms,
    };
    assert!(node.holder.observe(paused));
    assert!(!node.holder.observe(paused), "nothing is left to drop");
}

/// Rule 1: "every ttl / 4".
#[test]
fn renewal_is_due_a_quarter_of_ttl_after_send() {
    let mut node = Node::new(5);
    assert_eq!(node.holder.renew_at(&groups()), BootTime(0));
    let slow = node.begin(0);
    node.renew(10, 5);
    assert_eq!(node.holder.renew_at(&groups()), BootTime(25_000));
    assert!(node.holder.answer(answer(&slow, 5)));
    assert_eq!(
        node.holder.renew_at(&groups()),
        BootTime(25_000),
        "the latest one counts"
    );
}

#[test]
fn attempts_and_leases_are_bounded() {
    let mut node = Node::new(0);
    let attempts: Vec<Renewal> = (0..20).map(|second| node.begin(second)).collect();
    let taken: Vec<bool> = attempts
        .iter()
        .zip(1..)
        .map(|(renewal, index)| node.holder.answer(answer(renewal, index)))
        .collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), ATTEMPTS_MAX);
    assert!(!taken[0], "the oldest attempts are forgotten");
    // Of the leases the oldest are kept, and the newest.
    let mut reached = |index| node.holder.left(at(20), version(index), GROUP);
    assert_eq!(reached(5), Duration::from_secs(44), "attempt 5 was begun at 4 s");
    assert_eq!(reached(19), Duration::from_secs(50), "attempt 11 was begun at 10 s");
    assert_eq!(reached(20), Duration::from_secs(59));
}

#[test]
fn last_end_is_that_of_lease_that_counted() {
    let mut node = Node::new(5);
    let first = node.begin(0);
    node.holder.answer(answer(&first, 5));
    assert_eq!(node.holder.last_end(GROUP), None);
    assert_eq!(node.left(1), Duration::from_secs(59));
    // Its version is beyond the view, and the fences between are unknown.
    let second = node.begin(20);
    node.holder.answer(LeaseAnswer {
        fences: None,
        ..answer(&second, 9)
    });
    assert_eq!(node.left(60), Duration::ZERO);
    assert_eq!(node.holder.last_end(GROUP), Some(at(60).boot));
    assert_eq!(node.left(81), Duration::ZERO);
    assert_eq!(
        node.holder.last_end(GROUP),
        Some(at(60).boot),
        "the second never counted"
    );
}

/// Rule 6: leases from before a pause are over when it is noticed.
#[test]
fn last_end_after_pause_is_its_notice() {
    let mut node = Node::new(5);
    let first = node.begin(0);
    node.holder.answer(answer(&first, 5));
    assert!(!node.left(1).is_zero());
    let noticed = NodeTime {
        boot: at(10).boot,
        wall_ms: at(40).wall_ms,
    };
    assert!(node.holder.observe(noticed));
    assert_eq!(node.holder.last_end(GROUP), Some(at(10).boot));
}
