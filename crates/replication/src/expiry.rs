//! Removal of expired keys, while this node leads their home. A tenant's time decides what has expired: the time in log
//! entries, not any clock. The group's logged time only decides when to propose a removal.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use stead_raft::Proposal;
use stead_state::shard::{
    ApplyResult,
    command::{Expire, REMOVAL_WORK},
};
use stead_types::{TenantNumber, TenantTime};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::group_context::GroupContext;

/// Interval of the check for expired keys: one check a group, however many tenants and keys there are.
const INTERVAL: Duration = Duration::from_millis(50);
/// Most tenants whose keys are removed concurrently.
const TENANTS_MAX: usize = 64;
/// Longest wait of a command for its proposal: the next round proposes it again.
const PROPOSED_WITHIN: Duration = Duration::from_secs(2);

/// Task that removes expired keys of the tenants that a group owns. Never returns; it is dropped when leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // One command removes some keys: as long as that helps, the next round follows at once.
        while expire_due(&context, TenantTime(context.group.logged_time())).await {}
    }
}

/// Removes keys of each tenant that may have expired ones; returns whether any were removed. Each tenant has one
/// command in a round, so that one with many expired keys does not delay the others.
async fn expire_due(context: &GroupContext, now: TenantTime) -> bool {
    let due = context.machine.read(|view| view.shard().due(now).collect::<Vec<_>>());
    let Ok(due) = due else { return false };
    let expired = stream::iter(due).map(|tenant| expire(context, tenant));
    let expired = expired.buffer_unordered(TENANTS_MAX);
    expired.fold(false, async |any, expired| any || expired).await
}

/// Removes expired keys of one tenant; returns whether any were removed. A command that is not committed is proposed
/// again in another round.
async fn expire(context: &GroupContext, tenant: TenantNumber) -> bool {
    let proposal = Proposal {
        command: Expire { tenant }.encode(),
        work: REMOVAL_WORK,
        deadline: Instant::now() + PROPOSED_WITHIN,
    };
    match context.group.propose_by(tenant.get(), vec![proposal]).await {
        Ok(answers) => answers
            .iter()
            .flatten()
            .any(|answer| matches!(answer, ApplyResult::Write(_))),
        Err(error) => {
            tracing::debug!(group = %context.id(), %tenant, %error, "removal of expired keys failed");
            false
        }
    }
}
