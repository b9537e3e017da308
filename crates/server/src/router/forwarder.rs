//! The links of a node, opened when they are first needed.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use stead_api::{
    net::{Connect, Keepalive, channel, watch_channel},
    peer_codec::PeerAlarms,
};
use stead_replication::Views;
use stead_types::{GroupId, NodeId};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use super::{
    call::{Call, Forwarded},
    leaders::Leaders,
    link::{Link, Outgoing, QUEUE_MAX, refuse},
};
use crate::supervisor::Spawner;

/// Most links that are opened before they are needed.
const WARM_MAX: usize = 32;

/// A link that was opened.
struct Open {
    address: String,
    queue: mpsc::Sender<Outgoing>,
    /// For watches, beside the operations' own.
    watches: Channel,
}

/// Hands operations on to other nodes.
pub(crate) struct Forwarder {
    connect: Connect,
    views: Views,
    spawner: Spawner,
    alarms: PeerAlarms,
    leaders: Arc<Leaders>,
    links: Mutex<BTreeMap<NodeId, Open>>,
    /// Wakes the links when callers have cancelled.
    cancels: watch::Sender<()>,
}

impl Forwarder {
    /// Returns a forwarder that finds addresses in the view.
    pub(crate) fn new(connect: Connect, views: Views, spawner: Spawner, alarms: PeerAlarms) -> Self {
        Self {
            connect,
            views,
            spawner,
            alarms,
            leaders: Arc::default(),
            links: Mutex::default(),
            cancels: watch::Sender::new(()),
        }
    }

    /// Hands an operation on to one of these nodes; every way ends in an answer.
    pub(crate) fn send(&self, call: Call, to: Forwarded, nodes: &[NodeId]) {
        let node = self.leaders.choose(to.group, nodes);
        let Some((node, link)) = node.and_then(|node| Some((node, self.link(node)?))) else {
            return refuse(call);
        };
        let outgoing = Outgoing {
            call,
            to,
            view: self.views.version(),
            node,
            nodes: nodes.to_vec(),
        };
        if let Err(refused) = link.try_send(outgoing) {
            match refused {
                mpsc::error::TrySendError::Full(outgoing) | mpsc::error::TrySendError::Closed(outgoing) => {
                    refuse(outgoing.call);
                }
            }
        }
    }

    /// Notes that callers have cancelled: what they asked for may wait in a link, or be under way in one.
    pub(crate) fn cancelled(&self) {
        self.cancels.send_replace(());
    }

    /// Opens links to the voters of groups that are not on this node, so that the first operation finds them open.
    pub(crate) fn warm(&self, own: impl Fn(GroupId) -> bool) {
        let mut voters: Vec<NodeId> = self.views.read(|view| {
            let others = view
                .groups()
                .filter(|group| group.region.is_some() && !own(group.number));
            others.flat_map(|group| group.voters.iter().copied()).collect()
        });
        voters.sort_unstable();
        voters.dedup();
        for voter in voters.into_iter().take(WARM_MAX) {
            // One whose address is not known is opened when it is.
            let _link = self.link(voter);
        }
    }

    /// Returns the connection for watches to one of a group's nodes, and which it is.
    pub(crate) fn channel_to(&self, group: GroupId, nodes: &[NodeId]) -> Option<(NodeId, Channel)> {
        let node = self.leaders.choose(group, nodes)?;
        self.link(node)?;
        let links = self.links.lock();
        Some((node, links.get(&node)?.watches.clone()))
    }

    /// Notes that a node could not be reached.
    pub(crate) fn failed_at(&self, group: GroupId, node: NodeId, nodes: &[NodeId]) {
        self.leaders.failed(group, node, nodes);
    }

    fn link(&self, node: NodeId) -> Option<mpsc::Sender<Outgoing>> {
        let address = self.views.read(|view| Some(view.node(node)?.addresses.peer.clone()))?;
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
        let task = Link::new(
            channel,
            queue,
            self.leaders.clone(),
            self.alarms.clone(),
            self.cancels.subscribe(),
        );
        self.spawner.spawn("link", |stop| task.run(stop));
        let open = Open {
            address,
            queue: link.clone(),
            watches,
        };
        links.insert(node, open);
        Some(link)
    }
}
