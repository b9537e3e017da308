//! One test for each clause of protocol.md "Leases", rules 2 and 7, that the grantor keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, TenantNumber};

use super::{
    AttemptNumber, GROUPS_MAX, LeaseAnswer, Renewal,
    grantor::{AppliedFence, DirectoryReading, GrantRefusal, LeaseGrantor},
    waiter::{FenceWait, PossibleOwners, WaitState},
};
use crate::serving::BootTime;

const HOME: GroupId = GroupId::new(1);
const TARGET: GroupId = GroupId::new(2);
const OTHER: GroupId = GroupId::new(3);
const TERM: u64 = 4;
const TTL: Duration = Duration::from_secs(60);
/// Wait for a ttl of a minute.
const WAIT_MS: u64 = 60_651;

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn renewal(groups: impl IntoIterator<Item = GroupId>) -> Renewal {
    Renewal {
        attempt: AttemptNumber(9),
        view: version(1),
        groups: groups.into_iter().collect(),
    }
}

fn reading(index: u64) -> DirectoryReading {
    DirectoryReading {
        version: version(index),
        ttl: TTL,
        fences: None,
    }
}

/// The directory's leader since 0 s.
struct Leader {
    grantor: LeaseGrantor,
    index: u64,
}

impl Leader {
    fn new() -> Self {
        let mut grantor = LeaseGrantor::default();
        grantor.lead(BootTime(0), TERM);
        Self { grantor, index: 10 }
    }

    fn grant_in(&mut self, now: u64, term: u64, group: GroupId) -> Result<LeaseAnswer, GrantRefusal> {
        self.grantor
            .grant(BootTime(now), term, &renewal([group]), reading(self.index))
    }

    fn grant(&mut self, now: u64, group: GroupId) -> Result<LeaseAnswer, GrantRefusal> {
        self.grant_in(now, TERM, group)
    }

    /// Applies a fence, and begins the wait.
    fn fence(&mut self, now: u64, owners: &PossibleOwners) -> FenceWait {
        self.index += 1;
        self.begin_wait(now, owners).unwrap()
    }

    fn begin_wait(&mut self, now: u64, owners: &PossibleOwners) -> Option<FenceWait> {
        let fence = AppliedFence {
            version: version(self.index),
            owners: owners.clone(),
            ttl: TTL,
        };
        self.grantor.begin_wait(BootTime(now), &fence)
    }

    /// Returns the boot clock at which a wait is over.
    fn end(&self, wait: &FenceWait) -> u64 {
        match self.grantor.wait_state(BootTime(0), wait) {
            WaitState::Left(left) => u64::try_from(left.as_millis()).unwrap(),
            WaitState::Over => 0,
            WaitState::Void => panic!("it is of this term"),
        }
    }
}

fn home() -> PossibleOwners {
    PossibleOwners::new(HOME, None, [])
}

/// Rule 2: version, ttl and fences are those of one state.
#[test]
fn grant_answers_from_one_state() {
    let mut leader = Leader::new();
    let fences = Some(BTreeMap::from([(TenantNumber::new(7), Epoch::FIRST)]));
    let reading = DirectoryReading {
        fences: fences.clone(),
        ..reading(10)
    };
    let answer = leader
        .grantor
        .grant(BootTime(5), TERM, &renewal([HOME]), reading)
        .unwrap();
    assert_eq!(
        answer,
        LeaseAnswer {
            attempt: AttemptNumber(9),
            version: version(10),
            ttl: Duration::from_secs(60),
            fences,
        }
    );
}

/// Rule 2: only the leader in whose term the read index was confirmed grants.
#[test]
fn grant_of_another_term_is_refused() {
    let mut leader = Leader::new();
    assert_eq!(leader.grant_in(5, TERM - 1, HOME), Err(GrantRefusal::NotLeader));
    leader.grantor.follow();
    assert_eq!(leader.grant(5, HOME), Err(GrantRefusal::NotLeader));
    assert_eq!(leader.begin_wait(5, &home()), None);
    assert_eq!(leader.grantor.since_last_grant(BootTime(5), HOME), None);
}

/// Rule 7: `ttl * (1 + drift)` from when the fence was applied, where a lease was granted just before.
#[test]
fn wait_after_recent_grant_is_whole() {
    let mut leader = Leader::new();
    leader.grant(100_000, HOME).unwrap();
    let wait = leader.fence(100_000, &home());
    assert_eq!(leader.end(&wait), 100_000 + WAIT_MS);
    let state = |now| leader.grantor.wait_state(BootTime(now), &wait);
    assert_eq!(state(100_000 + WAIT_MS - 1), WaitState::Left(Duration::from_millis(1)));
    assert_eq!(state(100_000 + WAIT_MS), WaitState::Over);
}

/// Rule 7: "shortened by the time that has passed since the last grant"; grants after the fence do not prolong it.
#[test]
fn wait_is_shortened_by_time_since_last_grant() {
    let mut leader = Leader::new();
    leader.grant(100_000, HOME).unwrap();
    leader.grant(150_000, OTHER).unwrap();
    let wait = leader.fence(140_000, &home());
    leader.grant(141_000, HOME).unwrap();
    assert_eq!(leader.end(&wait), 100_000 + WAIT_MS);
    let dark = leader.fence(900_000, &PossibleOwners::new(TARGET, None, []));
    assert_eq!(leader.grantor.wait_state(BootTime(900_000), &dark), WaitState::Over);
}

/// Rule 7: "to any voter of any group that could own an epoch below n".
#[test]
fn wait_counts_grants_to_every_possible_owner() {
    let granted_to_target = |owners: &PossibleOwners| {
        let mut leader = Leader::new();
        leader.grant(100_000, HOME).unwrap();
        leader.grant(130_000, TARGET).unwrap();
        let wait = leader.fence(150_000, owners);
        leader.end(&wait)
    };
    assert_eq!(granted_to_target(&home()), 100_000 + WAIT_MS);
    let moving = PossibleOwners::new(HOME, Some(TARGET), []);
    assert_eq!(granted_to_target(&moving), 130_000 + WAIT_MS);
    // The move was replaced by a promotion, which is itself replaced before it was activated.
    let replaced = PossibleOwners::new(HOME, None, [TARGET]);
    assert_eq!(granted_to_target(&replaced), 130_000 + WAIT_MS);
    let mut region = home();
    region.extend(PossibleOwners::new(TARGET, None, []));
    assert_eq!(granted_to_target(&region), 130_000 + WAIT_MS);
}

/// Rule 7: a renewal is granted to a voter for all its groups, whichever of them it leads.
#[test]
fn wait_counts_grants_to_every_voter_of_group() {
    let mut leader = Leader::new();
    leader.grant(100_000, HOME).unwrap();
    let both = renewal([OTHER, HOME]);
    leader
        .grantor
        .grant(BootTime(120_000), TERM, &both, reading(10))
        .unwrap();
    let wait = leader.fence(150_000, &home());
    assert_eq!(leader.end(&wait), 120_000 + WAIT_MS);
}

/// Rule 7: "a grant counts from when its V was fixed, not from when the answer left": a version read before the fence
/// is not granted once the fence is waited for, because the wait did not count it.
#[test]
fn version_read_before_fence_is_not_granted_after_it() {
    let mut leader = Leader::new();
    leader.grant(1_000, HOME).unwrap();
    leader.fence(50_000, &home());
    leader.index -= 1;
    assert_eq!(leader.grant(50_001, HOME), Err(GrantRefusal::BelowFence(version(11))));
    leader.index += 1;
    assert_eq!(leader.grant(50_002, HOME).unwrap().version, version(11));
}

/// Rule 7: "a new directory leader starts anew", and knows of no grant of those before it.
#[test]
fn new_leader_begins_waits_anew() {
    let mut leader = Leader::new();
    let wait = leader.fence(100_000, &home());
    assert_eq!(leader.end(&wait), WAIT_MS, "granted nothing since it leads");
    leader.grantor.follow();
    assert_eq!(leader.grantor.wait_state(BootTime(900_000), &wait), WaitState::Void);
    leader.grantor.lead(BootTime(200_000), TERM + 1);
    assert_eq!(leader.grantor.wait_state(BootTime(900_000), &wait), WaitState::Void);
    // The leader between may have granted a lease until this one was elected.
    let anew = leader.begin_wait(200_500, &home()).unwrap();
    assert_eq!(leader.end(&anew), 200_000 + WAIT_MS);
    leader.grantor.lead(BootTime(900_000), TERM + 1);
    assert_eq!(leader.end(&anew), 200_000 + WAIT_MS, "it leads already in this term");
}

/// Rule 7: "the ttl is the largest in force at that record or within one such ttl before it", not that of grants now.
#[test]
fn wait_counts_ttl_that_was_lowered() {
    let mut leader = Leader::new();
    leader.grant(100_000, HOME).unwrap();
    let lowered = DirectoryReading {
        ttl: Duration::from_secs(15),
        ..reading(11)
    };
    leader
        .grantor
        .grant(BootTime(101_000), TERM, &renewal([HOME]), lowered)
        .unwrap();
    leader.index = 11;
    let wait = leader.fence(110_000, &home());
    assert_eq!(leader.end(&wait), 101_000 + WAIT_MS);
}

#[test]
fn renewal_without_groups_is_granted_and_with_too_many_refused() {
    let mut leader = Leader::new();
    let mut grant = |groups: BTreeSet<GroupId>| leader.grantor.grant(BootTime(5), TERM, &renewal(groups), reading(10));
    assert!(grant(BTreeSet::new()).is_ok(), "a witness votes in none");
    let groups = |count: u32| (1..=count).map(GroupId::new).collect();
    assert_eq!(grant(groups(1_025)), Err(GrantRefusal::Groups(GROUPS_MAX + 1)));
    assert!(grant(groups(1_024)).is_ok());
    assert_eq!(
        leader.grantor.since_last_grant(BootTime(25), GroupId::new(1_024)),
        Some(Duration::from_millis(20))
    );
}
