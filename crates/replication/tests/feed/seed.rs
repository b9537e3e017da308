//! Seeding of followers that are behind the retention floor.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use stead_replication::{RetentionLimits, SeedLimits, SeedPhase, SeedProgress};
use stead_state::directory::{
    GroupReport, SourceAfterMove,
    ownership::{self, MovePlan},
};
use stead_state::seed_pace::{RELEASED_AFTER, SeedFailureReason};
use stead_state::shard::record::ShadowCopy;
use stead_types::{NodeId, Revision, TenantNumber};
use tokio::time::{Instant, sleep};

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

/// The link is cut when all chunks are there: history is kept beyond the limits, until the copy has not advanced for
/// long. Then the seed is repeated.
#[tokio::test(start_paused = true)]
async fn history_of_a_seed_is_kept_over_a_cut_of_minutes() {
    for (cut, is_kept) in [
        (Duration::from_secs(120), true),
        (RELEASED_AFTER + Duration::from_secs(60), false),
    ] {
        cut_seed(cut, is_kept).await;
    }
}

async fn cut_seed(cut: Duration, is_kept: bool) {
    let mut world = World::start(1, 1, LIMITS).await;
    let far = Duration::from_millis(40);
    world.net.delay(1, 11, far);
    let tenant = joined_late(&mut world).await;
    let whole = || world.nodes[&11].record(tenant)?.shadow.filter(ShadowCopy::is_complete);
    world.eventually("all chunks", whole).await;
    world.net.cut(1, 11);
    let began = Instant::now();
    while began.elapsed() < cut {
        world.put(tenant, "a", b"1").await;
        sleep(Duration::from_secs(1)).await;
    }
    let copy = world.leader_node(FOLLOWER).await.record(tenant).unwrap();
    let floor = world.leader_node(HOME).await.state(tenant).unwrap().retention_floor;
    assert_eq!(copy.shadow.unwrap().state.revision >= floor, is_kept, "after {cut:?}");
    world.net.heal(1, 11);
    let last = world.put(tenant, "a", b"last").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
    let seeds = world.leader_node(FOLLOWER).await.record(tenant).unwrap().seeds;
    assert_eq!(seeds.0, 1 + u64::from(!is_kept), "after {cut:?}");
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

/// Limits of a home that keeps less history than is written while a tenant is copied.
const SCARCE: RetentionLimits = RetentionLimits {
    keep_age: Duration::from_secs(1),
    keep_len: 64 << 10,
    age_max: Duration::from_secs(5),
    len_max: 128 << 10,
    interval: Duration::from_secs(1),
};

const VALUE_LEN: u64 = 16 << 10;

/// A tenant of 4 MiB whose copy takes 32 seconds, and a cap of history.
async fn large_tenant(homes: u64, history_max: u64) -> (World, TenantNumber) {
    let seeds = SeedLimits {
        history_max,
        bytes_per_second_max: 128 << 10,
    };
    let mut world = World::start_seeding(homes, 1, SCARCE, Duration::from_millis(10), seeds).await;
    let tenant = world.tenant(5, false);
    for number in 0..256 {
        world
            .put(tenant, &format!("key-{number}"), &noise(number)[..VALUE_LEN as usize])
            .await;
    }
    let home = world.leader_node(HOME).await;
    let floor = || home.state(tenant).unwrap().retention_floor.sequence().get();
    world
        .eventually("the past to go", || (floor() > 200).then_some(()))
        .await;
    (world, tenant)
}

/// Observations of a tenant's writers while it was seeded.
#[derive(Debug, Default)]
struct Writing {
    last: Revision,
    /// Progress of the seed, by the second.
    progress: Vec<SeedProgress>,
    /// Least share of their wanted rate, in percent, in any second.
    least_percent: u64,
}

/// Writes at a rate, or at the one that writers are slowed to, until a condition holds.
async fn write_until(
    world: &mut World,
    tenant: TenantNumber,
    rate: u64,
    mut is_over: impl FnMut(&World, &Writing) -> bool,
) -> Writing {
    let mut writing = Writing {
        least_percent: 100,
        ..Writing::default()
    };
    let began = Instant::now();
    let mut number = 0;
    while !is_over(world, &writing) {
        assert!(
            began.elapsed() < Duration::from_secs(600),
            "it goes on for ever: {writing:?}"
        );
        let seeds = world.leader_node(HOME).await.tasks.seeds();
        let slowed = seeds.write_rate(tenant).unwrap_or(u64::MAX);
        writing.least_percent = writing.least_percent.min(slowed.min(rate) * 100 / rate);
        for _ in 0..slowed.min(rate) / VALUE_LEN {
            number += 1;
            seeds.record_request(tenant, VALUE_LEN);
            let value = noise(number);
            writing.last = world
                .put(tenant, &format!("key-{}", number % 64), &value[..VALUE_LEN as usize])
                .await;
        }
        sleep(Duration::from_secs(1)).await;
        let progress = seeds.progress().into_iter().find(|seed| seed.tenant == tenant);
        writing.progress.extend(progress);
        world.check().await;
    }
    writing
}

fn is_attached(world: &World, tenant: TenantNumber) -> bool {
    let record = world.nodes[&11].record(tenant);
    record.is_some_and(|record| record.session.is_some_and(|session| session.attached))
}

/// Field case c5: what is written while the tenant is copied is many times the history that the home keeps otherwise.
#[tokio::test(start_paused = true)]
async fn seed_under_load_ends_though_history_is_short() {
    let (mut world, tenant) = large_tenant(1, 64 << 20).await;
    world.tenant(5, true);
    let began = Instant::now();
    let writing = write_until(&mut world, tenant, 32 << 10, |world, _| is_attached(world, tenant)).await;
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "it took {:?}",
        began.elapsed()
    );
    assert_eq!(writing.least_percent, 100, "nobody is slowed within the cap");
    let record = world.nodes[&11].record(tenant).unwrap();
    assert_eq!(record.seeds.0, 1, "it was copied once");
    let loading = writing.progress.iter().filter(|seed| seed.phase == SeedPhase::Loading);
    let loading: Vec<_> = loading.copied().collect();
    assert!(loading.is_sorted_by(|before, after| before.bytes <= after.bytes && before.keys <= after.keys));
    assert!(
        loading
            .iter()
            .all(|seed| seed.keys_total == 256 && seed.bytes <= seed.bytes_total)
    );
    let to_go: Vec<_> = loading.iter().filter_map(|seed| seed.time_to_go).collect();
    assert!(to_go.len() > 10 && to_go.last() < to_go.first(), "{to_go:?}");
    world.wait_until_replicated(tenant, writing.last).await;
    world.check_equal(tenant).await;
    let home = world.leader_node(HOME).await;
    assert_eq!(home.tasks.seeds().progress().len(), 0);
    let floor = || (home.state(tenant).unwrap().retention_floor.sequence().get() > 256).then_some(());
    world.eventually("history to go again", floor).await;
}

/// Field case c5, the other way: a neighbour fills the history of the group, and the tenant itself writes little.
#[tokio::test(start_paused = true)]
async fn seed_ends_though_a_neighbour_fills_the_history() {
    let (mut world, tenant) = large_tenant(1, 1 << 20).await;
    let neighbour = world.tenant(6, false);
    world.tenant(5, true);
    let began = Instant::now();
    let mut number = 0;
    while !is_attached(&world, tenant) {
        assert!(began.elapsed() < Duration::from_secs(60), "it goes on for ever");
        number += 1;
        world.put(tenant, "tiny", &[1]).await;
        world.put(neighbour, "large", &noise(number)).await;
        sleep(Duration::from_secs(1)).await;
        let seeds = world.leader_node(HOME).await.tasks.seeds().progress();
        assert!(
            seeds.iter().all(|seed| seed.history < 10_000),
            "only its own history counts: {seeds:?}"
        );
    }
    assert_eq!(
        world.nodes[&11].record(tenant).unwrap().seeds.0,
        1,
        "it was copied once"
    );
    let last = world.put(tenant, "tiny", b"last").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
}

#[tokio::test(start_paused = true)]
async fn seed_beyond_its_history_cap_slows_writers_and_ends() {
    let (mut world, tenant) = large_tenant(1, 2 << 20).await;
    world.tenant(5, true);
    let writing = write_until(&mut world, tenant, 64 << 10, |world, _| is_attached(world, tenant)).await;
    assert!((80..100).contains(&writing.least_percent), "{writing:?}");
    assert_eq!(
        world.nodes[&11].record(tenant).unwrap().seeds.0,
        1,
        "it was copied once"
    );
    world.wait_until_replicated(tenant, writing.last).await;
    world.check_equal(tenant).await;
}

/// Writers make twice what the copy takes in.
#[tokio::test(start_paused = true)]
async fn seed_that_cannot_catch_up_ends_with_figures() {
    let (mut world, tenant) = large_tenant(1, 8 << 20).await;
    world.tenant(5, true);
    let failed = |seed: &SeedProgress| match seed.phase {
        SeedPhase::Failed(failure) => Some(failure),
        SeedPhase::Loading | SeedPhase::CatchingUp => None,
    };
    let is_over = |_: &World, writing: &Writing| writing.progress.last().and_then(failed).is_some();
    let writing = write_until(&mut world, tenant, 256 << 10, is_over).await;
    let failure = writing.progress.last().and_then(failed).unwrap();
    assert_eq!(failure.reason, SeedFailureReason::CannotCatchUp);
    assert!((200 << 10..300 << 10).contains(&failure.write_rate), "{failure}");
    assert!((100 << 10..140 << 10).contains(&failure.copy_rate), "{failure}");
    assert!(writing.least_percent >= 80, "{writing:?}");
    // It is not begun again at once, its history goes, and nothing has changed at the follower.
    let seeds = world.nodes[&11].record(tenant).unwrap().seeds;
    let floor = world.leader_node(HOME).await.state(tenant).unwrap().retention_floor;
    let mut seconds = 0;
    write_until(&mut world, tenant, 16 << 10, |_, _| {
        seconds += 1;
        seconds > 60
    })
    .await;
    let record = world.nodes[&11].record(tenant).unwrap();
    assert_eq!((record.seeds, record.live.revision), (seeds, Revision::ZERO));
    assert!(world.leader_node(HOME).await.state(tenant).unwrap().retention_floor > floor);
    // Once the tenant's record changes, by a limit for example, it is tried again.
    world.change(tenant, |_| ());
    let writing = write_until(&mut world, tenant, 16 << 10, |world, _| is_attached(world, tenant)).await;
    world.wait_until_replicated(tenant, writing.last).await;
    world.check_equal(tenant).await;
}

/// The home tells the directory with which figures the seed of a move's target has ended, and then refuses the move.
#[tokio::test(start_paused = true)]
async fn move_whose_seed_cannot_catch_up_is_reported_and_refused() {
    let (mut world, tenant) = large_tenant(1, 2 << 20).await;
    let plan = MovePlan {
        to: FOLLOWER,
        source: SourceAfterMove::Follow,
        time: 0,
    };
    let planned = world.change(tenant, |tenant| ownership::plan_move(tenant, &plan).unwrap());
    let operation = planned.operation;
    let reported = |world: &World| {
        let phase = world.nodes[&1].tasks.seeds().progress().first().map(|seed| seed.phase);
        match phase {
            Some(SeedPhase::Failed(failure)) => world.has_taken(&GroupReport::SeedFailed {
                tenant,
                operation,
                failure,
            }),
            Some(SeedPhase::Loading | SeedPhase::CatchingUp) | None => false,
        }
    };
    write_until(&mut world, tenant, 256 << 10, |world, _| reported(world)).await;
    world.change(tenant, |tenant| ownership::abort_move(tenant, operation).unwrap());
    let refused = GroupReport::Refused { tenant, operation };
    world
        .eventually("the refusal", || world.has_taken(&refused).then_some(()))
        .await;
    assert!(world.leader_node(HOME).await.record(tenant).unwrap().owned().is_some());
}

/// The connection breaks, the follower's leader begins anew, and another node leads the home, at several percentages.
#[tokio::test(start_paused = true)]
async fn interrupted_seed_goes_on_where_it_was() {
    let (mut world, tenant) = large_tenant(3, 64 << 20).await;
    world.tenant(5, true);
    let mut interruptions = vec![10, 30, 50, 70, 90];
    let mut before = 0;
    while !is_attached(&world, tenant) {
        let loaded = world.nodes[&11]
            .record(tenant)
            .and_then(|record| Some(record.shadow?.state.keys));
        let loaded = loaded.unwrap_or(0);
        assert!(loaded >= before, "it went on behind where it was");
        before = loaded;
        if let Some(percent) = interruptions
            .first()
            .copied()
            .filter(|percent| loaded * 100 >= 256 * percent)
        {
            interruptions.remove(0);
            let leader = world.leader(HOME).await;
            if percent % 20 == 10 {
                let next = NodeId::new(leader % 3 + 1);
                world.nodes[&leader].group.transfer_leader(next).await.unwrap();
            } else {
                world.break_streams().await;
            }
        }
        world.put(tenant, "key-0", &noise(before)[..VALUE_LEN as usize]).await;
        sleep(Duration::from_millis(500)).await;
    }
    assert!(interruptions.is_empty(), "{interruptions:?}");
    assert_eq!(
        world.nodes[&11].record(tenant).unwrap().seeds.0,
        1,
        "it was copied once"
    );
    let last = world.put(tenant, "a", b"last").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
}

/// The entries by which the group's floor would move the tenant are dropped while its history is held.
#[tokio::test(start_paused = true)]
async fn history_of_a_seed_goes_though_its_tenant_rests() {
    let (mut world, tenant) = large_tenant(1, 64 << 20).await;
    let neighbour = world.tenant(6, false);
    world.tenant(5, true);
    let loaded = |world: &World| world.nodes[&11].record(tenant)?.shadow;
    world.eventually("the seed to begin", || loaded(&world)).await;
    let mut last = Revision::ZERO;
    for _ in 0..3 {
        last = world.put(tenant, "tiny", &[1]).await;
    }
    let (mut number, mut was_held) = (0, false);
    while !is_attached(&world, tenant) {
        number += 1;
        world.put(neighbour, "large", &noise(number)).await;
        sleep(Duration::from_secs(1)).await;
        let home = &world.nodes[&1];
        let dropped = home.machine.read(|held| held.shard().feed_floor()).unwrap();
        let state = home.state(tenant).unwrap();
        was_held |= dropped >= state.index && state.retention_floor < last;
    }
    assert!(was_held, "its last entry is gone, and its history is not");
    let home = world.leader_node(HOME).await;
    let floor = || home.state(tenant).unwrap().retention_floor;
    world.wait_until_replicated(tenant, last).await;
    world
        .eventually("history to go", || (floor() == last).then_some(()))
        .await;
    world.check_equal(tenant).await;
}

/// The leader that held it does not lead any more.
#[tokio::test(start_paused = true)]
async fn history_of_a_seed_goes_though_another_leader_held_it() {
    let (mut world, tenant) = large_tenant(3, 64 << 20).await;
    let neighbour = world.tenant(6, false);
    world.tenant(5, true);
    let loaded = |world: &World| world.nodes[&11].record(tenant)?.shadow;
    world.eventually("the seed to begin", || loaded(&world)).await;
    let last = world.put(tenant, "tiny", &[1]).await;
    for number in 0..10 {
        world.put(neighbour, "large", &noise(number)).await;
        sleep(Duration::from_secs(1)).await;
    }
    let home = world.leader_node(HOME).await;
    let is_dropped = || {
        let (shard_floor, state) = (
            home.machine.read(|held| held.shard().feed_floor()).ok()?,
            home.state(tenant)?,
        );
        (shard_floor >= state.index && state.retention_floor < last).then_some(())
    };
    world.eventually("its entries to go", is_dropped).await;
    // The seed is over before another node leads: nobody tells that one about it.
    world.remove_follower(&[tenant]);
    let leader = world.leader(HOME).await;
    let next = NodeId::new(leader % 3 + 1);
    world.nodes[&leader].group.transfer_leader(next).await.unwrap();
    let home = world.leader_node(HOME).await;
    let is_gone = || (home.state(tenant).unwrap().retention_floor == last).then_some(());
    world.eventually("history to go", is_gone).await;
}
