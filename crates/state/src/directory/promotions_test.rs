//! Promotions through commands and reports.

use stead_types::{Durability, Epoch, GroupId, Incarnation, NodeId, Revision, Sequence, TenantNumber, TenantTime};

use super::{
    directory_test::{World, by, create, hex, new, update},
    *,
};
use crate::{
    lineage::Lineage,
    shard::{
        ownership::FreezeReport,
        record::{LeaseLossPolicy, OperationId, PreviousRole},
    },
};

pub(super) const ACME: TenantNumber = TenantNumber::new(1);

/// A cluster at feature level 3. Groups 1 and 2 are in us-east, 3 and 4 in eu-west, 5 and 6 in ap-south.
fn cluster() -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    world
}

/// A cluster in which the tenant acme has its home in eu-west, group 3, and is followed by groups 1 and 5.
pub(super) fn cluster_with_tenant() -> World {
    let mut world = cluster();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    world
}

fn of(selection: PromotionSelection) -> PromotionRequest {
    PromotionRequest {
        selection,
        to: None,
        allow_loss: false,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: Vec::new(),
    }
}

pub(super) fn region(name: &str) -> PromotionRequest {
    of(PromotionSelection::Region(name.parse().unwrap()))
}

pub(super) fn named(name: &str) -> PromotionRequest {
    of(PromotionSelection::Tenants(vec![name.parse().unwrap()]))
}

#[track_caller]
pub(super) fn begin(world: &mut World, request: PromotionRequest) -> u64 {
    match world.apply(Command::BeginPromotion(by(), request)) {
        Ok(DirectoryOutcome::Operation(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refusal(world: &mut World, request: PromotionRequest) -> Rejection {
    world.apply(Command::BeginPromotion(by(), request)).unwrap_err()
}

fn advance(world: &mut World, operation: u64, action: PromotionAdvance) {
    world.apply(Command::AdvancePromotion { operation, action }).unwrap();
}

pub(super) fn wait_over(world: &mut World, operation: u64) {
    let fence = world.directory.operations().promotion(operation).unwrap().fence;
    advance(world, operation, PromotionAdvance::WaitOver { fence });
}

pub(super) fn silent(world: &mut World, operation: u64, groups: &[u32]) {
    let groups = groups.iter().copied().map(GroupId::new).collect();
    advance(world, operation, PromotionAdvance::Silent(groups));
}

pub(super) fn report(world: &mut World, group: u32, report: GroupReport) {
    let command = Command::Report(GroupId::new(group), Incarnation::FIRST, vec![report]);
    world.apply(command).unwrap();
}

pub(super) fn freeze_report(world: &World, group: u32, last: &str) -> FreezeReport {
    let tenant = world.tenant("acme");
    let promotion = tenant.promoting.as_deref().unwrap();
    FreezeReport {
        operation: promotion.operation,
        epoch: promotion.epoch,
        previous: if tenant.home == GroupId::new(group) {
            PreviousRole::Owner
        } else {
            PreviousRole::Follower
        },
        followed: tenant.epoch,
        revision: last.parse().unwrap(),
        lineage: tenant.lineage.clone(),
        retention_floor: Revision::ZERO,
        time: TenantTime(7),
        suspect: false,
        forked_up_to: Sequence::ZERO,
    }
}

/// A group reports that it is frozen and holds the history up to a revision.
pub(super) fn frozen(world: &mut World, group: u32, last: &str) {
    frozen_at(world, group, last, None);
}

/// As [`frozen`], at a time of the group's wall clock.
fn frozen_at(world: &mut World, group: u32, last: &str, reported: Option<u64>) {
    let frozen = GroupReport::Frozen {
        tenant: ACME,
        report: freeze_report(world, group, last),
        fresh_as_of: Some(500),
        reported,
    };
    report(world, group, frozen);
}

/// The new home reports that it owns the tenant.
pub(super) fn activated(world: &mut World) {
    let tenant = world.tenant("acme");
    let activated = GroupReport::Activated {
        tenant: ACME,
        operation: OperationId(tenant.op),
        epoch: tenant.epoch,
    };
    let home = tenant.home.get();
    report(world, home, activated);
}

pub(super) fn phase(world: &World) -> Option<PromotionPhase> {
    let promotion = world.tenant("acme").promoting.as_deref();
    promotion.map(|promotion| promotion.phase)
}

pub(super) fn item(world: &World, operation: u64) -> PromotionItem {
    let operations = world.directory.operations();
    operations.promotions().get(operation, ACME).unwrap().clone()
}

pub(super) fn end(world: &World, operation: u64) -> Option<OperationResult> {
    let operation = world.directory.operations().get(operation).unwrap();
    operation.end.as_ref().map(|end| end.result.clone())
}

fn needs(world: &World) -> Vec<PromotionNeeds> {
    world.directory.promotions_in_flight().collect()
}

fn due(needs: &PromotionNeeds) -> Vec<u32> {
    needs.due.keys().map(|group| group.get()).collect()
}

pub(super) fn move_to(world: &mut World, group: u32) -> u64 {
    let request = MoveRequest {
        name: "acme".parse().unwrap(),
        etag: None,
        to: MoveTarget::Group(GroupId::new(group)),
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    match world.apply(Command::MoveTenant(by(), request)) {
        Ok(DirectoryOutcome::Operation(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn set_policy(world: &mut World, change: impl FnOnce(&mut TenantUpdate)) {
    let mut changed = update("acme");
    change(&mut changed);
    world.apply(Command::UpdateTenant(by(), changed)).unwrap();
}

#[test]
fn lost_region_is_promoted_after_wait() {
    let mut world = cluster_with_tenant();
    world.apply(create(new("other", "us-east"))).unwrap();
    let id = begin(&mut world, region("eu-west"));
    assert_eq!(phase(&world), Some(PromotionPhase::Fenced));
    let (fence, version) = (world.tenant("acme").fence(), world.directory.view().version());
    assert_eq!(fence, Epoch::new(2).unwrap());
    assert!(world.tenant("other").promoting.is_none());
    let [needed] = &needs(&world)[..] else { panic!() };
    let waited = needed.fence.as_ref().unwrap();
    assert_eq!((waited.version, waited.ttl.as_secs()), (version, 60));
    assert_eq!(due(needed), [3], "only it could own the tenant");

    silent(&mut world, id, &[3]);
    wait_over(&mut world, id);
    assert_eq!(phase(&world), Some(PromotionPhase::Freezing));
    assert_eq!(due(&needs(&world)[0]), [1, 3, 5]);
    assert_eq!(needs(&world)[0].fence, None);
    frozen(&mut world, 1, "1.9");
    frozen(&mut world, 5, "1.7");
    let tenant = world.tenant("acme");
    assert_eq!((tenant.home, tenant.epoch), (GroupId::new(1), fence));
    assert!(matches!(phase(&world), Some(PromotionPhase::Activating { .. })));
    let decision = item(&world, id).decision.unwrap();
    assert_eq!(
        (decision.home, decision.kept),
        (GroupId::new(1), "1.9".parse().unwrap())
    );
    let waited = item(&world, id).times.waited;
    let window = LossWindow {
        from: Some(500),
        to: Some(waited),
    };
    assert_eq!(decision.loss, Some(window));
    assert_eq!(end(&world, id), None);

    activated(&mut world);
    assert_eq!(
        (phase(&world), end(&world, id)),
        (None, Some(OperationResult::Succeeded))
    );
    assert_eq!(item(&world, id).state, PromotionState::Promoted);
    assert!(
        world.tenant("acme").has(GroupId::new(3)),
        "the old home follows when it returns"
    );
    assert_eq!(needs(&world), []);
}

/// P3: logged time stands still without a leader, and the copy's proof is of wall clocks.
#[test]
fn window_of_loss_ends_by_wall_clock_where_logged_time_is_behind() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, region("eu-west"));
    silent(&mut world, id, &[3]);
    // The home may still acknowledge: what is reported before the wait is over bounds nothing.
    frozen_at(&mut world, 1, "1.8", Some(90_000));
    assert_eq!(item(&world, id).stopped_by, None);
    wait_over(&mut world, id);
    let behind = item(&world, id).times.waited;
    assert!(behind < 70_000, "{behind}");
    frozen_at(&mut world, 1, "1.9", Some(70_000));
    frozen_at(&mut world, 5, "1.7", Some(70_040));
    let window = LossWindow {
        from: Some(500),
        to: Some(70_040),
    };
    assert_eq!(item(&world, id).decision.unwrap().loss, Some(window));
}

/// Rule 2: the fence in the log of every group that could own ends the wait.
#[test]
fn report_of_home_ends_wait_early_and_its_history_is_taken_over() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, named("acme"));
    frozen(&mut world, 3, "1.12");
    assert_eq!(phase(&world), Some(PromotionPhase::Freezing));
    frozen(&mut world, 1, "1.9");
    frozen(&mut world, 5, "1.7");
    let pulling = PromotionPhase::Pulling {
        from: GroupId::new(3),
        to: GroupId::new(1),
    };
    assert_eq!(phase(&world), Some(pulling));
    assert_eq!(due(&needs(&world)[0]), [1]);
    frozen(&mut world, 1, "1.9");
    assert_eq!(phase(&world), Some(pulling), "a repeated report says nothing new");
    frozen(&mut world, 1, "1.12");
    activated(&mut world);
    assert_eq!(end(&world, id), Some(OperationResult::Succeeded));
    assert_eq!(item(&world, id).decision.unwrap().loss, None, "nothing is lost");
}

#[test]
fn report_of_home_that_handed_over_does_not_end_wait() {
    let mut world = cluster_with_tenant();
    let moved = move_to(&mut world, 5);
    begin(&mut world, named("acme"));
    let reason = "replaced by the promotion operations/2".to_owned();
    assert_eq!(end(&world, moved), Some(OperationResult::Failed { reason }));
    let mut handed_over = freeze_report(&world, 3, "1.9");
    handed_over.previous = PreviousRole::Relinquished(GroupId::new(5));
    let frozen_home = GroupReport::Frozen {
        tenant: ACME,
        report: handed_over,
        fresh_as_of: None,
        reported: None,
    };
    report(&mut world, 3, frozen_home);
    assert_eq!(phase(&world), Some(PromotionPhase::Fenced));
    frozen(&mut world, 5, "2.10");
    assert_eq!(phase(&world), Some(PromotionPhase::Freezing));
}

#[test]
fn target_of_replaced_move_stays_until_new_home_owns() {
    let mut world = cluster_with_tenant();
    move_to(&mut world, 6);
    let id = begin(&mut world, named("acme"));
    let has = |world: &World| world.tenant("acme").has(GroupId::new(6));
    assert!(needs(&world)[0].fence.is_some());
    wait_over(&mut world, id);
    silent(&mut world, id, &[3]);
    for group in [1, 5, 6] {
        frozen(&mut world, group, "1.9");
    }
    assert!(has(&world));
    activated(&mut world);
    assert!(!has(&world));
}

/// A wait that began before a fence does not count for it.
#[test]
fn wait_for_earlier_fence_ends_nothing() {
    let mut world = cluster_with_tenant();
    let before = world.directory.view().version();
    let id = begin(&mut world, region("eu-west"));
    advance(&mut world, id, PromotionAdvance::WaitOver { fence: before });
    assert_eq!(phase(&world), Some(PromotionPhase::Fenced));
}

#[test]
fn promotion_again_needs_word_and_replaces() {
    let mut world = cluster_with_tenant();
    let first = begin(&mut world, region("eu-west"));
    frozen(&mut world, 1, "1.9");
    let refused = refusal(&mut world, region("eu-west"));
    let in_flight = PromotionRejection::InFlight {
        count: 1,
        tenant: "acme".parse().unwrap(),
        operation: first,
    };
    assert_eq!(refused, in_flight.into());
    let late = freeze_report(&world, 5, "1.8");
    let again = PromotionRequest {
        replace: true,
        ..region("eu-west")
    };
    let second = begin(&mut world, again);
    assert_eq!(item(&world, first).state, PromotionState::Replaced { by: second });
    assert!(matches!(end(&world, first), Some(OperationResult::Failed { .. })));
    assert_eq!(world.tenant("acme").fence(), Epoch::new(3).unwrap());
    let late = GroupReport::Frozen {
        tenant: ACME,
        report: late,
        fresh_as_of: None,
        reported: None,
    };
    report(&mut world, 5, late);
    assert!(
        item(&world, second).reports.is_empty(),
        "reports of the first do not count"
    );
    wait_over(&mut world, first);
    assert_eq!(phase(&world), Some(PromotionPhase::Fenced));
}

#[test]
fn silent_group_blocks_until_it_reports() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, region("eu-west"));
    wait_over(&mut world, id);
    frozen(&mut world, 1, "1.9");
    silent(&mut world, id, &[3, 5]);
    let PromotionState::Blocked { reason } = item(&world, id).state else {
        panic!()
    };
    assert!(reason.contains("group 5 did not answer"), "{reason}");
    assert!(needs(&world)[0].is_idle());
    frozen(&mut world, 5, "1.8");
    assert_eq!(item(&world, id).state, PromotionState::Activating);
    assert!(needs(&world)[0].examines, "others may go on too");
    silent(&mut world, id, &[3]);
    assert!(!needs(&world)[0].examines);

    let mut world = cluster_with_tenant();
    let lossy = PromotionRequest {
        allow_loss: true,
        ..region("eu-west")
    };
    let id = begin(&mut world, lossy);
    wait_over(&mut world, id);
    frozen(&mut world, 1, "1.9");
    assert_eq!(item(&world, id).state, PromotionState::Freezing, "it may answer yet");
    silent(&mut world, id, &[3, 5]);
    assert_eq!(item(&world, id).state, PromotionState::Activating);
}

#[test]
fn each_request_that_cannot_be_done_is_refused() {
    let mut world = cluster_with_tenant();
    let region_unknown = Rejection::RegionUnknown("mars".parse().unwrap());
    assert_eq!(refusal(&mut world, region("mars")), region_unknown);
    let elsewhere = PromotionRequest {
        to: Some("mars".parse().unwrap()),
        ..region("eu-west")
    };
    assert_eq!(refusal(&mut world, elsewhere), region_unknown);
    let directory = of(PromotionSelection::Group(GroupId::new(0)));
    assert!(matches!(refusal(&mut world, directory), Rejection::GroupUnknown(_)));
    assert!(matches!(
        refusal(&mut world, named("nobody")),
        Rejection::TenantUnknown(_)
    ));
    let twice = of(PromotionSelection::Tenants(vec![
        "acme".parse().unwrap(),
        "acme".parse().unwrap(),
    ]));
    assert!(matches!(refusal(&mut world, twice), Rejection::NamedTwice(_)));
    assert_eq!(
        refusal(&mut world, region("ap-south")),
        PromotionRejection::Nothing.into()
    );
    let long = PromotionRequest {
        graceful_ms: GRACEFUL_MS_MAX + 1,
        ..region("eu-west")
    };
    assert!(matches!(
        refusal(&mut world, long),
        Rejection::Promotion(PromotionRejection::GracefulTime(_))
    ));
    let alone = |tenant: &mut TenantUpdate| {
        tenant.followers = Some(Followers::Named(Box::new([])));
    };
    set_policy(&mut world, alone);
    for group in [1, 5] {
        world.tenant("acme");
        let uncounted = uncounted(&world, group);
        report(&mut world, 3, uncounted);
        world.erased(group, 1).unwrap();
    }
    let no_target = PromotionRejection::NoTarget("acme".parse().unwrap());
    assert_eq!(refusal(&mut world, region("eu-west")), no_target.clone().into());
    assert_eq!(refusal(&mut world, named("acme")), no_target.into());
}

fn uncounted(world: &World, group: u32) -> GroupReport {
    let tenant = world.tenant("acme");
    GroupReport::Uncounted {
        tenant: ACME,
        epoch: tenant.epoch,
        group: GroupId::new(group),
        version: tenant.version,
        revision: "1.9".parse().unwrap(),
    }
}

#[test]
fn promotion_needs_feature_level_and_a_minute_after_it() {
    let all = || (1..=5).map(NodeId::new).collect();
    let mut world = World::begun();
    world.apply(Command::RaiseFeatureLevel(by(), 2, all())).unwrap();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let level = Rejection::FeatureLevel { needed: 3, level: 2 };
    assert_eq!(refusal(&mut world, region("eu-west")), level);
    world.time = Some(1_000_000);
    world.apply(Command::RaiseFeatureLevel(by(), 3, all())).unwrap();
    world.time = Some(1_074_999);
    let raised = PromotionRejection::LevelRaised { left_ms: 1 };
    assert_eq!(refusal(&mut world, region("eu-west")), raised.into());
    world.time = Some(1_075_000);
    begin(&mut world, region("eu-west"));
}

/// A tenant with durability `REMOTE` whose only follower becomes the home.
#[test]
fn remote_tenant_without_another_region_needs_lower_durability() {
    let mut world = cluster_with_tenant();
    set_policy(&mut world, |tenant| {
        tenant.durability = Some(Durability::Remote);
        tenant.followers = Some(Followers::Named(Box::new(["us-east".parse().unwrap()])));
    });
    let left = uncounted(&world, 5);
    report(&mut world, 3, left);
    world.erased(5, 1).unwrap();
    let alone = PromotionRejection::Alone {
        count: 1,
        tenant: "acme".parse().unwrap(),
    };
    assert_eq!(refusal(&mut world, region("eu-west")), alone.into());
    let lower = PromotionRequest {
        durability: Some(Durability::Region),
        ..region("eu-west")
    };
    let id = begin(&mut world, lower);
    wait_over(&mut world, id);
    silent(&mut world, id, &[3]);
    frozen(&mut world, 1, "1.9");
    assert!(item(&world, id).decision.unwrap().lowers_durability);
    let tenant = world.tenant("acme");
    assert_eq!(tenant.durability, Durability::Region);
    assert_eq!(
        tenant.followers,
        Followers::Named(Box::new(["eu-west".parse().unwrap()]))
    );
}

/// A home that goes on without a lease acknowledges until it hears of the fence.
#[test]
fn home_that_goes_on_needs_word_and_leaves_window_open() {
    let mut world = cluster_with_tenant();
    set_policy(&mut world, |tenant| {
        tenant.on_lease_loss = Some(LeaseLossPolicy::Continue)
    });
    let goes_on = PromotionRejection::HomeGoesOn {
        count: 1,
        tenant: "acme".parse().unwrap(),
    };
    assert_eq!(refusal(&mut world, region("eu-west")), goes_on.into());
    let sure = PromotionRequest {
        is_down: true,
        ..region("eu-west")
    };
    let id = begin(&mut world, sure);
    wait_over(&mut world, id);
    silent(&mut world, id, &[3]);
    frozen(&mut world, 1, "1.9");
    frozen(&mut world, 5, "1.9");
    assert!(item(&world, id).continues);
    let window = LossWindow {
        from: Some(500),
        to: None,
    };
    assert_eq!(item(&world, id).decision.unwrap().loss, Some(window));
}

#[test]
fn named_region_of_old_home_undoes_promotion() {
    let mut world = cluster_with_tenant();
    begin(&mut world, region("eu-west"));
    let back = PromotionRequest {
        to: Some("eu-west".parse().unwrap()),
        replace: true,
        ..named("acme")
    };
    let id = begin(&mut world, back);
    for group in [3, 1, 5] {
        frozen(&mut world, group, "1.9");
    }
    assert_eq!(world.tenant("acme").home, GroupId::new(3));
    activated(&mut world);
    assert_eq!(end(&world, id), Some(OperationResult::Succeeded));
}

fn graceful() -> PromotionRequest {
    PromotionRequest {
        graceful_ms: 10_000,
        ..region("eu-west")
    }
}

#[test]
fn tenants_that_do_not_move_in_time_are_promoted_by_force() {
    let mut world = cluster_with_tenant();
    world.apply(create(new("beta", "eu-west"))).unwrap();
    world.time = Some(100_000);
    let id = begin(&mut world, graceful());
    assert!(world.tenant("acme").promoting.is_none());
    let needed = needs(&world).remove(0);
    assert_eq!(
        (needed.moves, needed.graceful_until, needed.fence),
        (true, Some(110_000), None)
    );
    advance(&mut world, id, PromotionAdvance::Move(Vec::new()));
    assert!(!needs(&world)[0].moves);
    assert_eq!(item(&world, id).state, PromotionState::Moving);
    let beta = world.tenant("beta").moving.as_deref().copied().unwrap();
    let accepted = GroupReport::Accepted {
        tenant: TenantNumber::new(2),
        operation: beta.operation,
        epoch: beta.epoch,
    };
    report(&mut world, beta.to.get(), accepted);
    let counts = |world: &World| world.directory.operations().promotion(id).unwrap().counts;
    assert_eq!((counts(&world).moved, counts(&world).moving), (1, 1));
    advance(&mut world, id, PromotionAdvance::GracefulOver);
    assert_eq!(item(&world, id).state, PromotionState::Moving, "it is not over yet");
    world.time = Some(110_000);
    advance(&mut world, id, PromotionAdvance::GracefulOver);
    assert_eq!(phase(&world), Some(PromotionPhase::Fenced));
    assert_eq!(world.tenant("acme").promoting.as_deref().unwrap().replaced.len(), 1);
    assert_eq!(needs(&world)[0].graceful_until, None);
    wait_over(&mut world, id);
    silent(&mut world, id, &[3]);
    frozen(&mut world, 1, "1.9");
    frozen(&mut world, 5, "1.9");
    activated(&mut world);
    assert_eq!(end(&world, id), Some(OperationResult::Succeeded));
}

#[test]
fn promotion_is_cancelled_before_first_fence_only() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, graceful());
    advance(&mut world, id, PromotionAdvance::Move(Vec::new()));
    world.apply(Command::AbortMove(by(), id)).unwrap();
    assert_eq!(end(&world, id), None, "the home has not refused yet");
    let operation = OperationId(world.tenant("acme").op);
    let refused = GroupReport::Refused {
        tenant: ACME,
        operation,
    };
    report(&mut world, 3, refused);
    assert_eq!(end(&world, id), Some(OperationResult::Cancelled));
    assert!(world.tenant("acme").promoting.is_none());
    let id = begin(&mut world, region("eu-west"));
    let cancelled = world.apply(Command::AbortMove(by(), id));
    assert_eq!(cancelled, Err(PromotionRejection::Fenced(id).into()));
}

#[test]
fn promotion_ends_with_tenant_that_is_erased() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, region("eu-west"));
    set_policy(&mut world, |tenant| tenant.enabled = Some(false));
    world
        .apply(Command::EraseTenant(by(), "acme".parse().unwrap(), None))
        .unwrap();
    assert!(matches!(end(&world, id), Some(OperationResult::Failed { .. })));
    assert!(matches!(item(&world, id).state, PromotionState::Failed { .. }));
    world.apply(create(new("beta", "eu-west"))).unwrap();
    let id = begin(&mut world, region("eu-west"));
    let promotion = world.directory.operations().promotion(id).unwrap();
    assert_eq!((promotion.skipped, promotion.counts.total()), (1, 1));
}

#[test]
fn planned_move_and_moves_of_others_are_refused_while_promoted() {
    let mut world = cluster_with_tenant();
    begin(&mut world, region("eu-west"));
    let request = MoveRequest {
        name: "acme".parse().unwrap(),
        etag: None,
        to: MoveTarget::Region("us-east".parse().unwrap()),
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    let refused = world.apply(Command::MoveTenant(by(), request)).unwrap_err();
    assert!(matches!(refused, Rejection::Promoting(_)));
}

#[test]
fn ten_thousand_tenants_are_fenced_by_one_entry() {
    let mut directory = cluster().directory;
    let mut index = directory.view().version().index;
    let mut apply = |directory: &mut Directory, command: Command| {
        index += 1;
        directory.reach(index);
        directory.apply(index, command).result
    };
    for number in 0..10_000 {
        apply(&mut directory, create(new(&format!("t{number}"), "eu-west"))).unwrap();
    }
    let Ok(DirectoryOutcome::Operation(id)) = apply(&mut directory, Command::BeginPromotion(by(), region("eu-west")))
    else {
        panic!()
    };
    let fence = directory.view().version();
    assert_eq!(directory.operations().promotion(id).unwrap().counts.fenced, 10_000);
    let over = PromotionAdvance::WaitOver { fence };
    for entry in 1..=10 {
        let action = over.clone();
        apply(&mut directory, Command::AdvancePromotion { operation: id, action }).unwrap();
        let counts = directory.operations().promotion(id).unwrap().counts;
        assert_eq!(counts.freezing, entry * 1_000);
    }
    assert_eq!(directory.promotions_in_flight().next().unwrap().fence, None);
}

#[test]
fn encoding_of_promotions_is_fixed() {
    let group = PromotionRequest {
        to: Some("us".parse().unwrap()),
        allow_loss: true,
        replace: true,
        durability: Some(Durability::Region),
        graceful_ms: 9,
        is_down: true,
        unreachable: vec![NodeId::new(4)],
        ..of(PromotionSelection::Group(GroupId::new(3)))
    };
    let advance = |action| Command::AdvancePromotion { operation: 7, action };
    let fence = DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index: 9,
    };
    let frozen = GroupReport::Frozen {
        tenant: ACME,
        report: one_report(),
        fresh_as_of: Some(6),
        reported: None,
    };
    let timed = GroupReport::Frozen {
        tenant: ACME,
        report: one_report(),
        fresh_as_of: Some(6),
        reported: Some(300),
    };
    let activated = GroupReport::Activated {
        tenant: ACME,
        operation: OperationId(2),
        epoch: Epoch::new(3).unwrap(),
    };
    let commands = [
        (
            Command::BeginPromotion(by(), region("eu")),
            "1e03616e6e0474657374 00026575 00 0000 00 00 00 00",
        ),
        (
            Command::BeginPromotion(by(), group),
            "1e03616e6e0474657374 0103 01027573 0101 0100 09 01 0104",
        ),
        (
            Command::BeginPromotion(by(), named("acme")),
            "1e03616e6e0474657374 02010461636d65 00 0000 00 00 00 00",
        ),
        (advance(PromotionAdvance::WaitOver { fence }), "1f07 00 0109"),
        (advance(PromotionAdvance::Move(vec![NodeId::new(4)])), "1f07 01 0104"),
        (advance(PromotionAdvance::GracefulOver), "1f07 02"),
        (advance(PromotionAdvance::Silent(vec![GroupId::new(5)])), "1f07 03 0105"),
        (
            Command::Report(GroupId::new(3), Incarnation::FIRST, vec![frozen, activated]),
            "08030102 0801 020303050189808080802001010 1ffffffffff1f0000070103 0106 09010203",
        ),
        (
            Command::Report(GroupId::new(3), Incarnation::FIRST, vec![timed]),
            "08030101 0a01 020303050189808080802001010 1ffffffffff1f0000070103 0106 ac02",
        ),
    ];
    for (command, bytes) in commands {
        assert_eq!(hex(&command.encode()), bytes.replace(' ', ""), "{command:?}");
        let bytes = command.encode();
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command));
    }
}

fn one_report() -> FreezeReport {
    FreezeReport {
        operation: OperationId(2),
        epoch: Epoch::new(3).unwrap(),
        previous: PreviousRole::Relinquished(GroupId::new(5)),
        followed: Epoch::FIRST,
        revision: "1.9".parse().unwrap(),
        lineage: Lineage::starting(Epoch::FIRST),
        retention_floor: Revision::ZERO,
        time: TenantTime(7),
        suspect: true,
        forked_up_to: Sequence::new(3).unwrap(),
    }
}

#[test]
fn encoding_of_item_is_fixed() {
    let item = |state| PromotionItem {
        name: "acme".parse().unwrap(),
        home: GroupId::new(3),
        operation: OperationId(2),
        epoch: Epoch::new(3).unwrap(),
        continues: true,
        state,
        reports: [(
            GroupId::new(5),
            FrozenReport {
                report: one_report(),
                fresh_as_of: None,
                time: 8,
            },
        )]
        .into(),
        decision: Some(PromotionDecision {
            home: GroupId::new(5),
            kept: "1.9".parse().unwrap(),
            reason: "y".into(),
            loss: Some(LossWindow {
                from: Some(1),
                to: None,
            }),
            lowers_durability: true,
        }),
        times: PromotionTimes {
            fenced: 1,
            waited: 2,
            chosen: 3,
            ended: 4,
        },
        stopped_by: None,
    };
    let (from, to) = (GroupId::new(3), GroupId::new(5));
    let reason = || "x".to_owned();
    let states = [
        (PromotionState::Waiting { reason: reason() }, "000178"),
        (PromotionState::Moving, "01"),
        (PromotionState::Fenced, "02"),
        (PromotionState::Freezing, "03"),
        (PromotionState::Blocked { reason: reason() }, "040178"),
        (PromotionState::Pulling { from, to }, "050305"),
        (PromotionState::Activating, "06"),
        (PromotionState::Promoted, "07"),
        (PromotionState::Moved { to }, "0805"),
        (PromotionState::Replaced { by: 9 }, "0909"),
        (PromotionState::Failed { reason: reason() }, "0a0178"),
    ];
    let report = "0105020303050189808080802001010 1ffffffffff1f0000070103 0008";
    let decision = "01 05 8980808080 20 0179 01 0101 00 01";
    for (state, bytes) in states {
        let item = item(state);
        let expected = format!("0461636d65 03 02 03 01 {bytes} {report} {decision} 01020304");
        assert_eq!(hex(&item.encode()), expected.replace(' ', ""), "{:?}", item.state);
        assert_eq!(PromotionItem::decode(item.encode()), Ok(item));
    }
    // From feature level 5 on.
    let timed = PromotionItem {
        stopped_by: Some(300),
        ..item(PromotionState::Moving)
    };
    let expected = format!("0461636d65 03 02 03 01 01 {report} {decision} 01020304 ac02");
    assert_eq!(hex(&timed.encode()), expected.replace(' ', ""));
    assert_eq!(PromotionItem::decode(timed.encode()), Ok(timed));
}

#[test]
fn encoding_of_rejections_round_trips() {
    let tenant = || "acme".parse().unwrap();
    let rejections = [
        PromotionRejection::InFlight {
            count: 2,
            tenant: tenant(),
            operation: 7,
        },
        PromotionRejection::Alone {
            count: 2,
            tenant: tenant(),
        },
        PromotionRejection::HomeGoesOn {
            count: 2,
            tenant: tenant(),
        },
        PromotionRejection::NoTarget(tenant()),
        PromotionRejection::Nothing,
        PromotionRejection::Full,
        PromotionRejection::Fenced(7),
        PromotionRejection::GracefulTime(9),
        PromotionRejection::LevelRaised { left_ms: 9 },
    ];
    for rejection in rejections {
        let result = Err(rejection.into());
        assert_eq!(decode_result(encode_result(&result)), Ok(result));
    }
}
