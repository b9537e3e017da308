//! Polls the group's leader for freshness proofs, on the nodes that do not lead the group. The staleness bounds add up.
//!
//! # Invariants
//!
//! 1. A leader's proof is added once everything is applied here that was applied there when it responded: a tenant that
//!    it does not cover may have been detached without the stream's offset having moved.

use std::time::Duration;

use stead_api::proto::internal::v1::{FreshnessProof, FreshnessRequest, FreshnessResponse};
use stead_state::freshness::Proof;
use stead_types::{GroupId, NodeId};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    feed_clients::{FeedClients, RESPONSE_TIMEOUT},
    group_context::GroupContext,
    wire,
};

/// Task that polls the leader. Never returns; it is dropped when this node leads.
pub(crate) async fn run(context: &GroupContext, feed_clients: &FeedClients) {
    let mut polled: Option<Instant> = None;
    let mut own_polled: Option<Instant> = None;
    loop {
        let next = polled.map_or_else(Instant::now, |polled| polled + context.freshness.poll_interval());
        tokio::select! {
            () = sleep_until(next) => {}
            () = context.freshness.demand_began() => continue,
        }
        let now = Instant::now();
        polled = Some(now);
        let own = context.freshness.polls_own(own_polled);
        if own {
            own_polled = Some(now);
        }
        if let Some(leader) = context.group.leader() {
            poll(context, feed_clients, leader, now, own).await;
        }
    }
}

/// Asks the leader for its proofs; `own`: also for one of the group itself.
async fn poll(context: &GroupContext, feed_clients: &FeedClients, leader: NodeId, sent: Instant, own: bool) {
    let Some(mut client) = feed_clients.client(leader) else {
        return;
    };
    let group = context.id().get();
    let busy = context.freshness.has_recent_demand();
    let request = FreshnessRequest {
        group,
        busy,
        skip_own: !own,
    };
    let response = timeout(RESPONSE_TIMEOUT, client.freshness(request)).await;
    let Ok(Ok(response)) = response else { return };
    let FreshnessResponse { proofs, applied } = response.into_inner();
    let mut reached = context.group.applied();
    let has_reached = reached.wait_for(|reached| *reached >= applied);
    if !matches!(timeout(RESPONSE_TIMEOUT, has_reached).await, Ok(Ok(_))) {
        return;
    }
    for proof in proofs {
        add_proof(context, proof, sent);
    }
}

fn add_proof(context: &GroupContext, proof: FreshnessProof, sent: Instant) {
    let Ok(offset) = wire::offset_from(proof.offset) else {
        return;
    };
    let version = wire::version_from(proof.view_incarnation, proof.view_index);
    let age = Duration::from_micros(proof.age_us);
    if let Some(relayed) = Proof::from_leader(context.freshness.at(sent), age, offset, version) {
        context.freshness.add_proof(GroupId::new(proof.home_group), relayed);
    }
}
