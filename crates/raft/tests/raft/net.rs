//! Network in memory between nodes, with delays and with partitions by direction. A partition holds bytes back.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stead_api::net::{Connect, Io};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

const PIPE_BYTES: usize = 256 << 10;

#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    listeners: BTreeMap<u64, mpsc::UnboundedSender<DuplexStream>>,
    links: BTreeMap<(u64, u64), watch::Sender<Link>>,
    pumps: Vec<((u64, u64), AbortHandle)>,
}

#[derive(Clone, Copy, Default)]
struct Link {
    is_cut: bool,
    delay: Duration,
}

impl Net {
    /// Returns the dialler of a node; addresses are node numbers.
    pub fn connect(&self, from: u64) -> Connect {
        let net = self.clone();
        Arc::new(move |address| {
            let net = net.clone();
            Box::pin(async move {
                let to = address.split(':').nth(1).and_then(|port| port.parse().ok()).unwrap();
                net.dial(from, to).await
            })
        })
    }

    pub fn address(node: u64) -> String {
        format!("node:{node}")
    }

    /// Returns the incoming connections of a node.
    pub fn listen(&self, node: u64) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (incoming, connections) = mpsc::unbounded_channel();
        self.0.lock().unwrap().listeners.insert(node, incoming);
        connections
    }

    /// Removes a node from the network with all its connections.
    pub fn kill(&self, node: u64) {
        let mut state = self.0.lock().unwrap();
        state.listeners.remove(&node);
        state.pumps.retain(|((from, to), pump)| {
            let is_its = *from == node || *to == node;
            if is_its {
                pump.abort();
            }
            !is_its
        });
    }

    /// Holds all bytes from one node to another.
    pub fn cut_one_way(&self, from: u64, to: u64) {
        self.change(from, to, |link| link.is_cut = true);
    }

    pub fn cut(&self, one: u64, other: u64) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub fn heal(&self, one: u64, other: u64) {
        self.change(one, other, |link| link.is_cut = false);
        self.change(other, one, |link| link.is_cut = false);
    }

    pub fn delay(&self, one: u64, other: u64, delay: Duration) {
        self.change(one, other, |link| link.delay = delay);
        self.change(other, one, |link| link.delay = delay);
    }

    fn change(&self, from: u64, to: u64, change: impl FnOnce(&mut Link)) {
        self.link(from, to).send_modify(change);
    }

    fn link(&self, from: u64, to: u64) -> watch::Sender<Link> {
        let mut state = self.0.lock().unwrap();
        state.links.entry((from, to)).or_default().clone()
    }

    async fn dial(&self, from: u64, to: u64) -> io::Result<std::pin::Pin<Box<dyn Io>>> {
        for (from, to) in [(from, to), (to, from)] {
            let mut link = self.link(from, to).subscribe();
            link.wait_for(|link| !link.is_cut).await.unwrap();
        }
        let (client, client_end) = duplex(PIPE_BYTES);
        let (server, server_end) = duplex(PIPE_BYTES);
        let state = self.0.lock().unwrap();
        let listener = state.listeners.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.send(server).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        drop(state);
        let (client_read, client_write) = split(client_end);
        let (server_read, server_write) = split(server_end);
        self.pump(from, to, client_read, server_write);
        self.pump(to, from, server_read, client_write);
        Ok(Box::pin(client))
    }

    fn pump(&self, from: u64, to: u64, read: ReadHalf<DuplexStream>, write: WriteHalf<DuplexStream>) {
        let link = self.link(from, to).subscribe();
        let pump = tokio::spawn(pump(link, read, write)).abort_handle();
        self.0.lock().unwrap().pumps.push(((from, to), pump));
    }
}

async fn pump(mut link: watch::Receiver<Link>, mut read: ReadHalf<DuplexStream>, mut write: WriteHalf<DuplexStream>) {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let delays = link.clone();
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
        while let Some((at, bytes)) = queued.recv().await {
            sleep_until(at).await;
            if link.wait_for(|link| !link.is_cut).await.is_err() || write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        write.shutdown().await.ok();
    };
    tokio::join!(reading, writing);
}
