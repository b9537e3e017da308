//! openraft nodes in one process, for the scripts that run several. They call each other directly; links are slow, and
//! can be cut.

#![allow(dead_code, reason = "each script uses some of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Cursor;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::{Config, Raft};
use openraft_memstore::{ClientRequest, MemLogStore, MemStateMachine, TypeConfig, new_mem_store};

pub type Node = Raft<TypeConfig, Arc<MemStateMachine>>;
type Store = (Arc<MemLogStore>, Arc<MemStateMachine>);

#[derive(Default)]
struct Links {
    nodes: BTreeMap<u64, Node>,
    cut: BTreeSet<(u64, u64)>,
    one_way: Duration,
}

#[derive(Clone)]
pub struct Cluster {
    links: Arc<Mutex<Links>>,
    stores: Arc<Mutex<BTreeMap<u64, Store>>>,
    config: Arc<Config>,
}

impl Cluster {
    pub fn new(config: Config, one_way: Duration) -> Self {
        let links = Links {
            one_way,
            ..Links::default()
        };
        let config = Arc::new(config.validate().expect("a valid configuration"));
        Self {
            links: Arc::new(Mutex::new(links)),
            stores: Arc::default(),
            config,
        }
    }

    /// Starts a node, or starts it again on what it stored.
    pub async fn start(&self, id: u64) -> Node {
        let (log, machine) = self
            .stores
            .lock()
            .unwrap()
            .entry(id)
            .or_insert_with(new_mem_store)
            .clone();
        let links = Dialer {
            from: id,
            cluster: self.clone(),
        };
        let node = Node::new(id, self.config.clone(), links, log, machine)
            .await
            .expect("a started node");
        self.links.lock().unwrap().nodes.insert(id, node.clone());
        node
    }

    pub async fn stop(&self, id: u64) {
        let node = self.links.lock().unwrap().nodes.remove(&id).expect("a running node");
        node.shutdown().await.expect("an orderly end");
    }

    pub fn cut(&self, left: u64, right: u64) {
        self.links.lock().unwrap().cut.extend([(left, right), (right, left)]);
    }

    /// The value of a key in a node's state machine.
    pub async fn value(&self, id: u64, key: &str) -> Option<String> {
        let machine = self.stores.lock().unwrap()[&id].1.clone();
        machine.get_state_machine().await.client_status.get(key).cloned()
    }
}

pub fn put(key: &str, serial: u64, value: &str) -> ClientRequest {
    ClientRequest {
        client: key.into(),
        serial,
        status: value.into(),
    }
}

pub struct Dialer {
    from: u64,
    cluster: Cluster,
}

pub struct Link {
    from: u64,
    to: u64,
    cluster: Cluster,
}

impl Link {
    async fn peer(&self) -> Result<Node, Unreachable<TypeConfig>> {
        let delay = self.cluster.links.lock().unwrap().one_way;
        tokio::time::sleep(delay).await;
        let links = self.cluster.links.lock().unwrap();
        match links.nodes.get(&self.to) {
            Some(node) if !links.cut.contains(&(self.from, self.to)) => Ok(node.clone()),
            _ => Err(Unreachable::from_string("no such host, or the link is cut")),
        }
    }

    async fn back<T, E: std::error::Error + 'static>(
        &self,
        answer: Result<T, E>,
    ) -> Result<T, Unreachable<TypeConfig>> {
        let delay = self.cluster.links.lock().unwrap().one_way;
        tokio::time::sleep(delay).await;
        answer.map_err(|error| Unreachable::from_string(error.to_string()))
    }
}

impl RaftNetworkFactory<TypeConfig> for Dialer {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _: &()) -> Link {
        Link {
            from: self.from,
            to,
            cluster: self.cluster.clone(),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer = self.peer().await?.append_entries(request).await;
        Ok(self.back(answer).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer = self.peer().await?.vote(request).await;
        Ok(self.back(answer).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Cursor<Vec<u8>>>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let answer = self.peer().await?.install_full_snapshot(vote, snapshot).await;
        Ok(self.back(answer).await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer = self.peer().await?.handle_transfer_leader(request).await;
        Ok(self.back(answer).await?)
    }
}
