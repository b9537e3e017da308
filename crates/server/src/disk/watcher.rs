//! Tasks that look at the free space of this node and of other voters, and pass leadership on where a disk is short.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use stead_raft::Group;
use stead_state::disk_room::{LOOK_INTERVAL_MAX, choose_leader, look_interval};
use stead_store::engine::Kind;
use stead_types::NodeId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Ballast, DiskRoom};
use crate::{
    host::Host,
    services::admin::node::disk_free_at,
    supervisor::{BoxError, Supervisor},
};

/// Spawns the tasks, where the node has a disk.
pub(crate) fn spawn(host: &Arc<Host>, supervisor: &mut Supervisor) {
    if host.config.engine == Kind::Memory.to_string() {
        return;
    }
    let own = host.clone();
    supervisor.spawn("disk room", |stop| look_at_own(own, stop));
    let others = host.clone();
    supervisor.spawn("disk room of voters", |stop| look_at_others(others, stop));
}

async fn look_at_own(host: Arc<Host>, stop: CancellationToken) -> Result<(), BoxError> {
    let room = &host.disk_room;
    let ballast = Ballast::new(&host.config.data_dir);
    let mut was_short = false;
    loop {
        let free = (host.resources.disk_free)(&host.config.data_dir).filter(|_| room.reserve() > 0);
        if let Some(free) = free {
            room.set_own(free);
            ballast.adjust(free, room.reserve());
            let is_short = free < room.reserve();
            if is_short != was_short {
                report(is_short, free, room.reserve());
            }
            was_short = is_short;
        }
        let interval = free.map_or(LOOK_INTERVAL_MAX, |free| look_interval(room.reserve(), free));
        if stop.run_until_cancelled(sleep(interval)).await.is_none() {
            return Ok(());
        }
    }
}

fn report(is_short: bool, free: u64, reserve: u64) {
    let (free_mib, reserve_mib) = (free >> 20, reserve >> 20);
    if is_short {
        warn!(
            free_mib,
            reserve_mib, "disk is below its reserve: writes that need room are refused, free disk space or delete keys"
        );
    } else {
        info!(free_mib, reserve_mib, "disk has its reserve again");
    }
}

async fn look_at_others(host: Arc<Host>, stop: CancellationToken) -> Result<(), BoxError> {
    while stop.run_until_cancelled(look(&host)).await.is_some() {
        let room = &host.disk_room;
        let voters = led(&host).flat_map(|group| voters_of(&group));
        let known = room.others(voters.collect::<BTreeSet<_>>());
        let least = known.iter().chain([&room.own()]).filter_map(|voter| voter.free).min();
        let interval = least.map_or(LOOK_INTERVAL_MAX, |free| look_interval(room.reserve(), free));
        tokio::select! {
            () = sleep(interval) => {}
            // Its groups are to be led elsewhere at once.
            () = room.became_short() => {}
            () = stop.cancelled() => break,
        }
    }
    Ok(())
}

/// Returns the groups that this node leads, the directory included.
fn led(host: &Host) -> impl Iterator<Item = Group> {
    host.raft_groups().filter(Group::is_leader)
}

fn voters_of(group: &Group) -> BTreeSet<NodeId> {
    group.metrics().voters
}

/// Asks the other voters of the groups that this node leads, and passes leadership on where that is better.
async fn look(host: &Host) {
    let voters: BTreeSet<NodeId> = led(host).flat_map(|group| voters_of(&group)).collect();
    let others = voters.into_iter().filter(|voter| *voter != host.config.node.id);
    let answers = join_all(others.map(async |voter| (voter, disk_free_at(host, voter).await))).await;
    for (voter, free) in answers {
        if let Some(free) = free {
            host.disk_room.set_other(voter, free);
        }
    }
    for group in led(host) {
        pass_on(&host.disk_room, &group).await;
    }
}

async fn pass_on(room: &DiskRoom, led: &Group) {
    let others = room.others(voters_of(led));
    let Some(to) = choose_leader(room.reserve(), room.own(), &others) else {
        return;
    };
    let (group, began) = (led.id(), Instant::now());
    match led.transfer_leader(to).await {
        Ok(()) => {
            info!(%group, %to, took = ?began.elapsed(), "disk is short: leadership transferred to a voter with room")
        }
        Err(error) => warn!(%group, %to, %error, "disk is short, and leadership was not transferred"),
    }
}
