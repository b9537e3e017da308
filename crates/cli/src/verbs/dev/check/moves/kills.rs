//! Step: leaders of the home, of the target and of the directory are killed while a tenant moves.

use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use stead_client::OperationOutcome;
use tokio::time::sleep;

use super::{finish, start};
use crate::verbs::dev::{check::verdict::Verdict, world::World};

/// Moves with a kill each, of the three leaders in turn.
const MOVES: usize = 9;
/// Time within which a move without faults ends; the kill comes at a random moment of it.
const MOVE: Duration = Duration::from_millis(1_200);
/// An election, and a round trip.
const GAP_MAX: Duration = Duration::from_millis(3_100);

/// Leader that is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Source,
    Target,
    Directory,
}

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let mut moving = start(world, "check-moves-kills").await?;
    let (mut moved, mut failed) = (0, 0);
    let mut longest = Duration::ZERO;
    for (_, victim) in (0..MOVES).zip([Victim::Source, Victim::Target, Victim::Directory].into_iter().cycle()) {
        moving.writes_go_on().await?;
        moving.take_gap().await;
        let region = match victim {
            Victim::Source => moving.home().to_owned(),
            Victim::Target | Victim::Directory => moving.target().to_owned(),
        };
        let group = match victim {
            Victim::Directory => 0,
            Victim::Source | Victim::Target => group_of(world, &region).await?,
        };
        let leader = world.leader_of_group(group).await?;
        let operation = moving.begin().await?;
        sleep(MOVE.mul_f64(rand::rng().random())).await;
        world.cluster.lock().await.kill_node(&leader).await?;
        let ended = moving
            .ended(&operation)
            .await
            .with_context(|| format!("{victim:?} leader {leader} was killed"))?;
        match ended.outcome {
            Some(OperationOutcome::Moved { .. }) => moved += 1,
            _ => failed += 1,
        }
        moving.writes_go_on().await?;
        longest = longest.max(moving.take_gap().await);
        world.cluster.lock().await.start_node(&leader)?;
        world.ready().await?;
    }
    let verdict = Verdict::default()
        .time("longest gap", longest, GAP_MAX)
        .note(format!("{MOVES} moves with a kill each: {moved} moved, {failed} not"));
    finish(moving, verdict).await
}

/// Returns the group of a region that holds the tenant: each region of the test environment has one.
async fn group_of(world: &mut World, region: &str) -> anyhow::Result<u32> {
    let groups = world.client(region).await?.admin().groups(region).await?;
    let group = groups.first().with_context(|| format!("{region} has no group"))?;
    Ok(group.number)
}
