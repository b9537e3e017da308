//! The channels to the other nodes, shared by all groups.

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

/// Where a node can be dialled, if that is known.
pub type Resolver = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;

/// Which connection a message takes: small ones never wait behind large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Bulk,
    Control,
}

pub(crate) type Client = RaftServiceClient<Channel>;

/// Dials peers.
pub(crate) struct Peers {
    connect: Connect,
    resolve: Resolver,
    channels: Mutex<BTreeMap<(NodeId, Class), (String, Channel)>>,
    /// Who did not answer when it was asked last, so that an operator is told once and not with every heartbeat.
    silent: watch::Sender<BTreeSet<NodeId>>,
    /// Messages that could not be taken, from whomever.
    pub(crate) alarms: PeerAlarms,
}

impl Peers {
    pub(crate) fn new(connect: Connect, resolve: Resolver) -> Self {
        Self {
            connect,
            resolve,
            channels: Mutex::default(),
            silent: watch::channel(BTreeSet::new()).0,
            alarms: PeerAlarms::default(),
        }
    }

    /// Notes whether a peer answered, and tells when that changes.
    pub(crate) fn note<T>(&self, peer: NodeId, answer: &Result<T, RpcError>) {
        self.silent.send_if_modified(|silent| {
            let changed = match answer {
                Ok(_) => silent.remove(&peer),
                Err(_) => silent.insert(peer),
            };
            match answer {
                Ok(_) if changed => tracing::info!(%peer, "a peer answers again"),
                Err(error) if changed => tracing::warn!(%peer, %error, "a peer does not answer"),
                Ok(_) | Err(_) => {}
            }
            changed
        });
    }

    /// Waits for a peer to answer again after it did not, and for so long at most.
    pub(crate) async fn wait_for(&self, peer: NodeId, longest: Duration) {
        let mut silent = self.silent.subscribe();
        let returns = async {
            for is_silent in [true, false] {
                // The sender lives as long as `self`.
                drop(silent.wait_for(|silent| silent.contains(&peer) == is_silent).await);
            }
        };
        drop(timeout(longest, returns).await);
    }

    /// Returns the error of a call or stream that ended with a status.
    pub(crate) fn failed(&self, status: &Status) -> RpcError {
        self.alarms.note(status);
        unreachable(status.message().to_owned())
    }

    fn address(&self, node: NodeId) -> Result<String, RpcError> {
        (self.resolve)(node).ok_or_else(|| unreachable(format!("the address of {node} is not known")))
    }

    /// Returns a client over the shared connection of a class; a node that moved is dialled at its new address.
    pub(crate) fn client(&self, node: NodeId, class: Class) -> Result<Client, RpcError> {
        let address = self.address(node)?;
        let mut channels = self.channels.lock();
        match channels.get(&(node, class)) {
            Some((known, open)) if *known == address => return Ok(client(open.clone())),
            Some(_) | None => {}
        }
        let open = self.dial(&address)?;
        channels.insert((node, class), (address, open.clone()));
        Ok(client(open))
    }

    /// Returns a client over a connection of its own, closed with it.
    pub(crate) fn client_alone(&self, node: NodeId) -> Result<Client, RpcError> {
        Ok(client(self.dial(&self.address(node)?)?))
    }

    fn dial(&self, address: &str) -> Result<Channel, RpcError> {
        channel(&self.connect, address, Keepalive::PEER).map_err(|error| unreachable(error.to_string()))
    }
}

fn client(open: Channel) -> Client {
    RaftServiceClient::new(open)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
}

/// The error after which openraft waits before it tries again.
pub(crate) fn unreachable(reason: String) -> RpcError {
    RpcError::Unreachable(Unreachable::from_string(reason))
}
