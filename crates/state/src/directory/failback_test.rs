//! Failback: which tenants return after promotions, and in which way.

use proptest::prelude::*;
use stead_types::{GroupId, Incarnation, NodeId, Revision, Sequence, TenantNumber, TenantTime};

use super::{
    directory_test::{World, by, create, new},
    *,
};
use crate::shard::{
    ownership::FreezeReport,
    record::{OperationId, PreviousRole},
};

/// A cluster at the newest feature level with so many tenants in eu-west, groups 3 and 4, followed everywhere.
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

fn promote(world: &mut World, selection: PromotionSelection) -> u64 {
    let request = PromotionRequest {
        selection,
        to: None,
        allow_loss: true,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: Vec::new(),
    };
    let Ok(DirectoryOutcome::Operation(id)) = world.apply(Command::BeginPromotion(by(), request)) else {
        panic!("refused")
    };
    let fence = world.directory.operations().promotion(id).unwrap().fence;
    let action = PromotionAdvance::WaitOver { fence };
    world
        .apply(Command::AdvancePromotion { operation: id, action })
        .unwrap();
    let promoting = |world: &World| {
        let tenants = world.directory.view().tenants_from(TenantNumber::new(0));
        let of_it = tenants.filter(|tenant| tenant.promoting.as_deref().is_some_and(|promoting| promoting.of == id));
        of_it.map(|tenant| Tenant::clone(tenant)).collect::<Vec<_>>()
    };
    // Every member but the home reports; those of the home's region count as silent.
    for tenant in promoting(world) {
        for member in tenant.members.iter().filter(|member| member.group != tenant.home) {
            let promoting = tenant.promoting.as_deref().unwrap();
            let report = FreezeReport {
                operation: promoting.operation,
                epoch: promoting.epoch,
                previous: PreviousRole::Follower,
                followed: tenant.epoch,
                revision: Revision::new(tenant.epoch, Sequence::new(5).unwrap()),
                lineage: tenant.lineage.clone(),
                retention_floor: Revision::ZERO,
                time: TenantTime(7),
                suspect: false,
                forked_up_to: Sequence::ZERO,
            };
            let frozen = GroupReport::Frozen {
                tenant: tenant.number,
                report,
                fresh_as_of: Some(500),
                reported: None,
            };
            world
                .apply(Command::Report(member.group, Incarnation::FIRST, vec![frozen]))
                .unwrap();
        }
    }
    let homes = promoting(world).iter().map(|tenant| tenant.home).collect();
    let action = PromotionAdvance::Silent(homes);
    world
        .apply(Command::AdvancePromotion { operation: id, action })
        .unwrap();
    for tenant in promoting(world) {
        let activated = GroupReport::Activated {
            tenant: tenant.number,
            operation: OperationId(tenant.op),
            epoch: tenant.epoch,
        };
        world
            .apply(Command::Report(tenant.home, Incarnation::FIRST, vec![activated]))
            .unwrap();
    }
    assert!(world.directory.operations().get(id).unwrap().end.is_some());
    id
}

fn request() -> BulkMoveRequest {
    BulkMoveRequest {
        selection: Selection::Failback {
            region: "eu-west".parse().unwrap(),
        },
        named: Vec::new(),
        source: SourceAfterMove::Follow,
        pace: Pace::default(),
    }
}

fn begin(world: &mut World) -> Result<u64, Rejection> {
    world.apply(Command::BeginBulkMove(by(), request())).map(|outcome| {
        let DirectoryOutcome::Operation(id) = outcome else {
            panic!("{outcome:?}")
        };
        id
    })
}

/// Lets waves end until nothing moves, and returns the sizes of the waves.
fn run(world: &mut World) -> Vec<usize> {
    let mut waves = Vec::new();
    loop {
        let now = world.time.unwrap_or(1_000 + world.index);
        while let Some(id) = world.directory.due_bulk_move(now) {
            world.apply(Command::AdvanceBulkMove(id, Vec::new())).unwrap();
        }
        let view = world.directory.view();
        let moving = view.tenants_from(TenantNumber::new(0));
        let moving: Vec<(TenantNumber, TenantMove)> = moving
            .filter_map(|tenant| Some((tenant.number, *tenant.moving.as_deref()?)))
            .collect();
        if moving.is_empty() {
            return waves;
        }
        waves.push(moving.len());
        for (tenant, moving) in moving {
            let accepted = GroupReport::Accepted {
                tenant,
                operation: moving.operation,
                epoch: moving.epoch,
            };
            world
                .apply(Command::Report(moving.to, Incarnation::FIRST, vec![accepted]))
                .unwrap();
        }
    }
}

fn homes(world: &World) -> Vec<GroupId> {
    let tenants = world.directory.view().tenants_from(TenantNumber::new(0));
    tenants.map(|tenant| tenant.home).collect()
}

#[test]
fn failback_returns_each_tenant_to_its_group_in_waves() {
    let mut world = cluster(9);
    let before = homes(&world);
    promote(&mut world, PromotionSelection::Region("eu-west".parse().unwrap()));
    assert!(homes(&world).iter().zip(&before).all(|(now, before)| now != before));
    let id = begin(&mut world).unwrap();
    assert_eq!(world.directory.operations().bulk_move(id).unwrap().selected, 9);
    assert_eq!(run(&mut world), [3, 6], "canaries first");
    assert_eq!(homes(&world), before);
    let end = world.directory.operations().get(id).unwrap().end.clone().unwrap();
    assert_eq!(end.result, OperationResult::Succeeded);
    assert_eq!(begin(&mut world), Err(Rejection::NothingToMove), "all are home");
}

#[test]
fn failback_leaves_tenants_that_were_moved_on() {
    let mut world = cluster(2);
    let before = homes(&world);
    promote(&mut world, PromotionSelection::Region("eu-west".parse().unwrap()));
    // An operator moves one to another region, and back to where the promotion had put it: it is to be there now.
    let there = homes(&world)[0];
    for to in [GroupId::new(5), there] {
        let request = MoveRequest {
            name: "t000".parse().unwrap(),
            etag: None,
            to: MoveTarget::Group(to),
            source: SourceAfterMove::Follow,
            unreachable: Vec::new(),
        };
        world.apply(Command::MoveTenant(by(), request)).unwrap();
        run(&mut world);
    }
    assert_eq!(homes(&world)[0], there);
    begin(&mut world).unwrap();
    assert_eq!(run(&mut world), [1]);
    assert_eq!(homes(&world), [there, before[1]]);
}

#[test]
fn failback_needs_its_feature_level_and_an_open_region() {
    let mut world = World::begun();
    let all: Vec<NodeId> = (1..=5).map(NodeId::new).collect();
    world.apply(Command::RaiseFeatureLevel(by(), 3, all.clone())).unwrap();
    let low = Rejection::FeatureLevel { needed: 4, level: 3 };
    assert_eq!(begin(&mut world), Err(low));
    world.apply(Command::RaiseFeatureLevel(by(), 4, all)).unwrap();
    assert_eq!(begin(&mut world), Err(Rejection::NothingToMove));
    let drain = BulkMoveRequest {
        selection: Selection::Drain {
            region: "eu-west".parse().unwrap(),
            to: None,
        },
        ..request()
    };
    world.apply(Command::BeginBulkMove(by(), drain)).unwrap();
    let draining = Rejection::RegionDraining("eu-west".parse().unwrap());
    assert_eq!(begin(&mut world), Err(draining));
}

#[test]
fn promotions_are_kept_for_failback_however_old() {
    let mut world = cluster(1);
    let id = promote(&mut world, PromotionSelection::Region("eu-west".parse().unwrap()));
    world.time = Some(OPERATION_KEPT_MS * 10);
    world.apply(create(new("late", "us-east"))).unwrap();
    assert!(world.directory.operations().get(id).is_some());
    assert!(begin(&mut world).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The index of open records is what the records say, whatever was put and removed.
    #[test]
    fn open_records_are_those_that_are_not_over(puts in prop::collection::vec((0_u64..3, 0_u64..6, any::<bool>()), 0..60), removed in 0_u64..3) {
        let mut items = PromotionItems::default();
        for (id, tenant, is_over) in puts {
            let state = if is_over { PromotionState::Promoted } else { PromotionState::Fenced };
            items.put(id, TenantNumber::new(tenant), item(state));
        }
        items.remove(removed);
        for id in 0..3 {
            let open: Vec<TenantNumber> = items.open(id).map(|(tenant, _)| tenant).collect();
            let all = items.from(id, TenantNumber::new(0));
            let expected: Vec<TenantNumber> = all.filter(|(_, item)| !item.state.is_over()).map(|(tenant, _)| tenant).collect();
            prop_assert_eq!(open, expected);
        }
    }
}

fn item(state: PromotionState) -> PromotionItem {
    PromotionItem {
        name: "acme".parse().unwrap(),
        home: GroupId::new(3),
        operation: OperationId(1),
        epoch: stead_types::Epoch::NONE,
        continues: false,
        state,
        reports: std::collections::BTreeMap::new(),
        decision: None,
        times: PromotionTimes::default(),
        stopped_by: None,
    }
}
