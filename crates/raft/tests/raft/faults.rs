//! Fault tests: four pitfalls of openraft that were found by measuring, and failing storage.

use std::time::Duration;

use stead_raft::{ReadIndexError, Timing};
use stead_types::NodeId;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Cluster, PATIENCE};

/// With a heartbeat interval shorter than a round trip, no heartbeat would count as acknowledged, and an idle group
/// would reject every write.
#[tokio::test(start_paused = true)]
async fn idle_wide_group_still_accepts_writes() {
    let rtt = Duration::from_millis(240);
    let cluster = Cluster::start(3, Timing::Wide { rtt_ms_max: 240 }).await;
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        cluster.net.delay(one, other, rtt / 2);
    }
    cluster.put("a", "0").await;
    for round in 1..4 {
        sleep(Duration::from_secs(20)).await;
        let leader = cluster.leader().await;
        let asked = Instant::now();
        cluster.put_at(leader, "a", &round.to_string()).await.unwrap();
        assert!(
            asked.elapsed() < rtt + Duration::from_millis(20),
            "{:?}",
            asked.elapsed()
        );
    }
}

/// A restarted voter must not help to elect a second leader while the first may still hold its lease.
#[tokio::test(start_paused = true)]
async fn leader_without_majority_never_answers_a_read() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("k", "v1").await;
    let old = cluster.leader().await;
    let others = cluster.others(old);
    let (witness, next) = (others[0], others[1]);
    // The next leader has had no contact with the old one for longer than any lease.
    cluster.net.cut(old, next);
    sleep(Duration::from_secs(3)).await;
    assert!(cluster.group(old).is_leader());
    cluster.kill(witness, 0).await;
    cluster.net.cut(old, witness);
    let restarted = Instant::now();
    cluster.up(witness).await;
    // No new leader may be elected before the old one's lease has ended.
    let taken = cluster.leader_among(&[witness, next]).await;
    assert!(
        restarted.elapsed() >= Duration::from_millis(500),
        "{:?}",
        restarted.elapsed()
    );
    let group = cluster.group(taken).clone();
    let written = async {
        while group.propose(1, vec![crate::toy::put("k", "v2")]).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    let stale = timeout(Duration::from_secs(5), cluster.group(old).read_index())
        .await
        .unwrap();
    assert!(
        matches!(stale, Err(ReadIndexError::NoQuorum | ReadIndexError::NotLeader { .. })),
        "{stale:?}"
    );
    cluster.net.heal(old, next);
    cluster.net.heal(old, witness);
    cluster.converge("k", "v2").await;
}

/// A follower that is connected but never finishes its writes, like one whose disk hangs, must not block the purge of
/// the leader's log for ever.
#[tokio::test(start_paused = true)]
async fn hung_follower_does_not_block_log_purge() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "0").await;
    let leader = cluster.leader().await;
    let hung = cluster.others(leader)[0];
    cluster.nodes[&hung].log.hold_syncs(true);
    let value = "x".repeat(200 << 10);
    for number in 0..600 {
        let wrote = cluster.put_at(leader, "big", &value[number..]).await;
        wrote.unwrap();
        if number % 50 == 0 {
            sleep(Duration::from_millis(500)).await;
        }
    }
    let purged = || (cluster.group(leader).metrics().purged > 100).then_some(());
    cluster.eventually("a purge", purged).await;
    cluster.nodes[&hung].log.hold_syncs(false);
    cluster.nodes[&hung].log.sync();
    cluster.put("a", "end").await;
    cluster.converge("a", "end").await;
}

/// Right after an election nothing may be written until a majority has confirmed the leader: callers wait for that.
#[tokio::test(start_paused = true)]
async fn first_write_after_election_waits_for_quorum() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "0").await;
    for round in 0..10 {
        let leader = cluster.leader().await;
        let next = cluster.others(leader)[round % 2];
        let mut watch = cluster.group(next).watch_leader();
        let asked = cluster.group(leader).transfer_leader(NodeId::new(next));
        let (asked, elected) = tokio::join!(asked, watch.wait_for(|known| known.is_here));
        asked.unwrap();
        drop(elected.unwrap());
        cluster.put_at(next, "a", &round.to_string()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn node_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "0").await;
    let leader = cluster.leader().await;
    let behind = cluster.others(leader)[0];
    cluster.kill(behind, 0).await;
    let last = cluster.put_more_than_is_kept().await;
    cluster.until_purged(cluster.leader().await).await;
    cluster.up(behind).await;
    cluster.put("a", "end").await;
    cluster.converge("a", "end").await;
    cluster.converge("big", &last).await;
    let times = cluster.node(behind).machine.state.lock().unwrap().times.len();
    assert!(times < 600, "{times} entries were applied one by one");
    // The installed state survives the next crash too.
    cluster.kill(behind, 0).await;
    cluster.up(behind).await;
    cluster.put("a", "again").await;
    cluster.converge("a", "again").await;
}

#[tokio::test(start_paused = true)]
async fn failed_sync_stops_only_its_node() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "0").await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].log.fail_next_sync();
    let outcome = timeout(PATIENCE, cluster.put_at(leader, "a", "1")).await.unwrap();
    assert!(!outcome.unwrap_err().has_no_effect());
    let failure = timeout(PATIENCE, cluster.node(leader).node.health().wait_for_failure())
        .await
        .unwrap();
    assert!(!failure.to_string().is_empty());
    let others = cluster.others(leader);
    cluster.leader_among(&others).await;
}

#[tokio::test(start_paused = true)]
async fn failed_machine_stops_the_node() {
    let cluster = Cluster::start(1, Timing::Region).await;
    cluster.put("a", "0").await;
    *cluster.node(1).machine.fail.lock().unwrap() = Some("applying");
    let outcome = timeout(PATIENCE, cluster.put_at(1, "a", "1")).await.unwrap();
    assert!(!outcome.unwrap_err().has_no_effect());
    let failure = timeout(PATIENCE, cluster.node(1).node.health().wait_for_failure())
        .await
        .unwrap();
    assert_eq!(failure.to_string(), "group g1 failed while applying");
}

#[tokio::test(start_paused = true)]
async fn panicking_machine_stops_the_node_with_its_message() {
    for (doing, said) in [
        ("applying", "applying entries"),
        ("checkpointing", "writing a checkpoint"),
    ] {
        let cluster = Cluster::start(1, Timing::Region).await;
        cluster.put("a", "0").await;
        *cluster.node(1).machine.panic.lock().unwrap() = Some(doing);
        let written = timeout(PATIENCE, cluster.put_at(1, "a", "1")).await.unwrap();
        assert_eq!(written.is_ok(), doing == "checkpointing");
        let health = cluster.node(1).node.health();
        let failure = timeout(Duration::from_secs(120), health.wait_for_failure())
            .await
            .unwrap();
        assert_eq!(failure.to_string(), format!("group g1 failed while {said}"));
        assert_eq!(failure.source.to_string(), "panic: on purpose");
    }
}

/// Entries that wait long to be applied, as the first one of a group whose voters are partitioned, must not stop log
/// compaction for good.
#[tokio::test(start_paused = true)]
async fn log_is_purged_after_a_slow_bootstrap() {
    let mut cluster = Cluster::plan(3, Timing::Region);
    for id in 1..=3 {
        cluster.up(id).await;
        cluster.nodes[&id].log.hold_syncs(true);
    }
    sleep(Duration::from_secs(1)).await;
    let pairs = [(1, 2), (1, 3), (2, 3)];
    for (one, other) in pairs {
        cluster.net.cut(one, other);
    }
    for member in cluster.nodes.values() {
        member.log.hold_syncs(false);
        member.log.sync();
    }
    sleep(Duration::from_secs(120)).await;
    for (one, other) in pairs {
        assert_eq!(cluster.group(one).metrics().applied, 0);
        cluster.net.heal(one, other);
    }
    cluster.put_more_than_is_kept().await;
    cluster.until_purged(cluster.leader().await).await;
}

#[tokio::test(start_paused = true)]
async fn partitioned_leader_catches_up_after_heal() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "0").await;
    let old = cluster.leader().await;
    let others = cluster.others(old);
    for other in &others {
        cluster.net.cut(old, *other);
    }
    let lost = cluster.group(old).clone();
    let lost = tokio::spawn(async move { lost.propose(1, vec![crate::toy::put("a", "lost")]).await.map(drop) });
    let next = cluster.leader_among(&others).await;
    let group = cluster.group(next).clone();
    let written = async {
        while group.propose(1, vec![crate::toy::put("a", "1")]).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    for other in &others {
        cluster.net.heal(old, *other);
    }
    cluster.converge("a", "1").await;
    let outcome = timeout(PATIENCE, lost).await.unwrap().unwrap();
    assert!(!outcome.unwrap_err().has_no_effect(), "it might have been committed");
}
