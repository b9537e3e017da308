//! Seeding of followers that are behind the retention floor.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use stead_replication::RetentionLimits;
use stead_state::shard::record::ShadowCopy;
use stead_types::TenantNumber;
use tokio::time::sleep;

use crate::world::{FOLLOWER, HOME, World};

const LIMITS: RetentionLimits = RetentionLimits {
    keep_age: Duration::from_secs(1),
    keep_len: 1 << 30,
    age_max: Duration::from_secs(20),
    len_max: 1 << 30,
    interval: Duration::from_secs(10),
};

/// Lets a follower join whose home has dropped the tenant's first changes.
async fn joined_late(world: &mut World) -> TenantNumber {
    let tenant = world.tenant(5, false);
    for number in 0..50 {
        world.put(tenant, &format!("key-{}", number % 20), &[7; 100]).await;
    }
    let home = world.leader_node(HOME).await;
    let floor = || home.state(tenant).unwrap().retention_floor.sequence().get();
    world
        .eventually("the past to go", || (floor() > 40).then_some(()))
        .await;
    world.tenant(5, true)
}

#[tokio::test(start_paused = true)]
async fn follower_that_joins_late_is_seeded() {
    let mut world = World::start(1, 1, LIMITS).await;
    let tenant = joined_late(&mut world).await;
    let last = world.put(tenant, "a", b"last").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn seed_slower_than_retention_is_repeated() {
    let mut world = World::start(1, 1, LIMITS).await;
    let far = Duration::from_millis(40);
    world.net.delay(1, 11, far);
    let tenant = joined_late(&mut world).await;
    let whole = || world.nodes[&11].record(tenant)?.shadow.filter(ShadowCopy::is_complete);
    world.eventually("all chunks", whole).await;
    world.net.cut(1, 11);
    for _ in 0..40 {
        world.put(tenant, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
    }
    let copy = world.leader_node(FOLLOWER).await.record(tenant).unwrap();
    let floor = world.leader_node(HOME).await.state(tenant).unwrap().retention_floor;
    assert!(copy.shadow.unwrap().state.revision < floor, "its changes are gone");
    world.net.heal(1, 11);
    let last = world.put(tenant, "a", b"last").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
}

#[tokio::test(start_paused = true)]
async fn seed_stops_once_follower_is_not_admitted() {
    let mut world = World::start(1, 1, LIMITS).await;
    let tenant = world.tenant(5, false);
    // Several chunks, of which each waits for its turn.
    for number in 0..40 {
        world.put(tenant, &format!("key-{number}"), &noise(number)).await;
    }
    let home = world.leader_node(HOME).await;
    let floor = || home.state(tenant).unwrap().retention_floor.sequence().get();
    world
        .eventually("the past to go", || (floor() >= 39).then_some(()))
        .await;
    let tenant = world.tenant(5, true);
    let loaded = |world: &World| Some(world.nodes[&11].record(tenant)?.shadow?.loaded.get());
    world
        .eventually("a chunk", || loaded(&world).filter(|loaded| *loaded > 0))
        .await;
    world.set_admitted(tenant, false);
    // Chunks in flight arrive.
    sleep(Duration::from_millis(20)).await;
    let before = loaded(&world);
    assert!(before < Some(40), "all of it was there already");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(loaded(&world), before);
}

/// Bytes that cannot be compressed.
fn noise(seed: u64) -> Vec<u8> {
    let mut value = vec![0; 256 << 10];
    SmallRng::seed_from_u64(seed).fill(value.as_mut_slice());
    value
}

/// The entries after the follower's offset were dropped: a tenant that lacks nothing is not attached again for it.
#[tokio::test(start_paused = true)]
async fn quiet_tenants_stay_attached_after_feed_is_dropped() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (quiet, behind, lost) = (world.tenant(5, true), world.tenant(6, true), world.tenant(7, true));
    for tenant in [quiet, behind, lost] {
        let last = world.put(tenant, "a", b"1").await;
        world.wait_until_replicated(tenant, last).await;
    }
    let attempt = |world: &World, tenant| world.nodes[&11].record(tenant).unwrap().attach;
    let before = [quiet, behind, lost].map(|tenant| attempt(&world, tenant));
    let offset = world.leader_node(FOLLOWER).await.offset();
    world.net.cut(1, 11);
    for _ in 0..40 {
        world.put(lost, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
    }
    // This one lacks a change that is kept, and whose entry the feed still has.
    world.put(behind, "b", b"1").await;
    let home = world.leader_node(HOME).await;
    let first = home
        .machine
        .read(|held| held.feed_bounds())
        .unwrap()
        .unwrap()
        .unwrap()
        .0;
    assert!(first > offset.index, "its entry is gone");
    world.net.heal(1, 11);
    world.break_streams().await;
    for tenant in [lost, behind, quiet] {
        let last = world.put(tenant, "c", b"1").await;
        world.wait_until_replicated(tenant, last).await;
        world.check().await;
        world.check_equal(tenant).await;
    }
    let after = [quiet, behind].map(|tenant| attempt(&world, tenant));
    assert_eq!(after, before[..2], "nobody was attached anew");
}
