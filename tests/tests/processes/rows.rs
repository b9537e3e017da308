//! Damaged rows beside an intact log and vote: a node sets them aside and restores them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use stead_client::{Client, Config};
use stead_tests::process::World;
use tokio::{net::TcpStream, time::sleep};

const WAIT_MAX: Duration = Duration::from_secs(90);
/// Number of values that together exceed the log that a group keeps for voters that are behind.
const VALUES: usize = 360;
const VALUE_LEN: usize = 256 << 10;
/// Number of keys whose values of 20 KiB need more than two checkpoints.
const KEYS: usize = 4_000;

/// Returns the files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(below).collect()
}

/// Overwrites every file below a directory.
fn overwrite_files(dir: &Path) {
    for path in files(dir) {
        let len = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![0x5a; len as usize]).unwrap();
    }
}

/// Returns whether a file below a directory is larger than a MiB: rows that a checkpoint has written.
fn has_large_file(dir: &Path) -> bool {
    let is_large = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 1 << 20);
    files(dir).iter().any(is_large)
}

/// Overwrites every large file below a directory from 16 KiB to its middle, so that it still opens.
fn overwrite_first_halves(dir: &Path) {
    for path in files(dir) {
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        if len > 1 << 20 {
            bytes[16 << 10..len / 2].fill(0x5a);
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// Kills a node, damages its rows, starts it again, and returns its log since then.
async fn damage_and_restart(world: &mut World, node: &str) -> String {
    world.cluster.kill_node(node).await.unwrap();
    let log = world.plan.log_of(node);
    let before = fs::read_to_string(&log).unwrap().len();
    overwrite_files(&world.plan.data_of(node).join("rows"));
    world.cluster.start_node(node).unwrap();
    world.wait_until_ready().await;
    fs::read_to_string(&log).unwrap()[before..].to_owned()
}

#[tokio::test]
async fn damaged_rows_are_restored_from_log_or_voter() {
    let mut world = World::start(3).await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let client = Client::connect(Config::new(world.cluster.endpoints("eu-west"))).await;
    let acme = client.unwrap().tenant("acme").unwrap();
    acme.put("first", "1").await.unwrap();
    let engines: Vec<(String, String)> = world
        .cluster
        .nodes()
        .iter()
        .map(|node| (node.name.clone(), node.engine.clone()))
        .collect();
    assert_eq!(engines.last().unwrap().1, "sled");

    // The log is whole: no other voter is needed.
    let log_text = damage_and_restart(&mut world, &engines[2].0).await;
    assert!(log_text.contains("they are set aside"), "{log_text}");
    assert!(!log_text.contains("rows restored"), "{log_text}");

    for number in 0..VALUES {
        let value = vec![number as u8; VALUE_LEN];
        acme.put(format!("large/{number}"), value).await.unwrap();
    }
    // Entries that were purged from the log meanwhile come from the others, of any engine.
    for (node, engine) in &engines[1..] {
        let deadline = Instant::now() + WAIT_MAX;
        let mut log_text = String::new();
        while !log_text.contains("rows restored") {
            assert!(
                Instant::now() < deadline,
                "the log of {node} on {engine} is never purged: {log_text}"
            );
            sleep(Duration::from_secs(1)).await;
            log_text = damage_and_restart(&mut world, node).await;
            assert!(log_text.contains("they are set aside"), "{log_text}");
        }
        let kept = fs::read_dir(world.plan.data_of(node)).unwrap();
        let kept = kept.filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("damaged")
        });
        assert!((1..=2).contains(&kept.count()));
    }

    // While no voter can give them, calls are refused instead of waiting.
    let (node, _) = &engines[1];
    for (other, _) in [&engines[0], &engines[2]] {
        world.cluster.kill_node(other).await.unwrap();
    }
    world.cluster.kill_node(node).await.unwrap();
    let log = world.plan.log_of(node);
    let before = fs::read_to_string(&log).unwrap().len();
    overwrite_files(&world.plan.data_of(node).join("rows"));
    world.cluster.start_node(node).unwrap();
    let deadline = Instant::now() + WAIT_MAX;
    while !fs::read_to_string(&log).unwrap()[before..].contains("takes no part in the group") {
        assert!(Instant::now() < deadline, "it does not say what it waits for");
        sleep(Duration::from_millis(100)).await;
    }
    let address = world.cluster.nodes()[1].client.clone();
    while let Ok(connected) = TcpStream::connect(&address).await {
        drop(connected);
        assert!(Instant::now() < deadline, "{node} takes calls that it cannot answer");
        sleep(Duration::from_millis(100)).await;
    }
    for (other, _) in [&engines[0], &engines[2]] {
        world.cluster.start_node(other).unwrap();
    }
    world.wait_until_ready().await;
    for key in ["first", "large/0", "large/359"] {
        assert!(acme.get(key).await.unwrap().item.is_some(), "{key}");
    }
}

#[tokio::test]
async fn rows_found_damaged_during_log_replay_are_set_aside() {
    let mut world = World::start(3).await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let client = Client::connect(Config::new(world.cluster.endpoints("eu-west"))).await;
    let acme = client.unwrap().tenant("acme").unwrap();
    // More data than triggers a checkpoint, then small values that trigger none: applying those reads each key again.
    let key = |number| format!("small/{number:05}/{}", "x".repeat(100));
    for value in [vec![7; 20 << 10], vec![8]] {
        let puts = (0..KEYS).map(|number| acme.put(key(number), value.clone()));
        stream::iter(puts)
            .buffer_unordered(64)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
    }
    let node = world.cluster.nodes()[0].name.clone();
    let rows = world.plan.data_of(&node).join("rows");
    let deadline = Instant::now() + WAIT_MAX;
    while !has_large_file(&rows) {
        assert!(Instant::now() < deadline, "no checkpoint writes the rows");
        sleep(Duration::from_millis(100)).await;
    }
    world.cluster.kill_node(&node).await.unwrap();
    let log = world.plan.log_of(&node);
    let before = fs::read_to_string(&log).unwrap().len();
    overwrite_first_halves(&rows);
    world.cluster.start_node(&node).unwrap();
    let deadline = Instant::now() + WAIT_MAX;
    while world.cluster.process(&node).is_some() {
        assert!(Instant::now() < deadline, "the node runs with damaged rows");
        sleep(Duration::from_millis(100)).await;
    }
    let log_text = fs::read_to_string(&log).unwrap()[before..].to_owned();
    assert!(log_text.contains("they are set aside"), "{log_text}");
    world.cluster.start_node(&node).unwrap();
    world.wait_until_ready().await;
    for number in [0, KEYS - 1] {
        let found = acme.get(key(number)).await.unwrap().item.unwrap();
        assert_eq!(found.value.as_ref(), [8]);
    }
}
