//! Network in memory between nodes of one process: for tests on one thread and virtual time, which need no sockets.
//!
//! Each direction between two nodes has its own delay and its own faults: it can be cut (bytes are held, as TCP sees a
//! network partition), broken (connections end) or damaged (a bit flips).

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stead_client::{Connect, Io};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes that one direction of a connection buffers at each end.
const PIPE_BYTES: usize = 256 << 10;

/// Network in memory between nodes that are known by number. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<u64, mpsc::UnboundedSender<DuplexStream>>,
    shapes: BTreeMap<NodePair, watch::Sender<PairShape>>,
    carriers: Vec<Carrier>,
}

/// Two nodes, of which one sends to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodePair {
    from: u64,
    to: u64,
}

impl NodePair {
    fn reversed(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }
}

/// Delay and faults of the bytes from one node of a pair to the other.
#[derive(Clone, Copy, Debug, Default)]
struct PairShape {
    is_cut: bool,
    delay: Duration,
    /// Text whose next occurrence is damaged, once.
    damage: Option<&'static str>,
}

/// Task that passes the bytes of one direction of a connection.
#[derive(Debug)]
struct Carrier {
    pair: NodePair,
    task: AbortHandle,
}

impl MemoryNetwork {
    /// Returns the dialler of a node, for addresses of [`MemoryNetwork::address`].
    pub fn connect(&self, from: u64) -> Connect {
        let network = self.clone();
        Arc::new(move |address| {
            let network = network.clone();
            Box::pin(async move {
                let to = address.strip_prefix("node:").and_then(|node| node.parse().ok());
                let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, address))?;
                network.dial(NodePair { from, to }).await
            })
        })
    }

    /// Returns the address of a node.
    pub fn address(node: u64) -> String {
        format!("node:{node}")
    }

    /// Returns the connections that others dial to a node, from now on.
    pub fn listen(&self, node: u64) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (incoming, connections) = mpsc::unbounded_channel();
        self.0.lock().listeners.insert(node, incoming);
        connections
    }

    /// Removes a node from the network with all its connections.
    pub fn kill(&self, node: u64) {
        let mut state = self.0.lock();
        state.listeners.remove(&node);
        state.end_carriers(|pair| pair.from == node || pair.to == node);
    }

    /// Breaks all connections between two nodes; they may connect again at once.
    pub fn break_all(&self, one: u64, other: u64) {
        let pair = NodePair { from: one, to: other };
        let mut state = self.0.lock();
        state.end_carriers(|of| of == pair || of == pair.reversed());
    }

    /// Holds all bytes from one node to another.
    pub fn cut_one_way(&self, from: u64, to: u64) {
        self.change(NodePair { from, to }, |shape| shape.is_cut = true);
    }

    /// Holds all bytes between two nodes.
    pub fn cut(&self, one: u64, other: u64) {
        self.change_both(one, other, |shape| shape.is_cut = true);
    }

    /// Lets held and further bytes pass between two nodes.
    pub fn heal(&self, one: u64, other: u64) {
        self.change_both(one, other, |shape| shape.is_cut = false);
    }

    /// Sets the one-way delay between two nodes.
    pub fn delay(&self, one: u64, other: u64, delay: Duration) {
        self.change_both(one, other, |shape| shape.delay = delay);
    }

    /// Flips a bit of the next bytes from one node to another that have this text in them.
    pub fn damage(&self, from: u64, to: u64, text: &'static str) {
        self.change(NodePair { from, to }, |shape| shape.damage = Some(text));
    }

    /// Tells whether the damage has happened.
    pub fn was_damaged(&self, from: u64, to: u64) -> bool {
        self.shape(NodePair { from, to }).borrow().damage.is_none()
    }

    fn change_both(&self, one: u64, other: u64, change: impl Fn(&mut PairShape)) {
        let pair = NodePair { from: one, to: other };
        self.change(pair, &change);
        self.change(pair.reversed(), &change);
    }

    fn change(&self, pair: NodePair, change: impl FnOnce(&mut PairShape)) {
        self.shape(pair).send_modify(change);
    }

    fn shape(&self, pair: NodePair) -> watch::Sender<PairShape> {
        self.0.lock().shapes.entry(pair).or_default().clone()
    }

    async fn dial(&self, pair: NodePair) -> io::Result<Pin<Box<dyn Io>>> {
        for pair in [pair, pair.reversed()] {
            let mut shape = self.shape(pair).subscribe();
            let open = shape.wait_for(|shape| !shape.is_cut);
            open.await.map_err(io::Error::other)?;
        }
        let (client, client_end) = duplex(PIPE_BYTES);
        let (server, server_end) = duplex(PIPE_BYTES);
        {
            let state = self.0.lock();
            let listener = state.listeners.get(&pair.to);
            let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
            listener.send(server).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        }
        let (client_read, client_write) = split(client_end);
        let (server_read, server_write) = split(server_end);
        self.carry(pair, client_read, server_write);
        self.carry(pair.reversed(), server_read, client_write);
        Ok(Box::pin(client))
    }

    fn carry(&self, pair: NodePair, read: ReadHalf<DuplexStream>, write: WriteHalf<DuplexStream>) {
        let task = tokio::spawn(carry(self.shape(pair), read, write)).abort_handle();
        self.0.lock().carriers.push(Carrier { pair, task });
    }
}

impl State {
    fn end_carriers(&mut self, is_ended: impl Fn(NodePair) -> bool) {
        for carrier in self.carriers.extract_if(.., |carrier| is_ended(carrier.pair)) {
            carrier.task.abort();
        }
    }
}

async fn carry(shape: watch::Sender<PairShape>, mut read: ReadHalf<DuplexStream>, mut write: WriteHalf<DuplexStream>) {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let (delays, mut cuts) = (shape.subscribe(), shape.subscribe());
    let reading = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len) = read.read(&mut buffer).await
            && len > 0
        {
            let at = Instant::now() + delays.borrow().delay;
            if queue.send((at, buffer[..len].to_vec())).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, mut bytes)) = queued.recv().await {
            sleep_until(at).await;
            let damage = shape.borrow().damage;
            let damaged = damage.and_then(|text| bytes.windows(text.len()).position(|found| found == text.as_bytes()));
            if let Some(at) = damaged {
                bytes[at] ^= 1;
                shape.send_modify(|shape| shape.damage = None);
            }
            if cuts.wait_for(|shape| !shape.is_cut).await.is_err() || write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The reader may be gone already.
        drop(write.shutdown().await);
    };
    tokio::join!(reading, writing);
}
