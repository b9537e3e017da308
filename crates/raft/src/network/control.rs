//! Control calls, small and urgent: votes, transfer of leadership, digests and bootstrap. One call each, with a
//! timeout.

use std::time::Duration;

use bytes::Bytes;
use openraft::network::{NetTransferLeader, NetVote, RPCOption};
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_state::codec::Malformed;
use stead_types::NodeId;
use tokio::time::timeout;

use super::{Network, Peer};
use crate::clock::PeerClockSample;
use crate::group_bootstrap::VoterState;
use crate::peer_channels::{ChannelClass, unreachable};
use crate::types::{RpcError, TransferRequest, TransferResponse, TypeConfig, VoteRequest, VoteResponse};
use crate::wire::{self, MessageKind};

/// Timeout of a bootstrap call: a round trip, and a sync.
const BOOTSTRAP_WAIT: Duration = Duration::from_secs(2);

/// Timeout of a digest call.
const DIGEST_WAIT: Duration = Duration::from_secs(2);

impl Peer {
    pub(super) async fn call(
        &self,
        kind: MessageKind,
        body: Bytes,
        option: &RPCOption,
    ) -> Result<RaftEnvelope, RpcError> {
        let answer = self.ask(kind, body, option).await;
        self.network.peers.note(self.to, &answer);
        answer
    }

    async fn ask(&self, kind: MessageKind, body: Bytes, option: &RPCOption) -> Result<RaftEnvelope, RpcError> {
        let mut client = self.network.peers.client(self.to, ChannelClass::Control)?;
        let request = self.network.sender.envelope(kind, 0, body);
        let called = timeout(option.soft_ttl(), client.control(request)).await;
        let called = called.map_err(|_| unreachable(format!("{} did not respond in time", self.to)))?;
        let answer = called.map_err(|status| self.network.failed(&status))?;
        let answer = wire::response_from(self.to, answer.into_inner());
        answer.map_err(|other| unreachable(other.to_string()))
    }

    async fn ask_for_vote(
        &self,
        kind: MessageKind,
        rpc: &VoteRequest,
        option: &RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        if !self.network.bootstrap.has_joined() {
            return Err(unreachable("the bootstrap of the group is not complete".to_owned()));
        }
        let answer = self.call(kind, wire::vote(rpc), option).await?;
        let answer = wire::body(answer, MessageKind::VoteResponse).and_then(wire::read_vote_response);
        let answer = answer.map_err(garbled)?;
        self.network.clock.observe_time(answer.time_ms);
        Ok(answer.body)
    }
}

fn garbled(malformed: Malformed) -> RpcError {
    unreachable(malformed.to_string())
}

impl Network {
    /// Asks a peer for the digest that its machine took after an entry; `None` if it has none, or does not respond.
    pub(crate) async fn digest(&self, peer: NodeId, index: u64) -> Option<u128> {
        let mut client = self.peers.client(peer, ChannelClass::Control).ok()?;
        let question = self.sender.envelope(MessageKind::Digest, 0, wire::digest(index));
        let answer = timeout(DIGEST_WAIT, client.control(question)).await.ok()?.ok()?;
        let answer = wire::response_from(peer, answer.into_inner()).ok()?;
        let answer = wire::body(answer, MessageKind::DigestResponse).ok()?;
        wire::read_digest_response(answer).ok()?
    }

    /// Exchanges voter states with a peer during the bootstrap; `None` if it does not respond.
    pub(crate) async fn voter_state(&self, peer: NodeId) -> Option<VoterState> {
        let mut client = self.peers.client(peer, ChannelClass::Control).ok()?;
        let own = wire::voter_state(self.bootstrap.own());
        let question = self.sender.envelope(MessageKind::Bootstrap, 0, own);
        let sent = self.clock.boot();
        let answer = timeout(BOOTSTRAP_WAIT, client.control(question)).await.ok()?.ok()?;
        let answer = wire::response_from(peer, answer.into_inner()).ok()?;
        let answer = wire::body(answer, MessageKind::BootstrapResponse).ok()?;
        let answer = wire::read_bootstrap_response(answer).ok()?;
        let sample = PeerClockSample {
            sent,
            wall_ms: answer.time_ms,
            follows: false,
        };
        self.clock.observe_response(peer, sample);
        Some(answer.body)
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        self.ask_for_vote(MessageKind::Vote, &rpc, &option).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        self.ask_for_vote(MessageKind::PreVote, &rpc, &option).await
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(&mut self, rpc: TransferRequest, option: RPCOption) -> Result<TransferResponse, RpcError> {
        let answer = self.call(MessageKind::Transfer, wire::transfer(&rpc), &option).await?;
        let answer = wire::body(answer, MessageKind::TransferResponse).and_then(wire::read_transfer_response);
        answer.map_err(garbled)
    }
}
