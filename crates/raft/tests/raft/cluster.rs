//! Test cluster: nodes of one group over a network in memory, on one thread and virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stead_raft::{
    BlockingMode, Clocks, Config, CopyBandwidth, GroupConfig, Node, OpenError, ProposeError, Timing, TypedGroup,
};
use stead_store::log::memory;
use stead_store::machine::Machine;
use stead_testing::MemoryNetwork;
use stead_types::{GroupId, Incarnation, NodeId};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::toy::{self, Toy};

pub const GROUP: GroupId = GroupId::new(1);

/// Correct wall clock time when a cluster starts.
pub const EPOCH_MS: u64 = 1_750_000_000_000;

/// Timeout of every wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Cluster of the toy machine.
pub type Cluster = TestCluster<Toy>;

/// Machine under test, whose rows survive it.
pub trait TestMachine: Machine + Sized + 'static {
    type Rows: Default;

    fn open(rows: &Self::Rows) -> Arc<Self>;

    /// Loses what was not made durable.
    fn lose_power(rows: &Self::Rows);
}

impl TestMachine for Toy {
    type Rows = toy::Disk;

    fn open(rows: &toy::Disk) -> Arc<Self> {
        Self::open(rows)
    }

    fn lose_power(_: &toy::Disk) {}
}

/// Cluster of nodes with one group.
pub struct TestCluster<M: TestMachine> {
    pub net: MemoryNetwork,
    pub nodes: BTreeMap<u64, NodeSlot<M>>,
    timing: Timing,
    voters: Vec<NodeId>,
    started: Instant,
}

/// Slot of a node, with the state that survives it.
pub struct NodeSlot<M: TestMachine> {
    pub log: memory::Disk,
    pub rows: M::Rows,
    /// The entry that its rows must reach at its next start.
    pub min_index: Option<u64>,
    /// How far its wall clock is ahead, in milliseconds.
    pub clock_ahead: Arc<AtomicI64>,
    pub up: Option<RunningNode<M>>,
}

impl<M: TestMachine> Default for NodeSlot<M> {
    fn default() -> Self {
        Self {
            log: memory::Disk::default(),
            rows: M::Rows::default(),
            min_index: None,
            clock_ahead: Arc::default(),
            up: None,
        }
    }
}

/// Running node.
pub struct RunningNode<M: Machine> {
    pub node: Node,
    pub group: TypedGroup<M>,
    pub machine: Arc<M>,
}

impl<M: TestMachine> TestCluster<M> {
    /// Starts nodes `1..=count` as voters.
    pub async fn start(count: u64, timing: Timing) -> Self {
        let mut cluster = Self::plan(count, timing);
        for id in 1..=count {
            cluster.up(id).await;
        }
        cluster
    }

    /// Creates a cluster as [`Cluster::start`] does, with no node started.
    pub fn plan(count: u64, timing: Timing) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).try_init().ok();
        }
        Self {
            net: MemoryNetwork::default(),
            nodes: BTreeMap::new(),
            timing,
            voters: (1..=count).map(NodeId::new).collect(),
            started: Instant::now(),
        }
    }

    /// Kills a node and loses its disk.
    pub async fn lose_disk(&mut self, id: u64) {
        self.kill(id, 0).await;
        self.nodes.insert(id, NodeSlot::default());
    }

    /// Kills a node and loses its rows; its log stays whole.
    pub async fn lose_rows(&mut self, id: u64) {
        self.kill(id, usize::MAX).await;
        self.nodes.get_mut(&id).unwrap().rows = M::Rows::default();
    }

    /// Starts a node, for the first time or again, after restoring its rows if they were lost.
    pub async fn up(&mut self, id: u64) {
        self.try_up(id).await.unwrap();
    }

    /// Starts a node, which may fail.
    pub async fn try_up(&mut self, id: u64) -> Result<(), OpenError> {
        let started = self.started;
        let member = self.nodes.entry(id).or_default();
        let ahead = member.clock_ahead.clone();
        let wall = move || {
            let right = EPOCH_MS + started.elapsed().as_millis() as u64;
            right.saturating_add_signed(ahead.load(Ordering::Relaxed))
        };
        let node = Node::new(Config {
            node: NodeId::new(id),
            log: member.log.open(),
            connect: self.net.connect(id),
            resolve: Arc::new(|node| Some(MemoryNetwork::address(node.get()))),
            clocks: Clocks {
                wall: Arc::new(wall),
                boot: Arc::new(move || started.elapsed()),
            },
            blocking: BlockingMode::Inline,
            spool: None,
            copies: Arc::new(CopyBandwidth::new(u64::MAX)),
            limits: stead_raft::LogLimits::default(),
            may_rebuild: Arc::new(|| true),
            may_send: Arc::new(|_, _, _| true),
        });
        let incoming = UnboundedReceiverStream::new(self.net.listen(id)).map(Ok::<_, std::io::Error>);
        let server = tonic::transport::Server::builder().add_service(node.service());
        tokio::spawn(server.serve_with_incoming(incoming));
        let machine = M::open(&member.rows);
        let config = GroupConfig {
            group: GROUP,
            incarnation: Incarnation::FIRST,
            voters: self.voters.clone(),
            timing: self.timing,
        };
        node.restore(&config, machine.clone(), member.min_index).await?;
        let group = node.create_group(config, machine.clone()).await?;
        member.up = Some(RunningNode { node, group, machine });
        Ok(())
    }

    /// Kills a node; of the unsynced operations of its log, `survivors` survive.
    pub async fn kill(&mut self, id: u64, survivors: usize) {
        self.net.kill(id);
        let member = self.nodes.get_mut(&id).unwrap();
        member.log.power_loss(survivors);
        let up = member.up.take().unwrap();
        up.node.shutdown().await;
        M::lose_power(&member.rows);
    }

    pub fn node(&self, id: u64) -> &RunningNode<M> {
        self.nodes[&id].up.as_ref().unwrap()
    }

    pub fn group(&self, id: u64) -> &TypedGroup<M> {
        &self.node(id).group
    }

    /// Sets a node's wall clock.
    pub fn set_clock(&self, id: u64, ahead_ms: i64) {
        self.nodes[&id].clock_ahead.store(ahead_ms, Ordering::Relaxed);
    }

    /// Returns how far a group's logged time is ahead of correct wall clocks, as a node knows it.
    pub fn ahead(&self, id: u64) -> i64 {
        let right = EPOCH_MS + self.started.elapsed().as_millis() as u64;
        self.group(id).logged_time() as i64 - right as i64
    }

    pub fn ups(&self) -> impl Iterator<Item = (u64, &RunningNode<M>)> {
        self.nodes
            .iter()
            .filter_map(|(id, member)| Some((*id, member.up.as_ref()?)))
    }

    /// Waits for one of these nodes to lead, and returns it.
    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        self.eventually("a leader", || {
            ids.iter().copied().find(|id| self.group(*id).is_leader())
        })
        .await
    }

    pub async fn leader(&self) -> u64 {
        let ids: Vec<u64> = self.ups().map(|(id, _)| id).collect();
        self.leader_among(&ids).await
    }

    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ups()
            .map(|(other, _)| other)
            .filter(|other| *other != id)
            .collect()
    }

    /// Waits for a condition.
    pub async fn eventually<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = condition() {
                    return found;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// Proposes through the leader, and retries while the proposal certainly had no effect.
    pub async fn propose(&self, command: Bytes) -> M::CommandResult {
        let proposing = async {
            loop {
                let leader = self.leader().await;
                match self.group(leader).propose(1, vec![command.clone()]).await {
                    Ok(answers) => return answers.into_iter().next().unwrap(),
                    Err(error) if error.has_no_effect() => sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(PATIENCE, proposing).await.expect("a proposal succeeds")
    }
}

impl Cluster {
    /// Writes through the leader.
    pub async fn put(&self, key: &str, value: &str) {
        self.propose(toy::put(key, value)).await;
    }

    pub async fn put_at(&self, id: u64, key: &str, value: &str) -> Result<String, ProposeError> {
        let answers = self.group(id).propose(1, vec![toy::put(key, value)]).await?;
        Ok(answers.into_iter().next().unwrap())
    }

    /// Puts more than logs keep, in 600 entries, and returns the last value of the key `big`.
    pub async fn put_more_than_is_kept(&self) -> String {
        let value = "x".repeat(200 << 10);
        for number in 0..600 {
            self.put("big", &value[number..]).await;
        }
        value[599..].to_owned()
    }

    /// Waits until a node has purged its log.
    pub async fn until_purged(&self, id: u64) {
        let purged = || (self.group(id).metrics().purged > 10).then_some(());
        self.eventually("a purge", purged).await;
    }

    /// Waits until every node that is up has a value.
    pub async fn converge(&self, key: &str, value: &str) {
        self.eventually("convergence", || {
            let has = |up: &RunningNode<Toy>| up.machine.get(key).as_deref() == Some(value);
            self.ups().all(|(_, up)| has(up)).then_some(())
        })
        .await;
    }
}
