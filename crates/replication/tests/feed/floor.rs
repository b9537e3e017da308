//! The past that a home keeps is bounded, also by followers that are behind.

use std::time::Duration;

use stead_replication::Limits;
use stead_types::Revision;
use tokio::time::{Instant, sleep};

use crate::world::{FOLLOWER, HOME, World};

const AGE_MAX: Duration = Duration::from_secs(40);

const LIMITS: Limits = Limits {
    keep_age: Duration::from_secs(1),
    keep_len: 1 << 30,
    age_max: AGE_MAX,
    len_max: 1 << 30,
};

#[tokio::test(start_paused = true)]
async fn all_that_nobody_needs_goes_however_much_it_is() {
    let mut world = World::start(1, 1, LIMITS).await;
    let tenant = world.tenant(5, false);
    let mut last = Revision::ZERO;
    // More than two commands' worth, which take one interval.
    for _ in 0..9_000 {
        last = world.put(tenant, "a", b"1").await;
    }
    let home = world.leading(HOME).await;
    let ends = || home.machine.read(|held| held.feed_ends()).unwrap().unwrap();
    assert!(ends().1 - ends().0 > 8_500, "nothing has gone yet");
    let is_one_left = || (ends().0 == ends().1).then_some(());
    world.eventually("one entry to be left", is_one_left).await;
    let floor = home.state(tenant).unwrap().floor;
    assert_eq!(floor.sequence().next(), Some(last.sequence()));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_detached_holds_its_past_only_so_long() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    let attached = world.put(tenant, "a", b"0").await;
    world.reaches(tenant, attached).await;
    world.admit(tenant, false);
    let began = Instant::now();
    let mut written = Vec::new();
    while began.elapsed() < 3 * AGE_MAX {
        let revision = world.put(tenant, "a", b"1").await;
        written.push((Instant::now(), revision));
        let last = world.put(other, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
        world.reaches(other, last).await;
        let floor = world.leading(HOME).await.state(tenant).unwrap().floor;
        let older = |age: Duration| {
            let older = written.iter().filter(|(at, _)| at.elapsed() > age);
            older.map(|(_, revision)| *revision).max().unwrap_or(attached)
        };
        let (not_above, not_below) = (older(AGE_MAX), older(AGE_MAX + Duration::from_secs(15)));
        assert!(floor <= not_above.max(attached), "{floor} is needed, and not too old");
        assert!(floor >= not_below || not_below == attached, "{floor} is held too long");
    }
    let copy = world.leading(FOLLOWER).await.state(tenant).unwrap();
    assert_eq!(copy.revision, attached, "nothing came meanwhile");
    world.admit(tenant, true);
    let last = world.put(tenant, "b", b"1").await;
    world.reaches(tenant, last).await;
    world.check_equal(tenant).await;
}
