//! Step: a tenant moves back and forth while clients beside both homes write.

use std::time::Duration;

use stead_testing::load::percentile;

use super::{SOURCE, TARGET, finish, start};
use crate::verbs::dev::{check::verdict::Verdict, world::World};

const MOVES: usize = 20;
/// Above half the round trip, at the groups: median, and the longest but one in a hundred.
const GROUPS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(50)];
/// Above the round trip, at the client beside the home before.
const BESIDE_SOURCE: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(80)];
/// At the client beside the new home.
const BESIDE_TARGET: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(100)];

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let round_trip = world.cluster.lock().await.link(SOURCE, TARGET)?.round_trip();
    let mut moving = start(world, "check-moves").await?;
    let mut pauses = Vec::with_capacity(MOVES);
    for _ in 0..MOVES {
        pauses.push(moving.move_once().await?);
    }
    let places = [
        ("groups", round_trip / 2, GROUPS),
        ("beside source", round_trip, BESIDE_SOURCE),
        ("beside target", Duration::ZERO, BESIDE_TARGET),
    ];
    let mut verdict = Verdict::default();
    for (place, way, budgets) in places {
        let mut taken: Vec<Duration> = pauses
            .iter()
            .map(|pause| match place {
                "groups" => pause.groups,
                "beside source" => pause.source,
                _ => pause.target,
            })
            .collect();
        for (share, budget) in [0.5, 0.99].into_iter().zip(budgets) {
            let what = format!("{place} p{:.0}", share * 100.0);
            verdict = verdict.time(&what, percentile(&mut taken, share), way + budget);
        }
    }
    finish(moving, verdict.note(format!("{MOVES} moves"))).await
}
