//! Step: a region that answers is promoted with time for planned moves: nothing is lost, and writes pause as in a move.

use std::time::Duration;

use anyhow::Context;
use stead_client::{ErrorKind, PromotedState, PromotionRequest, PromotionSelection};
use stead_testing::promotions::promote;
use tokio::time::sleep;

use super::{GIVEN_UP, Loads, OTHER, WARM_UP, move_back};
use crate::verbs::dev::{check::verdict::Verdict, world::World};

/// Time for planned moves.
const GRACEFUL: Duration = Duration::from_secs(10);
/// Pause of a move: a round trip and commits, as for `move-under-load`.
const GAP_MAX: Duration = Duration::from_millis(600);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-promote-kind-{}", world.run);
    let (loads, _) = Loads::start(world, &name).await?;
    sleep(WARM_UP).await;
    let admin = world.client(OTHER).await?.admin();
    let selection = PromotionSelection::Tenants(vec![name.clone()]);
    let by_force = PromotionRequest {
        allow_loss: true,
        ..PromotionRequest::new(selection.clone())
    };
    let refused = admin.promote(by_force).await;
    let is_refused = refused.as_ref().is_err_and(|error| error.kind == ErrorKind::Conflict);
    loads.home.take_gap().await;
    loads.other.take_gap().await;
    let gracefully = PromotionRequest {
        graceful_for: Some(GRACEFUL),
        reason: "checked".into(),
        ..PromotionRequest::new(selection)
    };
    let promotion = promote(&admin, gracefully, GIVEN_UP).await?;
    sleep(WARM_UP).await;
    let gap = loads.home.take_gap().await.max(loads.other.take_gap().await);
    let writes = loads.finish().await?;
    let tenant = promotion.tenant(&name).context("the report lacks the tenant")?;
    let is_moved = tenant.state == PromotedState::Moved;
    move_back(&admin, &promotion).await?;
    Ok(Verdict::default()
        .time("longest gap", gap, GAP_MAX)
        .none("promotions of a healthy home by force", usize::from(!is_refused))
        .none("tenants that were not moved", usize::from(!is_moved))
        .none("lost", writes.home.lost + writes.other.lost)
        .none("twice", writes.home.twice + writes.other.twice)
        .none("errors", writes.home.errors.len() + writes.other.errors.len())
        .note(format!("{} writes", writes.acknowledged().len())))
}
