//! Tests of voters whose rows are lost while log and vote are whole.

use std::time::Duration;

use stead_raft::Timing;
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};
use crate::toy::UNREADABLE_KEY;

/// Longer than several elections.
const SEVERAL_ELECTIONS: Duration = Duration::from_secs(10);

/// Starts three nodes, each of which has purged its log.
async fn purged() -> Cluster {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put_more_than_is_kept().await;
    for id in 1..=3 {
        cluster.until_purged(id).await;
    }
    cluster.put("a", "acknowledged").await;
    cluster.converge("a", "acknowledged").await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn voter_without_rows_restores_from_another() {
    let mut cluster = purged().await;
    let leader = cluster.leader().await;
    cluster.lose_rows(leader).await;
    cluster.put("b", "meanwhile").await;
    timeout(PATIENCE, cluster.up(leader)).await.unwrap();
    cluster.put("c", "after").await;
    for (key, value) in [("a", "acknowledged"), ("b", "meanwhile"), ("c", "after")] {
        cluster.converge(key, value).await;
    }
    // The restored state survives the next crash.
    cluster.kill(leader, 0).await;
    cluster.up(leader).await;
    cluster.converge("a", "acknowledged").await;
}

#[tokio::test(start_paused = true)]
async fn one_whole_voter_restores_others_without_leader() {
    // Invariant 3.
    let mut cluster = purged().await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    cluster.lose_rows(leader).await;
    cluster.lose_rows(others[0]).await;
    timeout(PATIENCE, cluster.up(leader)).await.unwrap();
    timeout(PATIENCE, cluster.up(others[0])).await.unwrap();
    cluster.put("b", "after").await;
    cluster.converge("a", "acknowledged").await;
    cluster.converge("b", "after").await;
}

#[tokio::test(start_paused = true)]
async fn majority_without_rows_waits_for_a_whole_voter() {
    // Invariant 1: with their logs alone the two could elect one of them, and serve a machine without the purged
    // entries.
    let mut cluster = purged().await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    cluster.lose_rows(others[0]).await;
    cluster.lose_rows(others[1]).await;
    cluster.kill(leader, usize::MAX).await;
    for lost in &others {
        let up = timeout(SEVERAL_ELECTIONS, cluster.up(*lost)).await;
        assert!(up.is_err(), "no voter can send a snapshot");
    }
    cluster.up(leader).await;
    for lost in &others {
        timeout(PATIENCE, cluster.up(*lost)).await.unwrap();
    }
    cluster.converge("a", "acknowledged").await;
}

#[tokio::test(start_paused = true)]
async fn voter_with_min_index_waits_for_snapshot() {
    // Rows that differed from a majority's may come from the log: it is not trusted up to that entry.
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "acknowledged").await;
    cluster.converge("a", "acknowledged").await;
    let voter = cluster.leader().await;
    let others = cluster.others(voter);
    let min_index = cluster.node(voter).machine.state.lock().unwrap().applied.index;
    cluster.lose_rows(voter).await;
    cluster.nodes.get_mut(&voter).unwrap().min_index = Some(min_index);
    for other in &others {
        cluster.kill(*other, usize::MAX).await;
    }
    let up = timeout(SEVERAL_ELECTIONS, cluster.up(voter)).await;
    assert!(
        up.is_err(),
        "its own log is not trusted, and no voter can send a snapshot"
    );
    for other in &others {
        cluster.up(*other).await;
    }
    timeout(PATIENCE, cluster.up(voter)).await.unwrap();
    // Nor is that part of its log sent to others, should this voter lead.
    assert!(cluster.group(voter).metrics().purged >= min_index - 1);
    cluster.converge("a", "acknowledged").await;
}

#[tokio::test(start_paused = true)]
async fn restore_skips_voter_whose_snapshot_is_unreadable() {
    // Invariant 3.
    let mut cluster = purged().await;
    let voter = cluster.leader().await;
    let source = cluster.others(voter)[0];
    cluster.lose_rows(voter).await;
    let machine = &cluster.node(source).machine;
    let key = UNREADABLE_KEY.to_owned();
    machine.state.lock().unwrap().map.insert(key, "x".to_owned());
    timeout(PATIENCE, cluster.up(voter)).await.unwrap();
    assert_eq!(cluster.node(voter).machine.get("a").as_deref(), Some("acknowledged"));
    assert_eq!(cluster.node(voter).machine.get(UNREADABLE_KEY), None);
}

#[tokio::test(start_paused = true)]
async fn diverged_voter_stops_and_returns_with_majority_rows() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "acknowledged").await;
    cluster.converge("a", "acknowledged").await;
    let leader = cluster.leader().await;
    for voter in [leader, cluster.others(leader)[0]] {
        let altered = &cluster.node(voter).machine.state;
        altered
            .lock()
            .unwrap()
            .map
            .insert("a".to_owned(), "something else".to_owned());
        cluster.put("b", "after").await;
        let failure = cluster
            .eventually("the voter ends", || cluster.node(voter).node.health().failure())
            .await;
        let target = failure.rebuild.and_then(|rebuild| rebuild.target).unwrap();
        assert_eq!(failure.group, Some(target.0));
        for other in cluster.others(voter) {
            assert!(
                cluster.node(other).node.health().failure().is_none(),
                "{other} is of the majority"
            );
        }
        cluster.lose_rows(voter).await;
        cluster.nodes.get_mut(&voter).unwrap().min_index = Some(target.1);
        timeout(PATIENCE, cluster.up(voter)).await.unwrap();
        cluster.converge("a", "acknowledged").await;
        cluster.converge("b", "after").await;
    }
}
