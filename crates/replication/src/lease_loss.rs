//! Task of a group's leader by which the group's log notes that a later epoch was heard of: an owner that would go on
//! without a lease stops from then on, whichever node leads the group.
//!
//! Unlike the reconciler it waits neither for a lease nor for the directory: it is most needed where both are missing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stead_state::{lease::loss, reconcile::STEPS_MAX};
use tokio::time::sleep;

use crate::{group_context::GroupContext, proposal_class};

/// Pause after a proposal, whether or not it was taken.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs for ever; it is dropped when leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>) {
    let (mut heard, mut taken_over) = (context.epochs_seen.watch(), context.taken_over.subscribe());
    loop {
        heard.borrow_and_update();
        taken_over.borrow_and_update();
        let commands = due(&context);
        if !commands.is_empty() {
            match context.group.propose(proposal_class::LEASE_LOSS, commands).await {
                Ok(_) => context.succeeded("noting a later epoch"),
                Err(error) => context.record_retry("noting a later epoch", &error),
            }
            sleep(PAUSE).await;
            continue;
        }
        tokio::select! {
            Ok(()) = heard.changed() => {}
            Ok(()) = taken_over.changed() => {}
        }
    }
}

/// Returns the commands of one entry; none if this node's rows are closed.
fn due(context: &GroupContext) -> Vec<Bytes> {
    let seen = context.epochs_seen.all();
    let due = context.machine.read(|held| {
        let stops = seen
            .iter()
            .filter_map(|(tenant, epoch)| loss::stop_noted(*tenant, held.record(*tenant)?, *epoch));
        stops.take(STEPS_MAX).map(|stop| stop.encode()).collect()
    });
    due.unwrap_or_default()
}
