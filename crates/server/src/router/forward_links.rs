//! Links to other nodes, for operations and watches: opened when first needed, those to homes in advance.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use parking_lot::Mutex;
use stead_api::{
    net::{Connect, Keepalive, channel, watch_channel},
    peer_codec::PeerAlarms,
};
use stead_replication::SharedDirectoryView;
use stead_types::{GroupId, NodeId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    call::{Call, ForwardTarget},
    leader_cache::LeaderCache,
    link::{ForwardLink, OutgoingCall, QUEUE_MAX, reject_unreachable},
};
use crate::{host::HostedGroups, supervisor::Spawner};

/// Most links that are opened in advance.
const LINKS_PREOPENED_MAX: usize = 32;

/// An open link.
struct OpenLink {
    address: String,
    queue: mpsc::Sender<OutgoingCall>,
    /// A separate connection for watches.
    watches: Channel,
}

/// Links to other nodes, each opened when it is first needed.
pub(crate) struct ForwardLinks {
    connect: Connect,
    directory_view: SharedDirectoryView,
    spawner: Spawner,
    alarms: PeerAlarms,
    leaders: Arc<LeaderCache>,
    links: Mutex<BTreeMap<NodeId, OpenLink>>,
    /// Wakes the links when callers have cancelled.
    cancels: watch::Sender<()>,
}

impl ForwardLinks {
    /// Returns no links yet; addresses are looked up in the directory view.
    pub(crate) fn new(
        connect: Connect,
        directory_view: SharedDirectoryView,
        spawner: Spawner,
        alarms: PeerAlarms,
    ) -> Self {
        Self {
            connect,
            directory_view,
            spawner,
            alarms,
            leaders: Arc::default(),
            links: Mutex::default(),
            cancels: watch::Sender::new(()),
        }
    }

    /// Sends an operation to one of these nodes. It is answered in every case.
    pub(super) fn send(&self, call: Call, target: ForwardTarget, nodes: &[NodeId]) {
        let node = self.leaders.choose(target.group, nodes);
        let Some((node, link)) = node.and_then(|node| Some((node, self.link(node)?))) else {
            return reject_unreachable(call);
        };
        let outgoing = OutgoingCall {
            call,
            target,
            view_version: self.directory_view.version(),
            node,
            candidates: nodes.to_vec(),
        };
        if let Err(refused) = link.try_send(outgoing) {
            match refused {
                mpsc::error::TrySendError::Full(outgoing) | mpsc::error::TrySendError::Closed(outgoing) => {
                    reject_unreachable(outgoing.call);
                }
            }
        }
    }

    /// Wakes the links after callers have cancelled operations that may wait in a link or be in flight.
    pub(crate) fn notify_cancelled(&self) {
        self.cancels.send_replace(());
    }

    /// Keeps links to the homes of other regions open. Returns when the token fires.
    pub(crate) async fn keep_open(
        self: Arc<Self>,
        own: Arc<HostedGroups>,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut versions = self.directory_view.watch();
        loop {
            versions.borrow_and_update();
            self.open(&own);
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Opens links to the voters of groups that are not on this node, so that the first operation finds them open, and closes
    /// those to nodes that were removed.
    fn open(&self, own: &HostedGroups) {
        self.directory_view
            .read(|view| self.links.lock().retain(|node, _| view.node(*node).is_some()));
        let mut voters: Vec<NodeId> = self.directory_view.read(|view| {
            let others = view
                .groups()
                .filter(|group| group.region.is_some() && !own.contains_key(&group.number));
            others.flat_map(|group| group.voters.iter().copied()).collect()
        });
        voters.sort_unstable();
        voters.dedup();
        for voter in voters.into_iter().take(LINKS_PREOPENED_MAX) {
            // A link to an unknown address is opened when the address is known.
            let _link = self.link(voter);
        }
    }

    /// Returns the connection for watches to one of a group's nodes, and that node.
    pub(crate) fn channel_for_watch(&self, group: GroupId, nodes: &[NodeId]) -> Option<(NodeId, Channel)> {
        let node = self.leaders.choose(group, nodes)?;
        self.link(node)?;
        let links = self.links.lock();
        Some((node, links.get(&node)?.watches.clone()))
    }

    /// Records that a node of a group could not be reached: the next one is tried next time.
    pub(crate) fn record_failure(&self, group: GroupId, node: NodeId, nodes: &[NodeId]) {
        self.leaders.record_failure(group, node, nodes);
    }

    fn link(&self, node: NodeId) -> Option<mpsc::Sender<OutgoingCall>> {
        let address = self
            .directory_view
            .read(|view| Some(view.node(node)?.addresses.peer.clone()))?;
        let mut links = self.links.lock();
        if let Some(open) = links.get(&node)
            && open.address == address
            && !open.queue.is_closed()
        {
            return Some(open.queue.clone());
        }
        let channel = channel(&self.connect, &address, Keepalive::PEER).ok()?;
        let watches = watch_channel(&self.connect, &address, Keepalive::PEER).ok()?;
        let (link, queue) = mpsc::channel(QUEUE_MAX);
        let task = ForwardLink::new(
            channel,
            queue,
            self.leaders.clone(),
            self.alarms.clone(),
            self.cancels.subscribe(),
        );
        self.spawner.spawn("link", |stop| task.run(stop));
        let open = OpenLink {
            address,
            queue: link.clone(),
            watches,
        };
        links.insert(node, open);
        Some(link)
    }
}
