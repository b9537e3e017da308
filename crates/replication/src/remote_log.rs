//! Task that writes a home's remote watermarks into its log, so that a new leader goes on from them: reads of what was
//! confirmed go on although the link to other regions is down then.

use std::{sync::Arc, time::Duration};

use stead_state::shard::command::ConfirmRemote;
use tokio::time::{MissedTickBehavior, interval};

use crate::{group_context::GroupContext, proposal_class, remote_watermark::RemoteWatermark};

/// Time between two proposals. They ride with the next entry where there are writes; what was confirmed since the last one
/// is confirmed anew by the followers of a new leader.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most tenants of one proposal; the others come with the next one.
const TENANTS_MAX: usize = 1_000;

/// Proposes what was confirmed, as long as this node leads. Never returns; it is dropped when leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>, remote: Arc<RemoteWatermark>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Older nodes cannot read it.
        if !context.directory_view.read(|view| view.settings().has_region_loss()) {
            continue;
        }
        let due: Vec<_> = remote.unlogged(TENANTS_MAX).iter().map(ConfirmRemote::encode).collect();
        if due.is_empty() {
            continue;
        }
        match context.group.propose(proposal_class::REMOTE_WATERMARK, due).await {
            Ok(_) => context.succeeded("logging remote watermarks"),
            Err(error) => context.record_retry("logging remote watermarks", &error),
        }
    }
}
