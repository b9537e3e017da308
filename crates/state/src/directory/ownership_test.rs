//! Each guard of the transitions alone, what they change, and random sequences against the invariants.

use proptest::prelude::*;
use stead_types::{
    DirectoryVersion, Durability, Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber, TenantTime,
};

use super::{directory_test::hex, ownership::*, *};
use crate::{
    codec::{Reader, Writer},
    lineage::{Lineage, RevisionStatus},
    shard::record::{LeaseLossPolicy, OperationId},
};

const HOME: GroupId = GroupId::new(1);
const FOLLOWER: GroupId = GroupId::new(2);
const OTHER: GroupId = GroupId::new(3);
const OUTSIDE: GroupId = GroupId::new(4);

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn tenant() -> Tenant {
    Tenant {
        number: TenantNumber::new(1),
        name: "acme".parse().unwrap(),
        home: HOME,
        epoch: Epoch::FIRST,
        fence_epoch: Epoch::NONE,
        last_epoch: Epoch::FIRST,
        op: 0,
        state: TenantState::Active,
        durability: Durability::Region,
        on_lease_loss: LeaseLoss::Stop,
        followers: Followers::AllAdmitted,
        residency: Box::new([]),
        lineage: Lineage::starting(Epoch::FIRST),
        members: [HOME, FOLLOWER, OTHER].map(ReplicaSetMember::staying).into(),
        remote_floor: RemoteFloor::default(),
        moving: None,
        promoting: None,
        labels: None,
        own: None,
        version: version(1),
        created: 0,
        updated: 0,
    }
}

fn plan(to: GroupId) -> MovePlan {
    MovePlan {
        to,
        source: SourceAfterMove::Policy,
        time: 7,
    }
}

/// A tenant that moves to a group.
fn moving(to: GroupId) -> Tenant {
    let mut tenant = tenant();
    plan_move(&mut tenant, &plan(to)).unwrap();
    tenant
}

fn accepted(from: GroupId) -> MoveAccepted {
    MoveAccepted {
        from,
        operation: OperationId(1),
        epoch: epoch(2),
    }
}

fn refused(from: GroupId) -> MoveRefused {
    MoveRefused {
        from,
        operation: OperationId(1),
    }
}

fn uncounted(group: GroupId) -> MemberUncounted {
    MemberUncounted {
        from: HOME,
        epoch: Epoch::FIRST,
        group,
        version: version(1),
        revision: last(),
    }
}

/// Last change of the home.
fn last() -> Revision {
    "1.9".parse().unwrap()
}

/// Promotes a tenant; `replace` names the promotion that is replaced.
fn promote(tenant: &mut Tenant, replace: Option<OperationId>) -> Result<TenantPromotion, Rejection> {
    let plan = PromotionPlan {
        replace,
        of: 9,
        fence: version(3),
        time: 0,
    };
    ownership::promote(tenant, &plan)
}

fn frozen(tenant: &Tenant, from: GroupId) -> GroupFrozen {
    let promotion = tenant.promoting.as_deref().unwrap();
    GroupFrozen {
        from,
        operation: promotion.operation,
        epoch: promotion.epoch,
    }
}

/// Ends the wait of a promotion in flight, and lets a group freeze.
fn freeze(tenant: &mut Tenant, group: GroupId) {
    let report = frozen(tenant, group);
    begin_freezing(tenant, report.operation).unwrap();
    record_frozen(tenant, &report).unwrap();
}

fn phase(tenant: &Tenant) -> Option<PromotionPhase> {
    tenant.promoting.as_deref().map(|promotion| promotion.phase)
}

fn activated(tenant: &Tenant, from: GroupId) -> PromotionActivated {
    PromotionActivated {
        from,
        operation: OperationId(tenant.op),
        epoch: tenant.epoch,
    }
}

fn activation(operation: u64, home: GroupId) -> Activation {
    Activation {
        operation: OperationId(operation),
        home,
        lineage: Lineage::starting(Epoch::FIRST),
        kept: "1.10".parse().unwrap(),
        time: TenantTime(5),
    }
}

fn state(tenant: &Tenant, group: GroupId) -> Option<MemberState> {
    tenant.member(group).map(|member| member.state)
}

fn with_lease_loss(on_lease_loss: LeaseLoss) -> Tenant {
    Tenant {
        on_lease_loss,
        version: version(7),
        ..tenant()
    }
}

fn logged() -> StopLogged {
    StopLogged {
        from: HOME,
        epoch: Epoch::FIRST,
        version: version(7),
    }
}

#[test]
fn stop_is_shown_only_once_home_has_logged_it() {
    let mut tenant = with_lease_loss(LeaseLoss::Continue);
    set_lease_loss(&mut tenant, LeaseLossPolicy::Stop);
    assert_eq!(tenant.on_lease_loss, LeaseLoss::Stopping);
    assert_eq!(tenant.on_lease_loss.possible(), LeaseLossPolicy::Continue);
    assert_eq!(tenant.on_lease_loss.wanted(), LeaseLossPolicy::Stop);
    set_lease_loss(&mut tenant, LeaseLossPolicy::Stop);
    assert_eq!(tenant.on_lease_loss, LeaseLoss::Stopping, "asked twice");
    record_stop_logged(&mut tenant, &logged()).unwrap();
    assert_eq!(tenant.on_lease_loss, LeaseLoss::Stop);
}

#[test]
fn continue_is_shown_at_once() {
    for before in [LeaseLoss::Stop, LeaseLoss::Continue, LeaseLoss::Stopping] {
        let mut tenant = with_lease_loss(before);
        set_lease_loss(&mut tenant, LeaseLossPolicy::Continue);
        assert_eq!(tenant.on_lease_loss, LeaseLoss::Continue);
    }
}

#[test]
fn report_of_stop_needs_each_clause() {
    let rejected = |mut tenant: Tenant, logged: StopLogged| {
        let before = tenant.clone();
        assert_eq!(record_stop_logged(&mut tenant, &logged), Err(Rejection::StaleReport));
        assert_eq!(tenant, before);
    };
    rejected(with_lease_loss(LeaseLoss::Continue), logged());
    rejected(
        with_lease_loss(LeaseLoss::Stopping),
        StopLogged {
            from: FOLLOWER,
            ..logged()
        },
    );
    rejected(
        with_lease_loss(LeaseLoss::Stopping),
        StopLogged {
            epoch: Epoch::MAX,
            ..logged()
        },
    );
    rejected(
        with_lease_loss(LeaseLoss::Stopping),
        StopLogged {
            version: version(6),
            ..logged()
        },
    );
}

/// P1: with the last follower goes what was acknowledged on its account.
#[test]
fn last_follower_that_leaves_raises_remote_floor() {
    let mut tenant = tenant();
    leave(&mut tenant, FOLLOWER).unwrap();
    record_uncounted(&mut tenant, &uncounted(FOLLOWER)).unwrap();
    assert_eq!(
        tenant.remote_floor,
        RemoteFloor::default(),
        "another follower has applied it"
    );
    leave(&mut tenant, OTHER).unwrap();
    record_uncounted(&mut tenant, &uncounted(OTHER)).unwrap();
    assert_eq!(tenant.remote_floor.sequence(), last().sequence());
    promote(&mut tenant, None).unwrap();
    freeze(&mut tenant, HOME);
    let mut enough = tenant.clone();
    activate(&mut enough, &activation(1, HOME)).unwrap();
    assert_eq!(enough.remote_floor.sequence(), last().sequence());
    let less = Activation {
        kept: "1.8".parse().unwrap(),
        ..activation(1, HOME)
    };
    activate(&mut tenant, &less).unwrap();
    assert_eq!(tenant.remote_floor, RemoteFloor::default(), "it is cut");
}

/// Asserts that a transition is rejected and changes nothing.
#[track_caller]
fn rejects<T: std::fmt::Debug>(
    tenant: &Tenant,
    transition: impl FnOnce(&mut Tenant) -> Result<T, Rejection>,
) -> Rejection {
    let mut after = tenant.clone();
    let rejection = transition(&mut after).unwrap_err();
    assert_eq!(&after, tenant, "a failed guard changes nothing");
    rejection
}

fn with(change: impl FnOnce(&mut Tenant)) -> Tenant {
    let mut tenant = tenant();
    change(&mut tenant);
    tenant
}

#[test]
fn planned_move_has_new_epoch_and_makes_target_a_member() {
    let tenant = moving(OUTSIDE);
    let planned = **tenant.moving.as_ref().unwrap();
    assert_eq!((planned.operation, planned.epoch), (OperationId(1), epoch(2)));
    assert!(planned.joined && tenant.has(OUTSIDE));
    assert!(tenant.members.windows(2).all(|pair| pair[0].group < pair[1].group));
    assert_eq!(
        (tenant.op, tenant.last_epoch, tenant.epoch),
        (1, epoch(2), Epoch::FIRST)
    );
    assert!(!moving(FOLLOWER).moving.unwrap().joined);
}

#[test]
fn each_failed_clause_of_plan_refuses() {
    let try_plan = |tenant: &Tenant, to| rejects(tenant, |tenant| plan_move(tenant, &plan(to)));
    for state in [TenantState::Disabled, TenantState::Deleting] {
        let rejection = try_plan(&with(|tenant| tenant.state = state), FOLLOWER);
        assert!(matches!(rejection, Rejection::NotActive(_)));
    }
    assert!(matches!(try_plan(&tenant(), HOME), Rejection::AlreadyHome(_)));
    assert!(matches!(
        try_plan(&moving(FOLLOWER), OTHER),
        Rejection::AlreadyMoving(_)
    ));
    let promoting = with(|tenant| drop(promote(tenant, None)));
    assert!(matches!(try_plan(&promoting, OTHER), Rejection::Promoting(_)));
    let leaving = with(|tenant| leave(tenant, FOLLOWER).unwrap());
    assert!(matches!(try_plan(&leaving, FOLLOWER), Rejection::TargetLeaving { .. }));
    // The highest epoch is the fence of tenants that are not active.
    let last = epoch(Epoch::MAX.get() - 1);
    let exhausted = with(|tenant| tenant.last_epoch = last);
    assert!(matches!(try_plan(&exhausted, FOLLOWER), Rejection::EpochsExhausted(_)));
}

#[test]
fn accepted_move_is_recorded_also_while_aborting() {
    for aborting in [false, true] {
        let mut tenant = moving(OUTSIDE);
        if aborting {
            abort_move(&mut tenant, OperationId(1)).unwrap();
        }
        record_accepted(&mut tenant, &accepted(OUTSIDE)).unwrap();
        assert_eq!(
            (tenant.home, tenant.epoch, tenant.fence_epoch),
            (OUTSIDE, epoch(2), epoch(2))
        );
        assert_eq!(tenant.lineage.runs().len(), 1, "a move cuts nothing");
        assert_eq!(tenant.lineage.epoch(), epoch(2));
        assert_eq!(tenant.moving, None);
        assert_eq!(state(&tenant, HOME), Some(MemberState::Staying));
        rejects(&tenant, |tenant| record_accepted(tenant, &accepted(OUTSIDE)));
    }
    let mut tenant = moving(FOLLOWER);
    tenant.moving.as_mut().unwrap().source = SourceAfterMove::Leave;
    record_accepted(&mut tenant, &accepted(FOLLOWER)).unwrap();
    assert_eq!(state(&tenant, HOME), Some(MemberState::Leaving));
}

/// The rule that a record is taken only for the operation in flight.
#[test]
fn late_or_foreign_acceptance_is_not_recorded() {
    let attempts = [
        accepted(OTHER),
        MoveAccepted {
            operation: OperationId(2),
            ..accepted(FOLLOWER)
        },
        MoveAccepted {
            epoch: epoch(3),
            ..accepted(FOLLOWER)
        },
    ];
    for attempt in attempts {
        rejects(&moving(FOLLOWER), |tenant| record_accepted(tenant, &attempt));
    }
    rejects(&tenant(), |tenant| record_accepted(tenant, &accepted(FOLLOWER)));
    let mut replaced = moving(FOLLOWER);
    promote(&mut replaced, None).unwrap();
    rejects(&replaced, |tenant| record_accepted(tenant, &accepted(FOLLOWER)));
}

/// The rule that `Aborting` keeps the operation until its outcome is known.
#[test]
fn aborted_move_stays_until_home_refuses_and_its_epoch_is_used_up() {
    let mut tenant = moving(OUTSIDE);
    rejects(&tenant, |tenant| record_refused(tenant, &refused(HOME)));
    rejects(&tenant, |tenant| abort_move(tenant, OperationId(2)));
    abort_move(&mut tenant, OperationId(1)).unwrap();
    let once = tenant.clone();
    abort_move(&mut tenant, OperationId(1)).unwrap();
    assert_eq!(tenant, once);
    rejects(&tenant, |tenant| plan_move(tenant, &plan(OTHER)));
    rejects(&tenant, |tenant| record_refused(tenant, &refused(OUTSIDE)));
    record_refused(&mut tenant, &refused(HOME)).unwrap();
    assert_eq!((tenant.home, tenant.epoch), (HOME, Epoch::FIRST));
    assert_eq!(state(&tenant, OUTSIDE), Some(MemberState::Leaving));
    rejects(&tenant, |tenant| record_accepted(tenant, &accepted(OUTSIDE)));
    let next = plan_move(&mut tenant, &plan(OTHER)).unwrap();
    assert_eq!((next.operation, next.epoch), (OperationId(2), epoch(3)));
}

#[test]
fn heir_is_recorded_of_target_only() {
    let mut tenant = moving(FOLLOWER);
    rejects(&tenant, |tenant| record_heir_ready(tenant, OTHER, OperationId(1)));
    rejects(&tenant, |tenant| record_heir_ready(tenant, FOLLOWER, OperationId(2)));
    record_heir_ready(&mut tenant, FOLLOWER, OperationId(1)).unwrap();
    assert!(tenant.moving.unwrap().heir_ready);
}

/// The rule of two phases: a member is consulted until the home no longer counts it.
#[test]
fn member_leaves_in_two_phases() {
    let mut tenant = tenant();
    leave(&mut tenant, FOLLOWER).unwrap();
    assert!(!tenant.has(FOLLOWER));
    rejects(&tenant, |tenant| record_erased(tenant, FOLLOWER));
    rejects(&tenant, |tenant| leave(tenant, FOLLOWER));
    record_uncounted(&mut tenant, &uncounted(FOLLOWER)).unwrap();
    assert_eq!(state(&tenant, FOLLOWER), Some(MemberState::Erasing));
    rejects(&tenant, |tenant| take_back(tenant, FOLLOWER));
    record_erased(&mut tenant, FOLLOWER).unwrap();
    assert_eq!(state(&tenant, FOLLOWER), None);
}

#[test]
fn late_or_foreign_uncount_removes_nobody() {
    let leaving = with(|tenant| leave(tenant, FOLLOWER).unwrap());
    let attempts = [
        MemberUncounted {
            from: OTHER,
            ..uncounted(FOLLOWER)
        },
        MemberUncounted {
            epoch: epoch(2),
            ..uncounted(FOLLOWER)
        },
        uncounted(OTHER),
        MemberUncounted {
            version: version(0),
            ..uncounted(FOLLOWER)
        },
    ];
    for attempt in attempts {
        rejects(&leaving, |tenant| record_uncounted(tenant, &attempt));
    }
    let mut promoting = leaving;
    promote(&mut promoting, None).unwrap();
    rejects(&promoting, |tenant| record_uncounted(tenant, &uncounted(FOLLOWER)));
}

#[test]
fn needed_members_do_not_leave() {
    let needed = |tenant: &Tenant, group| {
        matches!(
            rejects(tenant, |tenant| leave(tenant, group)),
            Rejection::MemberNeeded { .. }
        )
    };
    assert!(needed(&tenant(), HOME));
    let mut tenant = moving(OUTSIDE);
    assert!(needed(&tenant, OUTSIDE));
    promote(&mut tenant, None).unwrap();
    assert!(needed(&tenant, OUTSIDE), "it may own an epoch below the promotion's");
    rejects(&tenant, |tenant| leave(tenant, GroupId::new(9)));
    let mut remote = with(|tenant| tenant.durability = Durability::Remote);
    leave(&mut remote, FOLLOWER).unwrap();
    assert_eq!(rejects(&remote, |tenant| leave(tenant, OTHER)), Rejection::RemoteAlone);
}

/// The rule that a member that returns counts only after an entry of its own.
#[test]
fn returning_member_stays_after_its_own_report() {
    let mut tenant = tenant();
    rejects(&tenant, |tenant| take_back(tenant, FOLLOWER));
    leave(&mut tenant, FOLLOWER).unwrap();
    tenant.version = version(5);
    take_back(&mut tenant, FOLLOWER).unwrap();
    assert_eq!(state(&tenant, FOLLOWER), Some(MemberState::Returning));
    assert!(tenant.has(FOLLOWER));
    let rejoined = |from, at| MemberRejoined {
        from,
        version: version(at),
    };
    rejects(&tenant, |tenant| record_rejoined(tenant, &rejoined(FOLLOWER, 4)));
    rejects(&tenant, |tenant| record_rejoined(tenant, &rejoined(OTHER, 5)));
    record_rejoined(&mut tenant, &rejoined(FOLLOWER, 5)).unwrap();
    assert_eq!(state(&tenant, FOLLOWER), Some(MemberState::Staying));
    // A report of the first leaving must not remove it after a second one.
    leave(&mut tenant, FOLLOWER).unwrap();
    rejects(&tenant, |tenant| record_uncounted(tenant, &uncounted(FOLLOWER)));
}

#[test]
fn promotion_replaces_move_and_only_a_named_promotion() {
    let mut tenant = moving(OUTSIDE);
    rejects(&tenant, |tenant| promote(tenant, Some(OperationId(1))));
    let first = promote(&mut tenant, None).unwrap();
    assert_eq!((first.operation, first.epoch), (OperationId(2), epoch(3)));
    assert_eq!(
        (tenant.fence(), tenant.epoch, &tenant.moving),
        (epoch(3), Epoch::FIRST, &None)
    );
    rejects(&tenant, |tenant| promote(tenant, None));
    let second = promote(&mut tenant, Some(OperationId(2))).unwrap();
    assert_eq!(second.epoch, epoch(4));
    assert_eq!(
        second.replaced.len(),
        1,
        "the target of the replaced move may own epoch 2"
    );
    rejects(&tenant, |tenant| activate(tenant, &activation(2, FOLLOWER)));
    let deleting = with(|tenant| tenant.state = TenantState::Deleting);
    rejects(&deleting, |tenant| promote(tenant, None));
}

#[test]
fn activation_takes_lineage_of_chosen_group() {
    let mut tenant = moving(OUTSIDE);
    promote(&mut tenant, None).unwrap();
    freeze(&mut tenant, FOLLOWER);
    let mut chosen = activation(2, FOLLOWER);
    // The chosen group has followed the target, whose epoch was not recorded.
    chosen.lineage.record_move(epoch(2));
    activate(&mut tenant, &chosen).unwrap();
    assert_eq!(
        (tenant.home, tenant.epoch, phase(&tenant)),
        (
            FOLLOWER,
            epoch(3),
            Some(PromotionPhase::Activating {
                kept: "1.10".parse().unwrap(),
                time: TenantTime(5)
            })
        )
    );
    assert_eq!(
        state(&tenant, OUTSIDE),
        Some(MemberState::Staying),
        "until the new home owns"
    );
    assert!(tenant.needed_groups().any(|group| group == OUTSIDE));
    let late = activated(&tenant, OTHER);
    rejects(&tenant, |tenant| record_activated(tenant, &late));
    let earlier = PromotionActivated {
        epoch: epoch(2),
        ..activated(&tenant, FOLLOWER)
    };
    rejects(&tenant, |tenant| record_activated(tenant, &earlier));
    let report = activated(&tenant, FOLLOWER);
    record_activated(&mut tenant, &report).unwrap();
    assert_eq!(tenant.promoting, None);
    assert_eq!(state(&tenant, OUTSIDE), Some(MemberState::Leaving));
    let status = |sequence| {
        let sequence = Sequence::new(sequence).unwrap();
        tenant.lineage.status_of(Revision::new(epoch(2), sequence))
    };
    assert_eq!(status(10), RevisionStatus::OnLineage);
    assert!(matches!(status(11), RevisionStatus::Cut { .. }));
}

#[test]
fn each_failed_clause_of_activation_refuses() {
    let mut tenant = tenant();
    rejects(&tenant, |tenant| activate(tenant, &activation(1, FOLLOWER)));
    promote(&mut tenant, None).unwrap();
    for group in [HOME, FOLLOWER] {
        let report = frozen(&tenant, group);
        record_frozen(&mut tenant, &report).unwrap();
    }
    rejects(&tenant, |tenant| activate(tenant, &activation(1, FOLLOWER)));
    begin_freezing(&mut tenant, OperationId(1)).unwrap();
    rejects(&tenant, |tenant| activate(tenant, &activation(1, OTHER)));
    rejects(&tenant, |tenant| activate(tenant, &activation(1, OUTSIDE)));
    let mut newer = activation(1, FOLLOWER);
    newer.lineage.record_move(epoch(2));
    rejects(&tenant, |tenant| activate(tenant, &newer));
    let mut erasing = tenant.clone();
    erasing.members[1].state = MemberState::Erasing;
    rejects(&erasing, |tenant| activate(tenant, &activation(1, FOLLOWER)));
    activate(&mut tenant, &activation(1, HOME)).unwrap();
    assert_eq!(tenant.home, HOME, "that undoes a mistaken promotion");
    rejects(&tenant, |tenant| activate(tenant, &activation(1, HOME)));
}

#[test]
fn each_failed_clause_of_freezing_and_pulling_refuses() {
    let mut tenant = tenant();
    promote(&mut tenant, None).unwrap();
    let pull = |tenant: &mut Tenant, from, to| order_pull(tenant, OperationId(1), from, to);
    let of = |tenant: &Tenant, from| frozen(tenant, from);
    let outside = of(&tenant, OUTSIDE);
    rejects(&tenant, |tenant| record_frozen(tenant, &outside));
    let other_epoch = GroupFrozen {
        epoch: epoch(1),
        ..of(&tenant, HOME)
    };
    rejects(&tenant, |tenant| record_frozen(tenant, &other_epoch));
    rejects(&tenant, |tenant| begin_freezing(tenant, OperationId(2)));
    let home = of(&tenant, HOME);
    record_frozen(&mut tenant, &home).unwrap();
    record_frozen(&mut tenant, &home).unwrap();
    assert_eq!(*tenant.promoting.as_deref().unwrap().reported, [HOME]);
    let follower = of(&tenant, FOLLOWER);
    record_frozen(&mut tenant, &follower).unwrap();
    rejects(&tenant, |tenant| pull(tenant, HOME, FOLLOWER));
    begin_freezing(&mut tenant, OperationId(1)).unwrap();
    rejects(&tenant, |tenant| begin_freezing(tenant, OperationId(1)));
    rejects(&tenant, |tenant| pull(tenant, HOME, OTHER));
    rejects(&tenant, |tenant| pull(tenant, OTHER, HOME));
    rejects(&tenant, |tenant| pull(tenant, HOME, HOME));
    pull(&mut tenant, HOME, FOLLOWER).unwrap();
    let pulling = PromotionPhase::Pulling {
        from: HOME,
        to: FOLLOWER,
    };
    assert_eq!(phase(&tenant), Some(pulling));
    activate(&mut tenant, &activation(1, FOLLOWER)).unwrap();
    rejects(&tenant, |tenant| pull(tenant, HOME, FOLLOWER));
    rejects(&tenant, |tenant| record_frozen(tenant, &home));
}

#[test]
fn promotion_of_tenant_round_trips() {
    let mut tenant = moving(OUTSIDE);
    promote(&mut tenant, None).unwrap();
    let phases = [
        PromotionPhase::Fenced,
        PromotionPhase::Freezing,
        PromotionPhase::Pulling {
            from: HOME,
            to: FOLLOWER,
        },
        PromotionPhase::Activating {
            kept: "1.10".parse().unwrap(),
            time: TenantTime(5),
        },
    ];
    let bytes = [
        "0209030103 00 0102",
        "0209030103 01 0102",
        "0209030103 02 0102 0102",
        "0209030103 03 8a80808080 2005 0102",
    ];
    for (phase, bytes) in phases.into_iter().zip(bytes) {
        let promotion = tenant.promoting.as_deref_mut().unwrap();
        promotion.phase = phase;
        promotion.reported = Box::new([FOLLOWER]);
        let mut w = Writer::default();
        tenant.encode(&mut w);
        let written = w.finish();
        let hex = hex(&written);
        let start = format!("{}{}", bytes.replace(' ', ""), "01010402000201000700");
        assert!(hex.ends_with(&start), "{hex} does not end with {start}");
        let mut r = Reader::new(written, "tenant");
        assert_eq!(Tenant::decode(&mut r), Ok(tenant.clone()));
    }
}

/// Transition of a random sequence.
#[derive(Clone, Copy, Debug)]
enum Transition {
    Plan,
    Abort,
    Accept,
    Refuse,
    Leave,
    TakeBack,
    Uncount,
    Rejoin,
    Erase,
    Promote,
    Freeze,
    Activate,
    ReportActivated,
}

fn take(tenant: &mut Tenant, transition: Transition, group: GroupId, operation: OperationId, at: u64) {
    let in_flight = tenant.moving.as_deref().copied();
    let epoch = in_flight.map_or(tenant.last_epoch, |moving| moving.epoch);
    let version = version(at);
    let from = group;
    let result = match transition {
        Transition::Plan => plan_move(tenant, &plan(group)).map(drop),
        Transition::Abort => abort_move(tenant, operation),
        Transition::Accept => record_accepted(tenant, &MoveAccepted { from, operation, epoch }).map(drop),
        Transition::Refuse => record_refused(tenant, &MoveRefused { from, operation }).map(drop),
        Transition::Leave => leave(tenant, group),
        Transition::TakeBack => take_back(tenant, group),
        Transition::Uncount => {
            let (from, epoch) = (tenant.home, tenant.epoch);
            record_uncounted(
                tenant,
                &MemberUncounted {
                    from,
                    epoch,
                    group,
                    version,
                    revision: last(),
                },
            )
        }
        Transition::Rejoin => record_rejoined(tenant, &MemberRejoined { from, version }),
        Transition::Erase => record_erased(tenant, from),
        Transition::Promote => {
            let replace = tenant.promoting.as_ref().map(|promotion| promotion.operation);
            promote(tenant, replace).map(drop)
        }
        Transition::Freeze => {
            let _ = begin_freezing(tenant, operation);
            record_frozen(tenant, &GroupFrozen { from, operation, epoch })
        }
        Transition::ReportActivated => {
            let epoch = tenant.epoch;
            record_activated(tenant, &PromotionActivated { from, operation, epoch }).map(drop)
        }
        Transition::Activate => {
            let lineage = tenant.lineage.clone();
            let kept = Revision::new(tenant.epoch, Sequence::new(at).unwrap());
            activate(
                tenant,
                &Activation {
                    operation,
                    home: group,
                    lineage,
                    kept,
                    time: TenantTime::default(),
                },
            )
        }
    };
    if result.is_ok() {
        tenant.version = version;
    }
}

proptest! {
    /// Invariants 1, 2 and 4 of the transitions.
    #[test]
    fn random_transitions_keep_invariants(
        steps in prop::collection::vec((0usize..13, 1u32..6, 0u64..3), 0..80),
    ) {
        const ALL: [Transition; 13] = [
            Transition::Plan, Transition::Abort, Transition::Accept, Transition::Refuse, Transition::Leave,
            Transition::TakeBack, Transition::Uncount, Transition::Rejoin, Transition::Erase, Transition::Promote,
            Transition::Freeze, Transition::Activate, Transition::ReportActivated,
        ];
        let mut tenant = tenant();
        for (at, (transition, group, back)) in (2..).zip(steps) {
            let before = tenant.clone();
            let operation = OperationId(tenant.op.saturating_sub(back));
            take(&mut tenant, ALL[transition], GroupId::new(group), operation, at);
            prop_assert!(tenant.op >= before.op && tenant.last_epoch >= before.last_epoch);
            prop_assert!(tenant.epoch >= before.epoch && tenant.fence_epoch >= before.fence_epoch);
            prop_assert_eq!(tenant.op > before.op, tenant.last_epoch > before.last_epoch, "an epoch for each operation");
            if tenant.epoch != before.epoch {
                prop_assert!(tenant.epoch > before.epoch && tenant.epoch <= before.last_epoch);
            }
            prop_assert!(tenant.epoch <= tenant.last_epoch && tenant.fence_epoch <= tenant.last_epoch);
            prop_assert!(tenant.moving.is_none() || tenant.promoting.is_none());
            prop_assert_eq!(tenant.lineage.epoch(), tenant.epoch);
            for needed in tenant.needed_groups() {
                prop_assert!(tenant.has(needed), "{} of {:?}", needed, tenant);
            }
            prop_assert!(tenant.members.windows(2).all(|pair| pair[0].group < pair[1].group));
        }
    }
}
