//! Bulk moves: waves and their budgets, drains and what returns, and random scripts of them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use stead_types::{Durability, GroupId, Incarnation, NodeId, TenantNumber};

use super::{
    directory_test::{World, by, create, hex, named, new, update},
    *,
};
use crate::{
    seed_pace::{SeedFailure, SeedFailureReason},
    shard::record::OperationId,
};

/// A cluster at feature level 2 with so many tenants in eu-west, groups 3 and 4, followed everywhere. Groups 1 and 2 are
/// in us-east, 5 and 6 in ap-south.
fn cluster(tenants: usize) -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    for at in 0..tenants {
        world.apply(create(new(&format!("t{at:03}"), "eu-west"))).unwrap();
    }
    world
}

fn request(selection: Selection) -> BulkMoveRequest {
    BulkMoveRequest {
        selection,
        named: Vec::new(),
        source: SourceAfterMove::Follow,
        pace: Pace::default(),
    }
}

fn drain(region: &str) -> BulkMoveRequest {
    request(Selection::Drain {
        region: region.parse().unwrap(),
        to: None,
    })
}

fn undrain(region: &str) -> BulkMoveRequest {
    request(Selection::Undrain {
        region: region.parse().unwrap(),
        returns: true,
    })
}

fn begin(world: &mut World, request: BulkMoveRequest) -> u64 {
    match world.apply(Command::BeginBulkMove(by(), request)) {
        Ok(DirectoryOutcome::Operation(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn refusal(world: &mut World, request: BulkMoveRequest) -> Rejection {
    world.apply(Command::BeginBulkMove(by(), request)).unwrap_err()
}

fn now(world: &World) -> u64 {
    world.time.unwrap_or(1_000 + world.index)
}

/// Does what the directory's leader does while a bulk move is due.
fn advance(world: &mut World) {
    while let Some(id) = world.directory.due_bulk_move(now(world)) {
        world.apply(Command::AdvanceBulkMove(id, Vec::new())).unwrap();
    }
}

fn moving(world: &World) -> Vec<(TenantNumber, TenantMove)> {
    let tenants = world.directory.view().tenants_from(TenantNumber::new(0));
    tenants
        .filter_map(|tenant| Some((tenant.number, *tenant.moving.as_deref()?)))
        .collect()
}

/// Reports that the targets of these moves have accepted.
fn accept(world: &mut World, moves: &[(TenantNumber, TenantMove)]) {
    for (tenant, moving) in moves {
        let report = GroupReport::Accepted {
            tenant: *tenant,
            operation: moving.operation,
            epoch: moving.epoch,
        };
        world
            .apply(Command::Report(moving.to, Incarnation::FIRST, vec![report]))
            .unwrap();
    }
}

/// Lets waves end until nothing moves, and returns their sizes.
fn run(world: &mut World) -> Vec<usize> {
    let mut waves = Vec::new();
    loop {
        advance(world);
        let wave = moving(world);
        if wave.is_empty() {
            return waves;
        }
        waves.push(wave.len());
        accept(world, &wave);
    }
}

fn failure() -> SeedFailure {
    SeedFailure {
        reason: SeedFailureReason::CannotCatchUp,
        copy_rate: 7,
        write_rate: 8,
        history: 9,
        history_max: 10,
    }
}

/// Reports of the home of a tenant that is moving.
fn report(world: &mut World, tenant: TenantNumber, report: GroupReport) {
    let home = world.directory.view().tenant(tenant).unwrap().home;
    world
        .apply(Command::Report(home, Incarnation::FIRST, vec![report]))
        .unwrap();
}

fn bulk(world: &World, id: u64) -> &BulkMove {
    world.directory.operations().bulk_move(id).unwrap()
}

fn paused(world: &World, id: u64) -> &str {
    let BulkMoveState::Paused { reason } = &bulk(world, id).state else {
        panic!("{:?}", bulk(world, id));
    };
    reason
}

fn result(world: &World, id: u64) -> Option<OperationResult> {
    let end = world.directory.operations().get(id).unwrap().end.as_ref();
    end.map(|end| end.result.clone())
}

fn homes(world: &World, region: &str) -> u64 {
    let (view, region) = (world.directory.view(), region.parse().unwrap());
    view.groups_of(&region).map(|group| view.load(group.number).homes).sum()
}

#[test]
fn drain_moves_every_tenant_in_growing_waves() {
    let mut world = cluster(30);
    let id = begin(&mut world, drain("eu-west"));
    assert_eq!(bulk(&world, id).selected, 30);
    assert_eq!(run(&mut world), [3, 12, 15]);
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    assert_eq!((homes(&world, "eu-west"), bulk(&world, id).moved), (0, 30));
    let loads: Vec<u64> = [1, 2, 5, 6]
        .map(|group| world.directory.view().load(GroupId::new(group)).homes)
        .into();
    assert!(loads.iter().all(|homes| (7..=8).contains(homes)), "{loads:?}");
    let record = world.directory.audit().newest_first().next().unwrap();
    assert_eq!(
        (record.action.as_str(), record.subject.as_str()),
        ("move tenants", "drain of region eu-west")
    );
}

#[test]
fn draining_region_takes_no_tenants() {
    let mut world = cluster(1);
    let id = begin(&mut world, drain("eu-west"));
    let closed = Rejection::RegionDraining("eu-west".parse().unwrap());
    assert_eq!(world.apply(create(new("late", "eu-west"))).unwrap_err(), closed);
    world.apply(create(new("other", "us-east"))).unwrap();
    for to in [
        MoveTarget::Region("eu-west".parse().unwrap()),
        MoveTarget::Group(GroupId::new(3)),
    ] {
        let request = MoveRequest {
            name: "other".parse().unwrap(),
            etag: None,
            to,
            source: SourceAfterMove::Policy,
            unreachable: Vec::new(),
        };
        assert_eq!(world.apply(Command::MoveTenant(by(), request)).unwrap_err(), closed);
    }
    let region = "eu-west".parse().unwrap();
    assert_eq!(
        refusal(&mut world, drain("eu-west")),
        Rejection::DrainInFlight { region, operation: id }
    );
    run(&mut world);
    assert_eq!(
        world.apply(create(new("late", "eu-west"))).unwrap_err(),
        closed,
        "afterwards, too"
    );
}

#[test]
fn drain_prefers_followers_and_names_tenants_that_must_stay() {
    let mut world = cluster(0);
    let followed = NewTenant {
        followers: named(&["ap-south"]),
        ..new("followed", "eu-west")
    };
    world.apply(create(followed)).unwrap();
    let alone = NewTenant {
        followers: named(&[]),
        ..new("alone", "eu-west")
    };
    world.apply(create(alone)).unwrap();
    let bound = NewTenant {
        residency: vec!["EU".parse().unwrap()],
        ..new("bound", "eu-west")
    };
    world.apply(create(bound)).unwrap();
    let preview = BulkMovePreview::of(world.directory.view(), &drain("eu-west"), &[], &[]).unwrap();
    assert_eq!((preview.moves.len(), preview.refused.len()), (2, 1));
    assert!(preview.moves[1].joined, "it needs a copy first");
    let id = begin(&mut world, drain("eu-west"));
    run(&mut world);
    assert_eq!(homes(&world, "ap-south"), 1, "where it is followed");
    assert_eq!(world.tenant("bound").home, GroupId::new(3));
    match result(&world, id) {
        Some(OperationResult::Failed { reason }) => assert_eq!(
            reason,
            "2 tenants were moved, 1 were not; the first one: bound: no other region that takes tenants may hold \
             tenant bound: admit one in its residency, or undrain one"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wave_that_is_late_pauses_until_resumed() {
    let mut world = cluster(20);
    let id = begin(&mut world, drain("eu-west"));
    advance(&mut world);
    let canaries = moving(&world);
    accept(&mut world, &canaries);
    advance(&mut world);
    let wave = moving(&world);
    accept(&mut world, &wave[..7]);
    world.time = Some(now(&world) + 59_000);
    assert_eq!(world.directory.due_bulk_move(now(&world)), None, "not late yet");
    world.time = Some(now(&world) + 1_000);
    advance(&mut world);
    assert_eq!(
        paused(&world, id),
        "wave 2 missed its budget: 5 of its 12 tenants did not move within 60 s"
    );
    accept(&mut world, &wave[7..]);
    advance(&mut world);
    assert!(moving(&world).is_empty(), "it begins nothing while it is paused");
    assert_eq!(bulk(&world, id).moved, 15);
    world.apply(Command::ResumeBulkMove(by(), id, None)).unwrap();
    assert_eq!(run(&mut world), [3, 2], "small again");
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
}

#[test]
fn failed_canary_pauses() {
    let mut world = cluster(20);
    let id = begin(&mut world, drain("eu-west"));
    advance(&mut world);
    let update = TenantUpdate {
        enabled: Some(false),
        ..update("t000")
    };
    world.apply(Command::UpdateTenant(by(), update)).unwrap();
    let erase = Command::EraseTenant(by(), "t000".parse().unwrap(), None);
    world.apply(erase).unwrap();
    assert_eq!(
        paused(&world, id),
        "wave 1 missed its budget: 1 of its 3 tenants were not moved, such as t000: the tenant was erased"
    );
    let of = bulk(&world, id);
    assert_eq!((of.moving, of.failed, of.failures.len()), (2, 1, 1));
}

#[test]
fn cancelled_drain_ends_with_moves_in_flight() {
    let mut world = cluster(20);
    let id = begin(&mut world, drain("eu-west"));
    advance(&mut world);
    world.apply(Command::AbortMove(by(), id)).unwrap();
    advance(&mut world);
    let wave = moving(&world);
    assert_eq!((wave.len(), result(&world, id)), (3, None));
    assert!(wave.iter().all(|(_, moving)| moving.state == MoveState::Moving));
    world.apply(Command::AbortMove(by(), id)).unwrap();
    assert!(
        moving(&world)
            .iter()
            .all(|(_, moving)| moving.state == MoveState::Moving),
        "a repetition"
    );
    world.time = Some(now(&world) + 10_000);
    world.apply(Command::AbortMove(by(), id)).unwrap();
    assert!(
        moving(&world)
            .iter()
            .all(|(_, moving)| moving.state == MoveState::Aborting)
    );
    accept(&mut world, &wave);
    advance(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Cancelled));
    assert_eq!(homes(&world, "eu-west"), 17);
    assert_eq!(
        world.apply(Command::ResumeBulkMove(by(), id, None)),
        Err(Rejection::OperationOver)
    );
}

#[test]
fn undrain_returns_tenants_of_every_drain_that_have_stayed() {
    let mut world = cluster(9);
    let alone = NewTenant {
        followers: named(&[]),
        ..new("alone", "eu-west")
    };
    world.apply(create(alone)).unwrap();
    let before: Vec<_> = (0..9).map(|at| world.tenant(&format!("t{at:03}")).home).collect();
    let first = begin(&mut world, drain("eu-west"));
    advance(&mut world);
    world.apply(Command::AbortMove(by(), first)).unwrap();
    run(&mut world);
    begin(&mut world, drain("eu-west"));
    run(&mut world);
    assert_eq!(homes(&world, "eu-west"), 0);
    let elsewhere = MoveRequest {
        name: "t008".parse().unwrap(),
        etag: None,
        to: MoveTarget::OtherGroup,
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    world.apply(Command::MoveTenant(by(), elsewhere)).unwrap();
    let isolated = moving(&world);
    accept(&mut world, &isolated);

    let drains = world
        .directory
        .view()
        .region(&"eu-west".parse().unwrap())
        .unwrap()
        .drains
        .to_vec();
    let returning: Vec<_> = world.directory.operations().moved(&drains).collect();
    let preview = BulkMovePreview::of(world.directory.view(), &undrain("eu-west"), &returning, &[]).unwrap();
    assert_eq!(
        (preview.moves.len(), preview.refused.len()),
        (9, 0),
        "{:?}",
        preview.refused
    );

    let id = begin(&mut world, undrain("eu-west"));
    world.apply(create(new("new", "eu-west"))).unwrap();
    assert_eq!(bulk(&world, id).selected, 9);
    run(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    let after: Vec<_> = (0..8).map(|at| world.tenant(&format!("t{at:03}")).home).collect();
    assert_eq!(after, before[..8], "each in its group before");
    assert_ne!(world.tenant("t008").home, before[8], "an operator has moved it since");
    assert_eq!(
        world.tenant("alone").followers,
        named(&[]),
        "the copy of the drain leaves"
    );
    assert_eq!(
        refusal(&mut world, undrain("eu-west")),
        Rejection::NotDraining("eu-west".parse().unwrap())
    );
}

#[test]
fn cancelled_undrain_forgets_nobody() {
    let mut world = cluster(9);
    let before: Vec<_> = (0..9).map(|at| world.tenant(&format!("t{at:03}")).home).collect();
    let drained = begin(&mut world, drain("eu-west"));
    run(&mut world);
    let id = begin(&mut world, undrain("eu-west"));
    advance(&mut world);
    let wave = moving(&world);
    world.apply(Command::AbortMove(by(), id)).unwrap();
    accept(&mut world, &wave);
    advance(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Cancelled));
    assert_eq!(homes(&world, "eu-west"), 3);
    let region = world.directory.view().region(&"eu-west".parse().unwrap()).unwrap();
    assert_eq!(region.drains[..], [drained], "drained again");
    // However long it takes.
    world.time = Some(now(&world) + 2 * OPERATION_KEPT_MS);
    let id = begin(&mut world, undrain("eu-west"));
    assert_eq!(bulk(&world, id).selected, 6);
    run(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    let after: Vec<_> = (0..9).map(|at| world.tenant(&format!("t{at:03}")).home).collect();
    assert_eq!(after, before);
}

#[test]
fn undrain_that_is_cancelled_when_all_are_back_leaves_region_open() {
    let mut world = cluster(3);
    begin(&mut world, drain("eu-west"));
    run(&mut world);
    let id = begin(&mut world, undrain("eu-west"));
    advance(&mut world);
    let wave = moving(&world);
    world.apply(Command::AbortMove(by(), id)).unwrap();
    accept(&mut world, &wave);
    advance(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Cancelled));
    world.apply(create(new("new", "eu-west"))).unwrap();
}

/// Those whose tenants are returning come back if that is cancelled.
#[test]
fn drains_of_a_region_are_bounded() {
    let mut world = cluster(1);
    for _ in 0..DRAINS_MAX {
        begin(&mut world, drain("eu-west"));
        run(&mut world);
    }
    let full = Rejection::DrainedTooOften("eu-west".parse().unwrap());
    assert_eq!(refusal(&mut world, drain("eu-west")), full);
    begin(&mut world, undrain("eu-west"));
    assert_eq!(refusal(&mut world, drain("eu-west")), full, "they may come back");
    run(&mut world);
    begin(&mut world, drain("eu-west"));
}

#[test]
fn failed_seed_of_bulk_move_keeps_its_figures() {
    let mut world = cluster(20);
    let id = begin(&mut world, drain("eu-west"));
    advance(&mut world);
    let (tenant, of) = moving(&world)[0];
    let operation = of.operation;
    let failed = GroupReport::SeedFailed {
        tenant,
        operation,
        failure: failure(),
    };
    report(&mut world, tenant, failed);
    let item = |world: &World| world.directory.operations().item(id, tenant).unwrap().clone();
    assert_eq!(item(&world).seed_failure, Some(failure()));
    assert!(
        matches!(item(&world).state, ItemState::Moving(_)),
        "until the home has refused"
    );
    report(&mut world, tenant, GroupReport::Refused { tenant, operation });
    let reason = failure().to_string();
    assert_eq!(item(&world).state, ItemState::Failed { reason: reason.clone() });
    assert_eq!(bulk(&world, id).failures[0].reason, reason);
    assert!(paused(&world, id).contains("cannot catch up"), "{}", paused(&world, id));
}

#[test]
fn named_tenant_that_was_erased_before_its_wave_fails() {
    let mut world = cluster(6);
    let named = (0..6).map(|at| NamedMove {
        name: format!("t{at:03}").parse().unwrap(),
        to: "us-east".parse().unwrap(),
    });
    let named = BulkMoveRequest {
        named: named.collect(),
        ..request(Selection::Named)
    };
    let erased = world.tenant("t005").number;
    let id = begin(&mut world, named);
    advance(&mut world);
    let update = TenantUpdate {
        enabled: Some(false),
        ..update("t005")
    };
    world.apply(Command::UpdateTenant(by(), update)).unwrap();
    let members: Vec<_> = world.tenant("t005").members.iter().map(|member| member.group).collect();
    world
        .apply(Command::EraseTenant(by(), "t005".parse().unwrap(), None))
        .unwrap();
    for group in members {
        let erased = vec![GroupReport::Erased(erased)];
        world.apply(Command::Report(group, Incarnation::FIRST, erased)).unwrap();
    }
    assert!(world.directory.view().tenant(erased).is_none());
    while result(&world, id).is_none() {
        drop(world.apply(Command::ResumeBulkMove(by(), id, None)));
        run(&mut world);
    }
    let item = world.directory.operations().item(id, erased).unwrap();
    let reason = "the tenant was erased".to_owned();
    assert_eq!(item.state, ItemState::Failed { reason });
    let bulk = bulk(&world, id);
    assert_eq!((bulk.moved, bulk.failed), (5, 1));
}

/// Records of tenants are bounded: the oldest finished ones go, those that are needed do not.
#[test]
fn records_of_bulk_moves_are_bounded() {
    let operation = |id: u64, selected: u64, end: Option<u64>| {
        let mut bulk = BulkMove::of(&drain("eu-west"), selected);
        bulk.moved = 3;
        Operation {
            id,
            kind: OperationKind::BulkMove(Box::new(bulk)),
            tenants: Vec::new(),
            by: by(),
            created: 0,
            steps: Vec::new(),
            end: end.map(|time| OperationEnd {
                result: OperationResult::Succeeded,
                time,
            }),
        }
    };
    let mut operations = Operations::default();
    for (id, selected, end) in [(1, 3, Some(10)), (2, 3, Some(20)), (3, 3, Some(30)), (4, 8, None)] {
        operations.put(operation(id, selected, end));
        for tenant in 0..3 {
            let reason = "x".to_owned();
            let item = BulkMoveItem::new("acme".parse().unwrap(), ItemState::Failed { reason });
            operations.put_item(id, TenantNumber::new(tenant), item);
        }
    }
    let is_pinned = |id| id == 1;
    assert_eq!(
        operations.items_kept(is_pinned),
        3 + 8,
        "pinned, and in flight with what is to come"
    );
    assert!(operations.drop_old(40, 17, is_pinned).operations.is_empty());
    let dropped = operations.drop_old(40, 16, is_pinned);
    assert_eq!((dropped.operations, dropped.items.len()), (vec![2], 3));
    assert_eq!(
        operations.drop_old(40, 1, is_pinned).operations,
        [3],
        "no more than may go"
    );
    assert_eq!(operations.items_kept(is_pinned), 3 + 8);
}

/// Operations that say which tenants return make no room for others.
#[test]
fn pinned_operations_make_no_room() {
    let mut operations = Operations::default();
    let finished = |id| Operation {
        id,
        kind: OperationKind::Move {
            from: GroupId::new(1),
            to: GroupId::new(2),
            epoch: stead_types::Epoch::FIRST,
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
    (1..=OPERATIONS_MAX as u64).for_each(|id| operations.put(finished(id)));
    assert!(operations.has_room(|id| id > 1));
    assert!(!operations.has_room(|_| true));
}

#[test]
fn undrain_without_return_only_opens_region() {
    let mut world = cluster(4);
    begin(&mut world, drain("eu-west"));
    run(&mut world);
    let id = begin(
        &mut world,
        request(Selection::Undrain {
            region: "eu-west".parse().unwrap(),
            returns: false,
        }),
    );
    assert_eq!(run(&mut world), [0; 0]);
    assert_eq!(
        (result(&world, id), homes(&world, "eu-west")),
        (Some(OperationResult::Succeeded), 0)
    );
    world.apply(create(new("new", "eu-west"))).unwrap();
}

#[test]
fn drain_is_kept_as_long_as_region_is_drained() {
    let mut world = cluster(2);
    let id = begin(&mut world, drain("eu-west"));
    run(&mut world);
    world.time = Some(now(&world) + 2 * OPERATION_KEPT_MS);
    world.apply(create(new("a", "us-east"))).unwrap();
    assert!(world.directory.operations().get(id).is_some());
    let back = begin(&mut world, undrain("eu-west"));
    assert!(world.directory.operations().get(id).is_some(), "the return needs it");
    assert_eq!(run(&mut world), [2]);
    assert_eq!(result(&world, back), Some(OperationResult::Succeeded));
    world.apply(create(new("b", "us-east"))).unwrap();
    assert!(world.directory.operations().get(id).is_none());
    assert!(world.directory.operations().item(id, TenantNumber::new(1)).is_none());
}

#[test]
fn named_tenants_move_each_to_its_region() {
    let mut world = cluster(3);
    let to = |name: &str, to: &str| NamedMove {
        name: name.parse().unwrap(),
        to: to.parse().unwrap(),
    };
    let of = |named| BulkMoveRequest {
        named,
        ..request(Selection::Named)
    };
    let list = vec![to("t000", "us-east"), to("t002", "ap-south"), to("t001", "eu-west")];
    let id = begin(&mut world, of(list.clone()));
    assert_eq!(bulk(&world, id).selected, 2, "one is there already");
    run(&mut world);
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    assert_eq!((homes(&world, "us-east"), homes(&world, "ap-south")), (1, 1));
    assert_eq!(refusal(&mut world, of(list)), Rejection::NothingToMove, "done twice");
    let twice = vec![to("t000", "us-east"), to("t000", "ap-south")];
    assert_eq!(
        refusal(&mut world, of(twice)),
        Rejection::NamedTwice("t000".parse().unwrap())
    );
    let unknown = refusal(&mut world, of(vec![to("nobody", "us-east")]));
    assert_eq!(unknown, Rejection::TenantUnknown("nobody".parse().unwrap()));
    let nowhere = refusal(&mut world, of(vec![to("t000", "mars")]));
    assert_eq!(nowhere, Rejection::RegionUnknown("mars".parse().unwrap()));
}

#[test]
fn label_selects_tenants_outside_its_region() {
    let mut world = cluster(2);
    let labelled = NewTenant {
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        ..new("gold", "eu-west")
    };
    world.apply(create(labelled)).unwrap();
    let select = |value: &str| {
        request(Selection::Label {
            key: "tier".into(),
            value: value.into(),
            to: "us-east".parse().unwrap(),
        })
    };
    assert_eq!(refusal(&mut world, select("silver")), Rejection::NothingToMove);
    let id = begin(&mut world, select("gold"));
    assert_eq!(run(&mut world), [1]);
    assert_eq!(
        (result(&world, id), homes(&world, "us-east")),
        (Some(OperationResult::Succeeded), 1)
    );
}

#[test]
fn spread_evens_groups_of_region() {
    let mut world = cluster(10);
    let list = (0..10).filter(|at| at % 2 == 1).map(|at| NamedMove {
        name: format!("t{at:03}").parse().unwrap(),
        to: "us-east".parse().unwrap(),
    });
    let away = BulkMoveRequest {
        named: list.collect(),
        ..request(Selection::Named)
    };
    begin(&mut world, away);
    run(&mut world);
    let load = |world: &World, group| world.directory.view().load(GroupId::new(group)).homes;
    assert_eq!((load(&world, 3), load(&world, 4)), (5, 0));
    let spread = || {
        request(Selection::Spread {
            region: "eu-west".parse().unwrap(),
        })
    };
    let id = begin(&mut world, spread());
    assert_eq!(bulk(&world, id).selected, 2);
    run(&mut world);
    assert_eq!((load(&world, 3), load(&world, 4)), (3, 2));
    assert_eq!(refusal(&mut world, spread()), Rejection::NothingToMove);
}

#[test]
fn unreachable_groups_are_left_out() {
    let mut world = cluster(4);
    let id = begin(&mut world, drain("eu-west"));
    // Nodes 1 and 4 are us-east's.
    let silent = vec![NodeId::new(1), NodeId::new(4)];
    world.apply(Command::AdvanceBulkMove(id, silent)).unwrap();
    let to: BTreeSet<u32> = moving(&world).iter().map(|(_, moving)| moving.to.get()).collect();
    assert_eq!(to, BTreeSet::from([5, 6]), "ap-south's");
}

#[test]
fn tenant_that_is_busy_is_moved_at_the_end() {
    let mut world = cluster(2);
    let single = MoveRequest {
        name: "t000".parse().unwrap(),
        etag: None,
        to: MoveTarget::OtherGroup,
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    world.apply(Command::MoveTenant(by(), single)).unwrap();
    let busy = moving(&world);
    let id = begin(&mut world, drain("eu-west"));
    world.apply(Command::AdvanceBulkMove(id, Vec::new())).unwrap();
    let wave = moving(&world);
    assert_eq!(wave.len(), 2);
    accept(&mut world, &busy);
    accept(&mut world, &wave[1..]);
    run(&mut world);
    assert_eq!(
        (result(&world, id), homes(&world, "eu-west")),
        (Some(OperationResult::Succeeded), 0)
    );
}

#[test]
fn bulk_move_needs_feature_level() {
    let mut world = World::begun();
    world.apply(create(new("a", "eu-west"))).unwrap();
    let needs = Rejection::FeatureLevel { needed: 2, level: 1 };
    assert_eq!(refusal(&mut world, drain("eu-west")), needs);
    assert!(matches!(
        world.apply(Command::PauseBulkMove(by(), 9)),
        Err(Rejection::OperationUnknown(9))
    ));
}

/// A drain of 10,000 tenants takes few entries of the directory beside the reports, and few waves.
#[test]
fn drain_of_ten_thousand_tenants_takes_few_entries() {
    let mut world = cluster(0);
    let directory = &mut world.directory;
    let mut index = world.index;
    let mut apply = |directory: &mut Directory, command| {
        index += 1;
        directory.reach(index);
        directory.apply(2_000, command).result.unwrap()
    };
    for at in 0..10_000 {
        let tenant = NewTenant {
            durability: Durability::Region,
            ..new(&format!("t{at}"), "eu-west")
        };
        apply(directory, create(tenant));
    }
    let begun = apply(directory, Command::BeginBulkMove(by(), drain("eu-west")));
    let DirectoryOutcome::Operation(id) = begun else {
        panic!("{begun:?}")
    };
    let (mut waves, mut entries) = (0, 0);
    while let Some(due) = directory.due_bulk_move(2_000) {
        apply(directory, Command::AdvanceBulkMove(due, Vec::new()));
        entries += 1;
        let tenants = directory.view().tenants_from(TenantNumber::new(0));
        let mut reports = std::collections::BTreeMap::<GroupId, Vec<GroupReport>>::new();
        for tenant in tenants {
            if let Some(moving) = tenant.moving.as_deref() {
                reports.entry(moving.to).or_default().push(GroupReport::Accepted {
                    tenant: tenant.number,
                    operation: moving.operation,
                    epoch: moving.epoch,
                });
            }
        }
        waves += u32::from(!reports.is_empty());
        for (group, reports) in reports {
            apply(directory, Command::Report(group, Incarnation::FIRST, reports));
        }
    }
    let bulk = directory.operations().bulk_move(id).unwrap();
    assert_eq!((bulk.moved, bulk.failed), (10_000, 0));
    assert!(waves <= 25 && entries <= 30, "{waves} waves, {entries} entries");
}

#[test]
fn encoding_of_bulk_moves_is_fixed() {
    let drain_to = request(Selection::Drain {
        region: "eu".parse().unwrap(),
        to: Some("us".parse().unwrap()),
    });
    let named = BulkMoveRequest {
        named: vec![NamedMove {
            name: "acme".parse().unwrap(),
            to: "us".parse().unwrap(),
        }],
        ..request(Selection::Named)
    };
    let label = request(Selection::Label {
        key: "k".into(),
        value: "v".into(),
        to: "us".parse().unwrap(),
    });
    let spread = request(Selection::Spread {
        region: "eu".parse().unwrap(),
    });
    let pace = " 03f403e0d403";
    let commands = [
        (
            Command::BeginBulkMove(by(), drain_to),
            format!("1403616e6e0474657374 00026575 01027573 00 00{pace}"),
        ),
        (
            Command::BeginBulkMove(by(), undrain("eu")),
            format!("1403616e6e0474657374 01026575 01 00 00{pace}"),
        ),
        (
            Command::BeginBulkMove(by(), label),
            format!("1403616e6e0474657374 02016b 0176 027573 00 00{pace}"),
        ),
        (
            Command::BeginBulkMove(by(), named),
            format!("1403616e6e0474657374 03 010461636d65 027573 00{pace}"),
        ),
        (
            Command::BeginBulkMove(by(), spread),
            format!("1403616e6e0474657374 04026575 00 00{pace}"),
        ),
        (Command::AdvanceBulkMove(7, vec![NodeId::new(3)]), "15070103".to_owned()),
        (Command::PauseBulkMove(by(), 7), "1603616e6e047465737407".to_owned()),
        (
            Command::ResumeBulkMove(by(), 7, Some(Pace::default())),
            format!("1703616e6e04746573740701{pace}"),
        ),
    ];
    for (command, bytes) in commands {
        assert_eq!(hex(&command.encode()), bytes.replace(' ', ""), "{command:?}");
        let bytes = command.encode();
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command));
    }
}

#[test]
fn encoding_of_drained_region_and_of_item_is_fixed() {
    let drained = Region {
        drains: Box::new([7]),
        ..Region::new("eu".parse().unwrap(), "EU".parse().unwrap())
    };
    let change = DirectoryChange::Region(drained);
    assert_eq!(hex(&change.encode()), "010265750245550107");
    assert_eq!(DirectoryChange::decode(change.encode()), Ok(change));
    let item = |state| BulkMoveItem::new("acme".parse().unwrap(), state);
    let moved = ItemMove {
        operation: OperationId(2),
        from: GroupId::new(3),
        to: GroupId::new(5),
        joined: true,
        time: 9,
    };
    let reason = "x".to_owned();
    let items = [
        (ItemState::Waiting("eu".parse().unwrap()), "0461636d6500026575"),
        (ItemState::Moving(moved), "0461636d65010203050109"),
        (ItemState::Moved(moved), "0461636d65020203050109"),
        (ItemState::Failed { reason }, "0461636d65030178"),
    ];
    for (state, bytes) in items {
        let item = item(state);
        assert_eq!(hex(&item.encode()), bytes);
        assert_eq!(BulkMoveItem::decode(item.encode()), Ok(item));
    }
    let given_up = BulkMoveItem {
        seed_failure: Some(failure()),
        ..item(ItemState::Moving(moved))
    };
    assert_eq!(hex(&given_up.encode()), "0461636d65010203050109000708090a");
    assert_eq!(BulkMoveItem::decode(given_up.encode()), Ok(given_up));
}

/// Line of a random script.
#[derive(Clone, Debug)]
enum Line {
    Begin(Selection),
    Advance(u64, bool),
    Accept(prop::sample::Index),
    Refuse(prop::sample::Index),
    Pause(u64),
    Resume(u64),
    Cancel(u64),
    Create(u8, &'static str),
    Disable(u8),
    Erase(u8),
    Wait,
}

fn lines() -> impl Strategy<Value = Line> {
    let region = || prop::sample::select(vec!["us-east", "eu-west", "ap-south"]);
    let selection = prop_oneof![
        3 => (region(), prop::option::of(region())).prop_map(|(region, to)| Selection::Drain {
            region: region.parse().unwrap(),
            to: to.map(|to| to.parse().unwrap()),
        }),
        2 => (region(), any::<bool>()).prop_map(|(region, returns)| Selection::Undrain {
            region: region.parse().unwrap(),
            returns,
        }),
        1 => region().prop_map(|region| Selection::Spread { region: region.parse().unwrap() }),
        1 => Just(Selection::Named),
    ];
    let id = || 1u64..6;
    prop_oneof![
        3 => selection.prop_map(Line::Begin),
        6 => (id(), any::<bool>()).prop_map(|(id, silent)| Line::Advance(id, silent)),
        8 => any::<prop::sample::Index>().prop_map(Line::Accept),
        2 => any::<prop::sample::Index>().prop_map(Line::Refuse),
        1 => id().prop_map(Line::Pause),
        1 => id().prop_map(Line::Resume),
        1 => id().prop_map(Line::Cancel),
        3 => (0u8..12, region()).prop_map(|(name, region)| Line::Create(name, region)),
        1 => (0u8..12).prop_map(Line::Disable),
        1 => (0u8..12).prop_map(Line::Erase),
        1 => Just(Line::Wait),
    ]
}

fn command(world: &World, line: Line) -> Option<Command> {
    let name = |name: u8| format!("t{name:03}").parse().unwrap();
    let moving = moving(world);
    let chosen = |index: prop::sample::Index| (!moving.is_empty()).then(|| *index.get(&moving));
    let report = |group, report| Command::Report(group, Incarnation::FIRST, vec![report]);
    Some(match line {
        Line::Begin(selection) => {
            let named = (0..12).map(|at| NamedMove {
                name: name(at),
                to: "us-east".parse().unwrap(),
            });
            let known = |named: &NamedMove| world.directory.view().tenant_named(&named.name).is_some();
            let named = named.filter(|named| selection == Selection::Named && known(named));
            let request = BulkMoveRequest {
                named: named.collect(),
                ..request(selection)
            };
            Command::BeginBulkMove(by(), request)
        }
        Line::Advance(id, silent) => {
            let silent = silent.then(|| NodeId::new(3));
            Command::AdvanceBulkMove(id, silent.into_iter().collect())
        }
        Line::Accept(index) => {
            let (tenant, moving) = chosen(index)?;
            let (operation, epoch) = (moving.operation, moving.epoch);
            report(
                moving.to,
                GroupReport::Accepted {
                    tenant,
                    operation,
                    epoch,
                },
            )
        }
        Line::Refuse(index) => {
            let (tenant, moving) = chosen(index)?;
            let home = world.directory.view().tenant(tenant)?.home;
            let operation = moving.operation;
            report(home, GroupReport::Refused { tenant, operation })
        }
        Line::Pause(id) => Command::PauseBulkMove(by(), id),
        Line::Resume(id) => Command::ResumeBulkMove(by(), id, None),
        Line::Cancel(id) => Command::AbortMove(by(), id),
        Line::Create(at, region) => create(new(&format!("t{at:03}"), region)),
        Line::Disable(at) => {
            let update = TenantUpdate {
                enabled: Some(false),
                ..update(&format!("t{at:03}"))
            };
            Command::UpdateTenant(by(), update)
        }
        Line::Erase(at) => Command::EraseTenant(by(), name(at), None),
        Line::Wait => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The world checks after each command that records and tenants agree. Whatever has happened, bulk moves end once
    /// they are resumed and their moves are accepted, and a region that is drained by one that has succeeded is empty.
    #[test]
    fn random_scripts_of_bulk_moves_end(script in prop::collection::vec(lines(), 0..60)) {
        let mut world = cluster(6);
        for line in script {
            if matches!(line, Line::Wait) {
                world.time = Some(now(&world) + 61_000);
            }
            if let Some(command) = command(&world, line) {
                drop(world.apply(command));
            }
        }
        world.time = Some(now(&world) + 61_000);
        let in_flight: Vec<u64> = world.directory.operations().bulk_in_flight().collect();
        for _ in 0..20 {
            for id in &in_flight {
                drop(world.apply(Command::ResumeBulkMove(by(), *id, None)));
            }
            run(&mut world);
        }
        prop_assert_eq!(world.directory.operations().bulk_in_flight().count(), 0);
        for region in world.directory.view().regions() {
            let last = region.drains.last().and_then(|id| result(&world, *id));
            // One that is drained again, because its undrain was cancelled, has those that had returned.
            let is_again = region.drains.last().is_some_and(|last| {
                let operations = world.directory.operations();
                let mut all = operations.newest_first(None).filter_map(|operation| operations.bulk_move(operation.id));
                all.any(|bulk| bulk.drains.contains(last))
            });
            if last == Some(OperationResult::Succeeded) && !is_again {
                prop_assert_eq!(homes(&world, region.name.as_str()), 0);
            }
        }
    }
}
