//! Forecasts of promotions: what they say, and that a promotion is not worse than its forecast.

use proptest::prelude::*;
use stead_types::{Epoch, GroupId, Incarnation, NodeId, Revision, Sequence, TenantNumber, TenantTime};

use super::{
    directory_test::{World, by, create, new},
    *,
};
use crate::{
    lineage::Lineage,
    shard::{
        ownership::FreezeReport,
        record::{OperationId, PreviousRole},
    },
};

const ACME: TenantNumber = TenantNumber::new(1);
const HOME: GroupId = GroupId::new(3);
const EAST: GroupId = GroupId::new(1);
const SOUTH: GroupId = GroupId::new(5);
const NOW: u64 = 10_000;
const WAIT: u64 = 15_201;

/// The tenant acme has its home in eu-west, group 3, and is followed by groups 1 and 5.
fn cluster() -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    world
}

fn request() -> PromotionRequest {
    PromotionRequest {
        selection: PromotionSelection::Region("eu-west".parse().unwrap()),
        to: None,
        allow_loss: false,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: Vec::new(),
    }
}

fn copy(group: GroupId, sequence: u64, fresh_as_of: Option<u64>) -> ((GroupId, TenantNumber), CopyReport) {
    let previous = if group == HOME {
        PreviousRole::Owner
    } else {
        PreviousRole::Follower
    };
    let report = FreezeReport {
        operation: OperationId(0),
        epoch: Epoch::FIRST,
        previous,
        followed: Epoch::FIRST,
        revision: Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap()),
        lineage: Lineage::starting(Epoch::FIRST),
        retention_floor: Revision::ZERO,
        time: TenantTime(1),
        suspect: false,
        forked_up_to: Sequence::ZERO,
    };
    ((group, ACME), CopyReport { report, fresh_as_of })
}

/// Facts where the home is silent, and both followers answer.
fn home_silent() -> PromotionFacts {
    PromotionFacts {
        copies: [copy(EAST, 90, Some(9_000)), copy(SOUTH, 100, Some(8_000))].into(),
        silent: [HOME].into(),
        now: NOW,
        wait_ms: WAIT,
    }
}

fn forecast(world: &World, request: &PromotionRequest, facts: &PromotionFacts) -> PromotionItem {
    let forecast = PromotionForecast::of(world.directory.view(), request, facts).unwrap();
    let [(ACME, item)] = &forecast.items[..] else {
        panic!("{forecast:?}")
    };
    item.clone()
}

#[test]
fn silent_home_loses_from_latest_proof_to_end_of_wait() {
    let item = forecast(&cluster(), &request(), &home_silent());
    assert_eq!(item.state, PromotionState::Activating);
    let decision = item.decision.unwrap();
    assert_eq!((decision.home, decision.kept.to_string().as_str()), (SOUTH, "1.100"));
    let loss = decision.loss.unwrap();
    // What the shorter copy was proved to have is in the longer one.
    assert_eq!((loss.from, loss.to), (Some(9_000), Some(NOW + WAIT)));
}

#[test]
fn silent_follower_blocks_unless_loss_is_allowed() {
    let facts = PromotionFacts {
        copies: [copy(EAST, 90, Some(9_000))].into(),
        silent: [HOME, SOUTH].into(),
        ..home_silent()
    };
    let world = cluster();
    let item = forecast(&world, &request(), &facts);
    assert!(matches!(item.state, PromotionState::Blocked { .. }), "{item:?}");
    let with_loss = PromotionRequest {
        allow_loss: true,
        ..request()
    };
    let item = forecast(&world, &with_loss, &facts);
    assert_eq!(item.decision.unwrap().home, EAST);
}

#[test]
fn home_that_answers_hands_over_what_it_has_more() {
    let mut facts = home_silent();
    facts.silent.clear();
    facts.copies.extend([copy(HOME, 120, Some(NOW))]);
    let item = forecast(&cluster(), &request(), &facts);
    let decision = item.decision.unwrap();
    assert_ne!(decision.home, HOME);
    assert_eq!((decision.kept.to_string().as_str(), decision.loss), ("1.120", None));
}

#[test]
fn forecast_changes_nothing_and_says_what_is_refused() {
    let world = cluster();
    let before = world.directory.clone();
    let nothing = PromotionRequest {
        selection: PromotionSelection::Region("us-east".parse().unwrap()),
        ..request()
    };
    let refused = PromotionForecast::of(world.directory.view(), &nothing, &home_silent());
    assert_eq!(refused, Err(PromotionRejection::Nothing.into()));
    forecast(&world, &request(), &home_silent());
    assert_eq!(world.directory, before);
}

/// Promotes, with these reports after the wait, and returns the record of the tenant.
fn promote(world: &mut World, facts: &PromotionFacts) -> PromotionItem {
    world.time = Some(facts.now);
    let Ok(DirectoryOutcome::Operation(id)) = world.apply(Command::BeginPromotion(by(), request())) else {
        panic!("it is refused")
    };
    world.time = Some(facts.now + facts.wait_ms);
    let fence = world.directory.operations().promotion(id).unwrap().fence;
    let over = PromotionAdvance::WaitOver { fence };
    let advance = |action| Command::AdvancePromotion { operation: id, action };
    world.apply(advance(over)).unwrap();
    let promoting = world.tenant("acme").promoting.clone().unwrap();
    for ((group, tenant), copy) in &facts.copies {
        let report = FreezeReport {
            operation: promoting.operation,
            epoch: promoting.epoch,
            ..copy.report.clone()
        };
        let frozen = GroupReport::Frozen {
            tenant: *tenant,
            report,
            fresh_as_of: copy.fresh_as_of,
            reported: None,
        };
        let _ = world.apply(Command::Report(*group, Incarnation::FIRST, vec![frozen]));
    }
    let silent = facts.silent.iter().copied().collect();
    world.apply(advance(PromotionAdvance::Silent(silent))).unwrap();
    world.directory.operations().promotions().get(id, ACME).unwrap().clone()
}

proptest! {
    /// Copies grow until they are frozen, and are proved anew or not.
    #[test]
    fn promotion_is_not_worse_than_its_forecast(
        held in [0_u64..100, 0..100],
        grown in [0_u64..50, 0..50],
        fresh in [0_u64..5_000, 0..5_000],
        proved in [0_u64..5_000, 0..5_000],
    ) {
        let facts = |at: [u64; 2], fresh: [u64; 2]| PromotionFacts {
            copies: [copy(EAST, at[0], Some(fresh[0])), copy(SOUTH, at[1], Some(fresh[1]))].into(),
            ..home_silent()
        };
        let forecast = forecast(&cluster(), &request(), &facts(held, fresh)).decision.unwrap();
        let later = facts(
            [held[0] + grown[0], held[1] + grown[1]],
            [fresh[0] + proved[0], fresh[1] + proved[1]],
        );
        let promoted = promote(&mut cluster(), &later).decision.unwrap();
        prop_assert!(promoted.kept >= forecast.kept, "{:?} {:?}", promoted, forecast);
        let (promoted, forecast) = (promoted.loss.unwrap(), forecast.loss.unwrap());
        prop_assert!(promoted.from >= forecast.from, "{:?} {:?}", promoted, forecast);
        prop_assert!(promoted.to <= forecast.to, "{:?} {:?}", promoted, forecast);
    }
}
