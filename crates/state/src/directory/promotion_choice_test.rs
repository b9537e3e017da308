//! Each rule of the choice alone.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{Epoch, GroupId, Revision, Sequence, TenantNumber, TenantTime};

use super::{
    ownership::{GroupFrozen, PromotionPlan, begin_freezing, promote, record_frozen},
    *,
};
use crate::{
    lineage::Lineage,
    shard::{
        ownership::FreezeReport,
        record::{OperationId, PreviousRole},
    },
};

const HOME: GroupId = GroupId::new(1);
const BESIDE: GroupId = GroupId::new(2);
const EAST: GroupId = GroupId::new(3);
const WEST: GroupId = GroupId::new(4);

/// Default input of a choice: the home in a region with the group beside it, two followers elsewhere.
struct Case {
    tenant: Tenant,
    reports: BTreeMap<GroupId, FrozenReport>,
    silent: BTreeSet<GroupId>,
    targets: Vec<GroupId>,
    allow_loss: bool,
}

fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

impl Case {
    /// A tenant with these members, whose members freeze.
    fn of(members: &[GroupId]) -> Self {
        let mut tenant = Tenant::new(TenantNumber::new(1), "acme".parse().unwrap(), HOME);
        tenant.members = members.iter().copied().map(ReplicaSetMember::staying).collect();
        let plan = PromotionPlan {
            replace: None,
            of: 1,
            fence: DirectoryVersion::ZERO,
            time: 0,
        };
        let promotion = promote(&mut tenant, &plan).unwrap();
        begin_freezing(&mut tenant, promotion.operation).unwrap();
        Self {
            tenant,
            reports: BTreeMap::new(),
            silent: BTreeSet::new(),
            targets: vec![EAST, WEST],
            allow_loss: false,
        }
    }

    /// A group that has reported that it holds the history up to a revision.
    fn frozen(self, group: GroupId, revision: &str) -> Self {
        self.reported(group, revision, |_| ())
    }

    fn reported(mut self, group: GroupId, last: &str, change: impl FnOnce(&mut FrozenReport)) -> Self {
        let previous = if group == self.tenant.home {
            PreviousRole::Owner
        } else {
            PreviousRole::Follower
        };
        let mut frozen = FrozenReport {
            report: FreezeReport {
                operation: OperationId(1),
                epoch: Epoch::new(2).unwrap(),
                previous,
                followed: Epoch::FIRST,
                revision: revision(last),
                lineage: Lineage::starting(Epoch::FIRST),
                retention_floor: Revision::ZERO,
                time: TenantTime(u64::from(group.get())),
                suspect: false,
                forked_up_to: Sequence::ZERO,
            },
            fresh_as_of: Some(100),
            time: 0,
        };
        change(&mut frozen);
        let report = GroupFrozen {
            from: group,
            operation: frozen.report.operation,
            epoch: frozen.report.epoch,
        };
        record_frozen(&mut self.tenant, &report).unwrap();
        self.reports.insert(group, frozen);
        self
    }

    fn silent(mut self, groups: &[GroupId]) -> Self {
        self.silent.extend(groups);
        self
    }

    fn to(mut self, targets: &[GroupId]) -> Self {
        self.targets = targets.to_vec();
        self
    }

    fn allowing_loss(mut self) -> Self {
        self.allow_loss = true;
        self
    }

    fn choose(&self) -> Choice {
        choose(&Consultation {
            tenant: &self.tenant,
            reports: &self.reports,
            silent: &self.silent,
            home_region: &[HOME, BESIDE],
            targets: &self.targets,
            allow_loss: self.allow_loss,
        })
    }

    #[track_caller]
    fn activates(&self, home: GroupId, kept: &str) -> Chosen {
        let choice = self.choose();
        let Choice::Activate(chosen) = choice else {
            panic!("{choice:?}")
        };
        assert_eq!((chosen.home, chosen.kept), (home, revision(kept)));
        *chosen
    }

    #[track_caller]
    fn pulls(&self, from: GroupId, to: GroupId) {
        assert_eq!(self.choose(), Choice::Pull { from, to });
    }

    /// Asserts that it is blocked, with these words.
    #[track_caller]
    fn is_blocked(&self, words: &str) {
        let choice = self.choose();
        let Choice::Blocked(reason) = choice else {
            panic!("{choice:?}")
        };
        assert!(reason.contains(words), "{reason}");
    }
}

fn three() -> Case {
    Case::of(&[HOME, EAST, WEST])
}

#[test]
fn groups_that_may_answer_are_waited_for() {
    assert_eq!(three().choose(), Choice::Wait(vec![HOME, EAST, WEST]));
    assert_eq!(
        three().frozen(EAST, "1.9").silent(&[HOME]).choose(),
        Choice::Wait(vec![WEST])
    );
    // Permission to lose writes is none to be hasty.
    let hasty = three().frozen(EAST, "1.9").silent(&[HOME]).allowing_loss();
    assert_eq!(hasty.choose(), Choice::Wait(vec![WEST]));
}

#[test]
fn silent_home_region_is_excused_and_longest_history_wins() {
    let case = Case::of(&[HOME, BESIDE, EAST, WEST])
        .frozen(EAST, "1.8")
        .frozen(WEST, "1.9")
        .silent(&[HOME, BESIDE]);
    let chosen = case.activates(WEST, "1.9");
    assert_eq!((chosen.is_drained, chosen.time), (false, TenantTime(4)));
    assert!(
        chosen.reason.contains("groups 1, 2 in the old home's region"),
        "{}",
        chosen.reason
    );
}

#[test]
fn equal_histories_go_to_first_target() {
    let case = three().frozen(EAST, "1.9").frozen(WEST, "1.9").silent(&[HOME]);
    case.activates(EAST, "1.9");
    case.to(&[WEST, EAST]).activates(WEST, "1.9");
}

#[test]
fn later_epoch_is_longer_history() {
    let mut lineage = Lineage::starting(Epoch::FIRST);
    lineage.record_move(Epoch::new(2).unwrap());
    let case = three()
        .frozen(EAST, "1.9")
        .reported(WEST, "2.9", |frozen| frozen.report.lineage = lineage.clone())
        .silent(&[HOME]);
    case.activates(WEST, "2.9");
}

/// P1: a silent group elsewhere may hold what was acknowledged at `REMOTE`.
#[test]
fn silent_group_elsewhere_blocks_without_permission_to_lose() {
    let case = three().frozen(EAST, "1.9").silent(&[HOME, WEST]);
    case.is_blocked("group 4 did not answer");
    let chosen = case.allowing_loss().activates(EAST, "1.9");
    assert!(chosen.reason.contains("losses were accepted"), "{}", chosen.reason);
}

#[test]
fn frozen_and_drained_owner_excuses_all() {
    let case = three().frozen(HOME, "1.9").frozen(EAST, "1.9").silent(&[WEST]);
    assert!(case.activates(EAST, "1.9").is_drained);
    let case = three().frozen(HOME, "1.10").frozen(EAST, "1.9").silent(&[WEST]);
    case.pulls(HOME, EAST);
    // The last owner is the group that the home has handed over to.
    let handed_over = |frozen: &mut FrozenReport| frozen.report.previous = PreviousRole::Relinquished(WEST);
    let case = three()
        .reported(HOME, "1.9", handed_over)
        .frozen(EAST, "1.9")
        .silent(&[WEST]);
    case.is_blocked("group 4 did not answer");
    let case = three()
        .reported(HOME, "1.9", handed_over)
        .frozen(WEST, "1.9")
        .silent(&[EAST]);
    assert!(case.activates(WEST, "1.9").is_drained);
}

/// The history of a home that answers is part of what is taken over.
#[test]
fn longer_history_is_pulled_before_activation() {
    three()
        .frozen(HOME, "1.12")
        .frozen(EAST, "1.9")
        .frozen(WEST, "1.10")
        .pulls(HOME, WEST);
    let named = three().frozen(EAST, "1.9").frozen(WEST, "1.10").silent(&[HOME]);
    named.to(&[EAST]).pulls(WEST, EAST);
}

#[test]
fn named_old_home_undoes_promotion() {
    let case = three().frozen(HOME, "1.12").frozen(EAST, "1.9").frozen(WEST, "1.12");
    assert!(case.to(&[HOME, BESIDE]).activates(HOME, "1.12").is_drained);
}

#[test]
fn pull_needs_history_that_source_keeps() {
    let trimmed = |frozen: &mut FrozenReport| frozen.report.retention_floor = revision("1.11");
    let case = |west| {
        three()
            .reported(HOME, "1.12", trimmed)
            .frozen(EAST, "1.9")
            .frozen(WEST, west)
    };
    case("1.11").pulls(HOME, WEST);
    case("1.10").is_blocked("no longer keeps what is missing");
    case("1.10").allowing_loss().activates(WEST, "1.10");
    // Another source of the same history serves as well.
    case("1.12").to(&[EAST]).pulls(WEST, EAST);
}

/// It counts as not consulted.
#[test]
fn suspect_copy_blocks_and_is_chosen_last() {
    let differs = |frozen: &mut FrozenReport| frozen.report.suspect = true;
    let case = || {
        three()
            .frozen(EAST, "1.9")
            .reported(WEST, "1.12", differs)
            .silent(&[HOME])
    };
    case().is_blocked("group 4 did not answer, or with a copy that differs");
    case().allowing_loss().activates(EAST, "1.9");
    case().to(&[WEST]).is_blocked("the copy of group 4 differs");
    case().to(&[WEST]).allowing_loss().activates(WEST, "1.12");
}

/// A copy that became a fork as a whole is empty, and counts with what it held.
#[test]
fn history_that_only_a_fork_holds_blocks() {
    let forked = |up_to| move |frozen: &mut FrozenReport| frozen.report.forked_up_to = Sequence::new(up_to).unwrap();
    let case = |up_to| {
        three()
            .frozen(EAST, "1.9")
            .reported(WEST, "1.0", forked(up_to))
            .silent(&[HOME])
    };
    case(9).activates(EAST, "1.9");
    case(10).is_blocked("group 4 holds changes up to sequence 10 in a fork only");
    case(10).allowing_loss().activates(EAST, "1.9");
}

/// P1: what was acknowledged on account of members that are gone.
#[test]
fn remote_floor_above_history_blocks() {
    let case = |floor| {
        let mut case = three().frozen(EAST, "1.9").frozen(WEST, "1.9").silent(&[HOME]);
        case.tenant.remote_floor = RemoteFloor::at(Sequence::new(floor).unwrap());
        case
    };
    case(9).activates(EAST, "1.9");
    case(10).is_blocked("writes up to sequence 10 were acknowledged at REMOTE");
    case(10).allowing_loss().activates(EAST, "1.9");
}

#[test]
fn empty_copy_needs_proof_that_tenant_was_empty() {
    let unproved = |frozen: &mut FrozenReport| frozen.fresh_as_of = None;
    let case = || Case::of(&[HOME, EAST]).reported(EAST, "1.0", unproved).silent(&[HOME]);
    case().is_blocked("group 3 holds nothing of the tenant");
    case().allowing_loss().activates(EAST, "1.0");
    Case::of(&[HOME, EAST])
        .frozen(EAST, "1.0")
        .silent(&[HOME])
        .activates(EAST, "1.0");
    let drained = Case::of(&[HOME, EAST])
        .frozen(HOME, "1.0")
        .reported(EAST, "1.0", unproved);
    drained.activates(EAST, "1.0");
}

#[test]
fn target_that_is_silent_or_no_member_blocks() {
    let case = || three().frozen(HOME, "1.9").frozen(EAST, "1.9").silent(&[WEST]);
    case()
        .to(&[WEST])
        .is_blocked("group 4 may be the new home and did not answer");
    case().to(&[]).is_blocked("no member is in a region");
    // A group that has reported and then fallen silent is neither chosen nor pulled from.
    let gone = three()
        .frozen(HOME, "1.9")
        .frozen(EAST, "1.9")
        .frozen(WEST, "1.9")
        .silent(&[EAST]);
    gone.activates(WEST, "1.9");
    let gone = three()
        .frozen(HOME, "1.12")
        .frozen(EAST, "1.9")
        .frozen(WEST, "1.9")
        .silent(&[HOME]);
    gone.is_blocked("a history up to 1.12 was reported");
    gone.allowing_loss().activates(EAST, "1.9");
}

#[test]
fn member_that_erases_is_not_consulted() {
    let mut case = three().frozen(EAST, "1.9").silent(&[HOME]);
    case.tenant.members[2].state = MemberState::Erasing;
    case.activates(EAST, "1.9");
}

#[test]
fn freshness_is_that_of_longest_proof_within_what_is_kept() {
    let at = |time| move |frozen: &mut FrozenReport| frozen.fresh_as_of = Some(time);
    let case = three()
        .reported(EAST, "1.9", at(200))
        .reported(WEST, "1.8", at(300))
        .silent(&[HOME]);
    assert_eq!(case.activates(EAST, "1.9").fresh_as_of, Some(300));
    let case = three()
        .reported(EAST, "1.9", at(200))
        .reported(WEST, "1.10", at(300))
        .silent(&[HOME]);
    assert_eq!(case.activates(WEST, "1.10").fresh_as_of, Some(300));
}

#[test]
fn fence_is_in_all_logs_once_possible_owners_have_reported() {
    let is_fenced = |case: &Case| is_fenced_by_logs(&case.tenant, &case.reports);
    assert!(!is_fenced(&three().frozen(EAST, "1.9").frozen(WEST, "1.9")));
    assert!(is_fenced(&three().frozen(HOME, "1.9")));
    let handed_over = |frozen: &mut FrozenReport| frozen.report.previous = PreviousRole::Relinquished(WEST);
    let case = three().reported(HOME, "1.9", handed_over);
    assert!(!is_fenced(&case));
    assert!(is_fenced(&case.frozen(WEST, "1.9")));
}
