//! Drain at SIGTERM: a node transfers leadership, finishes its requests, and exits with 0; callers see no failure.

use std::{
    os::unix::net::UnixDatagram,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stead_client::{Client, Config, ReadOptions};
use stead_tests::process::{self, World};

/// Longest drain: a node transfers leadership and finishes its requests; it does not wait for open streams.
const DRAINED_WITHIN: Duration = Duration::from_secs(25);
/// Longest write: less than the time after which a client tries another node.
const ANSWERED_WITHIN: Duration = Duration::from_millis(2_900);
/// Writes that must be acknowledged before a node is stopped, and after.
const WRITES: u64 = 20;

#[tokio::test]
async fn sigterm_drains_without_failing_writes() {
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
                let asked = Instant::now();
                acme.put(format!("k{number}"), number.to_string()).await.unwrap();
                assert!(
                    asked.elapsed() < ANSWERED_WITHIN,
                    "k{number} took {:?}",
                    asked.elapsed()
                );
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
        let got = acme.get_with("k0", &ReadOptions::default()).await.unwrap();
        let leader = format!("eu-west-{}", got.header.node.get());
        let asked = Instant::now();
        let ended = world.cluster.terminate_node(&leader).await.unwrap();
        assert!(asked.elapsed() < DRAINED_WITHIN, "it took {:?}", asked.elapsed());
        assert!(ended.success(), "{leader} ended with {ended}");
        let mark = world.plan.data_of(&leader).join("CLEAN");
        assert!(mark.exists(), "{leader} does not say that it ended in order");
        reached(written.load(Ordering::Relaxed) + WRITES).await;
        world.cluster.start_node(&leader).unwrap();
        world.wait_until_ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    for number in 0..written.load(Ordering::Relaxed) {
        let got = acme.get(format!("k{number}")).await.unwrap();
        assert_eq!(got.item.unwrap().value, number.to_string(), "nothing is lost");
    }
}

#[tokio::test]
async fn service_manager_is_notified_of_ready_and_stopping() {
    let mut world = World::start(1).await;
    let node = world.first().name.clone();
    world.cluster.kill_node(&node).await.unwrap();
    let path = world.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let notification = || {
        let mut message = [0; 256];
        let len = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).trim_end().to_owned()
    };
    let mut command = process::stead_command(world.folder.path());
    command.arg("serve").arg("--config").arg(world.plan.config_of(&node));
    command.env("NOTIFY_SOCKET", &path);
    let mut command = tokio::process::Command::from(command);
    let mut serving = command.kill_on_drop(true).spawn().unwrap();
    assert_eq!(notification(), "READY=1\nSTATUS=serving");
    let number = serving.id().unwrap().to_string();
    assert!(Command::new("kill").arg(number).status().unwrap().success());
    assert_eq!(notification(), "STOPPING=1");
    let ended = tokio::time::timeout(Duration::from_secs(60), serving.wait());
    assert!(ended.await.unwrap().unwrap().success());
}
