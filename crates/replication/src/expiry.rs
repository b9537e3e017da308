//! Removes keys whose time is over, while this node leads their home. Time is the tenant's: what an entry says, not what
//! any clock does, decides what has expired; the group's logged time here only decides when to ask.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use stead_raft::Proposal;
use stead_state::shard::{
    Answer,
    command::{Expire, REMOVAL_WORK},
};
use stead_types::{TenantNumber, TenantTime};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::local::Local;

/// How often it is looked whether any key has expired: one look a group, however many tenants and keys there are.
const INTERVAL: Duration = Duration::from_millis(50);
/// Tenants whose keys are removed at the same time.
const TENANTS_MAX: usize = 64;
/// How long a command may wait to be proposed: the next round asks again.
const PROPOSED_WITHIN: Duration = Duration::from_secs(2);

/// Removes expired keys of the tenants that a group owns. Never returns; it is dropped when leadership ends.
pub(crate) async fn keep(local: Arc<Local>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // One command removes some keys: as long as that helps, the next round follows at once.
        while expire_due(&local, TenantTime(local.group.logged_time())).await {}
    }
}

/// Removes keys of each tenant whose time may be over; tells whether any were removed. Each has one command in a round,
/// so that those with many expired keys do not hold up the others.
async fn expire_due(local: &Local, now: TenantTime) -> bool {
    let due = local.machine.read(|view| view.shard().due(now).collect::<Vec<_>>());
    let Ok(due) = due else { return false };
    let expired = stream::iter(due).map(|tenant| expire(local, tenant));
    let expired = expired.buffer_unordered(TENANTS_MAX);
    expired.fold(false, async |any, expired| any || expired).await
}

/// Tells whether keys were removed. A command that is not committed is proposed again in another round.
async fn expire(local: &Local, tenant: TenantNumber) -> bool {
    let proposal = Proposal {
        command: Expire { tenant }.encode(),
        work: REMOVAL_WORK,
        deadline: Instant::now() + PROPOSED_WITHIN,
    };
    match local.group.propose_by(tenant.get(), vec![proposal]).await {
        Ok(answers) => answers
            .iter()
            .flatten()
            .any(|answer| matches!(answer.downcast_ref::<Answer>(), Some(Answer::Written(_)))),
        Err(error) => {
            tracing::debug!(group = %local.id(), %tenant, %error, "expired keys were not removed");
            false
        }
    }
}
