//! Durability `REMOTE`: what was acknowledged once another region had it survives the loss of the home's region.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use stead_replication::RemoteWait;
use stead_state::directory::OperationResult;
use tokio::time::{Instant, sleep};

use super::world::{FAR, HOME, NEAR, REGIONS, World, request};

/// Longest wait for another region.
const WITHIN: Duration = Duration::from_secs(3);
/// Round trip to the nearest follower.
const ROUND_TRIP: Duration = Duration::from_millis(40);
const SEEDS: u64 = 6;

/// Runs a scenario under a load of which a part waits for another region.
async fn under_load<T>(world: &World, scenario: impl Future<Output = T>) -> T {
    tokio::select! {
        result = scenario => result,
        () = world.remote_load() => unreachable!("the load never ends"),
    }
}

#[tokio::test(start_paused = true)]
async fn remote_write_costs_round_trip_to_nearest_follower() {
    let world = World::start().await;
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(world.try_write_remote(HOME, WITHIN).await, Some(RemoteWait::Confirmed));
        let took = begun.elapsed();
        assert!(took >= ROUND_TRIP, "nobody elsewhere can have it: {took:?}");
        assert!(took < ROUND_TRIP + Duration::from_millis(25), "{took:?}");
        // What is confirmed is read without another round trip.
        let begun = Instant::now();
        assert_eq!(world.try_read_remote(HOME, WITHIN).await, Some(RemoteWait::Confirmed));
        assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn remote_write_is_unconfirmed_while_no_follower_answers() {
    let world = World::start().await;
    assert_eq!(world.try_write_remote(HOME, WITHIN).await, Some(RemoteWait::Confirmed));
    world.set_link_cut(HOME, NEAR, true);
    assert_eq!(
        world.try_write_remote(HOME, WITHIN).await,
        Some(RemoteWait::Confirmed),
        "the other follower has it"
    );
    world.set_link_cut(HOME, FAR, true);
    let begun = Instant::now();
    // What was confirmed before the links were cut is still shown.
    assert_eq!(world.try_read_remote(HOME, WITHIN).await, Some(RemoteWait::Confirmed));
    assert_eq!(world.try_write_remote(HOME, WITHIN).await, Some(RemoteWait::TimedOut));
    assert!(begun.elapsed() >= WITHIN);
    assert_eq!(world.try_read_remote(HOME, WITHIN).await, Some(RemoteWait::TimedOut));
    assert!(world.try_write(HOME).await.is_some(), "the region goes on for itself");
    world.set_link_cut(HOME, FAR, false);
    let wait = world.try_write_remote(HOME, Duration::from_secs(60)).await;
    assert_eq!(wait, Some(RemoteWait::Confirmed), "a wait ends when the link is back");
}

/// A new leader of the home counts nothing before a follower has opened its stream, and goes on then.
#[tokio::test(start_paused = true)]
async fn remote_writes_go_on_at_new_leader_of_home() {
    let world = World::start().await;
    assert_eq!(world.try_write_remote(HOME, WITHIN).await, Some(RemoteWait::Confirmed));
    world.set_link_cut(HOME, NEAR, true);
    world.set_link_cut(HOME, FAR, true);
    world.kill_leader(HOME);
    let served = world.eventually("a leader", |world| world.record(HOME)).await;
    assert!(served.owned().is_some());
    let unconfirmed = loop {
        match world.try_write_remote(HOME, WITHIN).await {
            Some(wait @ (RemoteWait::TimedOut | RemoteWait::Confirmed)) => break wait,
            _ => sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(unconfirmed, RemoteWait::TimedOut, "it counts what it has not heard");
    world.set_link_cut(HOME, NEAR, false);
    world.set_link_cut(HOME, FAR, false);
    let wait = world.try_write_remote(HOME, Duration::from_secs(60)).await;
    assert_eq!(wait, Some(RemoteWait::Confirmed));
    world.check_remote();
}

/// A member that leaves does not count once the home's log says so, although it is still fed until a follower that stays
/// has as much.
#[tokio::test(start_paused = true)]
async fn leaving_member_does_not_confirm() {
    let world = World::start().await;
    world.set_link_cut(HOME, NEAR, true);
    assert_eq!(world.try_write_remote(HOME, WITHIN).await, Some(RemoteWait::Confirmed));
    world.directory.set_followers(&REGIONS[1..2]);
    let uncounted = |world: &World| world.record(HOME)?.uncounted.contains(&FAR).then_some(());
    world.eventually("the member to be uncounted", uncounted).await;
    assert_eq!(world.try_write_remote(HOME, WITHIN).await, Some(RemoteWait::TimedOut));
    assert!(
        world.directory.tenant().member(FAR).is_some(),
        "it is consulted until the other follower has as much"
    );
    world.set_link_cut(HOME, NEAR, false);
    let wait = world.try_write_remote(HOME, Duration::from_secs(60)).await;
    assert_eq!(wait, Some(RemoteWait::Confirmed));
    world.check_remote();
}

/// The home is cut off at a random moment, with followers that are more or less behind; its leader may have changed
/// before. Nothing is lost without the operator's word that another region had, and reads show nothing that is lost.
#[tokio::test(start_paused = true)]
async fn remote_writes_survive_promotion_at_random_moments() {
    let (mut confirmed, mut cut_in_region) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = World::start().await;
        let operation = under_load(&world, async {
            let mut pause = async |ms| sleep(Duration::from_millis(random.random_range(0..ms))).await;
            pause(2_000).await;
            if seed % 3 == 1 {
                world.kill_leader(HOME);
                pause(3_000).await;
            }
            let behind = if seed % 2 == 0 { NEAR } else { FAR };
            world.set_link_cut(HOME, behind, true);
            pause(1_500).await;
            world.set_region_cut(HOME, true);
            pause(5_000).await;
            let operation = world.directory.begin_promotion(request(false));
            assert_eq!(
                world.wait_until_over(operation).await,
                OperationResult::Succeeded,
                "seed {seed}"
            );
            pause(500).await;
            world.set_link_cut(HOME, behind, false);
            world.set_region_cut(HOME, false);
            operation
        })
        .await;
        world.wait_until_settled().await;
        confirmed += world.check_remote();
        let cut = world.check_acknowledged();
        world.check_window(operation, &cut);
        cut_in_region += cut.len();
    }
    assert!(confirmed > 100, "only {confirmed} were confirmed");
    assert!(cut_in_region > 0, "no run lost anything: nothing was tested");
}
