//! Step: a tenant group's leader is killed again and again under load.

use std::time::Duration;

use tokio::time::sleep;

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};
use stead_testing::load::{Load, percentile};

const HOME: &str = "eu-west";
const KILLS: usize = 20;
const PUTS_PER_SECOND: u32 = 200;
/// Acknowledgements after a kill that show that there is a leader again.
const RECOVERY_WRITES: usize = 50;
/// Time between the return of a node and the next kill.
const REST: Duration = Duration::from_secs(1);
const GAP_MEDIAN: Duration = Duration::from_millis(1_200);
const GAP_MAX: Duration = Duration::from_secs(3);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let load = Load::start(tenant.clone(), format!("kill/{}", world.run), PUTS_PER_SECOND);
    sleep(REST).await;
    let mut gaps = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        let leader = world.leader(&tenant).await?;
        load.take_gap().await;
        world.cluster.lock().await.kill_node(&leader).await?;
        let before = load.acknowledged().await;
        until("writes go on", async || {
            Ok(load.acknowledged().await > before + RECOVERY_WRITES)
        })
        .await?;
        gaps.push(load.take_gap().await);
        world.cluster.lock().await.start_node(&leader)?;
        world.ready().await?;
        sleep(REST).await;
    }
    let report = load.finish().await?;
    let verdict = Verdict::default()
        .time("gap median", percentile(&mut gaps, 0.5), GAP_MEDIAN)
        .time("longest", percentile(&mut gaps, 1.0), GAP_MAX)
        .none("lost", report.lost)
        .none("twice", report.twice)
        .none("errors", report.errors.len())
        .note(format!("{KILLS} kills, {} writes", report.acknowledged.len()));
    Ok(if report.errors.is_empty() {
        verdict
    } else {
        verdict.note(report.errors_shown())
    })
}
