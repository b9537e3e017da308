//! Cluster of mock nodes in this process: one store behind all of them, and each node can inject faults.

mod multi_key;
mod service;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use service::Service;
use stead_api::proto::v1::{self, directory_service_server as directory, kv_service_server as kv};
use stead_types::ErrorKind;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// State that all nodes share.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) rows: Mutex<BTreeMap<(String, Bytes), (Bytes, u64)>>,
    sequence: AtomicU64,
    outcomes: Mutex<HashMap<(Bytes, u64), u64>>,
    /// Idempotency key and stamp of every write that reached a node.
    pub(crate) writes: Mutex<Vec<v1::IdempotencyKey>>,
    /// Time to live of each put, in milliseconds.
    pub(crate) ttls_ms: Mutex<Vec<Option<u128>>>,
    /// Number of writes that took effect.
    pub(crate) effects: AtomicU64,
    /// Names of every watch of the directory.
    pub(crate) directory_watches: Mutex<Vec<Vec<String>>>,
    /// Logged time of the tenant.
    pub(crate) time: AtomicU64,
}

/// Faults that a node injects.
#[derive(Default)]
pub(crate) struct Faults {
    /// Executes writes, then cuts the connection instead of responding.
    pub(crate) cut_after_write: AtomicBool,
    /// Executes operations and never responds.
    pub(crate) silent: AtomicBool,
    /// Executes writes and never responds to them.
    pub(crate) silent_writes: AtomicBool,
    /// Refuses stamps of time zero as expired.
    pub(crate) expires: AtomicBool,
    /// Number of next operations that get NOT_HOME.
    pub(crate) not_home: AtomicU64,
    /// Number of next operations that get NO_LEADER.
    pub(crate) no_leader: AtomicU64,
    /// Outcomes of the next operations: an error, or normal execution.
    pub(crate) refusals: Mutex<VecDeque<Option<ErrorKind>>>,
    /// Number of cancelled operations.
    pub(crate) cancelled: AtomicU64,
    /// Number of operations received.
    pub(crate) operations: AtomicU64,
    /// Number of pipeline messages received.
    pub(crate) messages: AtomicU64,
}

pub(crate) struct Cluster {
    pub(crate) store: Arc<Store>,
    pub(crate) nodes: Vec<Node>,
    routes: watch::Sender<Vec<v1::Route>>,
}

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) faults: Arc<Faults>,
    region: String,
    number: u64,
    running: Option<RunningServer>,
}

struct RunningServer {
    stop: watch::Sender<bool>,
    task: AbortHandle,
}

impl Cluster {
    /// Starts one node for each name of a region.
    pub(crate) async fn start(regions: &[&str]) -> Self {
        let (routes, _) = watch::channel(Vec::new());
        let mut cluster = Self {
            store: Arc::default(),
            nodes: Vec::new(),
            routes,
        };
        for (at, region) in regions.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (region, number) = ((*region).to_owned(), at as u64 + 1);
            cluster.nodes.push(Node {
                address,
                faults: Arc::default(),
                region,
                number,
                running: None,
            });
        }
        for at in 0..cluster.nodes.len() {
            cluster.start_node(at).await;
        }
        cluster
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.to_string()).collect()
    }

    pub(crate) fn set_home(&self, tenant: &str, region: &str) {
        let route = v1::Route {
            tenant: tenant.into(),
            tenant_number: 7,
            home_region: region.into(),
            home_group: 1,
            epoch: 1,
            follower_regions: Vec::new(),
        };
        self.routes.send_modify(|routes| {
            routes.retain(|other| other.tenant != tenant);
            routes.push(route);
        });
    }

    /// Deletes a tenant.
    pub(crate) fn delete_tenant(&self, tenant: &str) {
        self.routes
            .send_modify(|routes| routes.retain(|other| other.tenant != tenant));
    }

    pub(crate) async fn start_node(&mut self, at: usize) {
        let regions = self.regions();
        let node = &mut self.nodes[at];
        let (stop, stopped) = watch::channel(false);
        let service = Service {
            store: self.store.clone(),
            faults: node.faults.clone(),
            regions: Arc::new(Mutex::new(regions)),
            routes: self.routes.subscribe(),
            region: node.region.clone(),
            number: node.number,
            stop: stopped.clone(),
        };
        let listener = listen(node.address).await;
        let mut drained = stopped;
        let serve = Server::builder()
            .add_service(kv::KvServiceServer::new(service.clone()))
            .add_service(directory::DirectoryServiceServer::new(service))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
                let _ = drained.wait_for(|stop| *stop).await;
            });
        let task = tokio::spawn(serve).abort_handle();
        node.running = Some(RunningServer { stop, task });
    }

    /// Ends a node as SIGKILL does: connections break.
    pub(crate) fn kill_node(&mut self, at: usize) {
        // Connections are tasks of their own, which end with their streams.
        if let Some(running) = self.nodes[at].running.take() {
            running.task.abort();
            running.stop.send_replace(true);
        }
    }

    /// Ends a node as SIGTERM does: GOAWAY first, streams end when all operations were answered.
    pub(crate) fn drain_node(&mut self, at: usize) {
        if let Some(running) = self.nodes[at].running.take() {
            running.stop.send_replace(true);
        }
    }

    fn regions(&self) -> Vec<v1::Region> {
        let mut regions: BTreeMap<String, v1::Region> = BTreeMap::new();
        for node in &self.nodes {
            let region = regions.entry(node.region.clone()).or_insert_with(|| v1::Region {
                name: node.region.clone(),
                jurisdiction: "X".into(),
                endpoints: Vec::new(),
            });
            region.endpoints.push(v1::Endpoint {
                node: node.number,
                client_address: node.address.to_string(),
                http_address: String::new(),
                groups: vec![1],
            });
        }
        regions.into_values().collect()
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Waits for a condition, with a deadline.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok(),
        "{what}"
    );
}
