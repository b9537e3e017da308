//! Step: a tenant is written to at twice the rate of the link over which it is to be copied. The copy ends, with figures,
//! and nothing has changed; with fewer writes the same move succeeds.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{MoveSource, OperationOutcome};
use stead_testing::moves::{begin, ended_within};
use tokio::time::Instant;

use super::{SOURCE, TARGET, VALUE_LEN, filled, limit, writer::Writer};
use crate::verbs::dev::{
    check::verdict::Verdict,
    world::{World, until},
};

const LEN: usize = 32 << 20;
const LINK_BYTES_PER_SECOND: u64 = 1 << 20;
/// Less than the default, so that the bound is reached in seconds.
const HISTORY_MAX: u64 = 32 << 20;
const HISTORY_OPTION: &str = "storage.seed_history_bytes_max";
const MEASURED: Duration = Duration::from_secs(10);
/// History reaches twice its cap in half a minute, at 80 % of the rate.
const REFUSED_WITHIN: Duration = Duration::from_secs(90);
const MOVED_WITHIN: Duration = Duration::from_secs(60);
const GIVEN_UP: Duration = Duration::from_secs(600);
const RATE_KEPT_PERCENT_MIN: f64 = 80.0;

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    restart(world, SOURCE, &[(HISTORY_OPTION, HISTORY_MAX.to_string().as_str())]).await?;
    let verdict = with_short_history(world).await;
    restart(world, SOURCE, &[]).await?;
    verdict
}

async fn with_short_history(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-hopeless-{}", world.run);
    let tenant = filled(world, &name, LEN / VALUE_LEN).await?;
    let admin = world.client(SOURCE).await?.admin();
    let link = world.cluster.lock().await.link(SOURCE, TARGET)?;
    let writer = Writer::start(tenant.clone(), 2 * LINK_BYTES_PER_SECOND);
    let usual = writer.rate_over(MEASURED).await;
    limit(&link, Some(LINK_BYTES_PER_SECOND));
    let (started, mark) = (Instant::now(), writer.mark());
    let ended = async {
        let operation = begin(&admin, &name, TARGET, MoveSource::Follow).await?;
        ended_within(&admin, &operation, GIVEN_UP).await
    };
    let ended = ended.await;
    let (refused, rate) = (started.elapsed(), writer.rate_since(mark));
    limit(&link, None);
    let errors = writer.finish().await?;
    let reason = match ended?.outcome {
        Some(OperationOutcome::Failed(error)) => error.to_string(),
        outcome => anyhow::bail!("a copy that cannot catch up ended with {outcome:?}"),
    };
    ensure!(reason.contains("bytes a second"), "the figures are not told: {reason}");
    let home = admin.tenant(&name).await?.home_region;
    ensure!(home == SOURCE, "the tenant is at home in {home}");
    until("the region has erased its part of the copy", async || {
        let tenant = admin.tenant(&name).await?;
        Ok(tenant.replicas.iter().all(|replica| replica.region != TARGET))
    })
    .await?;
    let started = Instant::now();
    let again = begin(&admin, &name, TARGET, MoveSource::Follow).await?;
    let outcome = ended_within(&admin, &again, GIVEN_UP).await?.outcome;
    ensure!(
        matches!(outcome, Some(OperationOutcome::Moved { .. })),
        "with fewer writes the move ended with {outcome:?}"
    );
    let kept = rate / usual * 100.0;
    Ok(Verdict::default()
        .time("refused after", refused, REFUSED_WITHIN)
        .time("moved later in", started.elapsed(), MOVED_WITHIN)
        .none("errors", errors.len())
        .none("rates below 80 %", usize::from(kept < RATE_KEPT_PERCENT_MIN))
        .note(format!("writers kept {kept:.0} %: {reason}")))
}

/// Restarts the nodes of a region one by one, with options that they begin with.
pub(super) async fn restart(world: &mut World, region: &str, options: &[(&str, &str)]) -> anyhow::Result<()> {
    let nodes = world
        .cluster
        .lock()
        .await
        .named(region)
        .context("there is no such region")?;
    for node in nodes {
        {
            let mut cluster = world.cluster.lock().await;
            options
                .iter()
                .for_each(|(key, value)| cluster.set_option(key, Some(*value)));
            cluster.terminate_node(&node).await?;
            cluster.start_node(&node)?;
            options.iter().for_each(|(key, _)| cluster.set_option(key, None));
        }
        world.ready().await?;
    }
    let probe = world
        .tenant(&format!("check-restarted-{region}"), region, region)
        .await?;
    until("the restarted region takes writes", async || {
        probe.put("ready", "v").await?;
        Ok(true)
    })
    .await
}
