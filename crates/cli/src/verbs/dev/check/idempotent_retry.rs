//! Step: responses get lost on a link that breaks again and again. Reported outcomes and stored data agree.

use std::time::Duration;

use anyhow::Context;
use stead_client::{ErrorKind, Increment, Tenant, WriteOptions};
use stead_testing::Flow;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const HOME: &str = "eu-west";
const FAR: &str = "us-east";
const CALLERS: usize = 16;
const CUTS: usize = 8;
/// Times in which the link is open, in which only requests pass it, and in which nothing does: several round trips
/// each.
const OPEN: Duration = Duration::from_millis(500);
const ONE_WAY: Duration = Duration::from_millis(300);
const CLOSED: Duration = Duration::from_millis(100);
const CALL: Duration = Duration::from_secs(20);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let far = world.tenant("check-eu-west", HOME, FAR).await?;
    let key = format!("retry/{}", world.run);
    home.put(key.clone(), "0").await?;
    let until = Instant::now() + (OPEN + ONE_WAY + CLOSED) * CUTS as u32;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(call_until(far.clone(), key.clone(), until));
    }
    let link = world.cluster.lock().await.link(HOME, FAR)?;
    for _ in 0..CUTS {
        sleep(OPEN).await;
        // Responses are held, then lost with their connection.
        link.there.set(|shape| shape.flow = Flow::Held);
        sleep(ONE_WAY).await;
        link.refuse();
        sleep(CLOSED).await;
        link.heal();
    }
    let (mut done, mut repeated, mut unknown, mut errors) = (0, 0, 0, Vec::new());
    while let Some(caller) = callers.join_next().await {
        let calls = caller?;
        done += calls.done;
        repeated += calls.repeated;
        unknown += calls.unknown;
        errors.extend(calls.error);
    }
    let item = home.get(key).await?.item.context("the counter is gone")?;
    let held: usize = std::str::from_utf8(&item.value)?.parse()?;
    let verdict = Verdict::default()
        .none("lost", done.saturating_sub(held))
        .none("twice", held.saturating_sub(done + unknown))
        .none("errors", errors.len())
        .note(format!(
            "{done} increments, {repeated} answered by their first outcome, {unknown} unknown"
        ));
    Ok(match errors.first() {
        Some(error) => verdict.note(error.clone()),
        None => verdict,
    })
}

#[derive(Debug, Default)]
struct Calls {
    done: usize,
    repeated: usize,
    unknown: usize,
    error: Option<String>,
}

async fn call_until(tenant: Tenant, key: String, until: Instant) -> Calls {
    let write = WriteOptions {
        timeout: Some(CALL),
        ..WriteOptions::default()
    };
    let mut calls = Calls::default();
    while Instant::now() < until {
        match tenant.increment_with(key.clone(), Increment::by(1), &write).await {
            Ok(incremented) => {
                calls.done += 1;
                calls.repeated += usize::from(incremented.repeated);
            }
            Err(error) if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) => calls.unknown += 1,
            Err(error) => {
                calls.error = Some(error.to_string());
                return calls;
            }
        }
    }
    calls
}
