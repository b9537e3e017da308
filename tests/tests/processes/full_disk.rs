//! Full disks of real nodes: writes are refused by name, the rest goes on, and all comes back by itself.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stead_client::{Client, Config, ErrorKind, KeyRange, ReadOptions, Tenant};
use stead_tests::process::{World, http_get};
use tokio::time::{Instant, sleep};

const NODES: [&str; 3] = ["eu-west-1", "eu-west-2", "eu-west-3"];
/// Size of each node's disk: the reserve of 256 MiB, the log, the ballast, and some data.
const DISK_MIB: u64 = 420;
const VALUE_LEN: usize = 64 << 10;
/// More puts than fit.
const PUTS_MAX: usize = 10_000;
/// Longest time in which what has to come comes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Small file systems in place of the nodes' data directories.
struct SmallDisks(Vec<PathBuf>);

impl SmallDisks {
    fn fill(&self, node: usize) {
        let path = self.0[node].join("filler");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        let block = vec![1; 1 << 20];
        // Until nothing is left, in ever smaller pieces.
        for len in [1 << 20, 4 << 10] {
            while file.write_all(&block[..len]).is_ok() {}
        }
    }

    fn free(&self, node: usize) {
        fs::remove_file(self.0[node].join("filler")).unwrap();
    }

    fn grow(&self, mib: u64) {
        for disk in &self.0 {
            let size = format!("remount,size={mib}m");
            assert!(mount(&["-o", &size], disk), "a file system can grow");
        }
    }
}

impl Drop for SmallDisks {
    fn drop(&mut self) {
        for disk in &self.0 {
            // The nodes still use it: it goes away with them.
            let _ended = Command::new("umount").arg("--lazy").arg(disk).status();
        }
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let ended = Command::new("mount").args(arguments).arg(at).status();
    ended.is_ok_and(|status| status.success())
}

/// Starts three nodes on small disks; `None`, with a line of output, where this process may not mount.
async fn start() -> Option<(World, SmallDisks)> {
    let probe = tempfile::tempdir().unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=1m", "stead-test"], probe.path()) {
        println!("skipped: a small file system cannot be mounted here; it takes root");
        return None;
    }
    drop(SmallDisks(vec![probe.path().to_owned()]));
    let mut disks = SmallDisks(Vec::new());
    let world = World::start_prepared(NODES.len(), |plan| {
        for node in NODES {
            let data = plan.data_of(node);
            fs::create_dir_all(&data).unwrap();
            let size = format!("size={DISK_MIB}m");
            assert!(mount(&["-t", "tmpfs", "-o", &size, "stead-test"], &data));
            disks.0.push(data);
        }
    })
    .await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    Some((world, disks))
}

async fn tenant(world: &World) -> Tenant {
    let client = Client::connect(Config::new(world.cluster.endpoints("eu-west"))).await;
    client.unwrap().tenant("acme").unwrap()
}

fn key(number: usize) -> String {
    format!("k{number:05}")
}

/// Puts until a put is refused for the disk reserve, and returns how many were acknowledged.
async fn put_until_refused(acme: &Tenant) -> usize {
    let value = vec![7; VALUE_LEN];
    for number in 0..PUTS_MAX {
        let Err(error) = acme.put(key(number), value.clone()).await else {
            continue;
        };
        let is_refused = matches!(&error.kind, ErrorKind::QuotaExceeded { limit } if limit == "disk reserve");
        assert!(is_refused, "put {number}: {error:?}");
        assert!(error.message.contains("below the disk reserve of 256 MiB"), "{error}");
        return number;
    }
    panic!("{PUTS_MAX} puts were never refused");
}

/// Repeats until it succeeds.
async fn eventually<T, E: std::fmt::Debug>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let latest = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < latest, "{what}: {error:?}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn processes(world: &mut World) -> Vec<Option<u32>> {
    NODES.map(|node| world.cluster.process(node)).to_vec()
}

/// Case c3.
#[tokio::test]
async fn full_disks_refuse_writes_serve_reads_and_come_back() {
    let Some((mut world, disks)) = start().await else {
        return;
    };
    let before = processes(&mut world);
    let acme = tenant(&world).await;
    let written = put_until_refused(&acme).await;
    assert!(written > 100, "refused after {written} puts, with room for more");
    let last = key(written - 1);
    assert!(acme.get(last.clone()).await.unwrap().item.is_some());
    acme.delete(key(0)).await.unwrap();
    // Keys 10 to 19: the last one is none of them.
    acme.delete_range(&KeyRange::prefix("k0001")).await.unwrap();
    let (status, checks) = http_get(&world.first().http, "/readyz?verbose").await.unwrap();
    assert_eq!(status, 200, "it serves: {checks}");
    eventually("a warning of the disk", async || {
        let checks = http_get(&world.first().http, "/readyz?verbose").await.unwrap().1;
        checks.contains("[!] disk: ").then_some(()).ok_or(checks)
    })
    .await;

    // What is left is used up by others. A node that is started then serves, too.
    (0..NODES.len()).for_each(|node| disks.fill(node));
    eventually("a read on full disks", async || acme.get(last.clone()).await).await;
    eventually("a delete on full disks", async || acme.delete(key(2)).await).await;
    world.cluster.kill_node(NODES[0]).await.unwrap();
    world.cluster.start_node(NODES[0]).unwrap();
    let local = ReadOptions {
        consistency: stead_client::Consistency::Local,
        ..ReadOptions::default()
    };
    let alone = eventually("a client of the started node", async || {
        let client = Client::connect(Config::new([world.first().client.clone()])).await?;
        // It reads its log first, and what the others have committed since.
        let got = client.tenant("acme")?.get_with(last.clone(), &local).await?;
        got.item.ok_or_else(|| anyhow::anyhow!("not applied yet"))
    });
    alone.await;

    (0..NODES.len()).for_each(|node| disks.free(node));
    disks.grow(2 * DISK_MIB);
    eventually("a write with room", async || acme.put("after", "1").await).await;
    assert!(acme.get(last).await.unwrap().item.is_some());
    assert!(acme.get(key(0)).await.unwrap().item.is_none());
    let after = processes(&mut world);
    assert_eq!(after[1..], before[1..], "no process has ended");
}

/// Case c4.
#[tokio::test]
async fn one_full_disk_gives_leadership_up_and_catches_up_later() {
    let Some((mut world, disks)) = start().await else {
        return;
    };
    let before = processes(&mut world);
    let acme = tenant(&world).await;
    let first = acme.put("a", "0").await.unwrap();
    let leader = usize::try_from(first.header.node.get()).unwrap() - 1;
    disks.fill(leader);
    let moved = eventually("a leader with room", async || {
        let put = acme.put("a", "1").await.map_err(|error| error.to_string())?;
        let node = usize::try_from(put.header.node.get()).unwrap() - 1;
        (node != leader)
            .then_some(node)
            .ok_or_else(|| "still led by the full node".to_owned())
    })
    .await;
    for number in 0..200 {
        acme.put(format!("k{number}"), vec![7; VALUE_LEN]).await.unwrap();
    }
    disks.free(leader);
    // It catches up: the group does without another node.
    let other = (0..NODES.len()).find(|node| ![leader, moved].contains(node)).unwrap();
    eventually("the full node has caught up", async || {
        let status = world.stead(["group", "status", "1", "-o", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status.stdout).map_err(|error| error.to_string())?;
        let text = status.to_string();
        let matched: Vec<&str> = text.split("\"matchedIndex\":\"").skip(1).collect();
        let indexes: Vec<u64> = matched
            .iter()
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect();
        let newest = indexes.iter().max().copied().unwrap_or(0);
        let is_even = indexes.len() >= 2 && indexes.iter().all(|index| index + 100 > newest);
        is_even.then_some(()).ok_or(text)
    })
    .await;
    world.cluster.kill_node(NODES[other]).await.unwrap();
    eventually("a write of the node that was full", async || acme.put("b", "2").await).await;
    let after = processes(&mut world);
    assert_eq!(
        (after[leader], after[moved]),
        (before[leader], before[moved]),
        "no process has ended"
    );
}
