//! Voters without a log: at the beginning of a group, and later, when their disk was lost.

use std::time::Duration;

use stead_raft::Timing;
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, PATIENCE};

/// Several elections.
const A_WHILE: Duration = Duration::from_secs(10);

/// What a majority acknowledged must not be lost with one disk: here one of the two that have the write loses its disk,
/// the other is away, and the third never had it.
#[tokio::test(start_paused = true)]
async fn a_voter_that_lost_its_disk_helps_nobody_to_lead() {
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
    sleep(A_WHILE).await;
    assert!(!cluster.group(lost).is_leader() && !cluster.group(behind).is_leader());
    // The one who has the write comes back: it is there, and the node that lost its disk says so and stops.
    cluster.net.heal(leader, behind);
    cluster.net.heal(leader, lost);
    cluster.put("z", "1").await;
    let has = || (cluster.node(behind).machine.get("k").as_deref() == Some("acknowledged")).then_some(());
    cluster.eventually("the write", has).await;
    let failure = timeout(PATIENCE, cluster.node(lost).node.failed()).await.unwrap();
    let reason = failure.source.to_string();
    assert!(reason.contains("its disk was lost"), "{reason}");
    assert_eq!(cluster.node(lost).machine.get("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_group_begins_when_all_its_voters_are_there() {
    let mut cluster = Cluster::plan(3, Timing::Region);
    cluster.up(1).await;
    cluster.up(2).await;
    sleep(A_WHILE).await;
    assert!(!cluster.group(1).is_leader() && !cluster.group(2).is_leader());
    cluster.up(3).await;
    cluster.put("a", "0").await;
    cluster.converge("a", "0").await;
}

/// Each voter dies once before the group has begun, with what it has synced on its disk: none is taken for one that
/// lost its disk.
#[tokio::test(start_paused = true)]
async fn voters_that_die_while_the_group_begins_come_back() {
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
