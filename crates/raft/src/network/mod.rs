//! What openraft sends to one peer: entries over a pipelined stream, the small and urgent over single calls, snapshots
//! over a connection of their own.
//!
//! # Invariants
//!
//! 1. A stream whose peer answers nothing for [`append::STALL_MAX`] while something is asked of it is given up:
//!    openraft bounds no stream, and a hung follower would hold back the leader's purge for ever.
//! 2. Every failure that may last is reported as `Unreachable`, after which openraft backs off.
//! 3. After a snapshot that failed the next one is cut when the peer answers again or after a pause that doubles: a
//!    replica that is down, or that refuses what it is sent, costs the leader no cut after the other.

mod append;
mod control;
mod snapshot;

use std::sync::Arc;

pub(crate) use snapshot::Source;

use openraft::network::{Backoff, NetBackoff, RaftNetworkFactory};
use stead_types::NodeId;

use crate::blocking::Worker;
use crate::clock::GroupClock;
use crate::founding::Founding;
use crate::peers::Peers;
use crate::transfers::Transfers;
use crate::types::TypeConfig;
use crate::wire::Sender;

/// Makes the clients of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) sender: Sender,
    pub(crate) worker: Worker,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) founding: Arc<Founding>,
    pub(crate) clock: Arc<GroupClock>,
}

/// Talks to one peer of one group.
pub(crate) struct Peer {
    network: Network,
    to: NodeId,
    is_heartbeat: bool,
    /// Snapshots that failed one after the other.
    failed_snapshots: u32,
}

impl Network {
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
