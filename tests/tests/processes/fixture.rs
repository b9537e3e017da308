//! Tests of `stead_testing::Fixture`, the fixture for services' own tests, with real nodes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stead_client::{Consistency, ReadOptions, Tenant, WriteOptions};
use stead_testing::{Builder, Fixture, fixture};
use stead_tests::process::{binary, exclusive_lock};
use tokio::{runtime::Runtime, time::sleep};

const ROUND_TRIP: Duration = Duration::from_millis(80);
/// Longest wait on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Timeout of a call across a cut.
const CUT_TIMEOUT: Duration = Duration::from_millis(700);

fn builder() -> Builder {
    Fixture::builder().binary(binary())
}

fn two_regions() -> Builder {
    let regions = builder().region("us-east", 1).region("eu-west", 1);
    regions.round_trip("us-east", "eu-west", ROUND_TRIP)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn processes(cluster: &Fixture) -> Vec<u32> {
    let mut found = Vec::new();
    for node in cluster.nodes() {
        found.extend(cluster.process(&node.name).await);
    }
    assert_eq!(found.len(), cluster.nodes().len(), "every node runs");
    found
}

fn is_running(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

async fn value_of(tenant: &Tenant, read: &ReadOptions) -> Option<String> {
    let item = tenant.get_with("credits", read).await.unwrap().item?;
    Some(String::from_utf8(item.value.to_vec()).unwrap())
}

#[tokio::test]
async fn fixture_survives_cuts_and_kills_and_cleans_up() {
    let _lock = exclusive_lock();
    let cluster = two_regions().start().await.unwrap();
    cluster.create_tenant("acme", "us-east").await.unwrap();
    let far = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    let home = cluster.client("us-east").await.unwrap().tenant("acme").unwrap();
    far.put("credits", "100").await.unwrap();
    let asked = Instant::now();
    far.put("credits", "99").await.unwrap();
    assert!(asked.elapsed() >= ROUND_TRIP, "{:?} is no sea", asked.elapsed());
    assert_eq!(value_of(&home, &ReadOptions::default()).await.unwrap(), "99");
    let local = ReadOptions::at(Consistency::Local);
    until("eu-west has followed", async || {
        value_of(&far, &local).await.as_deref() == Some("99")
    })
    .await;

    cluster.cut("us-east", "eu-west").unwrap();
    let write = WriteOptions {
        timeout: Some(CUT_TIMEOUT),
        ..WriteOptions::default()
    };
    far.put_with("lost", "1", &write).await.unwrap_err();
    home.put("credits", "98").await.unwrap();
    assert_eq!(value_of(&far, &local).await.unwrap(), "99", "nothing crosses");
    cluster.heal_all();
    far.put("credits", "97").await.unwrap();

    let before = cluster.process("us-east-1").await.unwrap();
    cluster.kill("us-east-1").await.unwrap();
    assert_eq!(cluster.process("us-east-1").await, None);
    assert!(!is_running(before));
    let refused = cluster.kill("us-east-1").await.unwrap_err().to_string();
    assert_eq!(refused, "us-east-1 is not running");
    cluster.start("us-east-1").await.unwrap();
    assert_eq!(
        value_of(&far, &ReadOptions::default()).await.unwrap(),
        "97",
        "its data stayed"
    );

    let (processes, folder) = (processes(&cluster).await, cluster.folder().to_owned());
    assert!(folder.join("us-east-1.log").exists());
    drop(cluster);
    assert!(processes.iter().all(|process| !is_running(*process)), "{processes:?}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn fixtures_start_concurrently_and_share_nothing() {
    let _lock = exclusive_lock();
    let one = || builder().region("eu-west", 1).start();
    let (first, second) = tokio::join!(one(), one());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(
        first.endpoints("eu-west").unwrap(),
        second.endpoints("eu-west").unwrap()
    );
    assert_ne!(first.folder(), second.folder());
    for (cluster, value) in [(&first, "first"), (&second, "second")] {
        cluster.create_tenant("acme", "eu-west").await.unwrap();
        cluster
            .create_tenant("acme", "eu-west")
            .await
            .expect("it is there, as asked for");
        let acme = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
        acme.put("credits", value).await.unwrap();
    }
    drop(second);
    let acme = first.client("eu-west").await.unwrap().tenant("acme").unwrap();
    assert_eq!(value_of(&acme, &ReadOptions::default()).await.unwrap(), "first");
}

#[tokio::test]
async fn region_of_three_serves_without_one_node() {
    let _lock = exclusive_lock();
    let cluster = builder().region("eu-west", 3).start().await.unwrap();
    cluster.create_tenant("acme", "eu-west").await.unwrap();
    let acme = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    for node in cluster.nodes() {
        cluster.kill(&node.name).await.unwrap();
        acme.put("credits", node.name.clone()).await.unwrap();
        cluster.start(&node.name).await.unwrap();
    }
    cluster.freeze("eu-west-1").await.unwrap();
    let frozen = cluster.process("eu-west-1").await.unwrap();
    let is_frozen = async || {
        fs::read_to_string(format!("/proc/{frozen}/stat"))
            .unwrap()
            .contains(" T ")
    };
    until("eu-west-1 is frozen", is_frozen).await;
    acme.put("credits", "without 1").await.unwrap();
    cluster.thaw("eu-west-1").await.unwrap();
    cluster.ready().await.unwrap();
    assert_eq!(value_of(&acme, &ReadOptions::default()).await.unwrap(), "without 1");
}

#[test]
fn fixture_outlives_the_runtime_that_started_it() {
    let _lock = exclusive_lock();
    let starting = Runtime::new().unwrap();
    let cluster = starting.block_on(two_regions().start()).unwrap();
    starting.block_on(cluster.create_tenant("acme", "us-east")).unwrap();
    drop(starting);
    let later = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    later.block_on(async {
        let far = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
        far.put("credits", "1").await.unwrap();
        cluster.kill("eu-west-1").await.unwrap();
        cluster.start("eu-west-1").await.unwrap();
        assert_eq!(value_of(&far, &ReadOptions::default()).await.unwrap(), "1");
        drop(cluster);
    });
}

#[tokio::test]
async fn fixture_keeps_logs_when_test_panics() {
    let _lock = exclusive_lock();
    let (sender, folder) = tokio::sync::oneshot::channel::<(PathBuf, u32)>();
    let panicking = std::thread::spawn(move || {
        Runtime::new().unwrap().block_on(async {
            let cluster = builder().region("eu-west", 1).start().await.unwrap();
            let process = cluster.process("eu-west-1").await.unwrap();
            sender.send((cluster.folder().to_owned(), process)).unwrap();
            panic!("as a test does");
        })
    });
    let (folder, process) = folder.await.unwrap();
    panicking.join().unwrap_err();
    let log = fs::read_to_string(folder.join("eu-west-1.log")).unwrap();
    assert!(log.contains("INFO"), "{log}");
    assert!(!is_running(process));
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn fixture_keeps_logs_when_test_returns_error() {
    let _lock = exclusive_lock();
    for outcome in [Ok(()), Err("as a test does")] {
        let cluster = builder().region("eu-west", 1).start().await.unwrap();
        let folder = cluster.folder().to_owned();
        assert_eq!(cluster.run(async |_| outcome).await, outcome);
        assert_eq!(folder.join("eu-west-1.log").exists(), outcome.is_err());
        if outcome.is_err() {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}

/// Helper process, not a test by itself: it is killed by the next test.
#[tokio::test]
async fn killed_test_process() {
    if std::env::var_os("KILLED_TEST_FILE").is_some() {
        let cluster = builder().region("eu-west", 1).start().await.unwrap();
        let node = format!("{}\n{}", processes(&cluster).await[0], cluster.folder().display());
        fs::write(std::env::var_os("KILLED_TEST_FILE").unwrap(), node).unwrap();
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn fixture_nodes_die_with_killed_test_process() {
    let _lock = exclusive_lock();
    let below = tempfile::tempdir().unwrap();
    let node_file = below.path().join("node");
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["fixture::killed_test_process", "--exact", "--nocapture"]);
    test.env("KILLED_TEST_FILE", &node_file).env("TMPDIR", below.path());
    let mut test = test.stdout(Stdio::null()).spawn().unwrap();
    let lines = async || {
        Some(
            fs::read_to_string(&node_file)
                .ok()?
                .split_once('\n')?
                .0
                .parse::<u32>()
                .unwrap(),
        )
    };
    until("its node runs", async || lines().await.is_some()).await;
    let process = lines().await.unwrap();
    assert!(is_running(process));
    test.kill().unwrap();
    test.wait().unwrap();
    until("its node is gone", async || !is_running(process)).await;
}

#[tokio::test]
async fn fixture_start_error_names_the_cause() {
    let error = async |builder: Builder| builder.start().await.unwrap_err();
    let missing = builder().region("eu-west", 1).binary("/nowhere/stead");
    assert!(matches!(error(missing).await, fixture::Error::NotRunnable { .. }));
    let nothing = error(builder()).await.to_string();
    assert!(nothing.contains("at least one region"), "{nothing}");
    let other = builder().region("eu-west", 1).binary("/bin/echo").patience(WAIT_MAX);
    let other = format!("{:?}", error(other).await);
    assert!(
        other.contains("eu-west-1 ended") && other.contains("serve --config"),
        "{other}"
    );
    let typing = two_regions().round_trip("us-east", "eu-wset", ROUND_TRIP);
    let typing = error(typing).await.to_string();
    assert!(typing.contains("eu-wset"), "{typing}");
}
