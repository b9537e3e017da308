//! Step: silent node. The node of a watch is frozen: the watch goes on at another one, without a gap.

use std::time::Duration;

use anyhow::Context;
use stead_client::{KeyRange, Tenant, WatchMessage, WatchOptions, Watcher};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const HOME: &str = "eu-west";
const FROZEN: Duration = Duration::from_secs(40);
const PUT_INTERVAL: Duration = Duration::from_millis(200);
/// Longest time without an event.
const SILENCE: Duration = Duration::from_secs(30);
/// Time for the last event to arrive.
const LAST: Duration = Duration::from_secs(5);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let prefix = format!("silent/{}", world.run);
    let options = WatchOptions {
        ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
        ..WatchOptions::default()
    };
    let watch = tenant.watch(options).await?;
    let number = watch
        .header()
        .context("a watch that has begun has a header")?
        .node
        .get();
    let node = {
        let cluster = world.cluster.lock().await;
        let at = usize::try_from(number)?
            .checked_sub(1)
            .context("nodes count from one")?;
        cluster
            .nodes()
            .get(at)
            .context("the node is none of this cluster")?
            .name
            .clone()
    };
    let (stop, stopped) = watch::channel(false);
    let watching = tokio::spawn(receive(watch, stopped));
    world.cluster.lock().await.freeze_node(&node)?;
    let put = puts(&tenant, &prefix, FROZEN).await;
    world.cluster.lock().await.thaw_node(&node)?;
    let put = put?;
    tenant.put(format!("{prefix}/{put:06}"), "v").await?;
    sleep(LAST).await;
    let _ = stop.send(true);
    let (events, silence) = watching.await??;
    world.ready().await?;
    Ok(Verdict::default()
        .none("events missed", (put + 1).saturating_sub(events))
        .none("events told twice", events.saturating_sub(put + 1))
        .time("longest silence", silence, SILENCE)
        .note(format!("{node} frozen for {} s, {events} events", FROZEN.as_secs())))
}

/// Writes keys of increasing numbers for a time; returns how many.
async fn puts(tenant: &Tenant, prefix: &str, lasts: Duration) -> anyhow::Result<usize> {
    let (end, mut put) = (Instant::now() + lasts, 0);
    while Instant::now() < end {
        tenant.put(format!("{prefix}/{put:06}"), "v").await?;
        put += 1;
        sleep(PUT_INTERVAL).await;
    }
    Ok(put)
}

/// Receives events until it is told to stop; returns their number and the longest time between two.
async fn receive(mut watch: Watcher, mut stopped: watch::Receiver<bool>) -> anyhow::Result<(usize, Duration)> {
    let (mut events, mut silence, mut last) = (0, Duration::ZERO, Instant::now());
    loop {
        let message = tokio::select! {
            message = watch.next() => message?,
            _ = stopped.changed() => return Ok((events, silence)),
        };
        if let WatchMessage::Changes(changes) = message {
            silence = silence.max(last.elapsed());
            last = Instant::now();
            events += changes.len();
        }
    }
}
