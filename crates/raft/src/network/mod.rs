//! Network of openraft to one peer: entries over a pipelined stream, control messages over single calls, snapshots over
//! a connection of their own.
//!
//! # Invariants
//!
//! 1. A stream whose peer sends no response for [`append::STALL_MAX`] while requests are open is given up: openraft
//!    sets no timeout on streams, and a hung follower would block the leader's purge for ever.
//! 2. Every failure that may last is reported as `Unreachable`, after which openraft backs off.
//! 3. After a failed snapshot the next one is taken when the peer responds again or after an exponential backoff: a
//!    replica that is down, or that rejects snapshots, does not cost the leader one snapshot after the other.

mod append;
mod control;
mod snapshot;

use std::sync::Arc;

use openraft::network::{Backoff, NetBackoff, RaftNetworkFactory};
use stead_types::{Incarnation, NodeId};
use tokio::sync::watch;
use tonic::Status;

use crate::blocking::BlockingWorker;
use crate::clock::GroupClock;
use crate::copy_bandwidth::CopyBandwidth;
use crate::group_bootstrap::GroupBootstrap;
use crate::peer_channels::PeerChannels;
use crate::snapshot_transfers::SnapshotTransfers;
use crate::types::{RpcError, TypeConfig};
use crate::wire::{self, Sender};

/// Factory of the network clients of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<PeerChannels>,
    pub(crate) copies: Arc<CopyBandwidth>,
    pub(crate) sender: Sender,
    pub(crate) worker: BlockingWorker,
    pub(crate) transfers: Arc<SnapshotTransfers>,
    pub(crate) bootstrap: Arc<GroupBootstrap>,
    pub(crate) clock: Arc<GroupClock>,
    /// Later incarnation of the group that another node has named.
    pub(crate) later: watch::Sender<Option<Incarnation>>,
}

/// Network client for one peer of one group.
pub(crate) struct Peer {
    network: Network,
    to: NodeId,
    is_heartbeat: bool,
    /// Consecutive failed snapshots.
    failed_snapshots: u32,
}

impl Network {
    /// Returns the error of a call or stream that ended with a status, and takes note of a later incarnation.
    fn failed(&self, status: &Status) -> RpcError {
        if let Some(later) = wire::later_incarnation(&self.sender, status) {
            self.later.send_if_modified(|known| known.replace(later) != Some(later));
        }
        self.peers.failed(status)
    }

    fn peer(&self, target: u64, is_heartbeat: bool) -> Peer {
        Peer {
            network: self.clone(),
            to: NodeId::new(target),
            is_heartbeat,
            failed_snapshots: 0,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &()) -> Peer {
        self.peer(target, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &()) -> Peer {
        self.peer(target, true)
    }
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
