//! SIGTERM: a node hands leadership over, finishes what it has begun, and ends with 0; callers notice nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use stead_client::{Client, Config, Read};
use stead_tests::process::World;

/// Writes that must pass before a node is stopped, and after.
const WRITES: u64 = 20;

#[tokio::test]
async fn a_node_that_is_asked_to_end_drains_and_ends_with_zero_while_callers_write() {
    let mut world = World::start(3).await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let client = Client::connect(Config::new(world.cluster.endpoints("eu-west")))
        .await
        .unwrap();
    let acme = client.tenant("acme").unwrap();
    let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn({
        let (acme, written, stop) = (acme.clone(), written.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let number = written.load(Ordering::Relaxed);
                acme.put(format!("k{number}"), number.to_string()).await.unwrap();
                written.store(number + 1, Ordering::Relaxed);
            }
        }
    });
    let reached = async |number: u64| {
        let wait = async {
            while written.load(Ordering::Relaxed) < number {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    };
    reached(WRITES).await;
    for _ in 0..2 {
        let got = acme.get_with("k0", &Read::default()).await.unwrap();
        let leader = format!("eu-west-{}", got.header.node.get());
        let ended = world.cluster.end_node(&leader).await.unwrap();
        assert!(ended.success(), "{leader} ended with {ended}");
        reached(written.load(Ordering::Relaxed) + WRITES).await;
        world.cluster.start_node(&leader).unwrap();
        world.ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    for number in 0..written.load(Ordering::Relaxed) {
        let got = acme.get(format!("k{number}")).await.unwrap();
        assert_eq!(got.item.unwrap().value, number.to_string(), "nothing is lost");
    }
}
