//! Channels to the other nodes, shared by all groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stead_api::net::{Connect, Keepalive, channel};
use stead_api::peer_codec::PeerAlarms;
use stead_api::proto::internal::v1::raft_service_client::RaftServiceClient;
use stead_types::NodeId;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

use crate::types::{RpcError, Unreachable};
use crate::wire::MESSAGE_LEN_MAX;

/// Resolver of a node's address, if it is known.
pub type Resolver = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;

/// Class of a connection: small messages never wait behind large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChannelClass {
    Bulk,
    Control,
}

pub(crate) type PeerClient = RaftServiceClient<Channel>;

/// Channels to peers by node and class.
pub(crate) struct PeerChannels {
    connect: Connect,
    resolve: Resolver,
    channels: Mutex<BTreeMap<(NodeId, ChannelClass), (String, Channel)>>,
    /// Peers that did not respond to the last call, so that it is logged once and not with every heartbeat.
    unresponsive: watch::Sender<BTreeSet<NodeId>>,
    /// Counters of rejected messages.
    pub(crate) alarms: PeerAlarms,
}

impl PeerChannels {
    pub(crate) fn new(connect: Connect, resolve: Resolver) -> Self {
        Self {
            connect,
            resolve,
            channels: Mutex::default(),
            unresponsive: watch::channel(BTreeSet::new()).0,
            alarms: PeerAlarms::default(),
        }
    }

    /// Records whether a peer responded, and logs a change.
    pub(crate) fn note<T>(&self, peer: NodeId, answer: &Result<T, RpcError>) {
        self.unresponsive.send_if_modified(|unresponsive| {
            let changed = match answer {
                Ok(_) => unresponsive.remove(&peer),
                Err(_) => unresponsive.insert(peer),
            };
            match answer {
                Ok(_) if changed => tracing::info!(%peer, "peer responds again"),
                Err(error) if changed => tracing::warn!(%peer, %error, "peer does not respond"),
                Ok(_) | Err(_) => {}
            }
            changed
        });
    }

    /// Waits until a peer responds again after it did not, up to a timeout.
    pub(crate) async fn wait_for(&self, peer: NodeId, longest: Duration) {
        let mut unresponsive = self.unresponsive.subscribe();
        let returns = async {
            for is_unresponsive in [true, false] {
                // The sender lives as long as `self`.
                drop(
                    unresponsive
                        .wait_for(|unresponsive| unresponsive.contains(&peer) == is_unresponsive)
                        .await,
                );
            }
        };
        drop(timeout(longest, returns).await);
    }

    /// Returns the error of a call or stream that ended with a status.
    pub(crate) fn failed(&self, status: &Status) -> RpcError {
        self.alarms.record_status(status);
        unreachable(status.message().to_owned())
    }

    fn address(&self, node: NodeId) -> Result<String, RpcError> {
        (self.resolve)(node).ok_or_else(|| unreachable(format!("unknown address of {node}")))
    }

    /// Returns a client over the shared connection of a class; a node with a new address is dialled again.
    pub(crate) fn client(&self, node: NodeId, class: ChannelClass) -> Result<PeerClient, RpcError> {
        let address = self.address(node)?;
        let mut channels = self.channels.lock();
        match channels.get(&(node, class)) {
            Some((known, open)) if *known == address => return Ok(client(open.clone())),
            Some(_) | None => {}
        }
        let open = self.open_channel(&address)?;
        channels.insert((node, class), (address, open.clone()));
        Ok(client(open))
    }

    /// Returns a client over a dedicated connection, which is closed with it.
    pub(crate) fn dedicated_client(&self, node: NodeId) -> Result<PeerClient, RpcError> {
        Ok(client(self.open_channel(&self.address(node)?)?))
    }

    fn open_channel(&self, address: &str) -> Result<Channel, RpcError> {
        channel(&self.connect, address, Keepalive::PEER).map_err(|error| unreachable(error.to_string()))
    }
}

fn client(open: Channel) -> PeerClient {
    RaftServiceClient::new(open)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
}

/// Returns the error after which openraft backs off.
pub(crate) fn unreachable(reason: String) -> RpcError {
    RpcError::Unreachable(Unreachable::from_string(reason))
}
