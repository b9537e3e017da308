//! Tests of logged time through wrong clocks, outages and elections.

use std::time::Duration;

use stead_raft::Timing;
use tokio::time::sleep;

use crate::cluster::Cluster;

const HOUR_MS: i64 = 3_600_000;

/// Returns the logged time of the last entry that a node has applied.
fn last_entry(cluster: &Cluster, id: u64) -> u64 {
    *cluster.node(id).machine.state.lock().unwrap().times.last().unwrap()
}

/// Kills all nodes and starts them again.
async fn outage(cluster: &mut Cluster, length: Duration) {
    for id in 1..=3 {
        cluster.kill(id, 0).await;
    }
    sleep(length).await;
    for id in 1..=3 {
        cluster.up(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn leaders_clock_leap_moves_no_entry_time() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    for ahead in [2 * HOUR_MS, 0, -HOUR_MS] {
        cluster.set_clock(leader, ahead);
        sleep(Duration::from_secs(5)).await;
        cluster.put_at(leader, "a", "2").await.unwrap();
        assert!(
            (-500..=100).contains(&cluster.ahead(leader)),
            "{}",
            cluster.ahead(leader)
        );
        let report = cluster.group(leader).clocks().unwrap();
        assert_eq!(report.alarms.len(), usize::from(ahead != 0), "{report:?}");
    }
}

/// Before there is a leader the voters have exchanged their clocks.
#[tokio::test(start_paused = true)]
async fn new_group_starts_at_majority_clock() {
    for wrong in 1..=3 {
        let mut cluster = Cluster::plan(3, Timing::Region);
        for id in 1..=3 {
            cluster.nodes.entry(id).or_default();
            cluster.set_clock(id, if id == wrong { 2 * HOUR_MS } else { 0 });
            cluster.up(id).await;
        }
        cluster.put("a", "1").await;
        let leader = cluster.leader().await;
        assert!(
            (-500..=500).contains(&cluster.ahead(leader)),
            "{}",
            cluster.ahead(leader)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn logged_time_does_not_count_total_outage() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let before = last_entry(&cluster, cluster.leader().await);
    outage(&mut cluster, Duration::from_secs(3_600)).await;
    cluster.put("a", "2").await;
    let passed = last_entry(&cluster, cluster.leader().await) - before;
    assert!(passed < 500, "{passed}");
    let leader = cluster.leader().await;
    let behind = cluster.ahead(leader);
    sleep(Duration::from_secs(100)).await;
    let made_up_for = cluster.ahead(leader) - behind;
    assert!((9_000..=10_100).contains(&made_up_for), "{made_up_for}");
}

#[tokio::test(start_paused = true)]
async fn restart_of_idle_group_loses_little_time() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    sleep(Duration::from_secs(45)).await;
    outage(&mut cluster, Duration::ZERO).await;
    let leader = cluster.leader().await;
    assert!(
        (-15_000..=0).contains(&cluster.ahead(leader)),
        "{}",
        cluster.ahead(leader)
    );
}

#[tokio::test(start_paused = true)]
async fn new_leader_continues_from_last_heartbeat_time() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    for _ in 0..3 {
        sleep(Duration::from_secs(8)).await;
        let first = cluster.leader().await;
        let before = cluster.group(first).logged_time();
        cluster.kill(first, 0).await;
        let next = cluster.leader().await;
        let passed = cluster.group(next).logged_time() as i64 - before as i64;
        assert!((-250..=50).contains(&passed), "{passed}");
        cluster.up(first).await;
    }
}

#[tokio::test(start_paused = true)]
async fn logged_time_stops_on_leader_without_majority() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    let before = cluster.group(leader).logged_time() as i64;
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        cluster.net.cut(one, other);
    }
    sleep(Duration::from_secs(60)).await;
    let passed = cluster.group(leader).logged_time() as i64 - before;
    assert!((0..=700).contains(&passed), "{passed}");
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        cluster.net.heal(one, other);
    }
    cluster.put("a", "2").await;
    let passed = last_entry(&cluster, cluster.leader().await) as i64 - before;
    assert!(passed <= 3_000, "{passed}");
}

/// Logged time is written without writes of callers, and changes nothing else.
#[tokio::test(start_paused = true)]
async fn quiet_group_writes_an_entry_every_ten_seconds() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    let before = cluster.group(leader).metrics().last_log;
    sleep(Duration::from_secs(100)).await;
    let written = cluster.group(leader).metrics().last_log - before;
    assert!((8..=10).contains(&written), "{written}");
    assert_eq!(cluster.node(leader).machine.get("a").as_deref(), Some("1"));
}
