//! Nodes and regions that are added, replaced and removed while real nodes serve.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use stead_client::{Admin, Client, Config, OperationOutcome, Tenant, TopologyRequest};
use stead_tests::process::World;
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::sleep,
};

/// Longest wait on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(90);
/// Feature level of changes of nodes and regions.
const LEVEL: u32 = 5;

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Node that joins the cluster of a test.
struct JoiningNode {
    child: Child,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    client: String,
}

/// Next port of a listener, below the ephemeral ports of outgoing connections: one of these would take the port of a node
/// that starts again.
static NEXT_PORT: AtomicU16 = AtomicU16::new(21_001);

fn free_address() -> String {
    loop {
        let address = format!("127.0.0.1:{}", NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

impl JoiningNode {
    /// Starts a node under a name that was announced, with an empty folder of this name.
    fn start(world: &World, name: &str, folder: &str) -> Self {
        let below = world.folder.path();
        let data = below.join(folder);
        let (config, log) = (
            below.join(format!("{folder}.toml")),
            below.join(format!("{folder}.log")),
        );
        let [client, peer, http] = [(); 3].map(|()| free_address());
        let joins: Vec<String> = world
            .cluster
            .nodes()
            .iter()
            .map(|node| format!("{:?}", node.peer))
            .collect();
        let text = format!(
            "[cluster]\nname = \"dev\"\ngroups_per_region = 1\ndirectory_rtt_max = \"100ms\"\njoin = [{}]\n[node]\nname = \
             \"{name}\"\ndata_dir = \"{}\"\n[client]\nadvertise = \"{client}\"\n[peer]\nadvertise = \
             \"{peer}\"\n[http]\nadvertise = \"{http}\"\n",
            joins.join(", "),
            data.display()
        );
        fs::write(&config, text).unwrap();
        let child = spawn(&world.plan.binary, &config, &log);
        Self {
            child,
            config,
            data,
            log,
            client,
        }
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    async fn kill_and_wipe(&mut self) {
        self.child.kill().await.unwrap();
        fs::remove_dir_all(&self.data).unwrap();
    }

    /// Waits until the process has ended by itself, and returns its log.
    async fn ended(&mut self) -> String {
        let ended = tokio::time::timeout(WAIT_MAX, self.child.wait()).await;
        assert!(!ended.expect("it ends by itself").unwrap().success());
        fs::read_to_string(&self.log).unwrap()
    }
}

fn spawn(binary: &Path, config: &Path, log: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(config);
    command.env("TOKIO_WORKER_THREADS", "1").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn client(world: &World) -> Client {
    let mut config = Config::new(world.cluster.endpoints("eu-west"));
    config.region = Some("eu-west".parse().unwrap());
    let client = Client::connect(config).await.unwrap();
    let admin = client.admin();
    until("the feature level is raised", async || {
        admin
            .cluster()
            .await
            .is_ok_and(|cluster| cluster.feature_level >= LEVEL)
    })
    .await;
    client
}

async fn begin(admin: &Admin, request: TopologyRequest) -> String {
    let begun = admin.change_topology(request, "test").await.unwrap();
    begun.name
}

async fn wait_until_done(admin: &Admin, operation: &str) {
    let mut last = None;
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Ok(found) = admin.operation(operation).await {
            match &found.outcome {
                Some(OperationOutcome::TopologyChanged(_)) => return,
                Some(other) => panic!("{operation}: {other:?}"),
                None => last = found.topology,
            }
        }
        assert!(Instant::now() < deadline, "{operation} is not over: {last:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn voters(admin: &Admin, group: u32) -> BTreeSet<u64> {
    admin.group(group).await.unwrap().voters.into_iter().collect()
}

/// Writes that run until they are stopped; returns how many were acknowledged, and how many failed.
fn write_on(tenant: Tenant) -> (Arc<AtomicBool>, JoinHandle<(u64, u64)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writing = tokio::spawn(async move {
        let (mut written, mut failed) = (0_u64, 0_u64);
        while !stopped.load(Ordering::Relaxed) {
            match tenant.put(format!("key-{written:06}"), written.to_string()).await {
                Ok(_) => written += 1,
                Err(_) => failed += 1,
            }
        }
        (written, failed)
    });
    (stop, writing)
}

async fn assert_all_there(tenant: &Tenant, written: u64) {
    for number in (0..written).rev().step_by(7) {
        let read = tenant.get(format!("key-{number:06}")).await.unwrap();
        let item = read.item.unwrap_or_else(|| panic!("key-{number:06} is lost"));
        assert_eq!(item.value.as_ref(), number.to_string().as_bytes());
    }
}

/// A node dies with its disk, three times in a row: another one takes its place under the same name and a new number, while
/// writes go on. Afterwards another node may be lost.
#[tokio::test]
async fn lost_node_is_replaced_while_writes_run() {
    let mut world = World::start(3).await;
    let client = client(&world).await;
    let admin = client.admin();
    world.stead(["tenant", "create", "acme", "--home", "eu-west"]).await;
    let acme = client.tenant("acme").unwrap();
    until("acme is served", async || acme.put("first", "1").await.is_ok()).await;
    let (stop, writing) = write_on(acme.clone());
    let mut numbers: BTreeSet<u64> = voters(&admin, 1).await;
    let mut replacement: Option<JoiningNode> = None;
    for round in 0..3 {
        match &mut replacement {
            None => {
                world.cluster.kill_node("eu-west-3").await.unwrap();
                fs::remove_dir_all(world.plan.data_of("eu-west-3")).unwrap();
            }
            Some(replaced) => replaced.kill_and_wipe().await,
        }
        let request = TopologyRequest::ReplaceNode {
            node: "eu-west-3".into(),
            name: String::new(),
        };
        let operation = begin(&admin, request).await;
        replacement = Some(JoiningNode::start(&world, "eu-west-3", &format!("round-{round}")));
        wait_until_done(&admin, &operation).await;
        let now = voters(&admin, 1).await;
        let new: Vec<u64> = now.difference(&numbers).copied().collect();
        assert_eq!((now.len(), new.len()), (3, 1), "{now:?} after {numbers:?}");
        assert_eq!(voters(&admin, 0).await, now, "the directory follows");
        numbers.extend(new);
    }
    world.cluster.kill_node("eu-west-1").await.unwrap();
    until("writes go on without another node", async || {
        acme.put("last", "1").await.is_ok()
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let (written, failed) = writing.await.unwrap();
    assert!(written > 100, "{written} writes");
    assert!(failed < 20, "{failed} of {written} writes failed");
    assert_all_there(&acme, written).await;
}

/// A single node gets a second one, which waits, and a third: then its own loss is survived.
#[tokio::test]
async fn region_of_one_grows_to_three_and_survives_its_first_node() {
    let mut world = World::start(1).await;
    let client = client(&world).await;
    let admin = client.admin();
    world.stead(["tenant", "create", "acme", "--home", "eu-west"]).await;
    let acme = client.tenant("acme").unwrap();
    until("acme is served", async || acme.put("k", "1").await.is_ok()).await;
    let mut nodes = Vec::new();
    for name in ["eu-b", "eu-c"] {
        let request = TopologyRequest::AddNode {
            name: name.into(),
            region: "eu-west".into(),
            witness: false,
        };
        let operation = begin(&admin, request).await;
        nodes.push(JoiningNode::start(&world, name, name));
        wait_until_done(&admin, &operation).await;
        assert!(nodes.iter_mut().all(JoiningNode::is_running), "a node has ended");
    }
    assert_eq!(voters(&admin, 1).await, [1, 2, 3].into());
    assert_eq!(voters(&admin, 0).await, [1, 2, 3].into());
    until("acme is served by three", async || acme.put("k", "2").await.is_ok()).await;
    world.cluster.kill_node("eu-west-1").await.unwrap();
    let mut config = Config::new(nodes.iter().map(|node| node.client.clone()));
    config.region = Some("eu-west".parse().unwrap());
    let client = Client::connect(config).await.unwrap();
    let acme = client.tenant("acme").unwrap();
    until("acme is served by two", async || acme.put("k", "3").await.is_ok()).await;
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value.as_ref(), b"3");
}

/// A node that must not join is refused with what to do: a name that nobody announced, a copy of a data directory, one
/// that was removed.
#[tokio::test]
async fn intruders_and_removed_nodes_are_refused() {
    let world = World::start(1).await;
    let client = client(&world).await;
    let admin = client.admin();
    let mut stranger = JoiningNode::start(&world, "eu-x", "stranger");
    let log = stranger.ended().await;
    assert!(log.contains("node eu-x was not announced"), "{log}");
    assert!(log.contains("stead node add eu-x"), "{log}");

    let add = || TopologyRequest::AddNode {
        name: "eu-b".into(),
        region: "eu-west".into(),
        witness: false,
    };
    let operation = begin(&admin, add()).await;
    let mut second = JoiningNode::start(&world, "eu-b", "second");
    wait_until_done(&admin, &operation).await;
    let taken = admin.change_topology(add(), "test").await.unwrap_err();
    assert!(taken.message.contains("node eu-b exists already"), "{taken}");
    let mut other_disk = JoiningNode::start(&world, "eu-b", "other-disk");
    let log = other_disk.ended().await;
    assert!(log.contains("has joined already, from another data directory"), "{log}");

    copy_is_refused(&world, &second).await;
    let remove = |node: &str| TopologyRequest::RemoveNode {
        node: node.into(),
        accept_less: true,
    };
    let operation = begin(&admin, remove("eu-b")).await;
    wait_until_done(&admin, &operation).await;
    let log = second.ended().await;
    assert!(log.contains("was removed from the cluster"), "{log}");
    second.child = spawn(&world.plan.binary, &second.config, &second.log);
    second.ended().await;
    let last = admin.change_topology(remove("eu-west-1"), "test").await.unwrap_err();
    assert!(last.message.contains("the last one of region eu-west"), "{last}");
}

/// A node loses all of its data directory but the record that it has joined.
#[tokio::test]
async fn node_without_its_log_is_refused() {
    let world = World::start(1).await;
    let admin = client(&world).await.admin();
    let request = TopologyRequest::AddNode {
        name: "eu-b".into(),
        region: "eu-west".into(),
        witness: false,
    };
    let operation = begin(&admin, request).await;
    let mut node = JoiningNode::start(&world, "eu-b", "eu-b");
    wait_until_done(&admin, &operation).await;
    // It joins before it has a log; what votes has one.
    until("the node has recorded that it has a log", async || {
        let joined = fs::read_to_string(node.data.join("joined.json"));
        joined.is_ok_and(|joined| joined.contains("\"started\": true"))
    })
    .await;
    node.child.kill().await.unwrap();
    for entry in fs::read_dir(&node.data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if !path.ends_with("joined.json") {
            fs::remove_file(path).unwrap();
        }
    }
    node.child = spawn(&world.plan.binary, &node.config, &node.log);
    let log = node.ended().await;
    assert!(log.contains("has no log any more"), "{log}");
    assert!(log.contains("stead node replace eu-b"), "{log}");
}

/// A data directory is copied to another machine, while its node lives.
async fn copy_is_refused(world: &World, node: &JoiningNode) {
    let copy = world.folder.path().join("copy");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(&node.data)
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    // The lock is of the process, not of the file's content.
    let text = fs::read_to_string(&node.config).unwrap();
    let mut text = text.replace(&node.data.display().to_string(), &copy.display().to_string());
    for line in text.clone().lines().filter(|line| line.starts_with("advertise")) {
        text = text.replace(line, &format!("advertise = \"{}\"", free_address()));
    }
    let (config, log) = (
        world.folder.path().join("copy.toml"),
        world.folder.path().join("copy.log"),
    );
    fs::write(&config, text).unwrap();
    let mut child = spawn(&world.plan.binary, &config, &log);
    let ended = tokio::time::timeout(WAIT_MAX, child.wait()).await;
    assert!(!ended.expect("it ends by itself").unwrap().success());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("runs already, at"), "{log}");
}

/// A region joins a single node: its tenants are followed there; then it is removed, and its node stops.
#[tokio::test]
async fn region_is_added_follows_and_is_removed() {
    let world = World::start(1).await;
    let client = client(&world).await;
    let admin = client.admin();
    world.stead(["tenant", "create", "acme", "--home", "eu-west"]).await;
    let acme = client.tenant("acme").unwrap();
    until("acme is served", async || acme.put("k", "1").await.is_ok()).await;
    let add = || TopologyRequest::AddRegion {
        name: "us-east".into(),
        jurisdiction: "US".into(),
        nodes: vec!["us-1".into()],
        witness: false,
    };
    let operation = begin(&admin, add()).await;
    let twice = admin.change_topology(add(), "test").await.unwrap_err();
    assert!(twice.message.contains("region us-east exists already"), "{twice}");
    let mut node = JoiningNode::start(&world, "us-1", "us-1");
    wait_until_done(&admin, &operation).await;
    let follows = async |expected: bool| {
        let found = admin.tenant("acme").await;
        found.is_ok_and(|found| found.replicas.iter().any(|replica| replica.region == "us-east") == expected)
    };
    until("acme is followed in us-east", async || follows(true).await).await;
    let remove = TopologyRequest::RemoveRegion {
        name: "us-east".into(),
        lost: false,
    };
    let operation = begin(&admin, remove).await;
    wait_until_done(&admin, &operation).await;
    until("acme has no copy in us-east", async || follows(false).await).await;
    let log = node.ended().await;
    assert!(log.contains("was removed from the cluster"), "{log}");
    acme.put("k", "2").await.unwrap();
    until("the region is gone from every view", async || {
        admin.regions().await.is_ok_and(|regions| regions.len() == 1)
    })
    .await;
}
