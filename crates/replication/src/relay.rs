//! Freshness on the nodes that do not lead their group: they ask the leader, and the bounds add up.
//!
//! # Invariants
//!
//! 1. A leader's proof is taken in once everything is applied here that was applied there when it answered: a tenant that
//!    it does not speak for may have been detached without the stream's offset having moved.

use std::time::Duration;

use stead_api::proto::internal::v1::{FreshnessProof, FreshnessRequest, FreshnessResponse};
use stead_state::freshness::Proof;
use stead_types::{GroupId, NodeId};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    local::Local,
    peers::{ANSWER_TIMEOUT, Peers},
    wire,
};

/// Asks the leader again and again. Never returns; it is dropped when this node leads.
pub(crate) async fn relay(local: &Local, peers: &Peers) {
    let mut asked: Option<Instant> = None;
    loop {
        let next = asked.map_or_else(Instant::now, |asked| asked + local.freshness.interval(None));
        tokio::select! {
            () = sleep_until(next) => {}
            () = local.freshness.wanted() => continue,
        }
        let now = Instant::now();
        asked = Some(now);
        if let Some(leader) = local.group.leader() {
            ask(local, peers, leader, now).await;
        }
    }
}

async fn ask(local: &Local, peers: &Peers, leader: NodeId, asked: Instant) {
    let Some(mut client) = peers.client(leader) else { return };
    let group = local.id().get();
    let busy = local.freshness.is_wanted();
    let answer = timeout(ANSWER_TIMEOUT, client.freshness(FreshnessRequest { group, busy })).await;
    let Ok(Ok(answer)) = answer else { return };
    let FreshnessResponse { proofs, applied } = answer.into_inner();
    let mut reached = local.group.applied();
    let has_reached = reached.wait_for(|reached| *reached >= applied);
    if !matches!(timeout(ANSWER_TIMEOUT, has_reached).await, Ok(Ok(_))) {
        return;
    }
    for proof in proofs {
        take_in(local, proof, asked);
    }
}

fn take_in(local: &Local, proof: FreshnessProof, asked: Instant) {
    let Ok(offset) = wire::offset_from(proof.offset) else {
        return;
    };
    let version = wire::version_from(proof.view_incarnation, proof.view_index);
    let age = Duration::from_micros(proof.age_us);
    if let Some(relayed) = Proof::relayed(local.freshness.at(asked), age, offset, version) {
        local.freshness.answered(GroupId::new(proof.home_group), relayed);
    }
}
