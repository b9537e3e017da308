//! Removes keys whose time is over, while this node leads their home. Time is the tenant's: what an entry says, not what
//! any clock does, decides what has expired; the clock here only decides when to ask.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use stead_raft::Clock;
use stead_state::shard::command::Expire;
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
        let due: Vec<TenantNumber> = local
            .machine
            .read(|view| view.shard().due(TenantTime(clock())).take(TENANTS_MAX).collect());
        // A command that is not committed is proposed again with the next tick.
        join_all(due.into_iter().map(|tenant| expire(&local, tenant))).await;
    }
}

async fn expire(local: &Local, tenant: TenantNumber) {
    let command = Expire { tenant }.encode();
    if let Err(error) = local.group.propose(tenant.get(), vec![command]).await {
        tracing::debug!(group = %local.id(), %tenant, %error, "expired keys were not removed");
    }
}
