//! Retention: the history that a home keeps is bounded, also for followers that are behind.

use std::time::Duration;

use stead_replication::RetentionLimits;
use stead_state::shard::read::ReadError;
use stead_types::{NodeId, Revision, Sequence, TenantLimit, TenantNumber};
use tokio::time::{Instant, sleep};

use crate::world::{FOLLOWER, HOME, World};

const AGE_MAX: Duration = Duration::from_secs(40);

const LIMITS: RetentionLimits = RetentionLimits {
    keep_age: Duration::from_secs(1),
    keep_len: 1 << 30,
    age_max: AGE_MAX,
    len_max: 1 << 30,
    interval: Duration::from_secs(10),
};

#[tokio::test(start_paused = true)]
async fn acknowledged_feed_is_dropped_whatever_its_size() {
    let mut world = World::start(1, 1, LIMITS).await;
    let tenant = world.tenant(5, false);
    let mut last = Revision::ZERO;
    // More than two commands' worth, which take one interval.
    for _ in 0..9_000 {
        last = world.put(tenant, "a", b"1").await;
    }
    let home = world.leader_node(HOME).await;
    let ends = || home.machine.read(|held| held.feed_bounds()).unwrap().unwrap().unwrap();
    assert!(ends().1 - ends().0 > 8_500, "nothing has gone yet");
    let is_one_left = || (ends().0 == ends().1).then_some(());
    world.eventually("one entry to be left", is_one_left).await;
    let floor = home.state(tenant).unwrap().retention_floor;
    assert_eq!(floor.sequence().next(), Some(last.sequence()));
}

#[tokio::test(start_paused = true)]
async fn detached_tenant_keeps_history_until_age_max() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    let attached = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, attached).await;
    world.set_admitted(tenant, false);
    let began = Instant::now();
    let mut written = Vec::new();
    while began.elapsed() < 3 * AGE_MAX {
        let revision = world.put(tenant, "a", b"1").await;
        written.push((Instant::now(), revision));
        let last = world.put(other, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
        world.wait_until_replicated(other, last).await;
        let floor = world.leader_node(HOME).await.state(tenant).unwrap().retention_floor;
        let older = |age: Duration| {
            let older = written.iter().filter(|(at, _)| at.elapsed() > age);
            older.map(|(_, revision)| *revision).max().unwrap_or(attached)
        };
        let (not_above, not_below) = (older(AGE_MAX), older(AGE_MAX + Duration::from_secs(15)));
        assert!(floor <= not_above.max(attached), "{floor} is needed, and not too old");
        assert!(floor >= not_below || not_below == attached, "{floor} is held too long");
    }
    let copy = world.leader_node(FOLLOWER).await.state(tenant).unwrap();
    assert_eq!(copy.revision, attached, "nothing came meanwhile");
    world.set_admitted(tenant, true);
    let last = world.put(tenant, "b", b"1").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
}

#[tokio::test(start_paused = true)]
async fn unfollowed_tenant_keeps_no_history() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    let attached = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, attached).await;
    // Detached, so that its position there is known and held.
    world.set_admitted(tenant, false);
    world.put(tenant, "a", b"1").await;
    let home = world.leader_node(HOME).await;
    let is_detached = || {
        home.tasks
            .acknowledgements()
            .of(FOLLOWER)
            .filter(|known| !known.covers(tenant))
    };
    world.eventually("it to be detached", is_detached).await;
    let last = world.put(tenant, "a", b"2").await;
    world.remove_follower(&[tenant]);
    let began = Instant::now();
    // The floor never passes the last entry.
    let reached = world.put(other, "a", b"1").await;
    world.wait_until_replicated(other, reached).await;
    let home = world.leader_node(HOME).await;
    let has_gone = || (home.state(tenant).unwrap().retention_floor == last).then_some(());
    world.eventually("its past to go", has_gone).await;
    assert!(began.elapsed() < AGE_MAX - Duration::from_secs(5), "not by the limits");
}

/// Upper bound of the time that the retention floor takes to move.
const A_WHILE: Duration = Duration::from_secs(25);

/// Returns the oldest revision that can be read, and checks that reads of older ones are refused with it.
async fn oldest(world: &World, tenant: TenantNumber) -> u64 {
    let home = world.leader_node(HOME).await;
    home.machine
        .read(|held| {
            let reading = held.reading(tenant).unwrap();
            let (floor, last) = (reading.state().retention_floor, reading.state().revision);
            let at = |sequence| Revision::new(last.epoch(), Sequence::new(sequence).unwrap());
            for sequence in 1..=last.sequence().get() {
                match reading.get(b"a", Some(at(sequence))) {
                    Ok(version) => {
                        assert!(sequence >= floor.sequence().get(), "{sequence} is below {floor}");
                        assert_eq!(version.unwrap().revision, at(sequence), "every write was of this key");
                    }
                    Err(ReadError::Compacted { oldest }) => {
                        assert_eq!(oldest, floor);
                        assert!(
                            sequence < floor.sequence().get(),
                            "{sequence} is gone, from {floor} on it is there"
                        );
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            floor.sequence().get()
        })
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn history_count_limit_applies_to_its_tenant_only() {
    let limits = RetentionLimits {
        keep_age: Duration::from_secs(600),
        age_max: Duration::from_secs(3_600),
        ..LIMITS
    };
    let mut world = World::start(1, 1, limits).await;
    let (few, one, all) = (world.tenant(5, false), world.tenant(6, false), world.tenant(7, false));
    world.limit(few, &[(TenantLimit::HistoryCount, 3)]);
    world.limit(one, &[(TenantLimit::HistoryCount, 1)]);
    for _ in 0..10 {
        for tenant in [few, one, all] {
            world.put(tenant, "a", b"1").await;
        }
    }
    assert_eq!(oldest(&world, few).await, 0, "nothing goes before its turn");
    sleep(A_WHILE).await;
    let floors = [few, one, all].map(|tenant| oldest(&world, tenant));
    assert_eq!(futures::future::join_all(floors).await, [8, 10, 0]);
    let last = world.put(few, "a", b"2").await;
    sleep(A_WHILE).await;
    assert_eq!((last.sequence().get(), oldest(&world, few).await), (11, 9));
    world.limit(few, &[]);
    world.put(few, "a", b"3").await;
    sleep(A_WHILE).await;
    assert_eq!(oldest(&world, few).await, 9, "the group keeps more");
}

/// Case c10, and at twice its size: what a neighbour writes takes neither tokens nor pages of a quiet tenant.
#[tokio::test(start_paused = true)]
async fn loud_tenant_takes_no_history_of_quiet_one() {
    const KEEP_AGE: Duration = Duration::from_secs(120);
    let limits = RetentionLimits {
        keep_age: KEEP_AGE,
        keep_len: 1 << 20,
        age_max: Duration::from_secs(600),
        len_max: 4 << 20,
        ..LIMITS
    };
    let mut world = World::start(1, 1, limits).await;
    let (loud, quiet) = (world.tenant(5, false), world.tenant(6, false));
    for _ in 0..10 {
        world.put(quiet, "a", b"1").await;
    }
    for mib in [3, 6] {
        let before = oldest(&world, loud).await;
        for _ in 0..16 * mib {
            world.put(loud, "a", &[7; 64 << 10]).await;
        }
        sleep(A_WHILE).await;
        assert_eq!(oldest(&world, quiet).await, 0, "after {mib} MiB of its neighbour");
        assert!(oldest(&world, loud).await > before + 16, "it gives way itself");
    }
    sleep(KEEP_AGE).await;
    world.put(loud, "a", b"1").await;
    let home = world.leader_node(HOME).await;
    let last = home.state(quiet).unwrap().revision;
    let has_gone = || (home.state(quiet).unwrap().retention_floor == last).then_some(());
    world.eventually("its past to go by age", has_gone).await;
}

#[tokio::test(start_paused = true)]
async fn history_age_limit_overrides_group_within_caps() {
    let limits = RetentionLimits {
        keep_age: Duration::from_secs(60),
        age_max: Duration::from_secs(300),
        ..LIMITS
    };
    let mut world = World::start(1, 1, limits).await;
    let (short, long, longest, plain) = (
        world.tenant(5, false),
        world.tenant(6, false),
        world.tenant(7, false),
        world.tenant(8, false),
    );
    for (tenant, seconds) in [(short, 10), (long, 150), (longest, 3_600)] {
        world.limit(tenant, &[(TenantLimit::HistoryAge, seconds * 1_000)]);
    }
    let all = [short, long, longest, plain];
    // A write every ten seconds: with one revision more for each.
    for _ in 0..50 {
        for tenant in all {
            world.put(tenant, "a", b"1").await;
        }
        sleep(Duration::from_secs(10)).await;
    }
    let kept = async |world: &World| {
        let mut kept = Vec::new();
        for tenant in all {
            kept.push(50 - oldest(world, tenant).await);
        }
        kept
    };
    let shares = kept(&world).await;
    for (kept, expected) in shares.iter().zip([1, 15, 30, 6]) {
        assert!(kept.abs_diff(expected) <= 2, "{shares:?}");
    }
    sleep(Duration::from_secs(200)).await;
    let shares = kept(&world).await;
    assert_eq!(shares[..2], [0, 0], "also of those at rest: {shares:?}");
    assert!(shares[2].abs_diff(10) <= 2, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn history_limit_keeps_what_follower_lacks() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    world.limit(tenant, &[(TenantLimit::HistoryCount, 1)]);
    let attached = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, attached).await;
    world.set_admitted(tenant, false);
    let began = Instant::now();
    while began.elapsed() < AGE_MAX - Duration::from_secs(5) {
        world.put(tenant, "a", b"1").await;
        let last = world.put(other, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
        world.wait_until_replicated(other, last).await;
        let floor = oldest(&world, tenant).await;
        assert!(floor <= attached.sequence().get(), "{floor} is needed");
    }
    world.set_admitted(tenant, true);
    let last = world.put(tenant, "a", b"2").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
    let gone = async || oldest(&world, tenant).await == last.sequence().get();
    let until = Instant::now() + A_WHILE;
    while !gone().await {
        assert!(Instant::now() < until, "all that the follower has goes");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Invariant 3: the position of a follower whose stream is not open is unknown.
#[tokio::test(start_paused = true)]
async fn unknown_follower_position_keeps_history() {
    let mut world = World::start(3, 1, LIMITS).await;
    let tenant = world.tenant(5, true);
    let reached = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, reached).await;
    for home in 1..=3 {
        world.net.cut(home, 11);
    }
    // A new leader has heard nothing from it.
    let leader = world.leader(HOME).await;
    let next = NodeId::new(leader % 3 + 1);
    world.nodes[&leader].group.transfer_leader(next).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < AGE_MAX - Duration::from_secs(10) {
        world.put(tenant, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
        let floor = world.leader_node(HOME).await.state(tenant).unwrap().retention_floor;
        assert!(floor <= reached, "{floor} is needed");
    }
    for home in 1..=3 {
        world.net.heal(home, 11);
    }
    let last = world.put(tenant, "a", b"2").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
}

const SMALL: RetentionLimits = RetentionLimits {
    keep_age: Duration::ZERO,
    keep_len: 1 << 20,
    age_max: AGE_MAX,
    len_max: 16 << 20,
    interval: Duration::from_millis(10),
};

/// Writes of a loud tenant make retention pass a stream that lags behind, and with it the writes of a quiet tenant.
#[tokio::test(start_paused = true)]
async fn stream_passed_by_retention_skips_nothing() {
    let mut world = World::start(1, 1, SMALL).await;
    let (quiet, loud) = (world.tenant(5, true), world.tenant(6, true));
    for tenant in [quiet, loud] {
        let first = world.put(tenant, "a", b"0").await;
        world.wait_until_replicated(tenant, first).await;
    }
    // The link holds all bytes, and no connection breaks.
    world.net.cut(1, 11);
    let large = vec![7; 1 << 20];
    let mut last = Revision::ZERO;
    for number in 0..40 {
        if number == 10 {
            last = world.put(quiet, "a", b"1").await;
        }
        world.put(loud, &format!("b{number}"), &large).await;
        sleep(Duration::from_millis(20)).await;
    }
    world.net.heal(1, 11);
    world.wait_until_replicated(quiet, last).await;
    world.check_equal(quiet).await;
}

/// A stream that is opened at an offset that the feed has dropped sends all changes behind it before it answers a ping.
#[tokio::test(start_paused = true)]
async fn stream_behind_retention_proves_nothing_until_all_is_sent() {
    let mut world = World::start_far(1, 1, SMALL, Duration::from_millis(40)).await;
    let (loud, late, noise) = (world.tenant(5, true), world.tenant(6, true), world.tenant(7, false));
    for tenant in [loud, late] {
        let first = world.put(tenant, "a", b"0").await;
        world.wait_until_replicated(tenant, first).await;
    }
    let offset = world.leader_node(FOLLOWER).await.offset();
    world.net.cut(1, 11);
    world.net.break_all(1, 11);
    let large = vec![7; 1 << 20];
    for number in 0..20 {
        world.put(noise, &format!("b{number}"), &large).await;
    }
    for number in 0..13 {
        world.put(loud, &format!("b{number}"), &large).await;
    }
    let last = world.put(late, "a", b"1").await;
    let home = world.leader_node(HOME).await;
    let is_dropped = || {
        let ends = home.machine.read(|held| held.feed_bounds()).unwrap().unwrap();
        ends.is_some_and(|(first, _)| first > offset.index).then_some(())
    };
    world.eventually("the feed to drop the offset", is_dropped).await;
    world.net.heal(1, 11);
    let follower = &world.nodes[&11];
    while follower.state(late).is_none_or(|state| state.revision < last) {
        world.check_freshness();
        sleep(Duration::from_millis(1)).await;
    }
    assert!(
        follower.state(loud).unwrap().revision.sequence().get() > 13,
        "all of it came"
    );
}
