//! Removes keys whose time is over, while this node leads their home. Time is the tenant's: what an entry says, not what
//! any clock does, decides what has expired; the clock here only decides when to ask.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use stead_raft::Clock;
use stead_state::shard::{Answer, command::Expire};
use stead_types::{TenantNumber, TenantTime};
use tokio::time::{MissedTickBehavior, interval};

use crate::local::Local;

/// How often it is looked whether any key has expired: one look a group, however many tenants and keys there are.
const INTERVAL: Duration = Duration::from_millis(50);
/// Most tenants whose keys are removed at a time.
const TENANTS_MAX: usize = 64;

/// Removes expired keys of the tenants that a group owns. Never returns; it is dropped when leadership ends.
pub(crate) async fn keep(local: Arc<Local>, clock: Clock) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // One command removes some keys: as long as that helps, the next one follows at once.
        while expire_due(&local, TenantTime(clock())).await {}
    }
}

/// Removes keys of some tenants whose time may be over; tells whether any were removed.
async fn expire_due(local: &Local, now: TenantTime) -> bool {
    let due: Vec<TenantNumber> = local
        .machine
        .read(|view| view.shard().due(now).take(TENANTS_MAX).collect());
    let expired = join_all(due.into_iter().map(|tenant| expire(local, tenant))).await;
    expired.contains(&true)
}

/// Tells whether keys were removed. A command that is not committed is proposed again with the next tick.
async fn expire(local: &Local, tenant: TenantNumber) -> bool {
    let command = Expire { tenant }.encode();
    match local.group.propose(tenant.get(), vec![command]).await {
        Ok(answers) => answers
            .iter()
            .any(|answer| matches!(answer.downcast_ref::<Answer>(), Some(Answer::Written(_)))),
        Err(error) => {
            tracing::debug!(group = %local.id(), %tenant, %error, "expired keys were not removed");
            false
        }
    }
}
