//! Feed clients to other nodes, by node number. Bulk transfers have connections of their own, so that they do not delay
//! small calls.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::internal::v1::feed_service_client::FeedServiceClient,
};
use stead_types::{GroupId, NodeId};
use tonic::transport::Channel;

use crate::{directory_view::SharedDirectoryView, wire::MESSAGE_LEN_MAX};

/// Longest wait for the first response to a call, for the next page of a listing, and for what either needs here.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type FeedClient = FeedServiceClient<Channel>;

/// Clients of the feed service of other nodes, which are dialled at their addresses in the directory view.
pub(crate) struct FeedClients {
    directory_view: SharedDirectoryView,
    connect: Connect,
    channels: Mutex<BTreeMap<NodeId, (String, Channel)>>,
}

impl FeedClients {
    pub(crate) fn new(directory_view: SharedDirectoryView, connect: Connect) -> Self {
        let channels = Mutex::default();
        Self {
            directory_view,
            connect,
            channels,
        }
    }

    /// Returns the voters of a group.
    pub(crate) fn voters(&self, group: GroupId) -> Vec<NodeId> {
        let voters = |view: &stead_state::directory::DirectoryView| Some(view.group(group)?.voters.clone());
        self.directory_view.read(voters).unwrap_or_default()
    }

    /// Returns a client over a connection of its own, closed with it; `None` for a node that cannot be dialled.
    pub(crate) fn dedicated_client(&self, node: NodeId) -> Option<FeedClient> {
        let address = self.address(node)?;
        channel(&self.connect, &address, Keepalive::PEER).ok().map(client)
    }

    /// Returns a client over a connection that small calls share.
    pub(crate) fn client(&self, node: NodeId) -> Option<FeedClient> {
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
        let address = |view: &stead_state::directory::DirectoryView| Some(view.node(node)?.addresses.peer.clone());
        self.directory_view.read(address).filter(|address| !address.is_empty())
    }
}

fn client(open: Channel) -> FeedClient {
    FeedServiceClient::new(open)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
}
