//! Tests of voters without a log: at the bootstrap of a group, and later, when their disk was lost.

use std::time::Duration;

use stead_raft::Timing;
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, PATIENCE};

/// Longer than several elections.
const SEVERAL_ELECTIONS: Duration = Duration::from_secs(10);

/// An acknowledged write must not be lost with one disk: here one of the two that have the write loses its disk, the
/// other is partitioned, and the third never had it.
#[tokio::test(start_paused = true)]
async fn voter_that_lost_its_disk_grants_no_vote() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "0").await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    let (lost, behind) = (others[0], others[1]);
    cluster.kill(behind, usize::MAX).await;
    cluster.put("k", "acknowledged").await;
    cluster.lose_disk(lost).await;
    cluster.net.cut(leader, lost);
    cluster.net.cut(leader, behind);
    cluster.up(lost).await;
    cluster.up(behind).await;
    sleep(SEVERAL_ELECTIONS).await;
    assert!(!cluster.group(lost).is_leader() && !cluster.group(behind).is_leader());
    // The node with the write reconnects: the write is there, and the node that lost its disk reports that and stops.
    cluster.net.heal(leader, behind);
    cluster.net.heal(leader, lost);
    cluster.put("z", "1").await;
    let has = || (cluster.node(behind).machine.get("k").as_deref() == Some("acknowledged")).then_some(());
    cluster.eventually("the write", has).await;
    let failure = timeout(PATIENCE, cluster.node(lost).node.health().wait_for_failure())
        .await
        .unwrap();
    let reason = failure.source.to_string();
    assert!(reason.contains("its disk was lost"), "{reason}");
    assert_eq!(cluster.node(lost).machine.get("k"), None);
}

#[tokio::test(start_paused = true)]
async fn group_bootstrap_waits_for_all_voters() {
    let mut cluster = Cluster::plan(3, Timing::Region);
    cluster.up(1).await;
    cluster.up(2).await;
    sleep(SEVERAL_ELECTIONS).await;
    assert!(!cluster.group(1).is_leader() && !cluster.group(2).is_leader());
    cluster.up(3).await;
    cluster.put("a", "0").await;
    cluster.converge("a", "0").await;
}

/// Each voter dies once during the bootstrap, and keeps its synced data: none is mistaken for one that lost its disk.
#[tokio::test(start_paused = true)]
async fn voters_killed_during_bootstrap_come_back() {
    for dies_after in [1, 20, 50, 100, 150, 200, 300, 600] {
        let mut cluster = Cluster::start(3, Timing::Region).await;
        for id in 1..=3 {
            sleep(Duration::from_millis(dies_after)).await;
            cluster.kill(id, 0).await;
            cluster.up(id).await;
        }
        cluster.put("a", "0").await;
        cluster.converge("a", "0").await;
    }
}

/// A voter that dies between any two steps of the bootstrap, partitioned from some of the others, is never mistaken for
/// one that lost its disk: here the first has responded to the others and dies before its own requests reach them.
#[tokio::test(start_paused = true)]
async fn voter_restarted_during_bootstrap_is_not_refused() {
    for (dies, at) in (1..=3).flat_map(|dies| (0..40).map(move |step| (dies, step * 10))) {
        let mut cluster = Cluster::plan(3, Timing::Region);
        for id in 1..=3 {
            cluster.up(id).await;
        }
        let other = cluster.others(dies)[0];
        cluster.net.cut(dies, other);
        sleep(Duration::from_millis(at)).await;
        cluster.kill(dies, 0).await;
        cluster.up(dies).await;
        sleep(Duration::from_millis(at)).await;
        cluster.net.heal(dies, other);
        cluster.put("a", "0").await;
        cluster.converge("a", "0").await;
        for id in 1..=3 {
            let failure = cluster.node(id).node.health().failure();
            assert!(failure.is_none(), "{dies} died after {at} ms, {id} failed: {failure:?}");
        }
    }
}

/// A voter that lost its disk is polled by another such voter, before the owner of the data is up: it must not write
/// the initial entry, and join after a restart.
#[tokio::test(start_paused = true)]
async fn voter_that_lost_its_disk_is_refused_however_often_it_starts() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("k", "acknowledged").await;
    let leader = cluster.leader().await;
    cluster.converge("k", "acknowledged").await;
    let others = cluster.others(leader);
    cluster.kill(leader, usize::MAX).await;
    for other in &others {
        cluster.lose_disk(*other).await;
    }
    for _ in 0..3 {
        for other in &others {
            cluster.up(*other).await;
        }
        sleep(SEVERAL_ELECTIONS).await;
        assert!(others.iter().all(|other| !cluster.group(*other).is_leader()));
        for other in &others {
            cluster.kill(*other, usize::MAX).await;
        }
    }
    cluster.up(leader).await;
    for other in &others {
        cluster.up(*other).await;
    }
    for other in &others {
        let failure = timeout(PATIENCE, cluster.node(*other).node.health().wait_for_failure())
            .await
            .unwrap();
        let reason = failure.source.to_string();
        assert!(reason.contains("its disk was lost"), "{reason}");
        assert_eq!(cluster.node(*other).machine.get("k"), None);
    }
}

/// Rows without their log: the node has lost its vote.
#[tokio::test(start_paused = true)]
async fn voter_with_rows_but_no_log_is_refused() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    for number in 0..30 {
        cluster.put("a", &format!("{number}{}", "x".repeat(200 << 10))).await;
    }
    let lost = cluster.others(cluster.leader().await)[0];
    let is_durable = || (cluster.nodes[&lost].rows.lock().unwrap().applied.index > 0).then_some(());
    cluster.eventually("a checkpoint", is_durable).await;
    cluster.kill(lost, usize::MAX).await;
    cluster.nodes.get_mut(&lost).unwrap().log = Default::default();
    let refused = cluster.try_up(lost).await.unwrap_err();
    let reason = std::error::Error::source(&refused).unwrap().to_string();
    assert!(reason.contains("its Raft log was lost"), "{reason}");
}
