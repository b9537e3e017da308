//! Observation of a home's seeds: measures, every second, what their tenants' writers have made of history, and has it
//! decided how each goes on.

use std::{sync::Arc, time::Duration};

use stead_state::rows::Unreadable;
use stead_types::{Epoch, GroupId, Sequence, TenantNumber};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    group_context::{GroupContext, admitting_policy},
    outgoing_seeds::TenantUsage,
};

/// Time between two observations.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most rows of history that are read under one lock.
const ROWS_MAX: usize = 2_048;

/// Task that observes the seeds that a group sends, until rows cannot be read. It is dropped when leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (tenant, follower, epoch, reached) in context.seeds.keys() {
            if let Err(unreadable) = observe(&context, tenant, follower, epoch, reached).await {
                context.fail_unreadable(unreadable);
                return;
            }
        }
    }
}

async fn observe(
    context: &GroupContext,
    tenant: TenantNumber,
    follower: GroupId,
    epoch: Epoch,
    mut reached: Sequence,
) -> Result<(), Unreadable> {
    let version = context
        .directory_view
        .read(|view| admitting_policy(view, tenant, context.id(), follower));
    let Some(version) = version else {
        context.seeds.remove(tenant, follower);
        return Ok(());
    };
    if context.seeds.is_over(tenant, follower) {
        context.seeds.observe(tenant, follower, TenantUsage::default(), version);
        return Ok(());
    }
    loop {
        let measured = context.machine.read(|held| {
            let reading = held.reading(tenant);
            let reading = reading.filter(|reading| reading.record().owned() == Some(epoch))?;
            let state = reading.state();
            let usage = TenantUsage {
                keys: state.keys,
                bytes: state.len,
            };
            let measured = reading.history_len(reached, ROWS_MAX);
            Some(measured.map(|(len, to)| (len, to, usage, to >= state.revision.sequence())))
        })?;
        let Some((len, to, usage, is_all)) = measured.transpose()? else {
            context.seeds.remove(tenant, follower);
            return Ok(());
        };
        context.seeds.record_history(tenant, follower, len, to);
        if is_all || to == reached {
            context.seeds.observe(tenant, follower, usage, version);
            return Ok(());
        }
        reached = to;
        tokio::task::yield_now().await;
    }
}
