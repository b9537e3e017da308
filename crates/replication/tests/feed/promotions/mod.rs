//! Promotions: the home is lost, cut off or alive, and every step of it meets every fault.
//!
//! Writers are in every region, so that a home that is cut off goes on until its lease ends. Afterwards one group has
//! served at a time, nothing that the new home took over is lost, and what was cut was acknowledged inside the window
//! that the promotion reports.

mod directory;
mod remote;
mod replays;
mod world;

use std::time::Duration;

use futures::future::{Either, select};
use stead_state::directory::{OperationResult, PromotionPhase, PromotionRequest, PromotionSelection, PromotionState};
use tokio::time::{Instant, sleep};

use world::{FAR, HOME, NAME, NEAR, REGIONS, World, request};

/// Runs a scenario under load.
async fn under_load<T>(world: &World, scenario: impl Future<Output = T>) -> T {
    let (scenario, load) = (std::pin::pin!(scenario), std::pin::pin!(world.load()));
    match select(scenario, load).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => unreachable!("the load never ends"),
    }
}

/// Time after the cut at which somebody promotes.
const REACTION: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn cut_off_home_is_promoted_after_its_lease_and_follows_when_it_returns() {
    let world = World::start().await;
    let operation = under_load(&world, async {
        world.set_region_cut(HOME, true);
        let cut = Instant::now();
        sleep(REACTION).await;
        let operation = world.directory.begin_promotion(request(true));
        assert_eq!(world.wait_until_over(operation).await, OperationResult::Succeeded);
        assert!(
            cut.elapsed() > Duration::from_secs(45),
            "nobody has waited for the lease: {:?}",
            cut.elapsed()
        );
        let new = world.write_somewhere().await;
        assert_eq!(new.epoch(), world.directory.tenant().epoch);
        world.set_region_cut(HOME, false);
        operation
    })
    .await;
    world.wait_until_settled().await;
    let cut = world.check_acknowledged();
    assert!(!cut.is_empty(), "the home went on until its lease ended");
    world.check_window(operation, &cut);
    let forks = world.record(HOME).unwrap().forks;
    assert!(!forks.is_empty(), "what was cut is in a fork");
}

#[tokio::test(start_paused = true)]
async fn home_that_answers_is_replaced_without_loss_or_wait() {
    let world = World::start().await;
    let operation = under_load(&world, async {
        let begun = Instant::now();
        let to = Some(REGIONS[1].parse().unwrap());
        let operation = world
            .directory
            .begin_promotion(PromotionRequest { to, ..request(false) });
        assert_eq!(world.wait_until_over(operation).await, OperationResult::Succeeded);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        operation
    })
    .await;
    world.wait_until_settled().await;
    let tenant = world.directory.tenant();
    assert_eq!(tenant.home, NEAR);
    assert_eq!(world.check_acknowledged().len(), 0);
    assert_eq!(world.directory.item(operation).state, PromotionState::Promoted);
}

/// The chosen group lacks what another one has, and takes it over first.
#[tokio::test(start_paused = true)]
async fn group_that_is_behind_pulls_before_it_is_the_home() {
    let world = World::start().await;
    world.set_link_cut(HOME, NEAR, true);
    for _ in 0..50 {
        world.write_somewhere().await;
    }
    world.wait_until_replicated(&[FAR]).await;
    let last = world.last_acknowledged();
    world.set_region_cut(HOME, true);
    let to = Some(REGIONS[1].parse().unwrap());
    let operation = world
        .directory
        .begin_promotion(PromotionRequest { to, ..request(true) });
    assert_eq!(world.wait_until_over(operation).await, OperationResult::Succeeded);
    let item = world.directory.item(operation);
    let decision = item.decision.unwrap();
    assert_eq!((decision.home, decision.kept), (NEAR, last));
    world.set_link_cut(HOME, NEAR, false);
    world.set_region_cut(HOME, false);
    world.wait_until_settled().await;
    assert_eq!(world.check_acknowledged().len(), 0);
}

/// Without the operator's word nothing is decided while a group of another region is silent, on which acknowledged writes
/// may rest; it goes on when that answers.
#[tokio::test(start_paused = true)]
async fn promotion_without_allowed_loss_waits_for_silent_follower() {
    let world = World::start().await;
    let operation = under_load(&world, async {
        world.set_region_cut(HOME, true);
        world.set_region_cut(FAR, true);
        let operation = world.directory.begin_promotion(request(false));
        let blocked = |world: &World| {
            let state = world.directory.item(operation).state;
            matches!(state, PromotionState::Blocked { .. }).then_some(())
        };
        world.eventually("a reason to wait", blocked).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(world.directory.result(operation), None);
        world.set_region_cut(FAR, false);
        assert_eq!(world.wait_until_over(operation).await, OperationResult::Succeeded);
        world.set_region_cut(HOME, false);
        operation
    })
    .await;
    world.wait_until_settled().await;
    let cut = world.check_acknowledged();
    world.check_window(operation, &cut);
}

/// Step of a promotion at which a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Fenced,
    Freezing,
    Pulling,
    Activating,
}

impl Step {
    fn is_reached(self, world: &World) -> bool {
        let is = |of: fn(&PromotionPhase) -> bool| world.phase().is_some_and(|phase| of(&phase));
        match self {
            Self::Fenced => is(|phase| matches!(phase, PromotionPhase::Fenced)),
            Self::Freezing => is(|phase| matches!(phase, PromotionPhase::Freezing)),
            Self::Pulling => is(|phase| matches!(phase, PromotionPhase::Pulling { .. })),
            Self::Activating => is(|phase| matches!(phase, PromotionPhase::Activating { .. })),
        }
    }
}

const STEPS: [Step; 4] = [Step::Fenced, Step::Freezing, Step::Pulling, Step::Activating];

/// Promotes to a group that is behind, and makes a fault happen in a step; all of it ends all the same.
async fn check_cell<F: Future<Output = ()>>(step: Step, fault: impl FnOnce(&'static World) -> F) {
    println!("{step:?}");
    // The fault borrows it for as long as it likes.
    let world: &'static World = Box::leak(Box::new(World::start().await));
    world.set_link_cut(HOME, NEAR, true);
    for _ in 0..50 {
        world.write_somewhere().await;
    }
    world.wait_until_replicated(&[FAR]).await;
    under_load(world, async {
        world.set_region_cut(HOME, true);
        let to = Some(REGIONS[1].parse().unwrap());
        let operation = world
            .directory
            .begin_promotion(PromotionRequest { to, ..request(true) });
        world
            .eventually(&format!("{step:?}"), |world| step.is_reached(world).then_some(()))
            .await;
        fault(world).await;
        let over = |world: &World| {
            let tenant = world.directory.tenant();
            let is_over = world.directory.result(operation).is_some() && tenant.promoting.is_none();
            is_over.then_some(())
        };
        world.eventually("the end of all promotions", over).await;
        world.set_link_cut(HOME, NEAR, false);
        world.set_region_cut(HOME, false);
    })
    .await;
    world.wait_until_settled().await;
    let cut = world.check_acknowledged();
    let kept = world.directory.tenant().lineage.runs()[0].end;
    assert!(
        cut.iter().all(|write| write.revision.sequence() > kept),
        "a write that was taken over is lost: {cut:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn promotion_without_fault_ends() {
    check_cell(Step::Activating, async |_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn promotion_survives_leader_of_chosen_group_in_each_step() {
    for step in STEPS {
        check_cell(step, async |world| world.kill_leader(NEAR)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn promotion_survives_leader_of_group_that_is_pulled_from_in_each_step() {
    for step in STEPS {
        check_cell(step, async |world| world.kill_leader(FAR)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn promotion_survives_directory_leader_in_each_step() {
    for step in STEPS {
        check_cell(step, async |world| world.directory.change_leader().await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn promotion_survives_lost_answer_to_report_in_each_step() {
    for step in STEPS {
        check_cell(step, async |world| {
            world.directory.lose_with_next_answer();
            sleep(Duration::from_secs(5)).await;
            world.directory.change_leader().await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn promotion_is_replaced_by_another_one_in_each_step() {
    for step in STEPS {
        check_cell(step, async |world| {
            let again = PromotionRequest {
                replace: true,
                to: Some(REGIONS[2].parse().unwrap()),
                // It may have another home by now.
                selection: PromotionSelection::Tenants(vec![NAME.parse().unwrap()]),
                ..request(true)
            };
            let operation = world.directory.begin_promotion(again);
            world.wait_until_over(operation).await;
            assert_eq!(world.directory.tenant().home, FAR);
        })
        .await;
    }
}

/// The old home returns while the promotion goes on, and is asked as well.
#[tokio::test(start_paused = true)]
async fn home_may_return_in_each_step() {
    for step in STEPS {
        check_cell(step, async |world| {
            world.set_link_cut(HOME, NEAR, false);
            world.set_region_cut(HOME, false);
        })
        .await;
    }
}
