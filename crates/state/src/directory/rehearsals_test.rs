//! Rehearsals: tenants go away and come back, with what was measured and forecast.

use proptest::prelude::*;
use stead_types::{GroupId, Incarnation, NodeId, Revision, TenantNumber};

use super::{
    directory_test::{World, by, create, new},
    *,
};

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

fn forecast() -> RehearsalForecast {
    RehearsalForecast {
        time: 900,
        home: Some(GroupId::new(1)),
        kept: "1.5".parse().unwrap(),
        lag_ms: Some(40),
        loss: Some(LossWindow {
            from: Some(860),
            to: None,
        }),
        blocker: String::new(),
    }
}

fn request(names: &[&str]) -> RehearsalRequest {
    let tenant = |name: &&str| RehearsedTenant {
        name: name.parse().unwrap(),
        to: "us-east".parse().unwrap(),
        forecast: forecast(),
    };
    RehearsalRequest {
        region: "eu-west".parse().unwrap(),
        tenants: names.iter().map(tenant).collect(),
        pace: Pace::default(),
    }
}

fn begin(world: &mut World, names: &[&str]) -> Result<u64, Rejection> {
    let begun = world.apply(Command::BeginRehearsal(by(), request(names)));
    begun.map(|outcome| {
        let DirectoryOutcome::Operation(id) = outcome else {
            panic!("{outcome:?}")
        };
        id
    })
}

fn advance(world: &mut World) {
    let now = |world: &World| world.time.unwrap_or(1_000 + world.index);
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

fn report(world: &mut World, from: GroupId, report: GroupReport) {
    world
        .apply(Command::Report(from, Incarnation::FIRST, vec![report]))
        .unwrap();
}

/// Lets the moves in flight catch up and be accepted, a hundred milliseconds later each.
fn accept(world: &mut World) {
    for (tenant, moving) in moving(world) {
        let operation = moving.operation;
        report(world, moving.to, GroupReport::HeirReady { tenant, operation });
        let later = world.time.unwrap() + 100;
        world.time = Some(later);
        let epoch = moving.epoch;
        report(
            world,
            moving.to,
            GroupReport::Accepted {
                tenant,
                operation,
                epoch,
            },
        );
    }
}

/// Lets the moves in flight be refused by their homes.
fn refuse(world: &mut World) {
    for (tenant, moving) in moving(world) {
        let mut aborted = Tenant::clone(world.directory.view().tenant(tenant).unwrap());
        ownership::abort_move(&mut aborted, moving.operation).unwrap();
        let home = aborted.home;
        let failure = crate::seed_pace::SeedFailure {
            reason: crate::seed_pace::SeedFailureReason::CannotCatchUp,
            copy_rate: 7,
            write_rate: 8,
            history: 9,
            history_max: 10,
        };
        let operation = moving.operation;
        report(
            world,
            home,
            GroupReport::SeedFailed {
                tenant,
                operation,
                failure,
            },
        );
        report(world, home, GroupReport::Refused { tenant, operation });
    }
}

fn homes(world: &World) -> Vec<u32> {
    let tenants = world.directory.view().tenants_from(TenantNumber::new(0));
    tenants.map(|tenant| tenant.home.get()).collect()
}

fn bulk(world: &World, id: u64) -> &BulkMove {
    world.directory.operations().bulk_move(id).unwrap()
}

fn item(world: &World, id: u64, tenant: u64) -> RehearsalItem {
    let item = world
        .directory
        .operations()
        .item(id, TenantNumber::new(tenant))
        .unwrap();
    *item.rehearsal.clone().unwrap()
}

fn result(world: &World, id: u64) -> Option<OperationResult> {
    let end = world.directory.operations().get(id).unwrap().end.as_ref();
    end.map(|end| end.result.clone())
}

fn rehearsed(world: &World) -> Option<Rehearsed> {
    world
        .directory
        .view()
        .region(&"eu-west".parse().unwrap())
        .unwrap()
        .rehearsed
}

#[test]
fn rehearsal_moves_tenants_there_and_back_and_keeps_what_was_measured() {
    let mut world = cluster(4);
    world.time = Some(5_000);
    let before = homes(&world);
    let id = begin(&mut world, &["t000", "t002"]).unwrap();
    advance(&mut world);
    assert_eq!(moving(&world).len(), 2);
    accept(&mut world);
    assert_eq!(bulk(&world, id).rehearsal.unwrap().away, 2);
    assert_ne!(homes(&world), before);
    advance(&mut world);
    accept(&mut world);
    advance(&mut world);
    assert_eq!(homes(&world), before);
    assert_eq!(result(&world, id), Some(OperationResult::Succeeded));
    assert_eq!(
        (bulk(&world, id).moved, bulk(&world, id).rehearsal.unwrap().away),
        (2, 0)
    );
    let first = item(&world, id, 1);
    assert_eq!(first.forecast, forecast());
    assert_eq!((first.there.pause_ms(), first.back.pause_ms()), (Some(100), Some(100)));
    let end = world.directory.operations().get(id).unwrap().end.as_ref().unwrap().time;
    assert_eq!(
        rehearsed(&world),
        Some(Rehearsed {
            operation: id,
            time: end
        })
    );
}

#[test]
fn cancelled_rehearsal_brings_back_who_is_away() {
    let mut world = cluster(8);
    world.time = Some(5_000);
    let before = homes(&world);
    let id = begin(&mut world, &["t000", "t001", "t002", "t003", "t004", "t005"]).unwrap();
    advance(&mut world);
    accept(&mut world);
    world.apply(Command::AbortMove(by(), id)).unwrap();
    advance(&mut world);
    assert_eq!(
        moving(&world).len(),
        3,
        "the first wave comes back, and no other goes away"
    );
    accept(&mut world);
    advance(&mut world);
    assert_eq!(homes(&world), before);
    assert_eq!(result(&world, id), Some(OperationResult::Cancelled));
    assert_eq!(rehearsed(&world), None, "it was not carried out");
}

#[test]
fn tenant_that_does_not_come_back_is_tried_again_and_named() {
    let mut world = cluster(1);
    world.time = Some(5_000);
    let id = begin(&mut world, &["t000"]).unwrap();
    advance(&mut world);
    accept(&mut world);
    for _ in 0..2 {
        advance(&mut world);
        assert_eq!(moving(&world).len(), 1);
        refuse(&mut world);
        assert!(!item(&world, id, 1).failure.is_empty());
        if matches!(bulk(&world, id).state, BulkMoveState::Paused { .. }) {
            world.apply(Command::ResumeBulkMove(by(), id, None)).unwrap();
        }
    }
    advance(&mut world);
    let Some(OperationResult::Failed { reason }) = result(&world, id) else {
        panic!("{:?}", result(&world, id))
    };
    assert!(
        reason.contains("1 are away still") && reason.contains("t000"),
        "{reason}"
    );
    assert_eq!(rehearsed(&world), None);
}

#[test]
fn rehearsal_is_refused_with_the_field_that_is_wrong() {
    let mut world = cluster(1);
    world.apply(create(new("elsewhere", "us-east"))).unwrap();
    let unknown = Rejection::TenantUnknown("nobody".parse().unwrap());
    assert_eq!(begin(&mut world, &["nobody"]), Err(unknown));
    assert_eq!(begin(&mut world, &[]), Err(Rejection::NothingToMove));
    let twice = Rejection::NamedTwice("t000".parse().unwrap());
    assert_eq!(begin(&mut world, &["t000", "t000"]), Err(twice));
    let elsewhere = Rejection::NotHome {
        tenant: "elsewhere".parse().unwrap(),
        region: "eu-west".parse().unwrap(),
    };
    assert_eq!(begin(&mut world, &["elsewhere"]), Err(elsewhere.clone()));
    let bytes = encode_result(&Err(elsewhere.clone()));
    assert_eq!(decode_result(bytes).unwrap(), Err(elsewhere));
    let bulk = BulkMoveRequest {
        selection: Selection::Rehearse {
            region: "eu-west".parse().unwrap(),
        },
        named: Vec::new(),
        source: SourceAfterMove::Follow,
        pace: Pace::default(),
    };
    assert!(world.apply(Command::BeginBulkMove(by(), bulk)).is_err());
}

#[test]
fn rehearsal_needs_its_feature_level() {
    let mut world = World::begun();
    let all: Vec<NodeId> = (1..=5).map(NodeId::new).collect();
    world.apply(Command::RaiseFeatureLevel(by(), 3, all)).unwrap();
    world.apply(create(new("t000", "eu-west"))).unwrap();
    let low = Rejection::FeatureLevel { needed: 4, level: 3 };
    assert_eq!(begin(&mut world, &["t000"]), Err(low));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rehearsal_round_trips(time in any::<u64>(), home in prop::option::of(1_u32..9), lag_ms in prop::option::of(any::<u64>()), blocker in "[a-z ]{0,12}", times in prop::array::uniform6(any::<u64>())) {
        let forecast = RehearsalForecast {
            time,
            home: home.map(GroupId::new),
            kept: Revision::ZERO,
            lag_ms,
            loss: lag_ms.map(|lag| LossWindow { from: Some(lag), to: None }),
            blocker: blocker.clone(),
        };
        let mut request = request(&["t000"]);
        request.tenants[0].forecast = forecast.clone();
        let command = Command::BeginRehearsal(by(), request);
        let bytes = command.encode();
        prop_assert_eq!(Command::decode(bytes[0], bytes.slice(1..)).unwrap(), command);
        let leg = |at: usize| LegTimes { planned: times[at], ready: times[at + 1], recorded: times[at + 2] };
        let mut item = BulkMoveItem::new("t000".parse().unwrap(), ItemState::Failed { reason: blocker.clone() });
        item.rehearsal = Some(Box::new(RehearsalItem { forecast, away: None, there: leg(0), back: leg(3), failure: blocker }));
        prop_assert_eq!(BulkMoveItem::decode(item.encode()).unwrap(), item);
        let mut region = Region::new("eu-west".parse().unwrap(), "EU".parse().unwrap());
        region.rehearsed = Some(Rehearsed { operation: times[0], time });
        let change = DirectoryChange::Region(region);
        prop_assert_eq!(DirectoryChange::decode(change.encode()).unwrap(), change);
    }

    /// Whatever fails on the way, nobody is lost sight of: a tenant is at home, away, or failed.
    #[test]
    fn every_tenant_is_at_home_or_counted_as_away(script in prop::collection::vec(0_u8..4, 1..30)) {
        let mut world = cluster(5);
        world.time = Some(5_000);
        let before = homes(&world);
        let id = begin(&mut world, &["t000", "t001", "t002", "t003"]).unwrap();
        for act in script {
            match act {
                0 => advance(&mut world),
                1 => accept(&mut world),
                2 => refuse(&mut world),
                _ => drop(world.apply(Command::ResumeBulkMove(by(), id, None))),
            }
            let away = homes(&world).iter().zip(&before).filter(|(now, before)| now != before).count();
            prop_assert_eq!(bulk(&world, id).rehearsal.unwrap().away, away as u64);
        }
        if let Some(OperationResult::Succeeded) = result(&world, id) {
            prop_assert_eq!(homes(&world), before);
        }
    }
}
