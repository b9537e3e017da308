//! Steps: a tenant moves between regions, idle, under load, while leaders die, and not at all.

mod abort;
mod carried;
mod kills;
mod leave;
mod under_load;

pub(super) use self::under_load::run as under_load;
pub(super) use self::{abort::run as abort, carried::run as carried, kills::run as leader_kill, leave::run as leave};

use stead_testing::moves::MovingTenant;

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const SOURCE: &str = "eu-west";
const TARGET: &str = "us-east";
const PUTS_PER_SECOND: u32 = 200;

/// Starts to write to a tenant in both regions between which it is to move; it is made in the first.
async fn start(world: &mut World, name: &str) -> anyhow::Result<MovingTenant> {
    world.moving_tenant(name, [SOURCE, TARGET], PUTS_PER_SECOND).await
}

/// Adds what the checks of the loads' writes have found.
async fn finish(moving: MovingTenant, verdict: Verdict) -> anyhow::Result<Verdict> {
    let report = moving.finish().await?;
    let verdict = verdict
        .none("lost", report.lost)
        .none("twice", report.twice)
        .none("out of order", report.out_of_order)
        .none("errors", report.errors.len())
        .note(format!("{} writes", report.acknowledged));
    Ok(match report.errors.first() {
        Some(error) => verdict.note(error.clone()),
        None => verdict,
    })
}
