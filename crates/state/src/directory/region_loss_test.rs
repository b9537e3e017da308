//! Policy for the loss of a home region, and the decisions that follow from it.

use proptest::prelude::*;
use stead_types::{Durability, GroupId, NodeId, TenantNumber};

use super::{
    directory_test::{World, by, create, new, update},
    *,
};
use crate::shard::{
    ownership::FreezeReport,
    record::{LeaseLossPolicy, OperationId, PreviousRole},
};

const NOW: u64 = 10_000_000;

fn cluster() -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    world
}

fn set(world: &mut World, name: &str, policy: RegionLoss) -> Result<(), Rejection> {
    let update = RegionLossUpdate {
        name: name.parse().unwrap(),
        policy,
    };
    world.apply(Command::SetRegionLoss(by(), update)).map(drop)
}

fn policy(after_ms: u64, loss_ms_max: Option<u64>) -> PromotionPolicy {
    PromotionPolicy { after_ms, loss_ms_max }
}

/// A cluster with acme in eu-west, to be promoted after 30 s with at most two minutes of loss.
fn with_acme() -> World {
    let mut world = cluster();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let policy = RegionLoss::Promote(policy(30_000, Some(120_000)));
    set(&mut world, "acme", policy).unwrap();
    world
}

fn silent_for(silent_ms: u64) -> RegionObservation {
    RegionObservation {
        silent_ms,
        others: 6,
        unreached_by: 6,
    }
}

/// Decides with followers whose copies were fresh so many milliseconds ago.
fn decide_with(world: &World, seen: RegionObservation, age: Option<u64>) -> RegionLossDecision {
    let (view, region) = (world.directory.view(), "eu-west".parse().unwrap());
    let mut facts = PromotionFacts {
        now: NOW,
        wait_ms: 60_660,
        ..PromotionFacts::default()
    };
    for tenant in view.tenants_from(TenantNumber::new(0)) {
        for member in &tenant.members {
            if view.region_of(member.group).unwrap().name == region {
                facts.silent.insert(member.group);
                continue;
            }
            let report = FreezeReport {
                operation: OperationId(0),
                epoch: tenant.epoch,
                previous: PreviousRole::Follower,
                followed: tenant.epoch,
                revision: "1.5".parse().unwrap(),
                lineage: tenant.lineage.clone(),
                retention_floor: stead_types::Revision::ZERO,
                time: stead_types::TenantTime(7),
                suspect: false,
                forked_up_to: stead_types::Sequence::ZERO,
            };
            let fresh_as_of = age.map(|age| NOW - age);
            let copy = CopyReport { report, fresh_as_of };
            facts.copies.insert((member.group, tenant.number), copy);
        }
    }
    let request = PromotionRequest {
        selection: PromotionSelection::Region(region.clone()),
        to: None,
        allow_loss: false,
        replace: true,
        durability: None,
        graceful_ms: 0,
        is_down: true,
        unreachable: Vec::new(),
    };
    let forecast = PromotionForecast::of(view, &request, &facts).unwrap_or_default();
    decide_region_loss(view, &region, seen, &facts, &forecast)
}

#[test]
fn tenant_is_promoted_after_its_time_and_within_its_loss() {
    let world = with_acme();
    let acme = ["acme".parse().unwrap()];
    assert_eq!(
        decide_with(&world, silent_for(29_999), Some(30_100)),
        RegionLossDecision::default()
    );
    assert_eq!(decide_with(&world, silent_for(30_000), Some(30_100)).promote, acme);
    // From 90 s ago to 30.66 s from now are more than two minutes.
    let late = decide_with(&world, silent_for(30_000), Some(90_000));
    assert!(
        late.promote.is_empty() && late.withheld[0].1.contains("max_loss is 120000 ms"),
        "{late:?}"
    );
    let unknown = decide_with(&world, silent_for(30_000), None);
    assert!(unknown.promote.is_empty(), "{unknown:?}");
    // However long the region is silent, its home has stopped one wait after its last lease.
    assert_eq!(
        decide_with(&world, silent_for(3_600_000), Some(3_600_100)).promote,
        acme
    );
}

#[test]
fn tenant_is_promoted_only_if_other_regions_agree() {
    let world = with_acme();
    for (unreached_by, is_promoted) in [(0, false), (3, false), (4, true), (6, true)] {
        let seen = RegionObservation {
            unreached_by,
            ..silent_for(60_000)
        };
        let decided = decide_with(&world, seen, Some(60_100));
        assert_eq!(!decided.promote.is_empty(), is_promoted, "{unreached_by} of 6");
        assert_eq!(decided.withheld.is_empty(), is_promoted);
    }
}

#[test]
fn observed_tenant_is_named_and_not_promoted() {
    let mut world = with_acme();
    let observe = RegionLoss::Observe(policy(30_000, Some(120_000)));
    set(&mut world, "acme", observe).unwrap();
    let decided = decide_with(&world, silent_for(60_000), Some(60_100));
    assert!(decided.promote.is_empty());
    assert_eq!(decided.observed, ["acme".parse().unwrap()]);
    set(&mut world, "acme", RegionLoss::Alert).unwrap();
    assert_eq!(
        decide_with(&world, silent_for(60_000), Some(60_100)),
        RegionLossDecision::default()
    );
}

#[test]
fn tenant_that_is_being_promoted_is_left_alone() {
    let mut world = with_acme();
    let request = PromotionRequest {
        selection: PromotionSelection::Tenants(vec!["acme".parse().unwrap()]),
        to: None,
        allow_loss: false,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: Vec::new(),
    };
    world.apply(Command::BeginPromotion(by(), request)).unwrap();
    assert_eq!(
        decide_with(&world, silent_for(60_000), Some(60_100)),
        RegionLossDecision::default()
    );
}

#[test]
fn policy_without_bound_needs_durability_remote() {
    let mut world = cluster();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let promote = RegionLoss::Promote(policy(30_000, None));
    let not_remote = RegionLossRejection::NotRemote("acme".parse().unwrap());
    assert_eq!(set(&mut world, "acme", promote), Err(not_remote.clone().into()));
    let mut remote = update("acme");
    remote.durability = Some(Durability::Remote);
    world.apply(Command::UpdateTenant(by(), remote)).unwrap();
    set(&mut world, "acme", promote).unwrap();
    // An unknown age loses nothing that was acknowledged elsewhere, too.
    assert_eq!(
        decide_with(&world, silent_for(30_000), None).promote,
        ["acme".parse().unwrap()]
    );
    let mut region = update("acme");
    region.durability = Some(Durability::Region);
    assert_eq!(world.apply(Command::UpdateTenant(by(), region)), Err(not_remote.into()));
}

#[test]
fn policy_and_going_on_without_lease_exclude_each_other() {
    let mut world = with_acme();
    let goes_on = RegionLossRejection::GoesOn("acme".parse().unwrap());
    let mut on = update("acme");
    on.on_lease_loss = Some(LeaseLossPolicy::Continue);
    assert_eq!(
        world.apply(Command::UpdateTenant(by(), on.clone())),
        Err(goes_on.clone().into())
    );
    set(&mut world, "acme", RegionLoss::Alert).unwrap();
    world.apply(Command::UpdateTenant(by(), on)).unwrap();
    let promote = RegionLoss::Promote(policy(30_000, Some(120_000)));
    assert_eq!(set(&mut world, "acme", promote), Err(goes_on.into()));
}

#[test]
fn policy_out_of_bounds_is_refused_with_the_bound() {
    let mut world = cluster();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let mut refused = |after_ms, loss_ms_max| {
        let promote = RegionLoss::Promote(policy(after_ms, loss_ms_max));
        set(&mut world, "acme", promote).unwrap_err()
    };
    assert_eq!(refused(9_999, Some(120_000)), RegionLossRejection::After(9_999).into());
    let short = refused(30_000, Some(60_000));
    assert!(
        matches!(short, Rejection::RegionLoss(RegionLossRejection::MaxLoss { loss: 60_000, least }) if least > 60_000),
        "less than the wait for a lease: {short:?}"
    );
    let mut low = World::begun();
    low.apply(create(new("acme", "eu-west"))).unwrap();
    let level = Rejection::FeatureLevel { needed: 4, level: 1 };
    assert_eq!(set(&mut low, "acme", RegionLoss::Alert), Err(level));
}

fn any_policy() -> impl Strategy<Value = RegionLoss> {
    let some = (any::<u64>(), prop::option::of(any::<u64>())).prop_map(|(after, loss)| policy(after, loss));
    prop_oneof![
        Just(RegionLoss::Alert),
        some.clone().prop_map(RegionLoss::Observe),
        some.prop_map(RegionLoss::Promote),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn tenant_round_trips_with_its_policy(policy in any_policy(), state in 0..3) {
        let mut tenant = Tenant::new(TenantNumber::new(7), "acme".parse().unwrap(), GroupId::new(3));
        tenant.set_on_region_loss(policy);
        tenant.state = [TenantState::Active, TenantState::Disabled, TenantState::Deleting][state as usize];
        let change = DirectoryChange::Tenant(Box::new(tenant));
        prop_assert_eq!(DirectoryChange::decode(change.encode()).unwrap(), change);
    }

    /// Invariants 1 to 3, whatever is seen.
    #[test]
    fn nothing_is_promoted_that_renews_or_may_lose_more(silent_ms in 0_u64..400_000, others in 0_u64..9, unreached_by in 0_u64..9, age in prop::option::of(0_u64..400_000), after_ms in 10_000_u64..200_000, loss in 70_000_u64..300_000) {
        let mut world = cluster();
        world.apply(create(new("acme", "eu-west"))).unwrap();
        set(&mut world, "acme", RegionLoss::Promote(policy(after_ms, Some(loss)))).unwrap();
        let seen = RegionObservation { silent_ms, others, unreached_by: unreached_by.min(others) };
        let decided = decide_with(&world, seen, age);
        let ends = (NOW - silent_ms) + 60_000;
        if !decided.promote.is_empty() {
            prop_assert!(silent_ms >= after_ms, "a lease was renewed within its time");
            prop_assert!(2 * seen.unreached_by > others);
            let from = NOW - age.unwrap();
            prop_assert!(ends.saturating_sub(from) <= loss);
        }
    }
}
