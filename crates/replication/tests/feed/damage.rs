//! Bytes that change on their way between two regions.

use stead_replication::Limits;

use crate::world::{FOLLOWER, World};

#[tokio::test(start_paused = true)]
async fn damaged_batch_is_found_and_sent_again() {
    let mut world = World::start(1, 1, Limits::default()).await;
    let tenant = world.tenant(7, true);
    let before = world.put(tenant, "k", b"before").await;
    world.reaches(tenant, before).await;
    let alarms = world.leading(FOLLOWER).await.alarms.clone();
    assert_eq!(alarms.damaged_count(), 0);
    world.net.damage(1, 11, "on its way");
    let revision = world.put(tenant, "k", b"on its way").await;
    world.reaches(tenant, revision).await;
    assert!(world.net.was_damaged(1, 11));
    assert_eq!(alarms.damaged_count(), 1);
    assert_eq!(alarms.unreadable_count(), 0, "nothing of it was looked at");
    world.check_equal(tenant).await;
}
