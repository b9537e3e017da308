//! Step: a large tenant that is written to moves to a region that does not follow it, over a narrow link that is cut for a
//! while in the middle of the copy.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{Admin, Consistency, MoveSource, OperationInfo, OperationOutcome, ReadOptions, Tenant};
use stead_testing::{
    Link,
    moves::{begin, ended_within},
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{SOURCE, TARGET, VALUE_LEN, filled, key, limit, resident, value, writer::Writer};
use crate::verbs::dev::{check::verdict::Verdict, world::World};

/// Size of the tenant, unless the option says another one. A debug build takes a part of it only: it digests and copies at
/// a few MiB a second.
const LEN: u64 = if cfg!(debug_assertions) { 128 << 20 } else { 1 << 30 };
/// Time for which the link is cut once half of the tenant is copied.
const CUT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 60 });
const LINK_BYTES_PER_SECOND: u64 = 100_000_000 / 8;
const WRITTEN_BYTES_PER_SECOND: u64 = 1 << 20;
const MEASURED: Duration = Duration::from_secs(10);
/// Beyond what the link and the cut take: catching up with what was written meanwhile, and the move itself.
const BEYOND: Duration = Duration::from_secs(60);
const GIVEN_UP: Duration = Duration::from_secs(900);
const MEMORY_MIB: f64 = 256.0;
const RATE_KEPT_PERCENT_MIN: f64 = 80.0;
const SAMPLED_EVERY: Duration = Duration::from_millis(250);
/// One of so many values is compared afterwards.
const COMPARED_EVERY: usize = 16;

pub(in crate::verbs::dev::check) async fn run(world: &mut World, len: Option<u64>) -> anyhow::Result<Verdict> {
    let len = len.unwrap_or(LEN);
    let name = format!("check-large-{}", world.run);
    let values = usize::try_from(len)? / VALUE_LEN;
    let tenant = filled(world, &name, values).await?;
    let admin = world.client(SOURCE).await?.admin();
    let link = world.cluster.lock().await.link(SOURCE, TARGET)?;
    let writer = Writer::start(tenant.clone(), WRITTEN_BYTES_PER_SECOND);
    let usual = writer.rate_over(MEASURED).await;
    let rest = resident(world).await?;
    limit(&link, Some(LINK_BYTES_PER_SECOND));
    let copied = copy(world, &admin, &name, (&link, len), &rest, &writer).await;
    limit(&link, None);
    link.heal();
    let errors = writer.finish().await?;
    let copied = copied?;
    ensure!(
        matches!(copied.ended.outcome, Some(OperationOutcome::Moved { .. })),
        "the move ended with {:?}",
        copied.ended.outcome
    );
    let there = world.client(TARGET).await?.tenant(&name)?;
    let wrong = wrong_values(&there, values).await?;
    tenant.delete_range(&stead_client::KeyRange::all()).await?;
    let bound = Duration::from_secs(len / LINK_BYTES_PER_SECOND) + CUT + BEYOND;
    let kept = copied.rate / usual * 100.0;
    Ok(Verdict::default()
        .time("moved in", copied.took, bound)
        .number(
            "memory grew by",
            copied.grown as f64 / f64::from(1 << 20),
            MEMORY_MIB,
            "MiB",
        )
        .none("values missing or wrong", wrong)
        .none("errors", errors.len())
        .none("rates below 80 %", usize::from(kept < RATE_KEPT_PERCENT_MIN))
        .note(format!(
            "{} MiB over {} Mbit/s, cut for {} s, writers kept {kept:.0} %{}",
            len >> 20,
            LINK_BYTES_PER_SECOND * 8 / 1_000_000,
            CUT.as_secs(),
            errors.first().map(|error| format!(", {error}")).unwrap_or_default()
        )))
}

/// A copy and the move that it was made for.
struct Copied {
    ended: OperationInfo,
    took: Duration,
    /// Most bytes that the memory of any node has grown by.
    grown: u64,
    /// Writes a second meanwhile.
    rate: f64,
}

async fn copy(
    world: &World,
    admin: &Admin,
    name: &str,
    (link, len): (&Link, u64),
    rest: &[u64],
    writer: &Writer,
) -> anyhow::Result<Copied> {
    let (started, mark, before) = (Instant::now(), writer.mark(), link.there.bytes());
    let operation = begin(admin, name, TARGET, MoveSource::Follow).await?;
    let end = ended_within(admin, &operation, GIVEN_UP);
    tokio::pin!(end);
    let mut samples = interval(SAMPLED_EVERY);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut grown, mut cut) = (0, None);
    let ended = loop {
        tokio::select! {
            ended = &mut end => break ended?,
            _ = samples.tick() => {}
        }
        let now = resident(world).await?;
        let growth = now.iter().zip(rest).map(|(now, rest)| now.saturating_sub(*rest)).max();
        grown = growth.unwrap_or_default().max(grown);
        match cut {
            None if link.there.bytes() - before > len / 2 => {
                link.cut();
                cut = Some(Instant::now());
            }
            Some(since) if since.elapsed() >= CUT => link.heal(),
            None | Some(_) => {}
        }
    };
    cut.context("the move ended before half of the tenant was copied")?;
    Ok(Copied {
        ended,
        took: started.elapsed(),
        grown,
        rate: writer.rate_since(mark),
    })
}

async fn wrong_values(there: &Tenant, values: usize) -> anyhow::Result<usize> {
    let local = ReadOptions::at(Consistency::Local);
    let mut wrong = 0;
    for at in (0..values).step_by(COMPARED_EVERY) {
        let read = there.get_with(key(at), &local).await?;
        wrong += usize::from(read.item.is_none_or(|item| item.value != value(at)));
    }
    Ok(wrong)
}
