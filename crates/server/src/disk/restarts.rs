//! Runs of a node in one process: one that ends for want of room on its disk is followed by another when there is room, one
//! whose groups change by another with these groups.
//!
//! A process that ended would be started again at once, find no room, and after a few starts be given up for good.

use std::time::Duration;

use stead_store::room::{free_bytes, is_out_of_room};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Ballast;
use crate::{
    config::ValidatedConfig,
    environment::Environment,
    node::{self, Error, RunEnd},
};

/// Free space for which the first start after a full disk waits.
const START_ROOM_MIN: u64 = 24 << 20;
/// Run after which a start counts as successful, so that the next wait is for little again.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// Interval of looks at the free space.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// State of a node, for the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It has started, and serves.
    Serving,
    /// It waits for room on its disk before it starts.
    WaitingForRoom,
}

/// Runs a node, again each time that it has ended for want of room on its disk or because its groups change, until the token fires or something else
/// fails. `environment` returns the environment of one run; `changed` is called with what the node does.
///
/// # Errors
///
/// As [`node::run`], except for want of room.
pub async fn run_through_full_disks(
    config: ValidatedConfig,
    environment: impl Fn() -> Environment,
    stop: CancellationToken,
    changed: impl Fn(RunState) + Send + Sync,
) -> Result<(), Error> {
    let mut needed = 0;
    loop {
        if !wait_for_room(&config, needed, &stop, &changed).await {
            return Ok(());
        }
        let began = Instant::now();
        let ready = Box::new(|| changed(RunState::Serving));
        let ended = node::run(config.clone(), environment(), None, stop.clone(), ready).await;
        match ended {
            Err(error) if is_out_of_room(&error) && !stop.is_cancelled() => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "this run of the node has ended for want of disk space: it starts again when there is some"
                );
                needed = next_need(needed, began.elapsed(), config.disk_reserve);
            }
            Ok(RunEnd::GroupsChanged) if !stop.is_cancelled() => needed = 0,
            ended => return ended.map(drop),
        }
    }
}

/// Returns the room to wait for after a run that ended for want of it: twice as much each time, up to the reserve, unless
/// the run has lasted.
fn next_need(before: u64, lasted: Duration, reserve: u64) -> u64 {
    let most = reserve.max(START_ROOM_MIN);
    if lasted < SETTLED_AFTER {
        before.saturating_mul(2).clamp(START_ROOM_MIN, most)
    } else {
        START_ROOM_MIN
    }
}

/// Waits for so many free bytes; gives the ballast up first. Returns false when the token fires.
async fn wait_for_room(
    config: &ValidatedConfig,
    needed: u64,
    stop: &CancellationToken,
    changed: &impl Fn(RunState),
) -> bool {
    let ballast = Ballast::new(&config.data_dir);
    let mut waits = false;
    loop {
        let Some(free) = free_bytes(&config.data_dir) else {
            return true;
        };
        ballast.adjust(free, u64::MAX);
        let free = free_bytes(&config.data_dir).unwrap_or(free);
        if needed <= free {
            if waits {
                info!(free_mib = free >> 20, "the disk has room: the node starts");
            }
            return !stop.is_cancelled();
        }
        if !waits {
            waits = true;
            changed(RunState::WaitingForRoom);
            warn!(
                free_mib = free >> 20,
                needed_mib = needed >> 20,
                data_dir = %config.data_dir.display(),
                "the node waits for disk space before it starts: free some"
            );
        }
        if stop.run_until_cancelled(sleep(LOOK_INTERVAL)).await.is_none() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn need_doubles_up_to_the_reserve_and_falls_after_a_long_run() {
        let (reserve, short) = (256 << 20, Duration::from_secs(5));
        let first = next_need(0, short, reserve);
        assert_eq!(first, START_ROOM_MIN);
        let second = next_need(first, short, reserve);
        assert_eq!(second, 2 * START_ROOM_MIN);
        assert_eq!(next_need(reserve, short, reserve), reserve);
        assert_eq!(next_need(second, SETTLED_AFTER, reserve), START_ROOM_MIN);
        assert_eq!(next_need(0, short, 0), START_ROOM_MIN);
    }
}
