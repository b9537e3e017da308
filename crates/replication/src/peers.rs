//! Connections to other nodes, by number. Each caller has its own, so that bulk never stands before what is small.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::internal::v1::feed_service_client::FeedServiceClient,
};
use stead_types::{GroupId, NodeId};
use tonic::transport::Channel;

use crate::{Views, wire::MESSAGE_LEN_MAX};

/// How long a call may take until its first answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type Client = FeedServiceClient<Channel>;

/// Dials nodes of the view.
pub(crate) struct Peers {
    views: Views,
    connect: Connect,
    channels: Mutex<BTreeMap<NodeId, (String, Channel)>>,
}

impl Peers {
    pub(crate) fn new(views: Views, connect: Connect) -> Self {
        let channels = Mutex::default();
        Self {
            views,
            connect,
            channels,
        }
    }

    /// Returns the voters of a group.
    pub(crate) fn voters(&self, group: GroupId) -> Vec<NodeId> {
        let voters = |view: &stead_state::directory::View| Some(view.group(group)?.voters.clone());
        self.views.read(voters).unwrap_or_default()
    }

    /// Returns a client over a connection of its own, closed with it; `None` for a node that cannot be dialled.
    pub(crate) fn client_alone(&self, node: NodeId) -> Option<Client> {
        let address = self.address(node)?;
        channel(&self.connect, &address, Keepalive::PEER).ok().map(client)
    }

    /// Returns a client over a connection that small calls share.
    pub(crate) fn client(&self, node: NodeId) -> Option<Client> {
        let address = self.address(node)?;
        let mut channels = self.channels.lock();
        if let Some((known, open)) = channels.get(&node)
            && *known == address
        {
            return Some(client(open.clone()));
        }
        let open = channel(&self.connect, &address, Keepalive::PEER).ok()?;
        channels.insert(node, (address, open.clone()));
        Some(client(open))
    }

    fn address(&self, node: NodeId) -> Option<String> {
        let address = |view: &stead_state::directory::View| Some(view.node(node)?.addresses.peer.clone());
        self.views.read(address).filter(|address| !address.is_empty())
    }
}

fn client(open: Channel) -> Client {
    FeedServiceClient::new(open)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
}
