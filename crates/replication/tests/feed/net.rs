//! In-memory network between nodes, with delays; links can be cut (bytes are held), broken or damaged.

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
    /// Text whose next occurrence is damaged, once.
    damage: Option<&'static str>,
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

    /// Returns the connections that others dial to a node.
    pub fn listen(&self, node: u64) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (incoming, connections) = mpsc::unbounded_channel();
        self.0.lock().unwrap().listeners.insert(node, incoming);
        connections
    }

    /// Breaks all connections between two nodes; they may connect again at once.
    pub fn break_all(&self, one: u64, other: u64) {
        let mut state = self.0.lock().unwrap();
        state.pumps.retain(|((from, to), pump)| {
            let is_theirs = (*from, *to) == (one, other) || (*from, *to) == (other, one);
            if is_theirs {
                pump.abort();
            }
            !is_theirs
        });
    }

    /// Holds all bytes between two nodes, or lets them go.
    pub fn cut(&self, one: u64, other: u64, is_cut: bool) {
        self.change(one, other, |link| link.is_cut = is_cut);
        self.change(other, one, |link| link.is_cut = is_cut);
    }

    pub fn delay(&self, one: u64, other: u64, delay: Duration) {
        self.change(one, other, |link| link.delay = delay);
        self.change(other, one, |link| link.delay = delay);
    }

    /// Flips a bit of the next bytes from one node to another that have this text in them.
    pub fn damage(&self, from: u64, to: u64, text: &'static str) {
        self.change(from, to, |link| link.damage = Some(text));
    }

    /// Tells whether the damage has happened.
    pub fn was_damaged(&self, from: u64, to: u64) -> bool {
        self.link(from, to).borrow().damage.is_none()
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
        let link = self.link(from, to);
        let pump = tokio::spawn(pump(link, read, write)).abort_handle();
        self.0.lock().unwrap().pumps.push(((from, to), pump));
    }
}

async fn pump(link: watch::Sender<Link>, mut read: ReadHalf<DuplexStream>, mut write: WriteHalf<DuplexStream>) {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let (delays, mut cut) = (link.subscribe(), link.subscribe());
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
            let damage = link.borrow().damage;
            let damaged = damage.and_then(|text| bytes.windows(text.len()).position(|found| found == text.as_bytes()));
            if let Some(at) = damaged {
                bytes[at] ^= 1;
                link.send_modify(|link| link.damage = None);
            }
            if cut.wait_for(|link| !link.is_cut).await.is_err() || write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        write.shutdown().await.ok();
    };
    tokio::join!(reading, writing);
}
