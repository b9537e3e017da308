//! Tests with real sockets, real threads and the log on disk, which the simulation leaves out, and a measurement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use stead_raft::{BlockingMode, Clocks, Config, CopyBandwidth, GroupConfig, Node, Timing, TypedGroup};
use stead_store::health::Health;
use stead_store::log::raft_engine::{self, Options, SyncFault};
use stead_types::{GroupId, Incarnation, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;

use crate::toy::{self, Toy, put};

/// Nodes on loopback sockets.
struct LoopbackCluster {
    groups: Vec<TypedGroup<Toy>>,
    nodes: Vec<Node>,
    _folders: Vec<tempfile::TempDir>,
}

async fn start(count: u64) -> LoopbackCluster {
    let mut listeners = BTreeMap::new();
    for id in 1..=count {
        listeners.insert(id, TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: BTreeMap<u64, String> = listeners
        .iter()
        .map(|(id, listener)| (*id, listener.local_addr().unwrap().to_string()))
        .collect();
    let mut started = LoopbackCluster {
        groups: Vec::new(),
        nodes: Vec::new(),
        _folders: Vec::new(),
    };
    let booted = Instant::now();
    for (id, listener) in listeners {
        let folder = tempfile::tempdir().unwrap();
        let addresses = addresses.clone();
        let node = Node::new(Config {
            node: NodeId::new(id),
            log: raft_engine::open(
                &folder.path().join("log"),
                &Options::SMALL,
                SyncFault::default(),
                Health::default(),
            )
            .unwrap(),
            connect: Arc::new(|address| {
                Box::pin(async move {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Ok(Box::pin(stream) as _)
                })
            }),
            resolve: Arc::new(move |node| addresses.get(&node.get()).cloned()),
            clocks: Clocks {
                wall: Arc::new(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64),
                boot: Arc::new(move || booted.elapsed()),
            },
            blocking: BlockingMode::Pool,
            spool: Some(folder.path().join("spool")),
            copies: Arc::new(CopyBandwidth::new(u64::MAX)),
            limits: stead_raft::LogLimits::default(),
            may_rebuild: Arc::new(|| true),
            may_send: Arc::new(|_, _, _| true),
        });
        let incoming = TcpListenerStream::new(listener).inspect(|stream| {
            // Nagle's algorithm and delayed acknowledgements together cost 40 ms an entry.
            stream.as_ref().unwrap().set_nodelay(true).unwrap();
        });
        let server = tonic::transport::Server::builder().add_service(node.service());
        tokio::spawn(server.serve_with_incoming(incoming));
        let config = GroupConfig {
            group: GroupId::new(1),
            incarnation: Incarnation::FIRST,
            voters: (1..=count).map(NodeId::new).collect(),
            timing: Timing::Region,
        };
        let machine = Toy::open(&toy::Disk::default());
        started.groups.push(node.create_group(config, machine).await.unwrap());
        started.nodes.push(node);
        started._folders.push(folder);
    }
    started
}

impl LoopbackCluster {
    async fn leader(&self) -> TypedGroup<Toy> {
        let patience = Instant::now() + Duration::from_secs(30);
        while Instant::now() < patience {
            if let Some(group) = self.groups.iter().find(|group| group.is_leader()) {
                return group.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no leader");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_write_and_read_over_sockets_and_disks() {
    let nodes = start(3).await;
    let mut written = 0;
    let index = loop {
        let leader = nodes.leader().await;
        let wrote = leader.propose(1, vec![put("a", &written.to_string())]).await;
        written += u32::from(wrote.is_ok());
        if written >= 50
            && let Ok(index) = leader.read_index().await
        {
            break index;
        }
    };
    for group in &nodes.groups {
        let applied = async { group.applied().wait_for(|applied| *applied >= index).await.map(drop) };
        tokio::time::timeout(Duration::from_secs(30), applied)
            .await
            .unwrap()
            .unwrap();
    }
    for node in &nodes.nodes {
        node.shutdown().await;
    }
}

fn percentile(mut micros: Vec<u128>, percent: usize) -> u128 {
    micros.sort_unstable();
    micros[(micros.len() - 1) * percent / 100]
}

/// Returns the processor time of this process, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// `cargo test -p stead-raft --test raft -- --ignored --nocapture measure`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_latency_and_throughput() {
    let nodes = start(3).await;
    let leader = nodes.leader().await;
    leader.propose(1, vec![put("a", "0")]).await.unwrap();
    let value = "x".repeat(256);
    for clients in [1, 16, 64, 256, 1024] {
        let per_client = (8_000 / clients).clamp(20, 1_000);
        let (began, used) = (Instant::now(), ticks());
        let writers = (0..clients).map(|client| {
            let (leader, value) = (leader.clone(), value.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                for _ in 0..per_client {
                    let asked = Instant::now();
                    let command = put(&format!("k{client}"), &value);
                    leader.propose(client as u64 % 7, vec![command]).await.unwrap();
                    took.push(asked.elapsed().as_micros());
                }
                took
            })
        });
        let took = futures::future::join_all(writers).await;
        let took: Vec<u128> = took.into_iter().flat_map(Result::unwrap).collect();
        let (count, seconds) = (took.len(), began.elapsed().as_secs_f64());
        println!(
            "{clients} clients: {:.0} puts/s, p50 {} us, p99 {} us, {:.1} us CPU a put",
            count as f64 / seconds,
            percentile(took.clone(), 50),
            percentile(took, 99),
            (ticks() - used) as f64 * 10_000.0 / count as f64,
        );
    }
    for readers in [1, 64, 1024] {
        let per_reader = 20_000 / readers;
        let began = Instant::now();
        let reading = (0..readers).map(|_| {
            let leader = leader.clone();
            tokio::spawn(async move {
                for _ in 0..per_reader {
                    leader.read_index().await.unwrap();
                }
            })
        });
        futures::future::join_all(reading).await;
        let rate = f64::from(readers * per_reader) / began.elapsed().as_secs_f64();
        println!(
            "{readers} readers: {rate:.0} reads/s, {:.0} us each",
            1e6 * f64::from(readers) / rate
        );
    }
    let (began, used) = (Instant::now(), ticks());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let busy = (ticks() - used) as f64 * 0.01 / began.elapsed().as_secs_f64();
    println!("at rest: {:.2} % of a core for all three", 100.0 * busy);
}
