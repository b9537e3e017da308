//! Damaged bytes between two regions, and invalid changes that a follower must not apply.

use std::time::Duration;

use stead_replication::RetentionLimits;
use stead_state::shard::command::Effect;
use stead_types::limits::KEY_LEN_MAX;
use tokio::time::sleep;

use crate::world::{FOLLOWER, World};

/// Short retention, also of history that a follower lacks.
const LIMITS: RetentionLimits = RetentionLimits {
    keep_age: Duration::from_secs(1),
    keep_len: 1 << 30,
    age_max: Duration::from_secs(20),
    len_max: 1 << 30,
    interval: Duration::from_secs(10),
};

#[tokio::test(start_paused = true)]
async fn damaged_batch_is_detected_and_sent_again() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(7, true);
    let before = world.put(tenant, "k", b"before").await;
    world.wait_until_replicated(tenant, before).await;
    let alarms = world.leader_node(FOLLOWER).await.alarms.clone();
    assert_eq!(alarms.damaged_count(), 0);
    world.net.damage(1, 11, "on its way");
    let revision = world.put(tenant, "k", b"on its way").await;
    world.wait_until_replicated(tenant, revision).await;
    assert!(world.net.was_damaged(1, 11));
    assert_eq!(alarms.damaged_count(), 1);
    assert_eq!(alarms.unreadable_count(), 0, "nothing of it was looked at");
    world.check_equal(tenant).await;
}

/// A key that no caller here could have written stands for a change of another version's home.
#[tokio::test(start_paused = true)]
async fn invalid_change_detaches_only_its_tenant_until_dropped() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (bad, good) = (world.tenant(7, true), world.tenant(8, true));
    for tenant in [bad, good] {
        let revision = world.put(tenant, "k", b"before").await;
        world.wait_until_replicated(tenant, revision).await;
    }
    let follower = world.leader_node(FOLLOWER).await;
    let (before, alarms) = (follower.state(bad).unwrap(), follower.alarms.clone());
    assert_eq!(alarms.unreadable_count(), 0);

    let long = "k".repeat(KEY_LEN_MAX + 1);
    world.put(bad, &long, b"v").await;
    let unreadable = |world: &World| {
        let lags = world.nodes[&11].tasks.freshness().lags();
        lags.iter()
            .map(|lag| (lag.detached, lag.unreadable))
            .collect::<Vec<_>>()
    };
    let is_shown = || (unreadable(&world) == [(1, 1)]).then_some(());
    world.eventually("the alarm", is_shown).await;
    assert!(alarms.unreadable_count() > 0);
    for _ in 0..10 {
        let revision = world.put(good, "k", b"after").await;
        world.wait_until_replicated(good, revision).await;
        world.check().await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.nodes[&11].state(bad).unwrap(), before, "it stays as it is");
    assert!(alarms.unreadable_count() < 20, "it is asked for later each time");

    // Once the home keeps it neither as live nor as history, the tenant is seeded.
    world.write(bad, &long, Effect::Delete).await;
    sleep(Duration::from_secs(40)).await;
    let revision = world.put(bad, "k", b"gone").await;
    world.wait_until_replicated(bad, revision).await;
    world.check().await;
    world.check_equal(bad).await;
    assert_eq!(unreadable(&world), [(0, 0)]);
    assert_eq!(alarms.damaged_count(), 0);
}
