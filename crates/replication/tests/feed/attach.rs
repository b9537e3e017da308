//! Attaching: a tenant that is attached in the follower's log has a session at the home, whatever breaks when.

use std::{sync::atomic::Ordering, time::Duration};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use stead_replication::RetentionLimits;
use stead_state::shard::command::{Effect, Operation, Write};
use tokio::time::{Instant, sleep};

use crate::world::{DISTANCES, FOLLOWER, HOME, World};

/// One-way delay between the nodes of the follower's group, so that proposals stay pending for a while.
const NEAR: Duration = Duration::from_millis(30);

/// Time after which no message or proposal is pending any more.
const A_WHILE: Duration = Duration::from_secs(2);

async fn slow_follower(far: Duration) -> World {
    let world = World::start_far(1, 3, RetentionLimits::default(), far).await;
    for (one, other) in [(11, 12), (12, 13), (13, 11)] {
        world.net.delay(one, other, NEAR);
    }
    world
}

#[tokio::test(start_paused = true)]
async fn follower_replicates_writes_and_knows_its_staleness() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    for number in 0..20 {
        let last = world.put(tenant, "a", format!("{number}").as_bytes()).await;
        if number % 7 == 0 {
            world.wait_until_replicated(tenant, last).await;
        }
        world.check().await;
    }
    let last = world.put(tenant, "b", b"last").await;
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
    let (home, follower) = (world.leader_node(HOME).await, world.leader_node(FOLLOWER).await);
    let known = || home.tasks.acknowledgements().of(FOLLOWER);
    let is_known = || known().filter(|known| known.offset == follower.offset() && known.covers(tenant));
    world.eventually("the acknowledgement", is_known).await;
}

/// A follower whose disks are full keeps what it has and its stream, says that it gets older, and goes on with room.
#[tokio::test(start_paused = true)]
async fn follower_without_room_pauses_and_goes_on() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    let before = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, before).await;
    world.follower_is_full.store(true, Ordering::Relaxed);
    let mut last = before;
    for number in 0..20_u8 {
        last = world.put(tenant, "a", &[number]).await;
        sleep(A_WHILE).await;
        world.check_freshness();
    }
    let follower = world.leader_node(FOLLOWER).await;
    let record = follower.record(tenant).unwrap();
    assert_eq!(record.live.revision, before, "nothing is applied");
    assert!(record.session.is_some(), "it stays attached");
    world.follower_is_full.store(false, Ordering::Relaxed);
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
}

/// Invariant 3 of acknowledgements: a reader between two steps would count an offset for a tenant that it does not
/// cover.
#[tokio::test(start_paused = true)]
async fn acknowledgement_is_applied_as_one_change() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    let last = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, last).await;
    sleep(A_WHILE).await;
    let home = world.leader_node(HOME).await.tasks.acknowledgements().clone();
    let changes = home.watch();
    let before = (*changes.borrow(), home.of(FOLLOWER).unwrap().offset);
    world.put(tenant, "a", b"1").await;
    sleep(A_WHILE).await;
    assert!(home.of(FOLLOWER).unwrap().offset > before.1);
    assert_eq!(
        *changes.borrow(),
        before.0 + 1,
        "one change, one batch, one acknowledgement"
    );
}

/// A pong comes behind everything that was committed before the ping.
#[tokio::test(start_paused = true)]
async fn staleness_bound_holds_before_data_arrives() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    let last = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, last).await;
    // More often than batches are made, so that most changes wait for their turn.
    for number in 0..200_u64 {
        world.put(tenant, "a", &number.to_be_bytes()).await;
        for _ in 0..7 {
            sleep(Duration::from_millis(1)).await;
            world.check_freshness();
        }
    }
}

/// Nothing is written and nobody reads for a while: a bounded read after the pause finds a fresh copy, on every node.
#[tokio::test(start_paused = true)]
async fn idle_copy_stays_within_round_trip_and_450_ms() {
    for far in DISTANCES {
        let mut world = World::start_far(1, 3, RetentionLimits::default(), far).await;
        let tenant = world.tenant(5, true);
        let last = world.put(tenant, "a", b"0").await;
        world.wait_until_replicated(tenant, last).await;
        let followers = || world.nodes.values().filter(|node| node.group.id() == FOLLOWER);
        for node in followers() {
            let _asked = node.tasks.freshness().staleness(tenant);
        }
        sleep(Duration::from_secs(300)).await;
        let bound = far * 2 + Duration::from_millis(450);
        for _ in 0..400 {
            sleep(Duration::from_millis(7)).await;
            for node in followers() {
                let staleness = node.tasks.freshness().peek_staleness(tenant);
                assert!(
                    staleness.is_some_and(|staleness| staleness <= bound),
                    "{staleness:?} at {far:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entry_larger_than_a_message_is_sent_in_pieces() {
    const KEYS: usize = 5;
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    let mut rng = SmallRng::seed_from_u64(5);
    for key in 0..KEYS {
        let mut value = vec![0; 1 << 20];
        rng.fill(value.as_mut_slice());
        value.truncate(value.len() - 100);
        let last = world.put(tenant, &key.to_string(), &value).await;
        world.wait_until_replicated(tenant, last).await;
    }
    let append = |number: usize| {
        let effect = Effect::Append {
            bytes: "x".into(),
            len_max: 1 << 20,
        };
        let operation = Operation::new((number % KEYS).to_string(), effect);
        Write::new(tenant, None, operation).encode()
    };
    let home = world.leader_node(HOME).await;
    home.group
        .propose(tenant.get(), (0..6 * KEYS).map(append).collect())
        .await
        .unwrap();
    let last = world.put(tenant, "last", b"1").await;
    assert_eq!(last.sequence().get() as usize, 7 * KEYS + 1);
    world.wait_until_replicated(tenant, last).await;
    world.check_equal(tenant).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn pending_attach_survives_broken_stream() {
    for far in DISTANCES {
        let mut world = slow_follower(far).await;
        for moment in 0..16 {
            let tenant = world.tenant(100 + moment, true);
            let follower = world.leader_node(FOLLOWER).await;
            world.eventually("a record", || follower.record(tenant)).await;
            sleep((Duration::from_millis(8) + far / 4) * moment as u32).await;
            world.break_streams().await;
            let last = world.put(tenant, "a", b"1").await;
            world.wait_until_replicated(tenant, last).await;
            world.check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pending_attach_survives_follower_leader_change() {
    for far in DISTANCES {
        let mut world = slow_follower(far).await;
        for moment in 0..16 {
            let tenant = world.tenant(100 + moment, true);
            let leader = world.leader(FOLLOWER).await;
            world
                .eventually("a record", || world.nodes[&leader].record(tenant))
                .await;
            sleep((Duration::from_millis(8) + far / 4) * moment as u32).await;
            let next = if leader == 13 { 11 } else { leader + 1 };
            world.nodes[&leader]
                .group
                .transfer_leader(stead_types::NodeId::new(next))
                .await
                .ok();
            let last = world.put(tenant, "a", b"1").await;
            world.wait_until_replicated(tenant, last).await;
            world.check().await;
        }
    }
}

/// The home owns it when the stream is opened, and the follower does not hold it yet: it is not attached by that.
#[tokio::test(start_paused = true)]
async fn tenant_older_than_stream_attaches_once_followed() {
    for far in DISTANCES {
        let mut world = slow_follower(far).await;
        let (old, first) = (world.tenant(5, false), world.tenant(6, false));
        for number in 0..5 {
            world.put(old, &format!("{number}"), b"0").await;
        }
        world.put(first, "a", b"0").await;
        // The stream is opened for this one.
        world.tenant(6, true);
        let last = world.put(first, "a", b"1").await;
        world.wait_until_replicated(first, last).await;
        let home = world.leader_node(HOME).await;
        let known = || home.tasks.acknowledgements().of(FOLLOWER);
        let is_attached = || known().filter(|known| known.covers(first));
        let known = world.eventually("the stream to speak for it", is_attached).await;
        assert!(!known.covers(old), "{known:?}");
        for round in 0..8 {
            world.tenant(5, true);
            world.put(old, "a", b"1").await;
            sleep((Duration::from_millis(8) + far / 4) * round).await;
            world.check().await;
            world.break_streams().await;
            let last = world.put(old, "b", b"1").await;
            world.wait_until_replicated(old, last).await;
            world.check().await;
        }
        world.check_equal(old).await;
    }
}

/// The cost of a reconnect must not grow with the number of healthy tenants.
#[tokio::test(start_paused = true)]
async fn twenty_thousand_attached_tenants_survive_reconnect() {
    const TENANTS: u64 = 20_000;
    let mut world = World::start_far(1, 1, RetentionLimits::default(), DISTANCES[1]).await;
    world.many_tenants(1..=TENANTS);
    let attempts = |world: &World| {
        let follower = world.nodes.values().find(|node| node.group.id() == FOLLOWER).unwrap();
        let attempts = follower.machine.read(|held| {
            let shard = held.shard();
            let attached = shard.records().filter(|(_, record)| shard.is_attached(record));
            attached
                .map(|(tenant, record)| (tenant, record.attach))
                .collect::<Vec<_>>()
        });
        attempts.unwrap()
    };
    let covers = |world: &World| {
        let home = world.nodes.values().find(|node| node.group.id() == HOME).unwrap();
        let known = home
            .tasks
            .acknowledgements()
            .of(FOLLOWER)
            .filter(|known| known.connected);
        known.map_or(0, |known| known.attached().len() as u64)
    };
    let all = || (covers(&world) == TENANTS).then_some(());
    world.eventually("all to be attached", all).await;
    let before = attempts(&world);
    assert_eq!(before.len() as u64, TENANTS);
    for round in 0..3 {
        world.break_streams().await;
        let tenants = [1, 1 + round, TENANTS / 2, TENANTS].map(stead_types::TenantNumber::new);
        for tenant in tenants {
            let last = world.put(tenant, "a", b"1").await;
            world.wait_until_replicated(tenant, last).await;
            assert_eq!(covers(&world), TENANTS, "at once for all of them");
        }
        assert!(attempts(&world) == before, "somebody was attached anew");
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn refused_tenant_attaches_once_admitted() {
    let all = DISTANCES.map(|far| [0, 1, 3, 10, 35, 70, 110, 190].map(|pause| (far, pause)));
    for (far, pause) in all.into_iter().flatten() {
        let mut world = slow_follower(far).await;
        let tenant = world.tenant(5, true);
        let last = world.put(tenant, "a", b"0").await;
        world.wait_until_replicated(tenant, last).await;
        for round in 0..6 {
            world.set_admitted(tenant, round % 2 == 1);
            world.put(tenant, "a", b"1").await;
            sleep(Duration::from_millis(pause)).await;
            world.check().await;
        }
        world.set_admitted(tenant, true);
        let last = world.put(tenant, "a", b"2").await;
        world.wait_until_replicated(tenant, last).await;
        let last = world.put(tenant, "a", b"3").await;
        world.wait_until_replicated(tenant, last).await;
        world.check().await;
        world.check_equal(tenant).await;
    }
}

/// Random faults: staleness bounds hold at any time, and once nothing breaks any more all writes arrive.
#[tokio::test(start_paused = true)]
async fn random_faults_keep_staleness_bound_and_converge() {
    let seeds = std::env::var("STEAD_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(9_u64) {
        println!("seed {seed}");
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = slow_follower(DISTANCES[seed as usize % 3]).await;
        let tenants: Vec<_> = (1..=3).map(|number| world.tenant(number, true)).collect();
        for _ in 0..60 {
            let tenant = tenants[random.random_range(0..3)];
            match random.random_range(0..12) {
                0..6 => drop(world.put(tenant, "a", &[random.random(); 9]).await),
                6..9 => world.set_admitted(tenant, random.random_bool(0.6)),
                9..11 => world.break_streams().await,
                _ => {
                    let next = stead_types::NodeId::new(random.random_range(11..14));
                    world.leader_node(FOLLOWER).await.group.transfer_leader(next).await.ok();
                }
            }
            sleep(Duration::from_millis(random.random_range(0..100))).await;
            world.check().await;
        }
        for tenant in tenants {
            world.set_admitted(tenant, true);
            let last = world.put(tenant, "a", b"last").await;
            world.wait_until_replicated(tenant, last).await;
            let last = world.put(tenant, "a", b"the very last").await;
            world.wait_until_replicated(tenant, last).await;
            world.check_equal(tenant).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn feed_stops_once_follower_is_not_admitted() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    let last = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, last).await;
    world.set_admitted(tenant, false);
    world.put(tenant, "a", b"secret").await;
    sleep(Duration::from_secs(5)).await;
    let copy = world.leader_node(FOLLOWER).await.state(tenant).unwrap();
    assert_eq!(copy.revision, last);
}

/// A leader that has lost its majority may lack what a later one has acknowledged.
#[tokio::test(start_paused = true)]
async fn leader_without_majority_opens_no_stream() {
    let mut world = World::start(3, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(5, true);
    let last = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, last).await;
    let old = world.leader(HOME).await;
    for other in (1..=3).filter(|other| *other != old) {
        world.net.cut(old, other);
    }
    world.net.break_all(old, 11);
    let acknowledgements = world.nodes[&old].tasks.acknowledgements();
    let is_connected = || acknowledgements.of(FOLLOWER).is_some_and(|follower| follower.connected);
    let has_ended = || (!is_connected()).then_some(());
    world.eventually("the stream to end", has_ended).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert!(!is_connected());
        sleep(Duration::from_millis(1)).await;
    }
}
