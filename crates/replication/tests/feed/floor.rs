//! The past that a home keeps is bounded, also by followers that are behind.

use std::time::Duration;

use stead_replication::Limits;
use stead_state::shard::read::Refused;
use stead_types::{NodeId, Revision, Sequence, TenantLimit, TenantNumber};
use tokio::time::{Instant, sleep};

use crate::world::{FOLLOWER, HOME, World};

const AGE_MAX: Duration = Duration::from_secs(40);

const LIMITS: Limits = Limits {
    keep_age: Duration::from_secs(1),
    keep_len: 1 << 30,
    age_max: AGE_MAX,
    len_max: 1 << 30,
    interval: Duration::from_secs(10),
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
    let ends = || home.machine.read(|held| held.feed_ends()).unwrap().unwrap().unwrap();
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

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_no_longer_followed_holds_no_floor() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    let attached = world.put(tenant, "a", b"0").await;
    world.reaches(tenant, attached).await;
    // Detached, so that its position there is known and held.
    world.admit(tenant, false);
    world.put(tenant, "a", b"1").await;
    let home = world.leading(HOME).await;
    let is_detached = || {
        home.tasks
            .acknowledged()
            .of(FOLLOWER)
            .filter(|known| !known.speaks_for(tenant))
    };
    world.eventually("it to be detached", is_detached).await;
    let last = world.put(tenant, "a", b"2").await;
    world.leave(&[tenant]);
    let began = Instant::now();
    // The floor never passes the last entry.
    let reached = world.put(other, "a", b"1").await;
    world.reaches(other, reached).await;
    let home = world.leading(HOME).await;
    let has_gone = || (home.state(tenant).unwrap().floor == last).then_some(());
    world.eventually("its past to go", has_gone).await;
    assert!(began.elapsed() < AGE_MAX - Duration::from_secs(5), "not by the limits");
}

/// How long a floor takes to follow, with room.
const A_WHILE: Duration = Duration::from_secs(25);

/// Says which is the oldest revision that can be read, and that what is older is refused with it.
async fn oldest(world: &World, tenant: TenantNumber) -> u64 {
    let home = world.leading(HOME).await;
    home.machine
        .read(|held| {
            let reading = held.reading(tenant).unwrap();
            let (floor, last) = (reading.state().floor, reading.state().revision);
            let at = |sequence| Revision::new(last.epoch(), Sequence::new(sequence).unwrap());
            for sequence in 1..=last.sequence().get() {
                match reading.get(b"a", Some(at(sequence))) {
                    Ok(version) => {
                        assert!(sequence >= floor.sequence().get(), "{sequence} is below {floor}");
                        assert_eq!(version.unwrap().revision, at(sequence), "every write was of this key");
                    }
                    Err(Refused::Compacted { oldest }) => {
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
async fn a_tenant_that_keeps_a_number_of_revisions_keeps_these_and_others_keep_theirs() {
    let limits = Limits {
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

#[tokio::test(start_paused = true)]
async fn a_tenant_keeps_its_past_for_longer_or_shorter_than_its_group_and_within_the_caps() {
    let limits = Limits {
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
async fn a_tenant_s_own_limit_takes_nothing_that_its_follower_has_not_got() {
    let mut world = World::start(1, 1, LIMITS).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    world.limit(tenant, &[(TenantLimit::HistoryCount, 1)]);
    let attached = world.put(tenant, "a", b"0").await;
    world.reaches(tenant, attached).await;
    world.admit(tenant, false);
    let began = Instant::now();
    while began.elapsed() < AGE_MAX - Duration::from_secs(5) {
        world.put(tenant, "a", b"1").await;
        let last = world.put(other, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
        world.reaches(other, last).await;
        let floor = oldest(&world, tenant).await;
        assert!(floor <= attached.sequence().get(), "{floor} is needed");
    }
    world.admit(tenant, true);
    let last = world.put(tenant, "a", b"2").await;
    world.reaches(tenant, last).await;
    world.check_equal(tenant).await;
    let gone = async || oldest(&world, tenant).await == last.sequence().get();
    let until = Instant::now() + A_WHILE;
    while !gone().await {
        assert!(Instant::now() < until, "all that the follower has goes");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Invariant 3: where a follower is whose stream is not open is not known.
#[tokio::test(start_paused = true)]
async fn a_follower_of_which_nothing_is_known_holds_the_past() {
    let mut world = World::start(3, 1, LIMITS).await;
    let tenant = world.tenant(5, true);
    let reached = world.put(tenant, "a", b"0").await;
    world.reaches(tenant, reached).await;
    for home in 1..=3 {
        world.net.cut(home, 11, true);
    }
    // A new leader has heard nothing from it.
    let leader = world.leader(HOME).await;
    let next = NodeId::new(leader % 3 + 1);
    world.nodes[&leader].group.transfer_leader(next).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < AGE_MAX - Duration::from_secs(10) {
        world.put(tenant, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
        let floor = world.leading(HOME).await.state(tenant).unwrap().floor;
        assert!(floor <= reached, "{floor} is needed");
    }
    for home in 1..=3 {
        world.net.cut(home, 11, false);
    }
    let last = world.put(tenant, "a", b"2").await;
    world.reaches(tenant, last).await;
    world.check_equal(tenant).await;
}

const SMALL: Limits = Limits {
    keep_age: Duration::ZERO,
    keep_len: 1 << 20,
    age_max: AGE_MAX,
    len_max: 16 << 20,
    interval: Duration::from_millis(10),
};

/// A loud tenant makes retention pass a stream that lags behind, over what a quiet one has written.
#[tokio::test(start_paused = true)]
async fn stream_that_retention_passes_skips_nothing() {
    let mut world = World::start(1, 1, SMALL).await;
    let (quiet, loud) = (world.tenant(5, true), world.tenant(6, true));
    for tenant in [quiet, loud] {
        let first = world.put(tenant, "a", b"0").await;
        world.reaches(tenant, first).await;
    }
    // Nothing breaks, and nothing goes through.
    world.net.cut(1, 11, true);
    let large = vec![7; 1 << 20];
    let mut last = Revision::ZERO;
    for number in 0..40 {
        if number == 10 {
            last = world.put(quiet, "a", b"1").await;
        }
        world.put(loud, &format!("b{number}"), &large).await;
        sleep(Duration::from_millis(20)).await;
    }
    world.net.cut(1, 11, false);
    world.reaches(quiet, last).await;
    world.check_equal(quiet).await;
}

/// What a stream lacks when it is opened behind what the feed still says is sent before a ping is answered.
#[tokio::test(start_paused = true)]
async fn stream_opened_behind_retention_proves_nothing_before_it_has_sent_all() {
    let mut world = World::start_far(1, 1, SMALL, Duration::from_millis(40)).await;
    let (loud, late, noise) = (world.tenant(5, true), world.tenant(6, true), world.tenant(7, false));
    for tenant in [loud, late] {
        let first = world.put(tenant, "a", b"0").await;
        world.reaches(tenant, first).await;
    }
    let offset = world.leading(FOLLOWER).await.offset();
    world.net.cut(1, 11, true);
    world.net.break_all(1, 11);
    let large = vec![7; 1 << 20];
    for number in 0..20 {
        world.put(noise, &format!("b{number}"), &large).await;
    }
    for number in 0..13 {
        world.put(loud, &format!("b{number}"), &large).await;
    }
    let last = world.put(late, "a", b"1").await;
    let home = world.leading(HOME).await;
    let has_gone = || {
        let ends = home.machine.read(|held| held.feed_ends()).unwrap().unwrap();
        ends.is_some_and(|(first, _)| first > offset.index).then_some(())
    };
    world.eventually("the feed to forget the offset", has_gone).await;
    world.net.cut(1, 11, false);
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
