//! Tests of writing, reading, leader failover and restarts.

use std::time::Duration;

use stead_raft::{ProposeError, ReadIndexError, Timing};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

#[tokio::test(start_paused = true)]
async fn one_node_writes_and_reads() {
    let cluster = Cluster::start(1, Timing::Region).await;
    cluster.put("a", "1").await;
    let index = cluster.group(1).read_index().await.unwrap();
    assert_eq!(cluster.node(1).machine.get("a").as_deref(), Some("1"));
    assert!(*cluster.group(1).applied().borrow() >= index);
    assert_eq!(cluster.group(1).metrics().applied, index);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_agree_with_the_leader() {
    let cluster = Cluster::start(3, Timing::Region).await;
    let leader = cluster.leader().await;
    for number in 0..20 {
        cluster.put("a", &number.to_string()).await;
    }
    cluster.converge("a", "19").await;
    let other = cluster.others(leader)[0];
    let refused = cluster.put_at(other, "a", "x").await;
    let expected = ProposeError::NotLeader {
        leader: Some(stead_types::NodeId::new(leader)),
    };
    assert_eq!(refused, Err(expected));
    assert!(refused.unwrap_err().has_no_effect());
    assert!(matches!(
        cluster.group(other).read_index().await,
        Err(ReadIndexError::NotLeader { leader: Some(_) })
    ));
}

#[tokio::test(start_paused = true)]
async fn dead_leader_is_replaced_and_rejoins() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    let first = cluster.leader().await;
    cluster.put("a", "1").await;
    cluster.kill(first, 0).await;
    let died = Instant::now();
    cluster.put("a", "2").await;
    assert!(died.elapsed() < Duration::from_secs(3), "{:?}", died.elapsed());
    cluster.up(first).await;
    cluster.converge("a", "2").await;
    cluster.put("a", "3").await;
    cluster.converge("a", "3").await;
}

#[tokio::test(start_paused = true)]
async fn acknowledged_writes_survive_power_loss_of_all_nodes() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    for number in 0..50 {
        cluster.put(&format!("k{number}"), "v").await;
    }
    for id in 1..=3 {
        cluster.kill(id, 0).await;
    }
    for id in 1..=3 {
        cluster.up(id).await;
    }
    let leader = cluster.leader().await;
    cluster.group(leader).read_index().await.unwrap();
    for number in 0..50 {
        assert!(cluster.node(leader).machine.get(&format!("k{number}")).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_transfer_is_immediate() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let first = cluster.leader().await;
    let next = cluster.others(first)[0];
    let asked = Instant::now();
    cluster
        .group(first)
        .transfer_leader(stead_types::NodeId::new(next))
        .await
        .unwrap();
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    cluster
        .eventually("the new leader", || cluster.group(next).is_leader().then_some(()))
        .await;
    cluster.put_at(next, "a", "2").await.unwrap();
    assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn concurrent_writers_share_entries_and_get_own_results() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    let before = cluster.group(leader).metrics().last_log;
    let writes = (0..1_000).map(|number| {
        let cluster = &cluster;
        async move {
            let key = format!("k{number}");
            let answer = cluster.put_at(leader, &key, "v").await.unwrap();
            assert!(answer.starts_with(&format!("{key} at ")), "{answer} to {key}");
        }
    });
    futures::future::join_all(writes).await;
    let entries = cluster.group(leader).metrics().last_log - before;
    assert!(entries < 20, "{entries} entries");
    let times = cluster.node(leader).machine.state.lock().unwrap().times.clone();
    assert!(times.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn overloaded_proposer_rejects_excess_and_continues() {
    let cluster = Cluster::start(1, Timing::Region).await;
    cluster.put("a", "1").await;
    let megabyte = "x".repeat(1 << 20);
    let writes = (0..40).map(|number| cluster.put_at(1, "big", &megabyte[number..]));
    let outcomes = futures::future::join_all(writes).await;
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(
        outcomes
            .iter()
            .flat_map(|outcome| outcome.as_ref().err())
            .all(|error| *error == ProposeError::Overloaded)
    );
    assert_eq!(refused, 40 - 16, "one class holds half at most: others find room");
    cluster.put("a", "2").await;
}

#[tokio::test(start_paused = true)]
async fn idle_group_keeps_leader_and_accepts_writes() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("a", "1").await;
    let (leader, term) = (cluster.leader().await, cluster.group(1).term());
    sleep(Duration::from_secs(30)).await;
    cluster.put_at(leader, "a", "2").await.unwrap();
    assert_eq!(cluster.group(leader).term(), term);
}

#[tokio::test(start_paused = true)]
async fn writes_resume_soon_after_leader_death() {
    let mut cluster = Cluster::start(3, Timing::Region).await;
    let mut gaps = Vec::new();
    for round in 0..20 {
        cluster.put("a", &round.to_string()).await;
        let leader = cluster.leader().await;
        cluster.kill(leader, usize::MAX).await;
        let died = Instant::now();
        cluster.put("b", &round.to_string()).await;
        gaps.push(died.elapsed());
        cluster.up(leader).await;
        cluster.converge("b", &round.to_string()).await;
        sleep(Duration::from_secs(2)).await;
    }
    gaps.sort();
    println!("{gaps:?}");
    assert!(gaps[10] < Duration::from_millis(1_200), "{gaps:?}");
    assert!(gaps[19] < Duration::from_secs(3), "{gaps:?}");
}

/// Invariant 1 of `read_index`: a later read gets a round that began later.
#[tokio::test(start_paused = true)]
async fn read_index_is_not_served_by_an_earlier_round() {
    let cluster = Cluster::start(3, Timing::Region).await;
    cluster.put("k", "v1").await;
    let old = cluster.leader().await;
    let others = cluster.others(old);
    // Responses of the others are held; the old leader's requests still arrive.
    for other in &others {
        cluster.net.cut_one_way(*other, old);
    }
    let read = || {
        let group = cluster.group(old).clone();
        tokio::spawn(async move { group.read_index().await })
    };
    let early = read();
    sleep(Duration::from_millis(2)).await;
    let group = cluster.group(old).clone();
    let to = stead_types::NodeId::new(others[0]);
    let handed = tokio::spawn(async move { group.transfer_leader(to).await });
    let next = cluster.leader_among(&others).await;
    let group = cluster.group(next).clone();
    while group.propose(1, vec![crate::toy::put("k", "v2")]).await.is_err() {
        sleep(Duration::from_millis(1)).await;
    }
    let late = read();
    sleep(Duration::from_millis(2)).await;
    // The response of one of them arrives before any message of the next leader does.
    let follower = cluster.others(next).into_iter().find(|other| *other != old).unwrap();
    cluster.net.heal(follower, old);
    let early = early.await.unwrap();
    assert!(early.is_ok(), "its round was confirmed, late: {early:?}");
    cluster.net.heal(next, old);
    if late.await.unwrap().is_ok() {
        assert_eq!(cluster.node(old).machine.get("k").as_deref(), Some("v2"));
    }
    drop(handed.await.unwrap());
}
