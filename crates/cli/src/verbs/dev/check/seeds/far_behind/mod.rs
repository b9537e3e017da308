//! Step: a region that follows a large tenant, and then a voter of its home, are far behind. Each catches up in bounded
//! memory and disk, whichever node is killed meanwhile, while the tenant's writes go on.

mod follower;
mod footprint;
mod voter;

use std::time::Duration;

use stead_client::Tenant;
use tokio::time::Instant;

use self::footprint::Footprint;
use super::{SOURCE, filled, writer::Writer};
use crate::verbs::dev::{
    check::verdict::Verdict,
    world::{World, until},
};

/// Size of the tenant, unless the option says another one. A debug build digests and copies at a few MiB a second.
const LEN: u64 = if cfg!(debug_assertions) { 128 << 20 } else { 256 << 20 };
const WRITTEN_BYTES_PER_SECOND: u64 = 1 << 20;
const MEASURED: Duration = Duration::from_secs(10);
const GIVEN_UP: Duration = Duration::from_secs(1_800);
const POLLED_EVERY: Duration = Duration::from_millis(250);
const MEMORY_MIB: f64 = 256.0;
const LOG_MIB: f64 = 256.0;
const RATE_KEPT_PERCENT_MIN: f64 = 80.0;
/// Longest time without a write when a leader is killed and started again.
const OUTAGE: Duration = Duration::from_secs(5);
/// Writes that show that they go on after a kill.
const WRITES_GO_ON: u64 = 2;

pub(in crate::verbs::dev::check) async fn run(world: &mut World, len: Option<u64>) -> anyhow::Result<Verdict> {
    let len = len.unwrap_or(LEN);
    follower::with_options(world, async |world| {
        let name = format!("check-far-behind-{}", world.run);
        let tenant = filled(world, &name, 0).await?;
        let behind = Behind { name, tenant, len };
        let verdict = Verdict::default().note(format!("{} MiB", len >> 20));
        let verdict = follower::run(world, &behind, verdict).await?;
        let verdict = voter::run(world, &behind, verdict).await?;
        behind.tenant.delete_range(&stead_client::KeyRange::all()).await?;
        Ok(verdict)
    })
    .await
}

/// Tenant whose copies are behind.
struct Behind {
    name: String,
    tenant: Tenant,
    /// Bytes of its values.
    len: u64,
}

/// Writes beside a copy: those while no leader could take any are left out of the rate.
struct Writes {
    writer: Writer,
    usual: f64,
    begun: super::writer::Mark,
    outages: Vec<Outage>,
}

/// Time in which a killed leader took no writes.
struct Outage {
    time: Duration,
    written: f64,
}

impl Writes {
    /// Begins to write, and measures the rate without a copy.
    async fn begin(tenant: &Tenant) -> Self {
        let writer = Writer::start(tenant.clone(), WRITTEN_BYTES_PER_SECOND);
        let usual = writer.rate_over(MEASURED).await;
        let begun = writer.mark();
        Self {
            writer,
            usual,
            begun,
            outages: Vec::new(),
        }
    }

    /// Kills a node and starts it again; what is not written until writes go on is an outage.
    async fn kill(&mut self, world: &World, node: &str) -> anyhow::Result<()> {
        let (killed, mark) = (Instant::now(), self.writer.mark());
        {
            let mut cluster = world.cluster.lock().await;
            cluster.kill_node(node).await?;
            cluster.start_node(node)?;
        }
        let written = || self.writer.written_since(mark);
        until("writes go on after a kill", async || Ok(written() >= WRITES_GO_ON)).await?;
        let (time, written) = (killed.elapsed(), written() as f64);
        self.outages.push(Outage { time, written });
        Ok(())
    }

    /// Ends the writes, and judges them.
    async fn finish(self, what: &str, footprint: &Footprint, verdict: Verdict) -> anyhow::Result<Verdict> {
        let time = self.begun.elapsed();
        let out: Duration = self.outages.iter().map(|outage| outage.time).sum();
        let written_meanwhile: f64 = self.outages.iter().map(|outage| outage.written).sum();
        let written = self.writer.written_since(self.begun) as f64 - written_meanwhile;
        let kept = written / (time - out).as_secs_f64() / self.usual * 100.0;
        let longest = self.outages.iter().map(|outage| outage.time).max();
        let errors = self.writer.finish().await?;
        let verdict = verdict
            .number(
                &format!("{what}: memory of a node grew by"),
                footprint.memory.mib(),
                MEMORY_MIB,
                "MiB",
            )
            .number("log by", footprint.log.mib(), LOG_MIB, "MiB")
            .note(format!(
                "memory at {}, log at {}, disk by {:.0} MiB at {}",
                footprint.memory.node,
                footprint.log.node,
                footprint.disk.mib(),
                footprint.disk.node
            ))
            .time("longest outage", longest.unwrap_or_default(), OUTAGE)
            .none("errors", errors.len())
            .none("rates below 80 %", usize::from(kept < RATE_KEPT_PERCENT_MIN))
            .note(format!("writers kept {kept:.0} %"));
        Ok(match errors.first() {
            Some(error) => verdict.note(error.to_string()),
            None => verdict,
        })
    }
}

/// Writes values over a part of the tenant's keys.
async fn fill(world: &mut World, behind: &Behind, values: std::ops::Range<usize>) -> anyhow::Result<()> {
    let client = world.client(SOURCE).await?;
    super::fill(&client, &behind.name, values).await
}
