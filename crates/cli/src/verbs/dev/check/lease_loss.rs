//! Step: a region is cut off from the directory. Nothing is noticed while its leases last, not even when a leader dies;
//! then its tenants stop, and serve again as soon as the region is back.

use std::time::Duration;

use anyhow::ensure;
use stead_client::{ErrorKind, Tenant, WriteOptions};
use tokio::time::{Instant, sleep, timeout};

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::REGIONS,
    world::{LEASE_TTL, WAIT_TIMEOUT, World, until},
};

const HOME: &str = "eu-west";
const CALL: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);
/// Time after the cut at which the leader is killed.
const KILL_AFTER: Duration = Duration::from_secs(3);
/// Time for which a node waits for a lease before it refuses, and what clocks may differ by.
const REFUSED_WITHIN: Duration = Duration::from_secs(4);
/// An election.
const GAP_MAX: Duration = Duration::from_secs(3);
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Writes of one client, one after the other.
#[derive(Debug)]
struct Writes {
    cut: Instant,
    /// Acknowledged writes: number, and time after the cut at which it was sent and answered.
    acknowledged: Vec<(usize, Duration)>,
    longest_gap: Duration,
    sent: usize,
}

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-lease", HOME, HOME).await?;
    let prefix = format!("lease/{}", world.run);
    tenant.put(format!("{prefix}/first"), "v").await?;
    world.leases_are_short(HOME).await?;
    let leader = world.leader(&tenant).await?;
    let links = {
        let cluster = world.cluster.lock().await;
        let others = REGIONS.iter().filter(|(region, _)| *region != HOME);
        others
            .map(|(region, _)| cluster.link(HOME, region))
            .collect::<Result<Vec<_>, _>>()?
    };
    links.iter().for_each(stead_testing::Link::cut);
    let mut writes = Writes {
        cut: Instant::now(),
        acknowledged: Vec::new(),
        longest_gap: Duration::ZERO,
        sent: 0,
    };
    let stopped = cut_off(world, &tenant, &prefix, &leader, &mut writes).await;
    links.iter().for_each(stead_testing::Link::heal);
    let healed = Instant::now();
    let (stopped, told) = stopped?;
    until("the region serves again", async || {
        tenant.put(format!("{prefix}/back"), "v").await?;
        Ok(true)
    })
    .await?;
    let back = healed.elapsed();
    world.ready().await?;
    let last = writes.acknowledged.last().map_or(Duration::ZERO, |(_, at)| *at);
    let mut lost = 0;
    for (number, _) in &writes.acknowledged {
        let item = tenant.get(format!("{prefix}/{number}")).await?.item;
        lost += usize::from(item.is_none());
    }
    let late = writes.acknowledged.iter().filter(|(_, at)| *at > LEASE_TTL).count();
    Ok(Verdict::default()
        .time("longest gap while it lasts", writes.longest_gap, GAP_MAX)
        .none("stopped early", usize::from(last < LEASE_TTL * 3 / 4))
        .none("acknowledged without a lease", late)
        .time("refused after", stopped, LEASE_TTL + REFUSED_WITHIN)
        .time("serves again after", back, BACK_WITHIN)
        .none("lost", lost)
        .note(format!("{} writes of {}", writes.acknowledged.len(), writes.sent))
        .note(told))
}

/// Writes until the tenant stops, kills the leader meanwhile, and returns the time after the cut of the first refusal,
/// and its message.
async fn cut_off(
    world: &World,
    tenant: &Tenant,
    prefix: &str,
    leader: &str,
    writes: &mut Writes,
) -> anyhow::Result<(Duration, String)> {
    let (mut is_killed, mut last, mut told) = (false, Instant::now(), String::new());
    let once = WriteOptions {
        timeout: Some(CALL),
        ..WriteOptions::default()
    };
    loop {
        ensure!(
            writes.cut.elapsed() < WAIT_TIMEOUT,
            "no write was refused with NO_LEASE: {told}"
        );
        if !is_killed && writes.cut.elapsed() > KILL_AFTER {
            // It starts again inside the region, without a lease: if it is elected, it passes leadership on.
            let mut cluster = world.cluster.lock().await;
            cluster.kill_node(leader).await?;
            cluster.start_node(leader)?;
            is_killed = true;
        }
        writes.sent += 1;
        let key = format!("{prefix}/{}", writes.sent);
        match timeout(CALL * 2, tenant.put_with(key, "v", &once)).await {
            Ok(Ok(_)) => {
                writes.longest_gap = writes.longest_gap.max(last.elapsed());
                last = Instant::now();
                writes.acknowledged.push((writes.sent, writes.cut.elapsed()));
            }
            Ok(Err(error)) if error.kind == ErrorKind::NoLease => {
                return Ok((writes.cut.elapsed(), error.to_string()));
            }
            Ok(Err(error)) => told = error.to_string(),
            Err(_) => "a call has not ended in time".clone_into(&mut told),
        }
        sleep(PAUSE).await;
    }
}
