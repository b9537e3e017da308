//! A region that follows a tenant was cut off for longer than the history lasts: it is seeded anew.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{Consistency, ErrorKind, ReadOptions, Tenant};
use tokio::time::{Instant, sleep};

use super::{Behind, GIVEN_UP, POLLED_EVERY, WRITTEN_BYTES_PER_SECOND, Writes, fill, footprint::Sampler};
use crate::verbs::dev::{
    check::{
        seeds::{FOLLOWER, SOURCE, VALUE_LEN, hopeless::restart},
        verdict::Verdict,
    },
    world::{World, until},
};

/// Group of the directory.
const DIRECTORY: u32 = 0;
/// Most bytes a second of copies.
const CAP: u64 = if cfg!(debug_assertions) { 4 << 20 } else { 16 << 20 };
const CAP_OPTION: &str = "net.seed_bytes_per_second_max";
/// Less history than is written while the follower is cut off.
const HISTORY_MAX: u64 = 16 << 20;
const HISTORY_OPTION: &str = "storage.history_bytes_max";
/// Time over which a rate is compared with the cap, and by how much it may be above: what is on its way counts as well.
const RATE_OVER: Duration = Duration::from_secs(4);
const RATE_ABOVE: f64 = 1.25;
/// Bytes that cross the link may be so many times those of the tenant, in spite of the kills.
const SENT_FACTOR_MAX: f64 = 1.25;
/// Beyond what the cap takes: two elections, and the changes meanwhile.
const BEYOND: Duration = Duration::from_secs(60);
/// Share of the tenant that has crossed when the leader of the home, and that of the follower, is killed.
const SOURCE_KILLED_PERCENT: u64 = 30;
const TARGET_KILLED_PERCENT: u64 = 60;

/// Runs something while copies have less history and bandwidth than usual.
pub(super) async fn with_options(
    world: &mut World,
    run: impl AsyncFnOnce(&mut World) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    let (history, cap) = (HISTORY_MAX.to_string(), CAP.to_string());
    let options = [(HISTORY_OPTION, history.as_str()), (CAP_OPTION, cap.as_str())];
    restart(world, SOURCE, &options).await?;
    {
        // Nodes that are killed begin with them again.
        let mut cluster = world.cluster.lock().await;
        options
            .iter()
            .for_each(|(key, value)| cluster.set_option(key, Some(*value)));
    }
    let ran = run(world).await;
    {
        let mut cluster = world.cluster.lock().await;
        options.iter().for_each(|(key, _)| cluster.set_option(key, None));
        cluster.start_all()?;
    }
    world.ready().await?;
    restart(world, SOURCE, &[]).await?;
    restart(world, FOLLOWER, &[]).await?;
    ran
}

pub(super) async fn run(world: &mut World, behind: &Behind, verdict: Verdict) -> anyhow::Result<Verdict> {
    let values = usize::try_from(behind.len)? / VALUE_LEN;
    let there = world.client(FOLLOWER).await?.tenant(&behind.name)?;
    fill(world, behind, 0..values / 8).await?;
    behind.tenant.put("mark", "first").await?;
    has(&there, "first").await?;
    lead_directory_from_home(world).await?;
    let link = world.cluster.lock().await.link(SOURCE, FOLLOWER)?;
    link.cut();
    let filled = fill(world, behind, 0..values).await;
    let mut writes = Writes::begin(&behind.tenant).await;
    let sampler = Sampler::start(world);
    let marked = behind.tenant.put("mark", "second").await;
    let (started, before) = (Instant::now(), link.there.bytes());
    link.heal();
    filled?;
    marked?;
    let mut copy = Copy {
        is_seed: false,
        sent: vec![(started, before)],
        killed: 0,
    };
    loop {
        if read(&there).await?.as_deref() == Some(b"second") {
            break;
        }
        ensure!(started.elapsed() < GIVEN_UP, "the follower has not caught up in time");
        copy.sent.push((Instant::now(), link.there.bytes()));
        copy.look(world, behind).await?;
        let percent = (link.there.bytes() - before) * 100 / behind.len;
        if copy.is_due(percent) {
            let node = copy.victim(world, behind).await?;
            writes.kill(world, &node).await?;
        }
        sleep(POLLED_EVERY).await;
    }
    let took = started.elapsed();
    let sent = link.there.bytes() - before;
    behind.tenant.put("mark", "third").await?;
    has(&there, "third").await?;
    let footprint = sampler.finish().await?;
    ensure!(copy.is_seed, "the follower had enough history: it was not seeded anew");
    ensure!(
        copy.killed == 2,
        "the copy was complete before both leaders were killed"
    );
    let rate = rate_max(&copy.sent);
    let written = WRITTEN_BYTES_PER_SECOND as f64 * took.as_secs_f64();
    let bound = Duration::from_secs(behind.len / CAP) * 2 + BEYOND;
    let verdict = verdict
        .time("follower caught up in", took, bound)
        .number(
            "sent",
            mib(sent as f64),
            mib(behind.len as f64 * SENT_FACTOR_MAX + 2.0 * written),
            "MiB",
        )
        .number(
            "at most",
            mib(rate),
            mib((CAP + 2 * WRITTEN_BYTES_PER_SECOND) as f64 * RATE_ABOVE),
            "MiB/s",
        );
    writes.finish("follower", &footprint, verdict).await
}

/// Moves the leadership of the directory to the home: cut off from that leader the home would lose its lease.
async fn lead_directory_from_home(world: &mut World) -> anyhow::Result<()> {
    let admin = world.client(SOURCE).await?.admin();
    let home: Vec<u64> = admin.nodes(SOURCE).await?.iter().map(|node| node.number).collect();
    until("the home leads the directory", async || {
        let directory = admin.group(DIRECTORY).await?;
        let leader = directory.status.and_then(|status| status.leader);
        if leader.is_some_and(|leader| home.contains(&leader)) {
            return Ok(true);
        }
        let voter = directory.voters.into_iter().find(|voter| home.contains(voter));
        let voter = voter.context("the home has a voter of the directory")?;
        admin.move_leader(DIRECTORY, Some(voter), "step seed-large").await?;
        Ok(false)
    })
    .await
}

/// Copy that is being made.
struct Copy {
    /// Whether the home has shown it as a seed.
    is_seed: bool,
    /// Bytes that had crossed the link, by time.
    sent: Vec<(Instant, u64)>,
    /// Leaders that were killed.
    killed: usize,
}

impl Copy {
    async fn look(&mut self, world: &mut World, behind: &Behind) -> anyhow::Result<()> {
        if self.is_seed {
            return Ok(());
        }
        let admin = world.client(SOURCE).await?.admin();
        let seeds = admin.region(FOLLOWER).await?.seeds;
        self.is_seed = seeds.iter().any(|seed| seed.tenant == behind.name);
        Ok(())
    }

    fn is_due(&self, percent: u64) -> bool {
        let next = [SOURCE_KILLED_PERCENT, TARGET_KILLED_PERCENT].get(self.killed).copied();
        self.is_seed && next.is_some_and(|next| percent >= next)
    }

    /// Returns the leader that is killed next.
    async fn victim(&mut self, world: &mut World, behind: &Behind) -> anyhow::Result<String> {
        self.killed += 1;
        if self.killed == 1 {
            return world.leader(&behind.tenant).await;
        }
        let admin = world.client(SOURCE).await?.admin();
        let replicas = admin.tenant(&behind.name).await?.replicas;
        let group = replicas.iter().find(|replica| replica.region == FOLLOWER);
        let group = group.context("the region does not follow the tenant")?.group;
        world.leader_of_group(group).await
    }
}

/// Returns the greatest rate over a time, in bytes a second.
fn rate_max(sent: &[(Instant, u64)]) -> f64 {
    let rate = |(at, (from, bytes)): (usize, &(Instant, u64))| {
        let (until, total) = sent[at..].iter().find(|(time, _)| *time - *from >= RATE_OVER)?;
        Some((total - bytes) as f64 / (*until - *from).as_secs_f64())
    };
    sent.iter().enumerate().filter_map(rate).fold(0.0, f64::max)
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// Returns the mark as the region's own copy has it.
async fn read(there: &Tenant) -> anyhow::Result<Option<Vec<u8>>> {
    match there.get_with("mark", &ReadOptions::at(Consistency::Local)).await {
        Ok(read) => Ok(read.item.map(|item| item.value.to_vec())),
        // A node is down, or has no copy yet.
        Err(error) if matches!(error.kind, ErrorKind::Invalid { .. } | ErrorKind::PermissionDenied) => {
            Err(error.into())
        }
        Err(_) => Ok(None),
    }
}

async fn has(there: &Tenant, mark: &str) -> anyhow::Result<()> {
    until("the follower has the mark", async || {
        Ok(read(there).await?.as_deref() == Some(mark.as_bytes()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greatest_rate_is_that_of_the_busiest_window() {
        let start = Instant::now();
        let at = |seconds, bytes| (start + Duration::from_secs(seconds), bytes);
        assert_eq!(rate_max(&[at(0, 0), at(2, 500)]), 0.0, "it is too short to tell");
        let sent = [at(0, 0), at(4, 400), at(8, 2_400), at(12, 2_400)];
        assert_eq!(rate_max(&sent), 500.0);
    }
}
