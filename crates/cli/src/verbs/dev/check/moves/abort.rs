//! Step: a move whose target is cut off is cancelled, and succeeds later. The home serves all the while.

use std::time::Duration;

use anyhow::ensure;
use stead_client::{ErrorKind, MoveSource, OperationOutcome};
use stead_testing::{
    load::Load,
    moves::{begin, ended, move_to},
};
use tokio::time::Instant;

use super::{PUTS_PER_SECOND, SOURCE, TARGET};
use crate::verbs::dev::{check::verdict::Verdict, world::World};

const NAME: &str = "check-moves-abort";
const CANCELLED_WITHIN: Duration = Duration::from_secs(3);
/// Of the home's own clients: nothing of the move concerns them.
const GAP_MAX: Duration = Duration::from_millis(250);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant(NAME, SOURCE, SOURCE).await?;
    let admin = world.client(SOURCE).await?.admin();
    if admin.tenant(NAME).await?.home_region != SOURCE {
        move_to(&admin, NAME, SOURCE, MoveSource::Follow).await?;
    }
    let load = Load::start(tenant, format!("moves/{}", world.run), PUTS_PER_SECOND);
    let link = world.cluster.lock().await.link(SOURCE, TARGET)?;
    load.take_gap().await;
    link.cut();
    // Where the directory's leader is in the target's region, another one is elected first.
    let operation = begin(&admin, NAME, TARGET, MoveSource::Follow).await;
    let started = Instant::now();
    let cancelled = async {
        let operation = operation?;
        admin.cancel_operation(&operation).await?;
        ended(&admin, &operation).await
    };
    let cancelled = cancelled.await;
    let took = started.elapsed();
    let gap = load.take_gap().await;
    link.heal();
    let outcome = cancelled?.outcome;
    ensure!(
        matches!(outcome, Some(OperationOutcome::Cancelled(_))),
        "a move that was cancelled ended with {outcome:?}"
    );
    let again = begin(&admin, NAME, TARGET, MoveSource::Follow).await?;
    let outcome = ended(&admin, &again).await?.outcome;
    ensure!(
        matches!(outcome, Some(OperationOutcome::Moved { .. })),
        "a move after one that was cancelled ended with {outcome:?}"
    );
    let to_itself = begin(&admin, NAME, TARGET, MoveSource::Follow).await;
    let late = admin.cancel_operation(&again).await;
    let is_refused = late.is_err_and(|error| error.kind == ErrorKind::NotCancellable);
    let report = load.finish().await?;
    Ok(Verdict::default()
        .time("cancelled", took, CANCELLED_WITHIN)
        .time("longest gap at the home", gap, GAP_MAX)
        .none("moves to itself that began", usize::from(to_itself.is_ok()))
        .none("late cancels that were taken", usize::from(!is_refused))
        .none("lost", report.lost)
        .none("twice", report.twice)
        .none("errors", report.errors.len())
        .note(format!(
            "{} writes {}",
            report.acknowledged.len(),
            report.errors_shown()
        )))
}
