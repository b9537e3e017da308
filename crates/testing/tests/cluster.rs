//! Tests of clusters with fake nodes: this test's own binary, started again, which only serves `/readyz`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use stead_testing::{
    Cluster,
    cluster::{Error, Plan, Ports, Region},
    process,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LONG: Duration = Duration::from_secs(30);

/// Not a test by itself: the fake node of the tests below.
#[test]
fn pretend_node() {
    let Ok(config) = std::env::var("PRETEND_CONFIG") else {
        return;
    };
    let config = fs::read_to_string(config).unwrap();
    let http = config
        .split("[http]\nlisten = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let client = config
        .split("[client]\nlisten = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let clients = TcpListener::bind(client).unwrap();
    std::thread::spawn(move || {
        clients
            .incoming()
            .for_each(|stream| stream.unwrap().write_all(b"hello").unwrap())
    });
    for stream in TcpListener::bind(http).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }
}

/// Creates a binary that turns `serve --config FILE` into a run of [`pretend_node`].
fn binary(below: &Path) -> std::path::PathBuf {
    let path = below.join("pretend");
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nPRETEND_CONFIG=\"$3\" exec {} pretend_node --exact --nocapture\n",
        own.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn plan(below: &Path, base_port: u16) -> Plan {
    let region = |name: &str, jurisdiction: &str| Region {
        name: name.into(),
        jurisdiction: jurisdiction.into(),
        nodes: 2,
        initial: 2,
        witness: false,
    };
    Plan {
        binary: binary(below),
        data: below.join("data"),
        regions: vec![region("us-east", "US"), region("eu-west", "EU")],
        round_trips: vec![("eu-west".into(), "us-east".into(), Duration::from_millis(60))],
        ports: Ports::From(base_port),
        engines: vec!["fjall".into(), "sled".into()],
        groups_per_region: 1,
        tls: false,
        asks_for_credentials: false,
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn killed_node_can_be_started_again() {
    let below = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(plan(below.path(), 21_001)).await.unwrap();
    cluster.ready(LONG).await.unwrap();
    let first = cluster.process("eu-west-2").unwrap();
    cluster.kill_node("eu-west-2").await.unwrap();
    assert_eq!(cluster.process("eu-west-2"), None);
    assert!(process::usage(first).is_err(), "gone");
    assert!(matches!(
        cluster.kill_node("eu-west-2").await,
        Err(Error::NotRunning(_))
    ));
    assert!(matches!(cluster.kill_node("eu-west-9").await, Err(Error::Unknown(_))));
    cluster.start_node("eu-west-2").unwrap();
    cluster.ready(LONG).await.unwrap();
    assert_eq!(cluster.named("eu-west").unwrap(), ["eu-west-1", "eu-west-2"]);
    cluster.shut_down(LONG).await;
}

#[tokio::test]
async fn region_has_its_round_trip_and_can_be_cut() {
    let below = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(plan(below.path(), 22_001)).await.unwrap();
    cluster.ready(LONG).await.unwrap();
    let far = cluster.endpoints("eu-west")[0].clone();
    let dialled = cluster.dial("us-east")[&far].clone();
    let mut stream = TcpStream::connect(&dialled).await.unwrap();
    let asked = Instant::now();
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(50), "{:?}", asked.elapsed());
    assert!(
        !cluster.dial("eu-west").contains_key(&far),
        "nobody goes round to its own region"
    );

    let link = cluster.link("us-east", "eu-west").unwrap();
    link.cut();
    let mut stream = TcpStream::connect(&dialled).await.unwrap();
    let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut [0; 5])).await;
    assert!(read.is_err(), "nothing passes");
    link.heal();
    tokio::time::timeout(LONG, stream.read_exact(&mut [0; 5]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(link.back.bytes(), 10);
}

#[tokio::test]
async fn frozen_node_stays_frozen_until_thawed() {
    let below = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(plan(below.path(), 23_001)).await.unwrap();
    cluster.ready(LONG).await.unwrap();
    cluster.freeze_node("us-east-1").unwrap();
    let process = cluster.process("us-east-1").unwrap();
    let state = async || {
        fs::read_to_string(format!("/proc/{process}/stat"))
            .unwrap()
            .contains(" T ")
    };
    until("frozen", state).await;
    cluster.thaw_node("us-east-1").unwrap();
    until("going on", async || !state().await).await;
}

#[tokio::test]
async fn directory_belongs_to_one_cluster_and_keeps_ports() {
    let below = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:24001").unwrap();
    let cluster = Cluster::start(plan(below.path(), 24_001)).await.unwrap();
    let endpoints = cluster.endpoints("us-east");
    assert_eq!(endpoints[0], "127.0.0.1:24301", "the first range has a port in use");
    assert!(matches!(
        Cluster::start(plan(below.path(), 24_001)).await,
        Err(Error::InUse(_))
    ));
    drop((cluster, taken));
    let again = Cluster::start(plan(below.path(), 24_001)).await.unwrap();
    assert_eq!(again.endpoints("us-east"), endpoints);
    drop(again);
    let taken = TcpListener::bind("127.0.0.1:24301").unwrap();
    let refused = Cluster::start(plan(below.path(), 24_001)).await.unwrap_err();
    assert!(matches!(refused, Error::PortInUse { port: 24_301, .. }), "{refused}");
    drop(taken);
    let mut other = plan(below.path(), 24_001);
    other.regions.pop();
    other.round_trips.clear();
    assert!(matches!(Cluster::start(other).await, Err(Error::OtherLayout(_))));
}

#[tokio::test]
async fn ended_node_is_reported_with_its_log() {
    let below = tempfile::tempdir().unwrap();
    let mut plan = plan(below.path(), 25_001);
    let script = "#!/bin/sh\necho no such setting: clinet >&2\nexit 2\n";
    fs::write(&plan.binary, script).unwrap();
    plan.regions.truncate(1);
    plan.round_trips.clear();
    let mut cluster = Cluster::start(plan).await.unwrap();
    let error = cluster.ready(LONG).await.unwrap_err().to_string();
    assert!(error.contains("no such setting: clinet"), "{error}");
}

#[tokio::test]
async fn clear_empties_only_cluster_data() {
    let below = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(plan(below.path(), 26_001)).await.unwrap();
    let data = below.path().join("data");
    assert!(matches!(Cluster::clear(&data), Err(Error::InUse(_))));
    drop(cluster);
    Cluster::clear(&data).unwrap();
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "the lock");
    assert!(matches!(Cluster::clear(below.path()), Err(Error::NoCluster(_))));
    assert!(below.path().join("pretend").exists());
}

#[tokio::test]
async fn invalid_plan_is_refused_before_directories_are_made() {
    let below = tempfile::tempdir().unwrap();
    let refused = async |change: fn(&mut Plan)| {
        let mut plan = plan(below.path(), 26_901);
        change(&mut plan);
        let error = Cluster::start(plan).await.unwrap_err().to_string();
        assert!(!below.path().join("data").exists());
        error
    };
    let error = refused(|plan| plan.round_trips[0].0 = "eu-wset".into()).await;
    assert_eq!(error, "no node, region or pair of regions is named eu-wset - us-east");
    let error = refused(|plan| plan.regions[0].name = "US east".into()).await;
    assert!(error.contains("only a-z, 0-9 and -"), "{error}");
    let error = refused(|plan| plan.regions[0].nodes = 0).await;
    assert_eq!(error, "region \"us-east\": a region has 1 to 10 nodes, this one has 0");
    let error = refused(|plan| plan.regions[0] = plan.regions[1].clone()).await;
    assert!(error.contains("named twice"), "{error}");
    let error = refused(|plan| plan.regions.clear()).await;
    assert!(error.contains("at least one region"), "{error}");
}
