//! Moves, members that leave, operations and settings through commands and reports, and random scripts of them.

use proptest::prelude::*;
use stead_types::{
    DirectoryVersion, Durability, Epoch, Error, ErrorKind, GroupId, Incarnation, NodeId, Revision, TenantNumber,
};

use super::{
    directory_test::{World, by, commands, create, hex, named, new, update},
    *,
};
use crate::{
    codec::Writer,
    seed_pace::{SeedFailure, SeedFailureReason},
    shard::record::{LeaseLossPolicy, OperationId},
};

const ACME: TenantNumber = TenantNumber::new(1);

/// A cluster at feature level 2. Groups 1 and 2 are in us-east, 3 and 4 in eu-west, 5 and 6 in ap-south.
fn cluster() -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    world
}

/// A cluster in which the tenant acme has its home in eu-west, group 3, and is followed by groups 1 and 5.
fn cluster_with_tenant() -> World {
    let mut world = cluster();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    world
}

/// Last change of a home that reports.
fn last() -> Revision {
    "1.9".parse().unwrap()
}

fn to_region(region: &str) -> MoveRequest {
    MoveRequest {
        name: "acme".parse().unwrap(),
        etag: None,
        to: MoveTarget::Region(region.parse().unwrap()),
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    }
}

fn to_group(group: u32) -> MoveRequest {
    MoveRequest {
        to: MoveTarget::Group(GroupId::new(group)),
        ..to_region("us-east")
    }
}

/// Moves the tenant, and returns the number of the operation.
fn begin(world: &mut World, request: MoveRequest) -> u64 {
    match world.apply(Command::MoveTenant(by(), request)) {
        Ok(DirectoryOutcome::Operation(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn refusal(world: &mut World, request: MoveRequest) -> Rejection {
    world.apply(Command::MoveTenant(by(), request)).unwrap_err()
}

fn report(world: &mut World, group: u32, report: GroupReport) {
    let command = Command::Report(GroupId::new(group), Incarnation::FIRST, vec![report]);
    world.apply(command).unwrap();
}

fn accept(world: &mut World) {
    let moving = **world.tenant("acme").moving.as_ref().unwrap();
    let accepted = GroupReport::Accepted {
        tenant: ACME,
        operation: moving.operation,
        epoch: moving.epoch,
    };
    report(world, moving.to.get(), accepted);
}

fn refuse(world: &mut World) {
    let tenant = world.tenant("acme");
    let (home, operation) = (tenant.home.get(), OperationId(tenant.op));
    report(
        world,
        home,
        GroupReport::Refused {
            tenant: ACME,
            operation,
        },
    );
}

fn uncount(world: &mut World, group: u32) {
    let tenant = world.tenant("acme");
    let (home, epoch, version) = (tenant.home.get(), tenant.epoch, tenant.version);
    let uncounted = GroupReport::Uncounted {
        tenant: ACME,
        epoch,
        group: GroupId::new(group),
        version,
        revision: last(),
    };
    report(world, home, uncounted);
}

fn states(world: &World) -> Vec<(u32, MemberState)> {
    let members = world.tenant("acme").members.iter();
    members.map(|member| (member.group.get(), member.state)).collect()
}

fn steps(world: &World, id: u64) -> Vec<StepName> {
    let operation = world.directory.operations().get(id).unwrap();
    operation.steps.iter().map(|step| step.name).collect()
}

fn result(world: &World, id: u64) -> Option<OperationResult> {
    let end = world.directory.operations().get(id).unwrap().end.as_ref();
    end.map(|end| end.result.clone())
}

fn followers(world: &mut World, regions: &[&str]) {
    let update = TenantUpdate {
        followers: Some(named(regions)),
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), update)).unwrap();
}

#[test]
fn move_to_follower_is_recorded_and_source_follows() {
    use MemberState::Staying;
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, to_region("us-east"));
    let moving = **world.tenant("acme").moving.as_ref().unwrap();
    assert_eq!(
        (moving.to, moving.joined),
        (GroupId::new(1), false),
        "the follower, by delta"
    );
    report(
        &mut world,
        1,
        GroupReport::HeirReady {
            tenant: ACME,
            operation: moving.operation,
        },
    );
    report(
        &mut world,
        1,
        GroupReport::HeirReady {
            tenant: ACME,
            operation: moving.operation,
        },
    );
    accept(&mut world);
    assert_eq!(world.tenant("acme").home, GroupId::new(1));
    assert_eq!(world.tenant("acme").fence(), Epoch::new(2).unwrap());
    assert_eq!(states(&world), [(1, Staying), (3, Staying), (5, Staying)]);
    assert_eq!(
        steps(&world, id),
        [StepName::Planned, StepName::HeirReady, StepName::Recorded]
    );
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    let cancel = world.apply(Command::AbortMove(by(), id));
    assert_eq!(
        cancel,
        Err(Rejection::OperationSucceeded(id)),
        "past the point of no return"
    );
    let records = world.directory.audit().newest_first().take(1);
    assert_eq!(
        records.map(|record| &record.action[..]).collect::<Vec<_>>(),
        ["move tenant"]
    );
}

#[test]
fn move_within_region_replaces_home_and_source_leaves() {
    use MemberState::{Erasing, Leaving, Staying};
    let mut world = cluster_with_tenant();
    begin(&mut world, to_group(4));
    assert_eq!(states(&world), [(1, Staying), (3, Staying), (4, Staying), (5, Staying)]);
    accept(&mut world);
    assert_eq!(states(&world), [(1, Staying), (3, Leaving), (4, Staying), (5, Staying)]);
    uncount(&mut world, 3);
    assert_eq!(states(&world), [(1, Staying), (3, Erasing), (4, Staying), (5, Staying)]);
    world.erased(3, 1).unwrap();
    assert_eq!(states(&world), [(1, Staying), (4, Staying), (5, Staying)]);
}

#[test]
fn aborted_move_is_cancelled_by_refusal_and_target_leaves() {
    use MemberState::{Leaving, Staying};
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, to_group(2));
    refuse(&mut world);
    assert_eq!(result(&world, id), None, "nobody asked for it");
    world.apply(Command::AbortMove(by(), id)).unwrap();
    world.apply(Command::AbortMove(by(), id)).unwrap();
    assert!(matches!(
        refusal(&mut world, to_region("ap-south")),
        Rejection::AlreadyMoving(_)
    ));
    refuse(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Cancelled));
    assert_eq!(
        steps(&world, id),
        [StepName::Planned, StepName::AbortRequested, StepName::Refused]
    );
    assert_eq!(states(&world), [(1, Staying), (2, Leaving), (3, Staying), (5, Staying)]);
    assert_eq!(world.apply(Command::AbortMove(by(), id)), Ok(DirectoryOutcome::Done));
    assert_eq!(
        world.apply(Command::AbortMove(by(), 9)),
        Err(Rejection::OperationUnknown(9))
    );
    begin(&mut world, to_region("us-east"));
    assert_eq!(
        world.tenant("acme").last_epoch,
        Epoch::new(3).unwrap(),
        "epoch 2 is used up"
    );
}

#[test]
fn move_whose_seed_failed_ends_with_the_figures() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, to_group(2));
    let operation = world.tenant("acme").moving.as_ref().unwrap().operation;
    let failure = SeedFailure {
        reason: SeedFailureReason::CannotCatchUp,
        copy_rate: 1_000,
        write_rate: 2_000,
        history: 30_000,
        history_max: 20_000,
    };
    let failed = GroupReport::SeedFailed {
        tenant: ACME,
        operation,
        failure,
    };
    report(&mut world, 2, failed.clone());
    assert_eq!(steps(&world, id), [StepName::Planned], "it is not the home");
    for _ in 0..2 {
        report(&mut world, 3, failed.clone());
    }
    refuse(&mut world);
    assert_eq!(
        steps(&world, id),
        [StepName::Planned, StepName::SeedFailed(failure), StepName::Refused]
    );
    let reason = failure.to_string();
    assert_eq!(result(&world, id), Some(OperationResult::Failed { reason }));
    assert_eq!(world.tenant("acme").home, GroupId::new(3));
    let row = world.directory.operations().get(id).unwrap();
    assert_eq!(Operation::decode(row.encode()).as_ref(), Ok(row));
    begin(&mut world, to_region("us-east"));
}

#[test]
fn acceptance_wins_over_abort() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, to_region("us-east"));
    world.apply(Command::AbortMove(by(), id)).unwrap();
    accept(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    assert_eq!(world.tenant("acme").home, GroupId::new(1));
}

#[test]
fn each_reason_against_a_move_is_named() {
    let mut world = World::begun();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    assert_eq!(
        refusal(&mut world, to_region("us-east")),
        Rejection::FeatureLevel { needed: 2, level: 1 }
    );
    let mut world = cluster_with_tenant();
    let w = &mut world;
    assert!(matches!(refusal(w, to_region("mars")), Rejection::RegionUnknown(_)));
    assert!(matches!(refusal(w, to_group(9)), Rejection::GroupUnknown(_)));
    assert!(
        matches!(refusal(w, to_group(0)), Rejection::GroupUnknown(_)),
        "the directory holds no tenants"
    );
    assert!(matches!(refusal(w, to_region("eu-west")), Rejection::AlreadyHome(_)));
    assert!(matches!(refusal(w, to_group(3)), Rejection::AlreadyHome(_)));
    let unknown = MoveRequest {
        name: "nobody".parse().unwrap(),
        ..to_region("us-east")
    };
    assert!(matches!(refusal(w, unknown), Rejection::TenantUnknown(_)));
    let follow = MoveRequest {
        source: SourceAfterMove::Follow,
        ..to_group(4)
    };
    assert!(matches!(refusal(w, follow), Rejection::SourceInRegion(_)));
    let leave = MoveRequest {
        source: SourceAfterMove::Leave,
        ..to_region("us-east")
    };
    assert!(matches!(refusal(w, leave), Rejection::SourceFollows(_)));
    let without = |nodes: &[u64]| MoveRequest {
        unreachable: nodes.iter().copied().map(NodeId::new).collect(),
        ..to_region("ap-south")
    };
    assert!(
        matches!(refusal(w, without(&[2])), Rejection::HomeUnreachable(_)),
        "one of two is no majority"
    );
    assert!(matches!(refusal(w, without(&[3])), Rejection::TargetUnreachable(_)));
    let stale = MoveRequest {
        etag: Some(DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: 1,
        }),
        ..to_region("us-east")
    };
    assert!(matches!(refusal(w, stale), Rejection::Changed(_)));
    let disable = TenantUpdate {
        enabled: Some(false),
        ..update("acme")
    };
    w.apply(Command::UpdateTenant(by(), disable)).unwrap();
    assert!(matches!(refusal(w, to_region("us-east")), Rejection::NotActive(_)));
}

#[test]
fn residency_and_durability_bind_moves() {
    let mut world = cluster_with_tenant();
    let residency = |codes: &[&str]| TenantUpdate {
        residency: Some(codes.iter().map(|code| code.parse().unwrap()).collect()),
        ..update("acme")
    };
    world
        .apply(Command::UpdateTenant(by(), residency(&["EU", "IN"])))
        .unwrap();
    let error = Error::from(refusal(&mut world, to_region("us-east")));
    assert!(matches!(error.kind, ErrorKind::Residency { .. }));
    begin(&mut world, to_region("ap-south"));
    let excluded = world.apply(Command::UpdateTenant(by(), residency(&["EU"])));
    assert!(
        matches!(excluded, Err(Rejection::Residency { .. })),
        "the target of a move stays admitted"
    );
    accept(&mut world);

    let mut world = cluster_with_tenant();
    followers(&mut world, &["us-east"]);
    let remote = TenantUpdate {
        durability: Some(Durability::Remote),
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), remote)).unwrap();
    assert_eq!(refusal(&mut world, to_region("us-east")), Rejection::RemoteAlone);
    let follow = MoveRequest {
        source: SourceAfterMove::Follow,
        ..to_region("us-east")
    };
    begin(&mut world, follow);
    accept(&mut world);
    assert_eq!(
        world.tenant("acme").followers,
        named(&["eu-west"]),
        "the regions change parts"
    );
}

#[test]
fn source_leaves_where_policy_names_other_regions() {
    let mut world = cluster_with_tenant();
    followers(&mut world, &["us-east", "ap-south"]);
    begin(&mut world, to_region("us-east"));
    accept(&mut world);
    assert_eq!(world.tenant("acme").followers, named(&["ap-south"]));
    assert_eq!(
        states(&world),
        [
            (1, MemberState::Staying),
            (3, MemberState::Leaving),
            (5, MemberState::Staying)
        ]
    );
}

#[test]
fn leaving_follower_is_taken_back_before_it_erases() {
    use MemberState::{Leaving, Returning, Staying};
    let mut world = cluster_with_tenant();
    followers(&mut world, &["us-east"]);
    assert_eq!(states(&world), [(1, Staying), (3, Staying), (5, Leaving)]);
    world.erased(5, 1).unwrap();
    assert_eq!(states(&world)[2], (5, Leaving), "it was not told to erase");
    let first = world.tenant("acme").version;
    followers(&mut world, &["us-east", "ap-south"]);
    assert_eq!(states(&world), [(1, Staying), (3, Staying), (5, Returning)]);
    report(
        &mut world,
        5,
        GroupReport::Rejoined {
            tenant: ACME,
            version: first,
        },
    );
    assert_eq!(states(&world)[2], (5, Returning));
    let now = world.tenant("acme").version;
    report(
        &mut world,
        5,
        GroupReport::Rejoined {
            tenant: ACME,
            version: now,
        },
    );
    assert_eq!(states(&world)[2], (5, Staying));
    followers(&mut world, &["us-east"]);
    let late = GroupReport::Uncounted {
        tenant: ACME,
        epoch: Epoch::FIRST,
        group: GroupId::new(5),
        version: first,
        revision: last(),
    };
    report(&mut world, 3, late);
    assert_eq!(states(&world)[2], (5, Leaving), "the report is of the first leaving");
}

fn on_lease_loss(world: &mut World, policy: LeaseLossPolicy) -> DirectoryResult {
    let update = TenantUpdate {
        on_lease_loss: Some(policy),
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), update))
}

fn stop_logged(world: &World) -> GroupReport {
    let tenant = world.tenant("acme");
    GroupReport::StopLogged {
        tenant: ACME,
        epoch: tenant.epoch,
        version: tenant.version,
    }
}

#[test]
fn stop_on_lease_loss_is_shown_once_home_reports_it() {
    let mut world = cluster_with_tenant();
    on_lease_loss(&mut world, LeaseLossPolicy::Continue).unwrap();
    assert_eq!(world.tenant("acme").on_lease_loss, LeaseLoss::Continue);
    on_lease_loss(&mut world, LeaseLossPolicy::Stop).unwrap();
    let first = stop_logged(&world);
    report(&mut world, 1, first.clone());
    assert_eq!(
        world.tenant("acme").on_lease_loss,
        LeaseLoss::Stopping,
        "not of the home"
    );
    on_lease_loss(&mut world, LeaseLossPolicy::Continue).unwrap();
    on_lease_loss(&mut world, LeaseLossPolicy::Stop).unwrap();
    report(&mut world, 3, first);
    assert_eq!(
        world.tenant("acme").on_lease_loss,
        LeaseLoss::Stopping,
        "the report is of the first change"
    );
    let second = stop_logged(&world);
    report(&mut world, 3, second);
    assert_eq!(world.tenant("acme").on_lease_loss, LeaseLoss::Stop);
}

#[test]
fn continue_on_lease_loss_needs_feature_level() {
    let mut world = World::begun();
    let refused =
        |result: DirectoryResult| assert!(matches!(result, Err(Rejection::FeatureLevel { .. })), "{result:?}");
    let continuing = || NewTenant {
        on_lease_loss: LeaseLossPolicy::Continue,
        ..new("acme", "eu-west")
    };
    refused(world.apply(create(continuing())));
    world.apply(create(new("acme", "eu-west"))).unwrap();
    refused(on_lease_loss(&mut world, LeaseLossPolicy::Continue));
    let mut world = cluster();
    world.apply(create(continuing())).unwrap();
    assert_eq!(world.tenant("acme").on_lease_loss, LeaseLoss::Continue);
}

#[test]
fn erase_ends_move_and_late_acceptance_is_ignored() {
    let mut world = cluster_with_tenant();
    let id = begin(&mut world, to_group(2));
    let disable = TenantUpdate {
        enabled: Some(false),
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), disable)).unwrap();
    world
        .apply(Command::EraseTenant(by(), "acme".parse().unwrap(), None))
        .unwrap();
    assert!(matches!(result(&world, id), Some(OperationResult::Failed { .. })));
    let accepted = GroupReport::Accepted {
        tenant: ACME,
        operation: OperationId(1),
        epoch: Epoch::new(2).unwrap(),
    };
    report(&mut world, 2, accepted);
    assert_eq!(world.directory.view().tenant(ACME).unwrap().home, GroupId::new(3));
    for group in [1, 2, 3, 5] {
        world.erased(group, 1).unwrap();
    }
    assert!(world.directory.view().tenant(ACME).is_none());
}

#[test]
fn finished_operations_are_dropped_after_seven_days() {
    let mut world = cluster_with_tenant();
    let first = begin(&mut world, to_region("us-east"));
    accept(&mut world);
    let second = begin(&mut world, to_region("eu-west"));
    world.time = Some(world.index + 1_000 + OPERATION_KEPT_MS);
    world.apply(create(new("other", "eu-west"))).unwrap();
    let kept: Vec<u64> = world
        .directory
        .operations()
        .newest_first(None)
        .map(|operation| operation.id)
        .collect();
    assert_eq!(kept, [second], "one in flight is kept");
    assert_eq!(
        world.apply(Command::AbortMove(by(), first)),
        Err(Rejection::OperationUnknown(first))
    );
}

#[test]
fn oldest_finished_operation_makes_room_for_new_one() {
    let finished = |id: u64| Operation {
        id,
        kind: OperationKind::Move {
            from: GroupId::new(1),
            to: GroupId::new(2),
            epoch: Epoch::FIRST,
        },
        tenants: Vec::new(),
        by: by(),
        created: 0,
        steps: Vec::new(),
        end: Some(OperationEnd {
            result: OperationResult::Cancelled,
            time: id,
        }),
    };
    let mut operations = Operations::default();
    for id in 1..=OPERATIONS_MAX as u64 + 1 {
        operations.put(finished(id));
    }
    assert_eq!(operations.drop_old(0, ITEMS_MAX, |_| false).operations, [1]);
    assert_eq!(operations.len(), OPERATIONS_MAX);
}

#[test]
fn feature_level_waits_for_every_node_and_never_falls() {
    let mut world = World::begun();
    let raise_with = |world: &mut World, level, nodes: std::ops::RangeInclusive<u64>| {
        let supporting = nodes.map(NodeId::new).collect();
        world.apply(Command::RaiseFeatureLevel(by(), level, supporting))
    };
    let raise = |world: &mut World, level| raise_with(world, level, 1..=5);
    let behind = Rejection::NodesBehind {
        requested: 2,
        count: 3,
        node: "c, d, e".into(),
    };
    assert_eq!(raise_with(&mut world, 2, 1..=2), Err(behind));
    assert_eq!(
        world.apply(Command::SetClusterSettings(by(), 30_000)).unwrap_err(),
        Rejection::FeatureLevel { needed: 2, level: 1 }
    );
    assert_eq!(
        world
            .directory
            .view()
            .as_changes()
            .filter(|change| matches!(change, DirectoryChange::Settings(_)))
            .count(),
        0,
        "older nodes cannot read it"
    );
    raise(&mut world, 2).unwrap();
    raise(&mut world, 2).unwrap();
    for level in [1, FEATURE_LEVEL_MAX + 1] {
        assert!(matches!(
            raise(&mut world, level),
            Err(Rejection::FeatureLevelRange { .. })
        ));
    }
}

/// The rule that the wait is as long as any lease that may run: one granted before the ttl was lowered, too.
#[test]
fn longest_lease_ttl_holds_until_earlier_leases_have_run_out() {
    let mut world = cluster();
    let settings = world.directory.view().settings();
    assert_eq!(
        (settings.lease_ttl_ms, settings.longest_lease_ttl_ms(100_000)),
        (60_000, 60_000)
    );
    for ms in [14_999, 3_600_001] {
        assert_eq!(
            world.apply(Command::SetClusterSettings(by(), ms)),
            Err(Rejection::LeaseTtl(ms))
        );
    }
    world.time = Some(1_000_000);
    world.apply(Command::SetClusterSettings(by(), 40_000)).unwrap();
    world.time = Some(1_010_000);
    world.apply(Command::SetClusterSettings(by(), 15_000)).unwrap();
    let settings = world.directory.view().settings();
    assert_eq!(
        settings.longest_lease_ttl_ms(1_010_001),
        60_000,
        "leases of the first ttl may run"
    );
    assert_eq!(settings.longest_lease_ttl_ms(1_076_001), 60_000);
    assert_eq!(settings.longest_lease_ttl_ms(1_085_000), 15_000);
}

#[test]
fn fence_changes_reach_groups_that_were_members_at_any_version_since() {
    let mut world = cluster_with_tenant();
    followers(&mut world, &["us-east", "ap-south"]);
    let before = world.directory.view().version();
    let since = |world: &World, version, group| {
        let groups = [GroupId::new(group)];
        world.directory.fence_changes_since(version, &groups)
    };
    followers(&mut world, &["us-east"]);
    uncount(&mut world, 5);
    world.erased(5, 1).unwrap();
    let removed = world.directory.view().version();
    begin(&mut world, to_group(2));
    accept(&mut world);
    let fence = vec![(ACME, Epoch::new(2).unwrap())];
    for group in [1, 2, 3, 5] {
        assert_eq!(since(&world, before, group), Some(fence.clone()), "group {group}");
    }
    assert_eq!(since(&world, before, 6), Some(Vec::new()));
    assert_eq!(
        since(&world, removed, 5),
        Some(Vec::new()),
        "it was not a member any more"
    );
    let now = world.directory.view().version();
    assert_eq!(since(&world, now, 3), Some(Vec::new()));
    let other = DirectoryVersion {
        incarnation: Incarnation(2),
        ..now
    };
    assert_eq!(since(&world, other, 3), None);
    let mut restarted = Directory::default();
    restarted.decode_meta(world.directory.encode_meta()).unwrap();
    assert_eq!(
        restarted.fence_changes_since(before, &[GroupId::new(3)]),
        None,
        "after a start by the view alone"
    );
    assert_eq!(restarted.fence_changes_since(now, &[GroupId::new(3)]), Some(Vec::new()));
}

fn one_report_of_each() -> Vec<GroupReport> {
    let version = DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index: 9,
    };
    let (operation, epoch) = (OperationId(2), Epoch::new(3).unwrap());
    vec![
        GroupReport::Erased(ACME),
        GroupReport::Accepted {
            tenant: ACME,
            operation,
            epoch,
        },
        GroupReport::Refused {
            tenant: ACME,
            operation,
        },
        GroupReport::Uncounted {
            tenant: ACME,
            epoch,
            group: GroupId::new(5),
            version,
            revision: last(),
        },
        GroupReport::StopLogged {
            tenant: ACME,
            epoch,
            version,
        },
        GroupReport::Rejoined { tenant: ACME, version },
        GroupReport::HeirReady {
            tenant: ACME,
            operation,
        },
    ]
}

#[test]
fn encoding_of_commands_about_moves_is_fixed() {
    let moved = Command::MoveTenant(by(), to_region("us-east"));
    let by_group = MoveRequest {
        source: SourceAfterMove::Leave,
        unreachable: vec![NodeId::new(4)],
        ..to_group(4)
    };
    let continuing = NewTenant {
        on_lease_loss: LeaseLossPolicy::Continue,
        ..new("acme", "eu-west")
    };
    let stopping = TenantUpdate {
        on_lease_loss: Some(LeaseLossPolicy::Stop),
        ..update("acme")
    };
    let commands = [
        (
            create(continuing),
            "0503616e6e04746573740461636d650765752d7765737400000000 0001",
        ),
        (
            Command::UpdateTenant(by(), stopping),
            "0603616e6e04746573740461636d65000000000000 000000",
        ),
        (moved, "0a03616e6e04746573740461636d650000077573 2d65617374 0200"),
        (
            Command::MoveTenant(by(), by_group),
            "0a03616e6e04746573740461636d6500010401 0104",
        ),
        (Command::AbortMove(by(), 7), "0b03616e6e047465737407"),
        (Command::SetClusterSettings(by(), 30_000), "0c03616e6e0474657374b0ea01"),
        (
            Command::RaiseFeatureLevel(by(), 2, vec![NodeId::new(3)]),
            "0d03616e6e0474657374020103",
        ),
        (
            Command::Report(GroupId::new(3), Incarnation::FIRST, one_report_of_each()),
            "08030107 0001 01010203 020102 03010305010989808080 8020 0701030109 04010109 050102",
        ),
    ];
    for (command, bytes) in commands {
        assert_eq!(hex(&command.encode()), bytes.replace(' ', ""), "{command:?}");
        let bytes = command.encode();
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command));
    }
}

#[test]
fn encoding_of_tenant_that_moves_is_fixed() {
    let mut world = cluster_with_tenant();
    let settings = DirectoryChange::Settings(world.directory.view().settings());
    assert_eq!(
        hex(&settings.encode()),
        format!("06{FEATURE_LEVEL_MAX:02x}e0d403e0d40300")
    );
    let encoded = |world: &World| {
        let mut w = Writer::default();
        world.tenant("acme").encode(&mut w);
        hex(&w.finish())
    };
    begin(&mut world, to_group(4));
    assert_eq!(
        encoded(&world),
        "010461636d650301000160000000010101ffffffffff1f00040100030004000500000104eb07ec0701040200010100ec0702"
    );
    accept(&mut world);
    assert_eq!(
        encoded(&world),
        "010461636d650402020100000000010102ffffffffff1f00040100030204000500000105eb07ed07"
    );
    on_lease_loss(&mut world, LeaseLossPolicy::Continue).unwrap();
    assert_eq!(
        encoded(&world),
        "010461636d650402020180000000010102ffffffffff1f00040100030204000500000106eb07ee0701"
    );
}

/// Line of a random script: a command, or a report that fits the state of a tenant, or one of before again.
#[derive(Clone, Debug)]
enum Line {
    Command(Box<Command>),
    Move(&'static str, MoveTarget, SourceAfterMove),
    Abort(u64),
    Accept(u64),
    Refuse(u64),
    HeirReady(u64),
    Uncount(u64),
    Rejoin(u64),
    StopLogged(u64),
    Erase(u64),
    Again(prop::sample::Index),
}

fn lines() -> impl Strategy<Value = Line> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let region = prop::sample::select(vec!["us-east", "eu-west", "ap-south", "mars"]);
    let target = prop_oneof![
        region.prop_map(|region| MoveTarget::Region(region.parse().unwrap())),
        (0u32..8).prop_map(|group| MoveTarget::Group(GroupId::new(group))),
    ];
    let source = prop::sample::select(vec![
        SourceAfterMove::Follow,
        SourceAfterMove::Leave,
        SourceAfterMove::Policy,
    ]);
    let tenant = || 1u64..6;
    prop_oneof![
        6 => commands().prop_map(|command| Line::Command(Box::new(command))),
        6 => (name, target, source).prop_map(|(name, target, source)| Line::Move(name, target, source)),
        2 => (1u64..8).prop_map(Line::Abort),
        3 => tenant().prop_map(Line::Accept),
        2 => tenant().prop_map(Line::Refuse),
        1 => tenant().prop_map(Line::HeirReady),
        3 => tenant().prop_map(Line::Uncount),
        2 => tenant().prop_map(Line::Rejoin),
        2 => tenant().prop_map(Line::StopLogged),
        3 => tenant().prop_map(Line::Erase),
        3 => any::<prop::sample::Index>().prop_map(Line::Again),
    ]
}

/// Returns the report of a line, and the group that makes it.
fn fitting(view: &DirectoryView, line: &Line) -> Option<Command> {
    let member = |tenant: &Tenant, state| {
        let mut members = tenant.members.iter();
        members.find(|member| member.state == state).map(|member| member.group)
    };
    let tenant = |number: u64| view.tenant(TenantNumber::new(number));
    let (group, report) = match *line {
        Line::Accept(number) => {
            let moving = tenant(number)?.moving.as_deref()?;
            let report = GroupReport::Accepted {
                tenant: TenantNumber::new(number),
                operation: moving.operation,
                epoch: moving.epoch,
            };
            (moving.to, report)
        }
        Line::HeirReady(number) => {
            let moving = tenant(number)?.moving.as_deref()?;
            let report = GroupReport::HeirReady {
                tenant: TenantNumber::new(number),
                operation: moving.operation,
            };
            (moving.to, report)
        }
        Line::Refuse(number) => {
            let operation = tenant(number)?.moving.as_deref()?.operation;
            (
                tenant(number)?.home,
                GroupReport::Refused {
                    tenant: TenantNumber::new(number),
                    operation,
                },
            )
        }
        Line::Uncount(number) => {
            let of = tenant(number)?;
            let group = member(of, MemberState::Leaving)?;
            let report = GroupReport::Uncounted {
                tenant: of.number,
                epoch: of.epoch,
                group,
                version: of.version,
                revision: last(),
            };
            (of.home, report)
        }
        Line::Rejoin(number) => {
            let of = tenant(number)?;
            let report = GroupReport::Rejoined {
                tenant: of.number,
                version: of.version,
            };
            (member(of, MemberState::Returning)?, report)
        }
        Line::StopLogged(number) => {
            let of = tenant(number)?;
            let report = GroupReport::StopLogged {
                tenant: of.number,
                epoch: of.epoch,
                version: of.version,
            };
            (of.home, report)
        }
        Line::Erase(number) => {
            let of = tenant(number)?;
            (member(of, MemberState::Erasing)?, GroupReport::Erased(of.number))
        }
        Line::Command(_) | Line::Move(..) | Line::Abort(_) | Line::Again(_) => return None,
    };
    Some(Command::Report(group, Incarnation::FIRST, vec![report]))
}

proptest! {
    /// The invariants of the directory, which the world checks after each command; and epochs are never reused.
    #[test]
    fn random_scripts_with_moves_keep_invariants(script in prop::collection::vec(lines(), 0..80)) {
        let mut world = cluster();
        let mut reports: Vec<Command> = Vec::new();
        let mut epochs = std::collections::BTreeMap::<TenantNumber, Epoch>::new();
        for line in script {
            let command = match &line {
                Line::Command(command) => Some(Command::clone(command)),
                Line::Move(name, to, source) => Some(Command::MoveTenant(by(), MoveRequest {
                    name: name.parse().unwrap(),
                    to: to.clone(),
                    source: *source,
                    ..to_region("us-east")
                })),
                Line::Abort(id) => Some(Command::AbortMove(by(), *id)),
                Line::Again(_) if reports.is_empty() => None,
                Line::Again(index) => Some(index.get(&reports).clone()),
                Line::Accept(_)
                | Line::Refuse(_)
                | Line::HeirReady(_)
                | Line::Uncount(_)
                | Line::Rejoin(_)
                | Line::StopLogged(_)
                | Line::Erase(_) => fitting(world.directory.view(), &line),
            };
            let Some(command) = command else { continue };
            if matches!(command, Command::Report(..)) {
                reports.push(command.clone());
            }
            drop(world.apply(command));
            for tenant in world.directory.view().tenants_from(TenantNumber::new(0)) {
                let last = epochs.insert(tenant.number, tenant.last_epoch);
                prop_assert!(last.is_none_or(|last| last <= tenant.last_epoch), "invariant 1");
            }
        }
    }
}
