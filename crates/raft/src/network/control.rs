//! The small and urgent: votes, and the hand-over of leadership. One call each, with the time that openraft gives it.

use std::time::Duration;

use bytes::Bytes;
use openraft::network::{NetTransferLeader, NetVote, RPCOption};
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_state::codec::Malformed;
use stead_types::NodeId;
use tokio::time::timeout;

use super::{Network, Peer};
use crate::clock::Heard;
use crate::founding::Standing;
use crate::peers::{Class, unreachable};
use crate::types::{RpcError, TransferRequest, TransferResponse, TypeConfig, VoteRequest, VoteResponse};
use crate::wire::{self, Kind};

/// The longest that a peer takes to answer a new voter: a round trip, and a sync.
const FOUNDING_WAIT: Duration = Duration::from_secs(2);

/// The longest that a peer takes to say a digest that it has.
const DIGEST_WAIT: Duration = Duration::from_secs(2);

impl Peer {
    pub(super) async fn call(&self, kind: Kind, body: Bytes, option: &RPCOption) -> Result<RaftEnvelope, RpcError> {
        let answer = self.ask(kind, body, option).await;
        self.network.peers.note(self.to, &answer);
        answer
    }

    async fn ask(&self, kind: Kind, body: Bytes, option: &RPCOption) -> Result<RaftEnvelope, RpcError> {
        let mut client = self.network.peers.client(self.to, Class::Control)?;
        let request = self.network.sender.envelope(kind, 0, body);
        let called = timeout(option.soft_ttl(), client.control(request)).await;
        let called = called.map_err(|_| unreachable(format!("{} did not answer in time", self.to)))?;
        let answer = called.map_err(|status| self.network.peers.failed(&status))?;
        Ok(answer.into_inner())
    }

    async fn ask_for_vote(&self, kind: Kind, rpc: &VoteRequest, option: &RPCOption) -> Result<VoteResponse, RpcError> {
        if !self.network.founding.has_joined() {
            return Err(unreachable("the group has not begun".to_owned()));
        }
        let answer = self.call(kind, wire::vote(rpc), option).await?;
        let answer = wire::body(answer, Kind::VoteAnswer).and_then(wire::read_vote_answer);
        let answer = answer.map_err(garbled)?;
        self.network.clock.hear(answer.time_ms);
        Ok(answer.body)
    }
}

fn garbled(malformed: Malformed) -> RpcError {
    unreachable(malformed.to_string())
}

impl Network {
    /// Asks a peer for the digest that its machine took after an entry; `None` if it has none, or does not answer.
    pub(crate) async fn digest(&self, peer: NodeId, index: u64) -> Option<u128> {
        let mut client = self.peers.client(peer, Class::Control).ok()?;
        let question = self.sender.envelope(Kind::Digest, 0, wire::digest(index));
        let answer = timeout(DIGEST_WAIT, client.control(question)).await.ok()?.ok()?;
        let answer = wire::body(answer.into_inner(), Kind::DigestAnswer).ok()?;
        wire::read_digest_answer(answer).ok()?
    }

    /// Asks a peer what it has of the group, and tells it what this voter has; `None` if it does not answer.
    pub(crate) async fn standing(&self, peer: NodeId) -> Option<Standing> {
        let mut client = self.peers.client(peer, Class::Control).ok()?;
        let own = wire::standing(self.founding.own());
        let question = self.sender.envelope(Kind::Founding, 0, own);
        let sent = self.clock.boot();
        let answer = timeout(FOUNDING_WAIT, client.control(question)).await.ok()?.ok()?;
        let answer = wire::body(answer.into_inner(), Kind::FoundingAnswer).ok()?;
        let answer = wire::read_founding_answer(answer).ok()?;
        let heard = Heard {
            sent,
            wall_ms: answer.time_ms,
            follows: false,
        };
        self.clock.answered(peer, heard);
        Some(answer.body)
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        self.ask_for_vote(Kind::Vote, &rpc, &option).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RpcError> {
        self.ask_for_vote(Kind::PreVote, &rpc, &option).await
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(&mut self, rpc: TransferRequest, option: RPCOption) -> Result<TransferResponse, RpcError> {
        let answer = self.call(Kind::Transfer, wire::transfer(&rpc), &option).await?;
        let answer = wire::body(answer, Kind::TransferAnswer).and_then(wire::read_transfer_answer);
        answer.map_err(garbled)
    }
}
