//! Voters whose rows are gone while log and vote are whole.

use std::time::Duration;

use stead_raft::Timing;
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};
use crate::toy::UNREADABLE;

/// Several elections.
const A_WHILE: Duration = Duration::from_secs(10);

/// Three nodes of which each has purged its log.
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
async fn voter_that_lost_its_rows_gets_them_from_another() {
    let mut cluster = purged().await;
    let leader = cluster.leader().await;
    cluster.lose_rows(leader).await;
    cluster.put("b", "meanwhile").await;
    timeout(PATIENCE, cluster.up(leader)).await.unwrap();
    cluster.put("c", "after").await;
    for (key, value) in [("a", "acknowledged"), ("b", "meanwhile"), ("c", "after")] {
        cluster.converge(key, value).await;
    }
    // What came is there after the next crash.
    cluster.kill(leader, 0).await;
    cluster.up(leader).await;
    cluster.converge("a", "acknowledged").await;
}

#[tokio::test(start_paused = true)]
async fn one_whole_voter_is_enough_though_none_can_lead() {
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
async fn majority_without_rows_waits_for_a_voter_that_has_them() {
    // Invariant 1: with their logs alone the two could elect one of them, and serve a machine that has forgotten.
    let mut cluster = purged().await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    cluster.lose_rows(others[0]).await;
    cluster.lose_rows(others[1]).await;
    cluster.kill(leader, usize::MAX).await;
    for lost in &others {
        let up = timeout(A_WHILE, cluster.up(*lost)).await;
        assert!(up.is_err(), "nobody can give the rows");
    }
    cluster.up(leader).await;
    for lost in &others {
        timeout(PATIENCE, cluster.up(*lost)).await.unwrap();
    }
    cluster.converge("a", "acknowledged").await;
}

#[tokio::test(start_paused = true)]
async fn voter_that_must_reach_an_entry_waits_for_a_snapshot_though_its_log_is_whole() {
    // Rows that differed from a majority's may come from the log: it is not believed up to that entry.
    let mut cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "acknowledged").await;
    cluster.converge("a", "acknowledged").await;
    let voter = cluster.leader().await;
    let others = cluster.others(voter);
    let reaching = cluster.node(voter).machine.state.lock().unwrap().applied.index;
    cluster.lose_rows(voter).await;
    cluster.nodes.get_mut(&voter).unwrap().reaching = Some(reaching);
    for other in &others {
        cluster.kill(*other, usize::MAX).await;
    }
    let up = timeout(A_WHILE, cluster.up(voter)).await;
    assert!(up.is_err(), "its own log is not believed, and nobody can give the rows");
    for other in &others {
        cluster.up(*other).await;
    }
    timeout(PATIENCE, cluster.up(voter)).await.unwrap();
    // Nor is it sent to others, should this voter lead.
    assert!(cluster.group(voter).numbers().purged >= reaching - 1);
    cluster.converge("a", "acknowledged").await;
}

#[tokio::test(start_paused = true)]
async fn voter_whose_snapshot_cannot_be_installed_is_passed_over() {
    // Invariant 3.
    let mut cluster = purged().await;
    let voter = cluster.leader().await;
    let giver = cluster.others(voter)[0];
    cluster.lose_rows(voter).await;
    let machine = &cluster.node(giver).machine;
    let key = UNREADABLE.to_owned();
    machine.state.lock().unwrap().map.insert(key, "x".to_owned());
    timeout(PATIENCE, cluster.up(voter)).await.unwrap();
    assert_eq!(cluster.node(voter).machine.get("a").as_deref(), Some("acknowledged"));
    assert_eq!(cluster.node(voter).machine.get(UNREADABLE), None);
}

#[tokio::test(start_paused = true)]
async fn voter_that_differs_from_a_majority_ends_and_comes_back_with_its_rows() {
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
        let reaching = failure.rebuild.and_then(|rebuild| rebuild.reaching).unwrap();
        assert_eq!(failure.group, Some(reaching.0));
        for other in cluster.others(voter) {
            assert!(
                cluster.node(other).node.health().failure().is_none(),
                "{other} is of the majority"
            );
        }
        cluster.lose_rows(voter).await;
        cluster.nodes.get_mut(&voter).unwrap().reaching = Some(reaching.1);
        timeout(PATIENCE, cluster.up(voter)).await.unwrap();
        cluster.converge("a", "acknowledged").await;
        cluster.converge("b", "after").await;
    }
}
